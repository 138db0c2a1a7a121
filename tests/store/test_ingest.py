"""Taking in what runs log, where something goes wrong that nobody had thought of."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from runyard.services import compact
from runyard.services.messages import Messages
from runyard.store import runs
from runyard.testing.contract_files import started
from runyard.testing.spooled import Spooled
from runyard.testing.stage import ME, Stage
from runyard.wire.errors import RunyardError
from runyard.wire.files import write_atomic


@pytest.mark.parametrize("together", [True, False])
def test_a_message_that_ends_in_a_mistake_costs_no_other(
    any_stage: Stage, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(self: Messages, message: dict[str, Any], _content: bytes) -> None:
        self._changes.connection.execute(text("SELECT CAST('x' AS INTEGER)"))  # PostgreSQL ends the transaction
        int(message["x"])

    monkeypatch.setattr(Messages, "_take_odd", mistaken, raising=False)
    run_id, _, attempt = started(any_stage)
    stream = Spooled()
    stream.row({"loss": 1.0}, 0)
    stream.message("tags", add=["before"])
    stream.message("odd", x="no number")
    stream.message("params", values={"lr": 0.1}, origin="call")
    stream.message("odd", x="neither")
    stream.message("missing", records=3, why="disk full")
    ends = [len(stream.records)] if together else range(1, len(stream.records) + 1)
    here = 0
    for end in ends:
        here = stream.send(any_stage.yard, attempt, here, end)
    assert here == len(stream.records)
    run = any_stage.run(run_id)
    assert run["metrics"]["loss"]["count"] == 1
    assert (run["tags"], run["params"], run["capture"]["missing"]) == (["before"], {"lr": 0.1}, 3)
    assert sum(item["count"] for item in run["capture"]["refused"] if item["name"] == "odd") == 2


def test_the_same_medium_from_several_processes_at_once(any_stage: Stage) -> None:
    run_id, _, attempt = started(any_stage)
    wrong: list[Exception] = []

    def log(number: int) -> None:
        stream = Spooled(f"{number:016x}")
        for step in range(20):
            stream.message("media", b"%d" % step * 300_000, name="m", step=step, kind="image", format="png")
        try:
            for step in range(20):
                stream.send(any_stage.yard, attempt, step, step + 1)
        except (RunyardError, OSError) as exc:
            wrong.append(exc)

    threads = [threading.Thread(target=log, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    for item in any_stage.yard.media(run_id, ME):
        assert Path(any_stage.inner.media_place(run_id, item["sha256"], ME)).stat().st_size == item["size"]


def test_equal_steps_stay_in_order_while_blocks_are_compacted(any_stage: Stage) -> None:
    run_id, _, attempt = started(any_stage)
    stream, here, db = Spooled(), 0, any_stage.inner.context.db
    with db.read() as connection:
        run = runs.find(connection, run_id)
    assert run is not None
    plan = None
    for part in range(3):
        for number in range(5):
            stream.row({"loss": part * 5.0 + number}, 0)
        here = stream.send(any_stage.yard, attempt, here)
        if part == 0:
            with db.read() as connection:
                plan = compact._plan(connection, run.seq)
    assert plan is not None
    db.write(lambda connection: compact._carry_out(connection, [(run.seq, plan)]))
    values = any_stage.yard.series(run_id, "loss", ME, points=0).values
    assert list(values) == [float(number) for number in range(15)]


def test_a_file_that_two_threads_write_is_whole(tmp_path: Path) -> None:
    path, data, wrong = tmp_path / "file", b"x" * 1_000_000, []

    def write() -> None:
        for _ in range(50):
            try:
                write_atomic(str(path), data)
                if path.stat().st_size != len(data):
                    wrong.append("short")
            except OSError as exc:
                wrong.append(str(exc))

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
