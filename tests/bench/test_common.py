"""The harness of the benchmarks measures in turn, compares, and says what was not measured."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.common import Case, Report, Sample, Target, measure, quantity, runyard


def test_cases_are_called_in_turn_and_only_the_run_is_timed() -> None:
    calls: list[str] = []

    def after() -> None:
        calls.append("after")
        time.sleep(0.05)

    cases: dict[str, Case | Callable[[], object]] = {
        "a": lambda: calls.append("a"),
        "b": Case(
            run=lambda: calls.append("b"),
            before=lambda: calls.append("before"),
            after=after,
        ),
    }
    found = measure(cases, rounds=3, warmup=0)
    around = ["before", "b", "after"]
    assert calls == ["a", *around, *around, "a", "a", *around]
    assert [len(sample.values) for sample in found.values()] == [3, 3]
    assert max(found["b"].values) < 0.05


def test_warm_up_rounds_are_not_counted() -> None:
    calls: list[int] = []
    found = measure({"a": lambda: calls.append(1)}, rounds=2, warmup=3)
    assert (len(calls), len(found["a"].values)) == (5, 2)


def test_median_and_nearest_rank_p99() -> None:
    sample = Sample(tuple(float(n) for n in range(200, 0, -1)))
    assert (sample.median, sample.p99) == (100.5, 198.0)
    assert Sample((1.0, 9.0)).p99 == 9.0


@pytest.mark.parametrize(
    ("target", "value", "ratio", "met", "text"),
    [
        (Target(number=4), 9.0, 3.9, True, "≤ 4 x"),
        (Target(number=4), 1.0, 4.1, False, "≤ 4 x"),
        (Target(number=2, least=True), 1.0, 2.0, True, "≥ 2 x"),
        (Target(number=15, of="value", least=True, unit="runs/s"), 14.9, 99.0, False, "≥ 15 runs/s"),
    ],
)
def test_targets(target: Target, value: float, ratio: float, met: bool, text: str) -> None:
    assert target.is_met(value, ratio) == met
    assert str(target) == text


def test_a_target_for_a_ratio_needs_a_baseline() -> None:
    with pytest.raises(ValueError, match="baseline"):
        Target(number=4).is_met(1.0, None)


def test_report_prints_a_table_and_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("speed", quick=True, results=tmp_path)
    report.row("base", 0.02, "s", sample=Sample((0.01, 0.02, 0.03)))
    report.row("fast", 0.05, "s", baseline=0.02, against="base", target=Target(number=4))
    report.row(
        "peer", 0.05, "s", baseline=0.2, against="faster than peer", inverse=True, target=Target(number=2, least=True)
    )
    report.not_measured("database", "no server", Target(number=1000, of="value", least=True, unit="/s"))
    assert report.finish() == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.strip().splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells[1:] == [
        ["what", "value", "ratio", "target", "met"],
        ["base", "20 ms"],
        ["fast", "50 ms", "2.50 x base", "≤ 4 x", "yes"],
        ["peer", "50 ms", "4.00 x faster than peer", "≥ 2 x", "yes"],
        ["database", "(no server)", "≥ 1000 /s", "not measured"],
    ]
    facts = json.loads((tmp_path / "speed.json").read_text())
    assert (facts["name"], facts["quick"]) == ("speed", True)
    assert {"cores", "python", "load_before", "load_after"} <= set(facts["machine"])
    assert [row["met"] for row in facts["rows"]] == ["", "yes", "yes", "not measured"]
    assert facts["rows"][0]["sample"] == {"n": 3, "median": 0.02, "p99": 0.03, "min": 0.01}


def test_a_missed_target_is_the_exit_status(tmp_path: Path) -> None:
    report = Report("slow", quick=False, results=tmp_path)
    report.row("slow", 1.0, "s", baseline=0.1, against="base", target=Target(number=4))
    assert report.finish() == 1
    assert json.loads((tmp_path / "slow.json").read_text())["rows"][0]["met"] == "no"


def test_results_name_neither_host_nor_paths(tmp_path: Path) -> None:
    import platform

    Report("facts", quick=True, results=tmp_path).finish()
    text = (tmp_path / "facts.json").read_text()
    assert str(Path.home()) not in text
    assert f'"{platform.node()}"' not in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.0123, "s", "12.3 ms"), (2.5, "s", "2.5 s"), (12345.6, "/s", "12,346 /s"), (15.04, "MB", "15 MB")],
)
def test_quantities(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_the_command_under_test_runs() -> None:
    import subprocess

    assert subprocess.run([*runyard(), "--version"], capture_output=True, check=True).stdout.startswith(b"runyard ")
