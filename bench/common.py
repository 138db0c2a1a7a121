"""The harness of all benchmarks: interleaved measurements, a table, and a JSON file of the results.

A number means little without what it is compared with on the same machine in the same minute. So `measure` takes the
baseline and all candidates at once and calls them in turn, in another order every round.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SOURCE = str(Path(__file__).resolve().parent.parent / "src")


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something to measure: what is timed, and what must be done around it without being timed."""

    run: Callable[[], object]
    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None


@dataclass(frozen=True)
class Sample:
    """Measured values of one kind, usually seconds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def p99(self) -> float:
        """The smallest value that 99 % of all do not exceed (nearest rank)."""
        return sorted(self.values)[math.ceil(0.99 * len(self.values)) - 1]

    def facts(self) -> dict[str, float]:
        """Return what the JSON file says of it."""
        return {"n": len(self.values), "median": self.median, "p99": self.p99, "min": min(self.values)}


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a row must reach: a bound on its value, or on its ratio to the baseline."""

    number: float
    of: str = "ratio"  # or "value"
    least: bool = False  # False: at most this much
    unit: str = ""

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.number:g}{' x' if self.of == 'ratio' else ' ' + self.unit}".rstrip()

    def is_met(self, value: float, ratio: float | None) -> bool:
        """Tell whether a row reaches it; raises ValueError for a bound on a ratio that there is none of."""
        number = ratio if self.of == "ratio" else value
        if number is None:
            raise ValueError("a target for a ratio needs a baseline")
        return number >= self.number if self.least else number <= self.number


def measure(cases: Mapping[str, Case | Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, Sample]:
    """Time every case `rounds` times, in turn; the first in turn moves on by one each round. Seconds."""
    prepared = {name: case if isinstance(case, Case) else Case(run=case) for name, case in cases.items()}
    names, taken = list(prepared), {name: list[float]() for name in prepared}
    for number in range(-warmup, rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            seconds = _time(prepared[name])
            if number >= 0:
                taken[name].append(seconds)
    return {name: Sample(tuple(values)) for name, values in taken.items()}


def _time(case: Case) -> float:
    if case.before is not None:
        case.before()
    started = time.perf_counter()
    case.run()
    seconds = time.perf_counter() - started
    if case.after is not None:
        case.after()
    return seconds


class Report:
    """Rows of one benchmark, printed as a table and written to ``bench/results/NAME.json``."""

    def __init__(self, name: str, *, quick: bool, results: Path = RESULTS) -> None:
        self.name, self.quick = name, quick
        self.rows: list[dict[str, Any]] = []
        self._path = results / f"{name}.json"
        self._machine = machine()

    def row(
        self,
        what: str,
        value: float,
        unit: str,
        *,
        baseline: float | None = None,
        against: str = "",
        inverse: bool = False,
        target: Target | None = None,
        sample: Sample | None = None,
    ) -> None:
        """Add what was measured.

        The ratio is value / baseline; with `inverse` it is baseline / value, for "so many times faster than".
        `against` names the baseline.
        """
        ratio = None
        if baseline is not None:
            ratio = baseline / value if inverse else value / baseline
        met = None if target is None else target.is_met(value, ratio)
        self._add(what, value, unit, ratio, against, target, met, sample=None if sample is None else sample.facts())

    def not_measured(self, what: str, why: str, target: Target | None = None) -> None:
        """Add a row that could not be measured here: never met, never missed."""
        self._add(what, None, "", None, "", target, None, why=why)

    def _add(self, what: str, value: float | None, unit: str, ratio: float | None, against: str,
             target: Target | None, met: bool | None, **more: Any) -> None:  # fmt: skip
        verdict = {True: "yes", False: "no"}.get(met, "not measured" if value is None else "")  # type: ignore[arg-type]
        self.rows.append(
            {"what": what, "value": value, "unit": unit, "ratio": ratio, "against": against,
             "target": None if target is None else str(target), "met": verdict}
            | {name: fact for name, fact in more.items() if fact is not None}
        )  # fmt: skip

    def finish(self) -> int:
        """Print the table, write the file, and return 1 if a target was missed, else 0."""
        print(self.table())
        self._path.parent.mkdir(parents=True, exist_ok=True)
        facts = {
            "name": self.name,
            "quick": self.quick,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": self._machine | {"load_after": load()},
            "rows": self.rows,
        }
        self._path.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        return 1 if any(row["met"] == "no" for row in self.rows) else 0

    def table(self) -> str:
        """Return the rows as text in columns."""
        head = ("what", "value", "ratio", "target", "met")
        lines = [head, *(self._cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        text = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        about = self._machine
        text[0:0] = [
            f"{self.name}: {about['cores']} cores, Python {about['python']}, load {about['load_before'][0]:.1f}"
        ]
        return "\n".join(text) + "\n"

    @staticmethod
    def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
        value = f"({row['why']})" if row["value"] is None else quantity(row["value"], row["unit"])
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} x {row['against']}".rstrip()
        return row["what"], value, ratio, row["target"] or "", row["met"]


def quantity(value: float, unit: str) -> str:
    """Return a number for people: seconds below one as milliseconds."""
    if unit == "s" and abs(value) < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:,.0f} {unit}" if abs(value) >= 1000 else f"{value:.3g} {unit}"


def machine() -> dict[str, Any]:
    """Return what a reader must know to judge numbers; no names of hosts, users or paths."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": _first_value("/proc/cpuinfo", "model name"),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": load(),
    }


def load() -> list[float]:
    """Return the load average of the last 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def _first_value(path: str, key: str) -> str:
    try:
        with open(path) as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith(key)), "")
    except OSError:
        return ""


def arguments(about: str | None) -> argparse.Namespace:
    """Read the command line that all benchmarks share: ``--quick`` for fewer rounds."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: to see that it works, not how well")
    return parser.parse_args()


def runyard() -> list[str]:
    """Return the words that start the command: the installed script beside this Python, else the source tree's."""
    script = Path(sys.executable).parent / "runyard"
    if script.exists():
        return [str(script)]
    start = f"import sys; sys.path.insert(0, {SOURCE!r}); from runyard.cli.main import main; sys.exit(main())"
    return [sys.executable, "-c", start]
