"""Metrics and progress in what a program prints, without any change to the program (docs/capture.md says what is found).

Text is taken in as it comes and looked at in whole pieces, not line by line: every number in it is replaced by a mark, and
what is left of a line, its shape, tells which of its numbers are metrics. As programs print few shapes, that is looked up.
"""

from __future__ import annotations

import re
from collections import namedtuple

from runyard.capture.known import Known, Lines
from runyard.capture.plans import BAR, CELL, HF, MARK, ROW, TABLE, TABLE_END, TRACE, WARNED
from runyard.capture.progress import Bars
from runyard.capture.stepping import Steps
from runyard.wire.patterns import Patterns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NamedTuple

    class Point(NamedTuple):
        """Metrics that belong together: numbers by name, their step, when they were printed (microseconds, UTC)."""

        values: dict[str, float]
        step: int
        at: int

else:
    Point = namedtuple("Point", "values step at")

LINE_MAX = 8192
"""Bytes; in a longer line nothing is looked for."""
PIECE = 1 << 18
"""Bytes that are looked at at a time: what bounds the memory that is needed."""

_LONG = re.compile(rb"(?<![^\r\n])[^\r\n]{%d,}" % (LINE_MAX + 1))
_ESCAPE = re.compile(
    "\x1b\\[[0-?]*[ -/]*(?P<final>[@-~])|\x1b\\][^\x07\x1b\r\n]*(?:\x07|\x1b\\\\)|\x1b[ -/]*[0-Z\\\\^-~]"
)
_MOVES = frozenset("ABDEFGHJKSTdf")
_BACKSPACES = re.compile("\x08+")
_RANK = re.compile(r"\[rank[0-9]+\]: ?")  # of torchrun, before each line of a traceback
_VERSION = 1


