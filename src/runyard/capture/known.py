"""What lines seen before hold, looked up by their mask: the line with every digit replaced by ``0``.

Looking closely at a line (`runyard.capture.shapes`) takes a hundred times as long as finding its mask in a dict, and
programs print the same lines again and again with other numbers. Lines of one mask have their numbers at the same places.
"""

from __future__ import annotations

import re

from runyard.capture import shapes, words
from runyard.capture.plans import MARK, NUMBER, Plan, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

REMEMBERED = 2048
"""How many masks and shapes are remembered."""
LENGTH = 1024
"""Characters; longer lines are looked at closely each time."""

_DIGITS = re.compile("[0-9]+")
_MASK = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else byte for byte in range(256))


class Known:
    """The plan of lines of one mask, and where their numbers are."""

    __slots__ = ("fixed", "picks", "plan", "spans")

    def __init__(self, plan: Plan, line: str, spans: Sequence[tuple[int, int]]) -> None:
        self.plan = plan
        self.spans = spans
        gaps = zip([0, *(end for _, end in spans)], [*(begin for begin, _ in spans), len(line)])
        self.fixed = tuple(
            (found.start(), found.end(), found.group())
            for begin, end in gaps
            for found in _DIGITS.finditer(line, begin, end)
        )
        """Digits that are part of a word: a line with others may have another plan."""
        self.picks = tuple((name, *spans[index]) for name, index in plan.plain)

    def numbers(self, line: str) -> list[str]:
        """Return the numbers of a line."""
        return [line[begin:end] for begin, end in self.spans]

    def values(self, line: str) -> dict[str, float]:
        """Return the metrics of a line."""
        if not self.picks:
            return self.plan.values(self.numbers(line)) if self.plan.items else {}
        try:
            return {name: float(line[begin:end]) for name, begin, end in self.picks}
        except ValueError:  # separated thousands
            return {name: number(line[begin:end]) for name, begin, end in self.picks}


class Lines:
    """Remembers what lines hold."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}
        self._plans: dict[str, Plan] = {}
        self._nothing = Known(Plan(0), "", ())

    def masks(self, text: str) -> list[str]:
        """Return the masks of the lines in a text."""
        return text.encode().translate(_MASK).decode().split("\n")

    def find(self, line: str, mask: str) -> Known:
        """Return what a line holds."""
        known = self._known.get(mask)
        if known is None:
            return self._look(line, mask)
        for begin, end, digits in known.fixed:
            if line[begin:end] != digits:
                return self._look(line, mask)
        return known

    def _look(self, line: str, mask: str) -> Known:
        known = self._closely(line) if words.promising(mask) else self._nothing
        if len(mask) <= LENGTH:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[mask] = known
        return known

    def _closely(self, line: str) -> Known:
        spans = [found.span() for found in NUMBER.finditer(line)]
        shape = NUMBER.sub(MARK, line)
        plan = self._plans.get(shape)
        if plan is None:
            plan = shapes.plan(shape)
            if len(shape) <= LENGTH:
                if len(self._plans) >= REMEMBERED:
                    self._plans.clear()
                self._plans[shape] = plan
        return Known(plan, line, spans)
