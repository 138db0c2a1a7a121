"""Which tables that a run writes are metrics, and which column is the step (docs/capture.md says it for users)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

STEPS = (
    "global_step", "_step", "step", "steps", "total_timesteps", "timesteps", "iteration", "iterations", "iter", "n_iter",
    "training_iteration", "epoch", "epochs",
)  # fmt: skip
"""Names of columns that are the step, the better ones first."""
WEAK_STEPS = ("update", "batch", "episode", "round", "generation")
"""Names of columns that are the step in a table that is metrics for another reason."""
INDEX = ("", "index", "unnamed:_0")
"""Names of columns that number the rows: pandas writes one without a name."""
WORDS = frozenset(
    "metric metrics log logs history result results progress scalar scalars stats loss losses monitor".split()
)
"""The name of a file of metrics has one of these words in it."""
TIMES = ("wall_time", "timestamp", "_timestamp", "time", "created_at")
"""Names of columns that may be the time, in seconds since 1970."""
MAX_COLUMNS = 200
MIB = 1 << 20
PLAUSIBLE_S = (1e9, 1e10)
"""Seconds since 1970 from 2001 to 2286: other numbers are durations."""


def simple(name: str) -> str:
    """Return the name of a column as it is compared: its last part (``trainer/global_step``), in lower case."""
    return name.strip().lower().rpartition("/")[2].replace(" ", "_")


def _first(columns: Iterable[str], wanted: Sequence[str]) -> str | None:
    """Return the column whose name comes first among the wanted ones."""
    found = [(wanted.index(simple(name)), name) for name in columns if simple(name) in wanted]
    return min(found)[1] if found else None


def is_called_metrics(path: str) -> bool:
    """Tell whether the name of a file says that metrics are in it."""
    name = path.rpartition("/")[2].lower()
    words = "".join([char if char.isalnum() else " " for char in name]).split()
    return not WORDS.isdisjoint(words)


def limits(path: str, columns: Sequence[str]) -> tuple[int, int]:
    """Return how many bytes a table may have when it is first seen, and how many of it are read; 0: it is no metrics."""
    named, stepped = is_called_metrics(path), _first(columns, STEPS) is not None
    if len(columns) > MAX_COLUMNS or not (named or stepped):
        return 0, 0
    if named and stepped:
        return 64 * MIB, 64 * MIB
    return MIB, 8 * MIB


def number(cell: Any) -> float | None:
    """Return a cell as a number; None when it is none."""
    if isinstance(cell, str):
        if "_" in cell:
            return None  # Python would take it
        try:
            return float(cell)
        except ValueError:
            return None
    if isinstance(cell, (int, float)) and not isinstance(cell, bool):
        try:
            return float(cell)
        except OverflowError:
            return None
    return None


def whole(value: float | None) -> int | None:
    """Return a number as a step; None when it is not whole, or too large."""
    if value is None or not -(2.0**62) < value < 2.0**62 or not value.is_integer():
        return None
    return int(value)


class Layout:
    """What the columns of a table are."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._step = _first(columns, STEPS) or _first(columns, WEAK_STEPS)
        self._time = _first(columns, TIMES)
        self._index = _first(columns, INDEX)

    def split(self, cells: dict[str, Any], row_number: int) -> tuple[dict[str, float], int, int]:
        """Return metrics, step and time (microseconds; 0: not said) of a row.

        Where no column is the step, or it is no whole number, the one without a name is, or ``row_number``.
        """
        values = {name: value for name, cell in cells.items() if (value := number(cell)) is not None}
        step = None if self._step is None else whole(values.get(self._step))
        if step is not None:
            values.pop(str(self._step), None)
        index = None if self._index is None else whole(values.pop(self._index, None))
        at = values.get(self._time, 0.0) if self._time is not None else 0.0
        if PLAUSIBLE_S[0] < at < PLAUSIBLE_S[1]:
            values.pop(str(self._time), None)
        else:
            at = 0.0
        if step is None:
            step = row_number if index is None else index
        return {name.strip(): value for name, value in values.items() if name.strip()}, step, int(at * 1e6)
