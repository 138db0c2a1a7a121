"""Progress bars in what a program prints: tqdm, Keras and Rich (as Lightning draws it); their metrics and the time left.

A bar is drawn again and again, and each drawing (frame) is one piece of text between carriage returns, line feeds or moves
of the cursor. Formats: tqdm 4 `std.py` (`format_meter`), Keras 3 and 2 `utils/progbar.py`, Lightning 2
`callbacks/progress/rich_progress.py`.
"""

from __future__ import annotations

import re

from runyard.capture import rows, words
from runyard.capture.plans import MARK, NUMBER, Plan, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

MAX_BARS = 16
"""How many bars are told apart; of more, the one that was drawn last longest ago is forgotten."""
FRAME_MAX = 2000
"""Characters of a line that may be a frame."""
STARTS = 8
"""So many other bars begin, and a bar that is not drawn meanwhile was left unfinished."""
MEASURED_S = 5.0
"""From so long on the time left is told by the pace since the first step, before by what the bar says."""

_COUNT = r"(?P<n>[0-9.]+[kMGTPEZY]?)"
_TQDM = re.compile(
    r"(?P<desc>[^|]*?)(?:[0-9]+%)?\|[^|]*\|\s+" + _COUNT + r"/(?P<total>[0-9.]+[kMGTPEZY]?|\?)\w{0,3} "
    r"\[[0-9:]+<(?P<left>[^,\]]+), *(?P<rate>[0-9.]+|\?)(?P<unit>[^\s,\]]*)(?:, (?P<postfix>[^\]]*))?(?P<end>\]?)"
)
_ENDLESS = re.compile(
    r"(?P<desc>(?:[^|]*?: )?)" + _COUNT + r"[A-Za-z]\w* \[[0-9:]+, *(?P<rate>[0-9.]+|\?)(?P<unit>[^\s,\]]*)"
    r"(?:, (?P<postfix>[^\]]*))?(?P<end>\]?)"
)
_KERAS = re.compile(
    r"\s*(?P<n>[0-9]+)/(?P<total>[0-9]+|Unknown)\s+(?:\[[=>.]*\]\s+-\s+|[━╸╺]+\s+|-\s+)(?:(?:[0-9]+:)*[0-9]+s?\s+)?(?:-\s+)?"
    r"(?:[0-9.]+(?:m|u|n)?s/(?:step|epoch|sample))?(?P<postfix>(?:\s+-\s.*)?)\s*$"
)
_RICH = re.compile(
    r"(?P<desc>[^━╸╺]*?)\s+[━╸╺]{3,}\s+" + _COUNT + r"/(?P<total>[0-9]+|\?|--)\s+(?:[0-9:]+|-:--:--)\s+•\s+[0-9:\-]+\s+"
    r"(?P<rate>[0-9.]+)(?P<unit>it/s)\s*(?P<postfix>.*)$"
)
_BELOW = re.compile(r"\s{16,}(?P<postfix>[\w./@\-]+: (?:%s))\s*(?P<rest>.*)$" % rows.VALUE.replace(MARK, "[-+0-9.eE]+"))
_EQUALS = re.compile(r"([^=,\s][^=,]*)=\s*([^,]*)")
_COLON = re.compile(r"([^\W\d][\w./@\-]*): +([-+0-9.eE]+|nan|inf|-inf)(?=\s|$)")
_EPOCH = re.compile(r"(?i)\bepochs?\W*([0-9]+)\s*(?:/|of)\s*([0-9]+)")
_SCALE = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "Z": 1e21, "Y": 1e24}
_ODD = frozenset(("nan", "inf", "-inf", "+inf"))


class Bar:
    """One bar, however often it is drawn, and begun anew with other numbers in its description (one in each epoch)."""

    FIELDS = (
        "key", "desc", "n", "total", "offset", "held", "held_at", "told", "order", "starts", "overall_n", "overall",
        "first_at", "first_n", "rate", "at", "base", "keras",
    )  # fmt: skip
    __slots__ = FIELDS

    def __init__(self, key: str, order: int) -> None:
        self.key = key
        self.desc = ""
        self.n = -1
        self.total = 0
        """0: not known."""
        self.offset = 0
        """Steps of the bars of this kind before this one."""
        self.held: dict[str, float] = {}
        """The metrics of the last frame, until the count moves on: often it is drawn again with newer ones."""
        self.held_at = 0
        self.told: dict[str, float] = {}
        self.order = order
        self.starts = 0
        self.overall_n = 0
        self.overall = 0
        """Count and total, over all epochs where the description says how many there are."""
        self.first_at = 0
        self.first_n = -1
        self.rate = 0.0
        """Steps per second, as the bar says; 0: it does not."""
        self.at = 0
        self.base = -1
        self.keras = 0
        """In a bar of Keras: 2 + the epoch, 1 when none was said."""

    def left(self) -> float | None:
        """Return the seconds left, None when that cannot be told yet."""
        todo = self.overall - self.overall_n
        if not todo:
            return 0.0
        seconds = (self.at - self.first_at) / 1e6
        done = self.overall_n - self.first_n
        if self.first_n >= 0 and done > 0 and seconds > 0 and (seconds >= MEASURED_S or not self.rate):
            return todo * seconds / done
        return todo / self.rate if self.rate else None


