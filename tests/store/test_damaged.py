"""Blocks of points that are damaged: what is whole can be read, and the rest of the yard goes on."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from runyard.store.tables import metric_blocks
from runyard.testing.contract_files import started
from runyard.testing.contract_lease import replaced
from runyard.testing.contract_tracking import compact, points
from runyard.testing.spooled import Spooled
from runyard.testing.stage import Stage
from runyard.wire.errors import DamagedError


def spoil(stage: Stage, number: int) -> None:
    """Flip a bit of a block, by its place among all."""
    database, columns = stage.inner.context.db, metric_blocks.c
    with database.read() as connection:
        row = connection.execute(select(columns.id, columns.data).order_by(columns.id)).all()[number]
    broken = bytearray(row.data)
    broken[-3] ^= 4
    database.write(
        lambda connection: connection.execute(
            update(metric_blocks).where(columns.id == row.id).values(data=bytes(broken))
        )
    )


def log(stage: Stage, attempt: str, stream: Spooled, name: str, steps: range) -> None:
    """Send points of one metric, which become a block of their own."""
    first = len(stream.records)
    for step in steps:
        stream.row({name: float(step)}, step)
    stream.send(stage.yard, attempt, first)


def test_a_block_as_it_arrived(any_stage: Stage) -> None:
    stage = any_stage
    run_id, agent, attempt = started(stage)
    stream = Spooled()
    for name, steps in (("bad", range(5)), ("good", range(5)), ("bad", range(5, 12)), ("good", range(5, 12))):
        log(stage, attempt, stream, name, steps)
    spoil(stage, 2)
    agent.end(attempt)
    for _ in range(2):
        with pytest.raises(DamagedError, match=f"points of 'bad' of run {run_id} are damaged: 5 of 12 can be read"):
            points(stage, run_id, "bad")
        assert points(stage, run_id, "good") == [(step, float(step)) for step in range(12)]
        compact(stage)
    assert stage.run(run_id)["metrics"]["bad"]["last"] == 11.0


def test_a_block_of_one_metric_while_the_run_goes_on(any_stage: Stage) -> None:
    """It is left as it is, and what comes later is put into other blocks."""
    stage = any_stage
    run_id, _, attempt = started(stage)
    stream = Spooled()
    log(stage, attempt, stream, "bad", range(5))
    for step in range(70):
        log(stage, attempt, stream, "good", range(step, step + 1))
    compact(stage)
    spoil(stage, 0)
    log(stage, attempt, stream, "bad", range(5, 50))
    for step in range(70, 140):
        log(stage, attempt, stream, "good", range(step, step + 1))
    compact(stage)
    with pytest.raises(DamagedError, match="45 of 50"):
        points(stage, run_id, "bad")
    assert points(stage, run_id, "good") == [(step, float(step)) for step in range(140)]
    with stage.inner.context.db.read() as connection:
        columns = metric_blocks.c
        assert not connection.execute(select(columns.id).where(columns.name_id.is_(None))).all()


def test_a_retry_that_takes_a_damaged_series_over(any_stage: Stage) -> None:
    stage = any_stage
    run_id, _, first, other, second = replaced(stage)
    other.start(second)
    log(stage, first, Spooled("00000000000000aa"), "bad", range(10))
    spoil(stage, 0)
    log(stage, second, Spooled("00000000000000bb"), "bad", range(6, 12))
    with pytest.raises(DamagedError):
        points(stage, run_id, "bad")
    assert stage.run(run_id)["metrics"]["bad"]["last"] == 11.0