class LineParser:
    """Finds metrics in raw output. Not thread-safe.

    ``pattern``: regular expressions of the user (`runyard.wire.patterns`); a line in which one is found is looked at no
    further. Raises ValueError for one that is none.

    ``progress``: how many steps are done, of how many, seconds left (None: not known yet), and the description, of the bar
    that spans the others; None when there is no bar.
    """

    def __init__(self, pattern: Sequence[str] = ()) -> None:
        self._patterns = Patterns(pattern)
        self._known = Lines()
        self._steps = Steps()
        self._bars = Bars()
        self._partial = b""
        self._long = False
        """The line in progress is too long: what comes of it is dropped."""
        self._trace = 0
        """2: in a traceback; 1: the next line may be the source line of a warning."""
        self._table = False
        self._waiting: tuple[dict[str, float], int] | None = None
        """Metrics whose step the next frame of a bar says, and when they came."""
        self._bar_step = -1
        self._attentive = bool(self._patterns)
        """Even lines that hold nothing by themselves matter now."""

    @property
    def progress(self) -> tuple[int, int, float | None, str] | None:
        """How far the program is; see the class."""
        return self._bars.progress()

    def feed(self, data: bytes, at_us: int) -> list[Point]:
        """Take in what came at a time (microseconds since 1970 UTC), cut anywhere; return the metrics of the lines it ends."""
        points: list[Point] = []
        for start in range(0, len(data), PIECE):
            self._piece(data[start : start + PIECE], at_us, points)
        if self._partial.rstrip().endswith((b"]", b"]\x1b[A")):
            text = _text(self._partial).strip("\n")
            for told in [] if "\n" in text else self._bars.peek(text, at_us):
                self._tell(told, points)
        return points

    def flush(self, at_us: int) -> list[Point]:
        """Return the metrics that are still held: the program has ended, and so has its last line."""
        points: list[Point] = []
        self._piece(b"\n", at_us, points)
        self._settle(points)
        self._finish_bars(points)
        return points

    def state(self) -> dict[str, Any]:
        """Return all that matters as JSON: a parser with it goes on as this one would."""
        return {
            "version": _VERSION,
            "partial": self._partial.decode("latin-1"),
            "long": self._long,
            "steps": self._steps.state(),
            "bars": self._bars.state(),
            "trace": self._trace,
            "table": self._table,
            "waiting": self._waiting,
            "bar_step": self._bar_step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned; raises ValueError for what it did not return."""
        if state.get("version") != _VERSION:
            raise ValueError("this is no state of a line parser of version %d" % _VERSION)
        self._partial = state["partial"].encode("latin-1")
        self._long = state["long"]
        self._steps.restore(state["steps"])
        self._bars.restore(state["bars"])
        self._trace, self._table = state["trace"], state["table"]
        self._waiting = tuple(state["waiting"]) if state["waiting"] else None
        self._bar_step = state["bar_step"]
        self._attentive = True

    def _piece(self, data: bytes, at: int, points: list[Point]) -> None:
        """Look at the lines that are whole; keep the rest."""
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if not end:
            self._keep(data)
            return
        whole = self._partial + data[:end]
        if self._long:
            first = min(whole.find(mark) % len(whole) for mark in (b"\n", b"\r") if mark in whole)
            whole = whole[first:]
        self._partial, self._long = b"", False
        self._keep(data[end:])
        if max(map(len, whole.split(b"\n"))) > LINE_MAX:
            whole = _LONG.sub(b"", whole)
        self._lines(_text(whole), at, points)

    def _keep(self, data: bytes) -> None:
        if self._long:
            return
        self._partial += data
        if len(self._partial) > LINE_MAX:
            self._partial, self._long = b"", True

    def _lines(self, text: str, at: int, points: list[Point]) -> None:
        find, steps, bars = self._known.find, self._steps, self._bars
        for line, mask in zip(text.split("\n"), self._known.masks(text)):
            if not line:
                continue
            known = find(line, mask)
            kind = known.plan.kind
            if kind > ROW or self._attentive:
                self._special(known, line, at, points)
            elif kind == ROW:
                if bars.holding:
                    self._finish_bars(points)
                if known.plan.steps:
                    steps.take(known.plan.steps, known.numbers(line))
                values = known.values(line)
                if values:
                    points.append(Point(values, steps.at(values), at))

    def _special(self, known: Known, line: str, at: int, points: list[Point]) -> None:
        """Look at a line that is no plain row, or comes at a time when more than these matters."""
        if not self._trace or not self._skips(line):
            self._look(known, line, at, points)
        self._attentive = bool(self._trace or self._table or self._waiting or self._patterns)

    def _look(self, known: Known, line: str, at: int, points: list[Point]) -> None:
        kind = known.plan.kind
        own = self._patterns.find(line) if self._patterns else None
        if own is not None:
            self._own(*own, at, points)
        elif kind == BAR and self._bar(line, at, points):
            return
        elif kind in (TRACE, WARNED):
            self._trace = 2 if kind == TRACE else 1
        elif kind in (TABLE, TABLE_END):
            self._table = kind == TABLE
        elif kind == HF:
            self._settle(points)
            self._waiting = (known.values(line), at)
        elif kind == ROW or (kind == CELL and self._table):
            self._row(known, line, at, points)

    def _skips(self, line: str) -> bool:
        """Tell whether a line belongs to a traceback or warning; the message of the exception is the last that does."""
        indented = _RANK.sub("", line, 1)[:1].isspace()
        in_traceback = self._trace == 2
        if not in_traceback or not indented:
            self._trace = 0
        return in_traceback or indented

    def _row(self, known: Known, line: str, at: int, points: list[Point]) -> None:
        self._settle(points)
        self._finish_bars(points)
        if known.plan.steps:
            self._steps.take(known.plan.steps, known.numbers(line))
        values = known.values(line)
        if values:
            points.append(Point(values, self._steps.at(values), at))

    def _own(self, values: dict[str, float], step: int | None, at: int, points: list[Point]) -> None:
        if step is not None:
            self._steps.say(step)
        if values:
            points.append(Point(values, self._steps.at(values), at))

    def _bar(self, line: str, at: int, points: list[Point]) -> bool:
        """Take in a frame of a bar; False when it is none."""
        found = self._bars.line(line, at, (self._steps.epoch, self._steps.epochs, self._steps.headers))
        if found is None:
            return False
        for told in found[0]:
            self._tell(told, points)
        if self._waiting:
            self._bar_step = self._bars.n
            self._settle(points)
        if found[1].strip():
            self._lines(found[1], at, points)
        return True

    def _tell(self, told: tuple[dict[str, float], int, int], points: list[Point]) -> None:
        values, step, at = told
        if step >= 0:
            self._steps.say(step)
        points.append(Point(values, self._steps.at(values), at))

    def _finish_bars(self, points: list[Point]) -> None:
        for told in self._bars.finish():
            self._tell(told, points)

    def _settle(self, points: list[Point]) -> None:
        """Give out the metrics that waited for a frame of a bar."""
        if not self._waiting:
            return
        (values, at), self._waiting = self._waiting, None
        if self._bar_step >= 0:
            self._steps.say(self._bar_step)
        points.append(Point(values, self._steps.at(values), at))


def _text(data: bytes) -> str:
    """Return text of plain lines: colours are dropped, and what moves the cursor begins another line."""
    text = data.decode("utf-8", "replace")
    if "\x1b" in text:
        text = _ESCAPE.sub(lambda found: "\n" if found.group("final") in _MOVES else "", text)
    if "\r" in text:
        text = text.replace("\r", "\n")
    if "\x08" in text:
        text = _BACKSPACES.sub("\n", text)
    return text.replace(MARK, " ") if MARK in text else text