class Bars:
    """All bars of a program. Points are (metrics, step, time); the step of a bar of Keras is the epoch, -1 when not known."""

    def __init__(self) -> None:
        self._bars: dict[str, Bar] = {}
        self._starts = 0
        self._last = ""
        self._evaluated = 0
        self.holding = False
        """There may be metrics that have not been given out."""
        self.n = -1
        """The count in the last frame."""

    def line(self, text: str, at: int, epoch: Sequence[int]) -> tuple[list[Told], str] | None:
        """Take in a frame; return what it makes final, and the text after it. None when it is none.

        ``epoch``: the number in the last line `Epoch 2/3`, how many there are, and how many lines have said one.
        """
        if len(text) > FRAME_MAX:
            return None
        found = _TQDM.match(text) or _ENDLESS.match(text)
        if found:
            groups = found.groupdict()
            postfix = _pairs(_EQUALS, groups["postfix"] or "", not groups["end"])
            described, groups["desc"] = _described(groups["desc"])
            postfix.update(described)
            return self._frame("tqdm", groups, postfix, at), text[found.end() :] if groups["end"] else ""
        found = _RICH.match(text)
        if found:
            groups = found.groupdict()
            return self._frame("rich", groups, _pairs(_COLON, groups["postfix"], False), at), ""
        found = _KERAS.match(text)
        if found:
            return self._keras(found, at, epoch), ""
        found = _BELOW.match(text)
        if found and self._last.startswith("rich "):
            bar = self._bars.get(self._last)
            if bar is not None and (bar.n > 0 or bar.offset):
                self.holding = True
                bar.held.update(_pairs(_COLON, found.group("postfix"), False))
            return [], found.group("rest")
        return None

    def peek(self, text: str, at: int) -> list[Told]:
        """Take in what has come of a line, if it is a whole frame of tqdm already: the next may be minutes away."""
        found = None if len(text) > FRAME_MAX else _TQDM.match(text) or _ENDLESS.match(text)
        if found is None or not found.group("end"):
            return []
        told = self.line(text[: found.end()], at, (-1, 0, 0))
        return told[0] if told else []

    def finish(self) -> list[Told]:
        """Return what is held: another line has come, or the end."""
        told: list[Told] = []
        for bar in self._bars.values():
            self._tell(bar, told)
        self.holding = False
        return told

    def progress(self) -> tuple[int, int, float | None, str] | None:
        """Return count, total, seconds left (None: not known yet) and description of the bar that spans the others."""
        bar = next((one for one in reversed(list(self._bars.values())) if one.overall), None)
        edge, order = 1 << 62, 1 << 62
        for one in reversed(list(self._bars.values())):
            if one.overall_n < one.overall and one.order < min(edge, order) and self._starts - one.starts <= STARTS:
                bar, order = one, one.order
            elif one.overall and one.overall_n >= one.overall:
                edge = min(edge, one.order)  # what was drawn before it and began after it was within it: that is over
        if bar is None:
            return None
        return bar.overall_n, bar.overall, bar.left(), bar.desc

    def _bar(self, key: str) -> Bar:
        bar = self._bars.pop(key, None)
        if bar is None:
            self._starts += 1
            bar = Bar(key, self._starts)
            if len(self._bars) >= MAX_BARS:
                del self._bars[next(iter(self._bars))]
        self._bars[key] = bar  # the last in order is the one that was drawn last
        self._last = key
        bar.starts = self._starts
        return bar

    def _frame(self, kind: str, groups: dict[str, str], values: dict[str, float], at: int) -> list[Told]:
        told: list[Told] = []
        desc = groups["desc"].strip().rstrip(":")[:200]
        n = int(_count(groups["n"]))
        total = int(_count(groups.get("total") or "?"))
        bar = self._bar("%s %s %d" % (kind, NUMBER.sub("#", desc), total))
        if n != bar.n:
            self._tell(bar, told)
        if n < bar.n:
            bar.offset += bar.total or bar.n
            self._restart(bar)
        bar.n, bar.total, bar.desc, bar.at = n, total, desc, at
        self.n = n
        if n or bar.offset:  # before the first step a bar shows what there was before, or nothing
            bar.held, bar.held_at, self.holding = values, at, True
        self._pace(bar, groups["rate"], groups["unit"])
        self._overall(bar, _EPOCH.search(desc))
        return told

    def _keras(self, found: re.Match[str], at: int, epoch: Sequence[int]) -> list[Told]:
        number_, epochs, headers = epoch
        told: list[Told] = []
        n, total = int(found.group("n")[:15]), int(_count(found.group("total")))
        values = _pairs(_COLON, found.group("postfix"), False)
        again = headers > 0 and headers == self._evaluated
        bar = self._bar("keras eval" if again else "keras")
        if n < bar.n or bar.keras != number_ + 2:
            self._tell(bar, told)
            if again or number_ <= 1 or number_ + 2 < bar.keras:
                self._restart(bar)
        if again:
            values = {"eval/" + name: value for name, value in values.items()}
        bar.n, bar.total, bar.desc, bar.at, bar.keras = n, total, "", at, number_ + 2
        bar.held, bar.held_at, self.holding = values, at, True
        if total and n == total and not again:
            self._evaluated = headers
        if epochs and not again:
            bar.desc = "Epoch %d/%d" % (number_, epochs)
            bar.overall_n, bar.overall = (number_ - 1) * total + n, epochs * total
        else:
            bar.overall_n, bar.overall = n, total
        self._note_first(bar)
        return told

    def _tell(self, bar: Bar, told: list[Told]) -> None:
        """Give out the metrics of the last frame that have changed since the frame given out before."""
        held, bar.held = bar.held, {}
        if bar.keras:
            if held and bar.n == bar.total:
                told.append((held, bar.keras - 2, bar.held_at))
            return
        new = {name: value for name, value in held.items() if not _same(bar.told.get(name), value)}
        if new:
            bar.told.update(new)
            told.append((new, bar.offset + bar.n, bar.held_at))

    def _restart(self, bar: Bar) -> None:
        self._starts += 1
        bar.starts = self._starts
        bar.first_n = -1

    def _pace(self, bar: Bar, rate: str, unit: str) -> None:
        value = _count(rate)
        if unit.startswith("s/"):
            value = 1 / value if value else 0.0
        elif unit[:1] in _SCALE and unit[1:2].isalpha():
            value *= _SCALE[unit[0]]
        bar.rate = value

    def _overall(self, bar: Bar, epoch: re.Match[str] | None) -> None:
        bar.overall_n, bar.overall = bar.n, bar.total
        if epoch and bar.total:
            at, of = int(epoch.group(1)[:9]), int(epoch.group(2)[:9])
            if bar.base < 0:
                bar.base = min(at, 1)
            if bar.base <= at <= of:
                bar.overall_n = (at - bar.base) * bar.total + bar.n
                bar.overall = (of - bar.base + 1) * bar.total
        self._note_first(bar)

    def _note_first(self, bar: Bar) -> None:
        """Note from where on the pace is measured: after the first step, which often takes longer."""
        if bar.n > 0 and (bar.first_n < 0 or bar.overall_n < bar.first_n):
            bar.first_n, bar.first_at = bar.overall_n, bar.at

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON."""
        return {
            "bars": [[getattr(bar, name) for name in Bar.FIELDS] for bar in self._bars.values()],
            "starts": self._starts, "last": self._last, "evaluated": self._evaluated, "n": self.n,
            "holding": self.holding,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._bars = {}
        for fields in state["bars"]:
            bar = Bar(fields[0], 0)
            for name, value in zip(Bar.FIELDS, fields):
                setattr(bar, name, value)
            self._bars[bar.key] = bar
        self._starts, self._last = state["starts"], state["last"]
        self._evaluated, self.n, self.holding = state["evaluated"], state["n"], state["holding"]


if TYPE_CHECKING:
    Told = tuple[dict[str, float], int, int]


def _count(text: str) -> float:
    """Return a count as tqdm writes it, `1.5k`; 0 when it is not known."""
    scale = _SCALE.get(text[-1:], 1.0)
    try:
        value = float(text[:-1] if scale != 1.0 else text)
    except ValueError:
        return 0.0
    return min(value * scale, 1e15)


def _pairs(pattern: re.Pattern[str], text: str, cut: bool) -> dict[str, float]:
    """Return the metrics in what stands behind a bar; of a line that was ``cut`` off, not the last."""
    if cut and text:
        text = text.rpartition(",")[0]
    found = {}
    for key, said in pattern.findall(text):
        name, value = words.normalised(key), said.strip().rstrip("%")
        if name and not words.NO_METRIC.match(name) and (value.lower() in _ODD or NUMBER.fullmatch(value)):
            found[name] = number(value)
    return found


def _described(desc: str) -> tuple[dict[str, float], str]:
    """Return the metrics in the description of a bar (`Epoch 3, loss: 0.25`), and what is before them."""
    text = desc.strip().rstrip(":")[:200]
    numbers = NUMBER.findall(text)
    if not numbers:
        return {}, text
    items, steps = rows.read(NUMBER.sub(MARK, text), 0)
    if not items:
        return {}, text
    before = text.find(items[0].name.partition("/")[2] or items[0].name.partition("_")[0])
    values = Plan(len(numbers), 0, items, steps).values(numbers)
    return values, text[:before].rstrip(" ,:;|-") if before >= 0 else text


def _same(one: float | None, other: float) -> bool:
    return one == other or (one is not None and one != one and other != other)  # noqa: PLR0124 - both NaN
