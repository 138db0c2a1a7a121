"""Taking in what runs log, where something goes wrong that nobody had thought of."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from runyard.services.messages import Messages
from runyard.testing.contract_files import started
from runyard.testing.spooled import Spooled
from runyard.testing.stage import Stage


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
