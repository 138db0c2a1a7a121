"""How databases carry out the statements of the queue: none of them may go through all that waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from runyard.testing.stage import ME, Stage, make_spec
from tests.store.backends import make_stage

WAITING = 5000
"""Enough that the index of the queue looks better than many looks into that of the ids."""


@pytest.fixture(params=["sqlite", "postgresql"])
def stage(request: pytest.FixtureRequest, home: Path, tmp_path: Path) -> Iterator[Stage]:
    url = f"sqlite:///{tmp_path / 'yard.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    stage = make_stage(home, url)
    yield stage
    stage.close()


def test_a_run_is_found_by_its_id_however_many_are_queued(stage: Stage) -> None:
    stage.yard.submit([make_spec(command=["train", str(n)]) for n in range(WAITING)], {}, ME)
    agent = stage.agent(slots=80, cpus=80)
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, many: bool) -> None:
        seen.append((statement, values[0] if many else values))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        for given in agent.take():
            assert agent.end(given["attempt"]) == "accepted"
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN " if stage.inner.context.db.is_sqlite else "EXPLAIN "
    through_the_queue = []
    with stage.inner.context.db.engine.connect() as connection:
        for statement, values in seen:
            if statement.split()[0] in ("SELECT", "UPDATE") and " runs" in statement:
                plan = "\n".join(str(row) for row in connection.exec_driver_sql(explain + statement, values))
                if "ix_runs_queue" in plan or "SCAN runs" in plan:
                    through_the_queue.append(statement)
    assert through_the_queue
    assert all("ORDER BY runs.priority_rank" in statement for statement in through_the_queue), through_the_queue
