"""Contract: what is known of a metric without reading its points, and that it fits the points."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import pytest

from runyard.testing.contract_files import started
from runyard.testing.contract_lease import replaced
from runyard.testing.contract_tracking import compact, points
from runyard.testing.spooled import Spooled
from runyard.testing.stage import ME, Stage


def metric(stage: Stage, run_id: str, name: str) -> dict[str, Any]:
    """Return the summary of a metric."""
    found: dict[str, Any] = stage.run(run_id)["metrics"][name]
    return found


class SummariesContract:
    """However what is logged is cut into requests, and whichever attempt's comes first."""

    @pytest.mark.parametrize("together", [True, False])
    def test_of_results_and_points_the_later_is_the_last_value(self, stage: Stage, together: bool) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        stream.row({"a": 0.0, "b": 0.0}, 0)
        stream.message("summary", values={"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0})
        stream.row({"a": 2.0, "b": 2.0}, 1)
        stream.row({"b": 3.0, "c": 3.0}, 2)
        stream.message("summary", values={"b": 4.0})
        stream.group([({"e": 5.0}, 3), ({"b": 5.0}, 3)], [{"type": "summary", "values": {"e": 6.0}}])
        stream.message("summary", values={"f": 7.0})
        stream.group([({"f": 8.0}, 3)], [])
        here = 0
        for end in [len(stream.records)] if together else range(1, len(stream.records) + 1):
            here = stream.send(stage.yard, attempt, here, end)
        found = stage.run(run_id)["metrics"]
        assert {name: (item["last"], item["count"]) for name, item in found.items()} == {
            "a": (2.0, 2), "b": (5.0, 4), "c": (3.0, 1), "d": (1.0, 0), "e": (6.0, 1), "f": (8.0, 1)
        }  # fmt: skip

    def test_the_last_attempt_that_said_something_has_the_last_value(self, stage: Stage) -> None:
        run_id, _, first, other, second = replaced(stage)
        other.start(second)
        for number, order in enumerate(permutations(["old points", "old result", "new points", "new result"])):
            name, last = ", ".join(order), {}
            for place, what in enumerate(order):
                stream = Spooled(f"{number * 4 + place:016x}")
                age, kind = what.split()
                value = {"old": 0.0, "new": 100.0}[age]
                if kind == "result":
                    last[age] = value + 9.0
                    stream.message("summary", values={name: value + 9.0})
                for step in [] if kind == "result" else range(10) if age == "old" else range(6, 12):
                    last[age] = value + step / 10
                    stream.row({name: value + step / 10}, step)
                stream.send(stage.yard, second if age == "new" else first)
                found = metric(stage, run_id, name)
                assert (name, place, found["last"]) == (name, place, last.get("new", last.get("old")))
                logged = points(stage, run_id, name) if found["count"] else []
                assert (name, place, found["count"]) == (name, place, len(logged))
            assert (name, found["min"], found["max"], found["step"]) == (name, 0.0, 101.1, 11)
            assert found["mean"] == pytest.approx(sum(value for _, value in logged) / len(logged))

    def test_a_retry_that_goes_back_before_its_first_step(self, stage: Stage) -> None:
        run_id, _, first, other, second = replaced(stage)
        other.start(second)
        old, new = Spooled("00000000000000aa"), Spooled("00000000000000bb")
        for step in range(10):
            old.row({"loss": float(step)}, step)
        old.send(stage.yard, first)
        here = 0
        for step in (10, 12, 5, 11, 3, 4, 13):
            new.row({"loss": 100.0 + step}, step)
            here = new.send(stage.yard, second, here)
            logged = points(stage, run_id, "loss")
            found = metric(stage, run_id, "loss")
            assert found["count"] == len(logged)
            assert found["mean"] == pytest.approx(sum(value for _, value in logged) / len(logged))
            assert (found["last"], found["step"]) == (100.0 + step, step)
        assert [step for step, _ in logged] == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13]

    def test_what_is_no_number_is_one_on_no_database(self, stage: Stage) -> None:
        runs: dict[str, str] = {}
        agent = stage.agent()
        for name, value in (("one", 1.0), ("nan", math.nan), ("five", 5.0), ("inf", math.inf), ("text", "NaN")):
            runs[stage.submit()] = name
            attempt, stream = agent.take_and_start(), Spooled()
            stream.message("params", values={"x": value, "y": value}, origin="call")
            if name != "text":
                stream.row({"m": float(value), "both": math.inf}, 0)
                stream.row({"both": -math.inf}, 1)
            for number in range(len(stream.records)):
                stream.send(stage.yard, attempt, number, number + 1)
            agent.end(attempt)

        def found(query: str, order: str = "run.created") -> list[str]:
            return [runs[run["id"]] for run in stage.yard.runs({"q": query, "order": order}, ME)["runs"]]

        assert found("params.x > 1") == ["five", "inf"]
        assert found("params.x < 5") == ["one"]
        assert found("not params.x > 1") == ["one", "nan", "text"]
        assert found("params.x != 1") == ["nan", "five", "inf", "text"]
        assert found("params.x == params.y") == ["one", "five", "inf", "text"]
        assert found("params.x == inf") == ["inf"]
        assert found("has(params.x)", "params.x") == ["one", "five", "inf", "text", "nan"]
        assert found("has(params.x)", "-params.x")[-1] == "nan"
        assert found("metrics.m.mean > 0") == ["one", "five", "inf"]
        assert found("metrics.m.mean is nan") == ["nan"]
        assert found("metrics.both.mean > 0 or metrics.both.mean <= 0") == []
        assert found("metrics.both.mean is nan") == ["one", "nan", "five", "inf"]
        assert {run["params"]["x"] for run in stage.yard.runs({}, ME)["runs"]} == {1.0, 5.0, "NaN", "Infinity"}

    def test_an_infinity_that_a_guess_stood_for_comes_back(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        stream.message("params", values={"a": 1, "b": 2, "c": 3}, origin="command")
        stream.message("params", values={"a": math.inf, "b": math.nan, "c": 0.5}, origin="file")
        stream.message("params", values={"d": 1}, origin="cli")
        for number in range(3):
            stream.send(stage.yard, attempt, number, number + 1)
        assert stage.run(run_id)["params"] == {"a": "Infinity", "b": "NaN", "c": 0.5, "d": 1}
        for query, found in {"params.a == inf": 1, "params.c < 1": 1, "params.b > 0 or params.b <= 0": 0}.items():
            assert (query, len(stage.yard.runs({"q": query}, ME)["runs"])) == (query, found)

    @pytest.mark.parametrize("together", [True, False])
    def test_the_mean_of_infinities(self, stage: Stage, together: bool) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        logged = {
            "both": [math.inf, -math.inf, 4.0], "one": [1.0, math.inf, 2.0], "nan": [math.nan, math.nan, 3.0],
            "none": [math.nan] * 3,
        }  # fmt: skip
        for step in range(3):
            stream.row({name: values[step] for name, values in logged.items()}, step)
        here = 0
        for end in [len(stream.records)] if together else range(1, len(stream.records) + 1):
            here = stream.send(stage.yard, attempt, here, end)
        means = {name: item["mean"] for name, item in stage.run(run_id)["metrics"].items()}
        assert means == {"both": "NaN", "one": "Infinity", "nan": 3.0, "none": "NaN"}

    def test_what_is_logged_goes_over_files_and_files_over_printed_lines(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("runyard.services.compact.LOOSE_MAX", 0)
        run_id, _, attempt = started(stage)
        for number, order in enumerate(permutations(["logs", "files", "sdk"])):
            name = ", ".join(order)
            for place, source in enumerate(order):
                stream = Spooled(f"{number * 4 + place:016x}")
                value = {"logs": 0.0, "files": 100.0, "sdk": 200.0}[source]
                for step in range(3):
                    if source == "sdk":
                        stream.row({name: value + step}, step)
                    else:
                        stream.group([({name: value + step}, step)], [{"type": "position", "source": source}])
                stream.send(stage.yard, attempt)
                best = max(order[: place + 1], key=["logs", "files", "sdk"].index)
                expected = [(step, {"logs": 0.0, "files": 100.0, "sdk": 200.0}[best] + step) for step in range(3)]
                if place == 1:
                    compact(stage)
                assert (name, points(stage, run_id, name)) == (name, expected)
                found = metric(stage, run_id, name)
                assert (found["count"], found["last"], found["min"]) == (3, expected[-1][1], expected[0][1])
