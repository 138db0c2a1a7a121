from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.cli import curves
from runyard.cli.curves import Curve, drawn
from tests.cli.conftest import Cli
from tests.cli.fake import FakeYard
from tests.cli.test_search import submitted


def logged(yard: FakeYard, goal: str = "") -> list[str]:
    """Submit three runs that logged something."""
    ids = submitted(yard, "a", "b", "c")
    curve = {ids[0]: [2.0, 0.5, 0.7], ids[1]: [2.0, 1.0, 0.1], ids[2]: []}
    for run_id, lr in zip(ids, (0.1, 0.01, 0.1), strict=True):
        values = curve[run_id]
        metrics: dict[str, Any] = {}
        if values:
            metrics = {
                "loss": {"last": values[-1], "min": min(values), "max": max(values), "count": len(values), "step": 2},
                "acc": {"last": "NaN", "min": 0.25, "max": 0.75, "count": 2, "step": 1},
            }
        yard.runs[run_id].update(
            params={"lr": lr, "model": "mlp"}, metrics=metrics, state="finished", tracking={"goal": goal}
        )
        yard.series[run_id, "loss"] = values
        yard.series[run_id, "acc"] = [0.25, 0.75]
    return ids


def test_runs_are_sorted_and_the_best_is_marked(cli: Cli, yard: FakeYard) -> None:
    a, b, c = logged(yard)
    done = cli("compare", "--metric", "loss", a, b, c)
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.split("\n\n")[0].splitlines()
    assert head.split() == ["ID", "STATE", "NAME/MESSAGE", "lr", "loss", "min"], "model is the same in all of them"
    assert [row.split() for row in rows] == [
        [b, "finished", "-", "0.01", "0.1", "0.1", "*"],
        [a, "finished", "-", "0.1", "0.7", "0.5"],
        [c, "finished", "-", "0.1", "-", "-"],
    ]


def test_the_largest_comes_first_where_that_is_best(cli: Cli, yard: FakeYard) -> None:
    a, b, c = logged(yard)
    yard.runs[b]["metrics"]["acc"]["max"] = 0.9
    rows = cli("compare", "-m", "acc", a, c, b).stdout.split("\n\n")[0].splitlines()[1:]
    assert [row.split()[0] for row in rows] == [b, a, c] and rows[0].endswith("*") and not rows[1].endswith("*")


def test_the_curves_share_a_scale(cli: Cli, yard: FakeYard) -> None:
    a, b, c = logged(yard)
    plot = cli("compare", "-m", "loss", a, b, c, env={"COLUMNS": "40"}).stdout.split("\n\n")[1].splitlines()
    assert plot[0] == "loss: 0.1 to 2, steps 0 to 2"
    assert [line.split()[0] for line in plot[1:]] == [b, a], "a run without points has no curve"
    assert [line[14] for line in plot[1:]] == ["█", "█"] and plot[1][-1] == "▁" and plot[2][-1] == "▃"
    assert {len(line) for line in plot[1:]} == {40}


def test_a_query_asks_for_the_best_and_the_goal_says_which(cli: Cli, yard: FakeYard) -> None:
    a, b, c = logged(yard, "max acc")
    done = cli("compare", "true")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["ID", "STATE", "NAME/MESSAGE", "lr", "acc", "max"]
    asked = [path for method, path in yard.requests if "order=" in path]
    assert len(asked) == 1 and "q=true" in asked[0] and "order=-metrics%5B%22acc%22%5D.best" in asked[0]
    yard.requests.clear()
    assert cli("compare", "true", "--metric", "metrics.loss").returncode == 0
    assert any("order=metrics%5B%22loss%22%5D.best" in path for _, path in yard.requests)
    assert cli("compare", a, "nothing-like-this").stdout == "", "not all words name a run: a query"


def test_without_a_goal_what_the_runs_share_is_compared(cli: Cli, yard: FakeYard) -> None:
    a, b, c = logged(yard)
    assert cli("compare", a, b).stdout.splitlines()[0].split()[4:] == ["acc", "max", "loss", "min"]
    value = json.loads(cli("compare", "--json", a, b, c).stdout)
    assert value["metrics"] == [{"name": "acc", "best": "max"}, {"name": "loss", "best": "min"}]
    assert value["params"] == ["lr"] and [run["id"] for run in value["runs"]] == [a, b, c]
    assert [run["best"] for run in value["runs"]] == [["acc"], ["acc", "loss"], []]
    assert value["runs"][0]["params"] == {"lr": 0.1}
    assert value["runs"][0]["metrics"]["acc"]["last"] == "NaN" and value["runs"][2]["metrics"] == {}


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_diverged_runs_are_compared(cli: Cli, yard: FakeYard, value: str) -> None:
    a, b, _ = logged(yard)
    yard.runs[a]["metrics"]["loss"].update(last=value, min=value, max=value)
    yard.series[a, "loss"] = [float(value)] * 3
    done = cli("compare", "-m", "loss", a, b)
    assert done.returncode == 0, done.stderr
    rows = {row.split()[0]: row.split()[4:6] for row in done.stdout.split("\n\n")[0].splitlines()[1:]}
    assert rows == {a: [value, value], b: ["0.1", "0.1"]}


def test_what_there_is_not(cli: Cli, yard: FakeYard) -> None:
    a, b, _ = logged(yard)
    done = cli("compare", "-m", "los", a, b)
    assert (done.returncode, done.stdout) == (2, "")
    assert "none of these runs has a metric los" in done.stderr and "acc, loss" in done.stderr
    done = cli("compare", "nothing-like-this")
    assert (done.returncode, done.stdout) == (0, "") and "no runs fit" in done.stderr


def test_curves() -> None:
    falling = Curve("a", range(100), [10.0 ** (-place / 10) for place in range(100)])
    title, line = drawn("loss", [falling], 30).splitlines()
    assert "(log)" in title
    assert len(line) == 30 and list(line[3:]) == sorted(line[3:], reverse=True) and len(set(line[3:])) == 8
    odd = Curve("b", [0, 1, 2], [math.nan, 1.0, math.inf])
    assert drawn("x", [odd], 13).splitlines()[1] == "b  xxxx" + "▅▅▅▅▅"[:5] + "▅"
    assert drawn("x", [Curve("c", [0, 1], [math.nan] * 2)], 40) == ""
    both = Curve("d", [0, 1, 2, 10_000], [1.0, -math.inf, math.inf, 0.0])
    assert drawn("x", [both], 13).splitlines()[1].startswith("d  ")
    assert drawn("x", [], 40) == ""


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 10**12), st.floats()), min_size=1, max_size=9, unique_by=lambda point: point[0]),
        min_size=1, max_size=3,
    ),
    st.integers(1, 60),
)  # fmt: skip
def test_any_curve_can_be_drawn(runs: list[list[tuple[int, float]]], width: int) -> None:
    listed = [Curve("r", *zip(*sorted(points), strict=True)) for points in runs]
    text = drawn("m", listed, width)
    finite = any(math.isfinite(value) for points in runs for _, value in points)
    assert bool(text) == finite
    for line in text.splitlines()[1:]:
        assert len(line) <= max(width, 3 + curves.LEAST_WIDTH) and set(line[1:]) <= {" ", "x", *curves.BLOCKS}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_where_blocks_cannot_be_shown_there_is_only_the_table(
    cli: Cli, process_cli: Cli, yard: FakeYard, encoding: str
) -> None:
    a, b, _ = logged(yard)
    done = process_cli("compare", "-m", "loss", a, b, env={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
