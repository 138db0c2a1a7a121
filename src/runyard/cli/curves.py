"""Curves of a metric in the terminal: one line of blocks for each run, all on the same scale."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from runyard.cli import text, tracked
from runyard.client.api import Api

Json = dict[str, Any]
BLOCKS = "▁▂▃▄▅▆▇█"
NAN = "x"
"""Stands where all values are NaN."""
POINTS = 1000
LEAST_WIDTH = 10
LOG_FROM = 100.0
"""Ratio of the largest to the least value from which on the scale is logarithmic."""


class Curve(NamedTuple):
    """Points of a metric, in the order of their steps."""

    name: str
    steps: Sequence[int]
    values: Sequence[float]


def plot(api: Api, runs: Sequence[Json], metric: str) -> str:
    """Return the curves of runs, as wide as the terminal; ``""`` where no run has two points, or blocks cannot be shown."""
    found = []
    for run in runs:
        if ((run.get("metrics") or {}).get(metric) or {}).get("count", 0) > 1:
            series = api.series(run["id"], metric, points=POINTS)
            found.append(Curve(run["id"], series["steps"], series["values"]))
    if not _can_show():
        return ""
    return drawn(metric, found, shutil.get_terminal_size((80, 24)).columns)


def _can_show() -> bool:
    try:
        (BLOCKS + "…").encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def drawn(metric: str, curves: Sequence[Curve], width: int) -> str:
    """Return the lines of a plot, each at most ``width`` characters; ``""`` without a finite value."""
    finite = [value for curve in curves for value in curve.values if math.isfinite(value)]
    if not finite:
        return ""
    least, most = min(finite), max(finite)
    logarithmic = least > 0 and most / least >= LOG_FROM
    first = min(curve.steps[0] for curve in curves if curve.steps)
    last = max(curve.steps[-1] for curve in curves if curve.steps)
    room = max(LEAST_WIDTH, width - max(len(curve.name) for curve in curves) - 2)
    title = "%s: %s to %s%s, steps %d to %d" % (
        metric, tracked.number(least), tracked.number(most), " (log)" if logarithmic else "", first, last,
    )  # fmt: skip
    lines = [text.plain(title)[:width]]
    for curve in curves:
        cells = _cells(curve, first, last, room)
        shown = "".join(_block(values, least, most, logarithmic) for values in cells)
        lines.append(("%s  %s" % (curve.name, shown)).rstrip())
    return "\n".join(lines)


def _cells(curve: Curve, first: int, last: int, room: int) -> list[list[float]]:
    """Return the values that fall into each of ``room`` equal parts of the steps; a part between points has the one before."""
    cells: list[list[float]] = [[] for _ in range(room)]
    places = [(step - first) * (room - 1) // max(1, last - first) for step in curve.steps]
    for place, value in zip(places, curve.values, strict=True):
        cells[place].append(value)
    for place in range(places[0] + 1, places[-1] if places else 0):
        cells[place] = cells[place] or cells[place - 1][-1:]
    return cells


def _block(values: Sequence[float], least: float, most: float, logarithmic: bool) -> str:
    """Return the block for the mean of some values."""
    if not values:
        return " "
    # Infinities count as what is drawn at the edge: those of both signs have no mean.
    shown = [min(max(value, least), most) for value in values if not math.isnan(value)]
    if not shown:
        return NAN
    value = min(max(sum(shown) / len(shown), least), most)
    if logarithmic:
        value, least, most = math.log(value), math.log(least), math.log(most)
    span = most / 2 - least / 2  # halves: the whole may be more than a double can hold
    share = (value / 2 - least / 2) / span if span else 0.5
    return BLOCKS[min(len(BLOCKS) - 1, int(share * len(BLOCKS)))]
