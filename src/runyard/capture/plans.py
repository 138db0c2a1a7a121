"""What the lines of one shape hold: the plan by which numbers are picked out of them."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MARK = "\x01"
"""Stands for each number in the shape of a line."""

NUMBER = re.compile(
    r"[-+.0-9](?<![\w.@/].)(?:(?<=[0-9])|(?=\.?[0-9]))[0-9]*(?:,[0-9]{3}(?![0-9]))*(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?"
)
"""A number that is no part of a word, path or version; commas may separate thousands.

It begins with a set of characters because the engine searches for such fast.
"""

TEXT, ROW, HF, BAR, TRACE, WARNED, TABLE, CELL, TABLE_END = range(9)
"""Kinds of lines: nothing; metrics or a step; a dict of the Trainer of Transformers, whose step the bar after it says;
perhaps a progress bar, so look at the line itself; the start of a traceback; a warning, after which comes a line of its
source; the head, a row, the end of a table of results."""


class Item:
    """A metric in a line: the ``index`` of its number in the line (-1: it is always ``value``, as ``nan``).

    ``pointed``: only if the number has a point or exponent. ``of``: what it is to be divided by; 0: nothing.
    """

    __slots__ = ("index", "name", "of", "pointed", "value")

    def __init__(self, name: str, index: int, value: float = 0.0, pointed: bool = False, of: float = 0.0) -> None:
        self.name = name
        self.index = index
        self.value = value
        self.pointed = pointed
        self.of = of


class Step:
    """A counter in a line: ``word`` is ``epoch``, ``step`` (may begin anew with each epoch) or ``global``.

    ``index`` and ``total_index`` say which numbers; where the latter is -1, ``total`` (0: none).
    """

    __slots__ = ("index", "total", "total_index", "word")

    def __init__(self, word: str, index: int, total: int = 0, total_index: int = -1) -> None:
        self.word = word
        self.index = index
        self.total = total
        self.total_index = total_index


class Plan:
    """What lines of one shape hold; ``count`` is how many numbers are in each, ``kind`` one of the above."""

    __slots__ = ("count", "items", "kind", "plain", "steps")

    def __init__(self, count: int, kind: int = TEXT, items: Sequence[Item] = (), steps: Sequence[Step] = ()) -> None:
        self.count = count
        self.kind = kind
        self.items = tuple(items)
        self.steps = tuple(steps)
        self.plain = tuple(
            (item.name, item.index) for item in items if item.index >= 0 and not item.pointed and not item.of
        )
        """Names and indexes, if that is all there is to know of the items."""
        if len(self.plain) != len(self.items):
            self.plain = ()

    def values(self, numbers: Sequence[str]) -> dict[str, float]:
        """Return the metrics of a line with these numbers."""
        found: dict[str, float] = {}
        for item in self.items:
            if item.index < 0:
                found[item.name] = item.value
                continue
            text = numbers[item.index]
            if item.pointed and not pointed(text):
                continue
            value = number(text)
            if item.of:
                if not 0 <= value <= item.of:
                    continue
                value /= item.of
            found[item.name] = value
        return found


def number(text: str) -> float:
    """Return the value of what `NUMBER` found."""
    try:
        return float(text)
    except ValueError:
        return float(text.replace(",", ""))


def pointed(text: str) -> bool:
    """Tell whether a number is written with a point or an exponent."""
    return "." in text or "e" in text or "E" in text


def whole(text: str) -> int:
    """Return the value of a counter; -1 for what is none."""
    if text.isdigit() and len(text) < 19:
        return int(text)
    value = number(text)
    return int(value) if 0 <= value < 1e18 and value == int(value) else -1
