"""At which step a metric was printed: said in its line, in an earlier one, or counted."""

from __future__ import annotations

from runyard.capture.plans import Step, whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any


class Steps:
    """Keeps the step.

    What a line says (`step 10`) holds until another line says something else. A counter that begins anew with each epoch
    goes on from where it was: `Epoch [2/3], Step [1/600]` is step 601. An epoch is the step only where nothing finer is said.
    As long as no line has said any, steps are counted from 0: the next one begins when a name comes again (Guild's rule).
    """

    def __init__(self) -> None:
        self.step = 0
        self.said = False
        """A line has said a step."""
        self.epoch = -1
        self.epochs = 0
        """How many epochs there will be; 0: not said."""
        self.headers = 0
        """How many lines have said an epoch."""
        self._names: set[str] = set()
        self._fine = False
        self._moved = False
        self._inline = False
        """The line that said the last step said the epoch too."""
        self._raw = -1
        self._raw_epoch = -1
        self._total = 0
        self._offset = 0

    def take(self, steps: Sequence[Step], numbers: Sequence[str]) -> None:
        """Take in what a line says, with its numbers."""
        counted: Step | None = None
        inline = False
        for step in steps:
            if step.word == "epoch":
                inline = True
                value = whole(numbers[step.index])
                if value >= 0:
                    self._take_epoch(value, _total(step, numbers))
            elif counted is None or step.word == "global":
                counted = step
        if counted is None:
            return
        value = whole(numbers[counted.index])
        if value < 0:
            return
        self.said = self._fine = self._moved = True
        if counted.word == "global":
            self.step = value
            return
        if inline != self._inline:
            self._inline, self._offset, self._raw_epoch, self._raw = inline, 0, self.epoch, -1
        if self.epoch != self._raw_epoch:
            if self.epoch < self._raw_epoch:
                self._offset = 0
            elif value < self._raw or (value == self._raw and self._raw == 0):
                self._offset += self._total or self._raw
            self._raw_epoch = self.epoch
        self._raw = value
        self._total = _total(counted, numbers)
        self.step = self._offset + value

    def say(self, step: int) -> None:
        """Set the step that something else than a line says."""
        self.step = step
        self.said = True

    def _take_epoch(self, epoch: int, epochs: int) -> None:
        self.headers += 1
        if epoch < self.epoch or (epoch != self.epoch and not self._moved):
            self._fine = False
        if epoch != self.epoch:
            self._moved = False
        self.epoch = epoch
        self.epochs = epochs or self.epochs
        if not self._fine:
            self.step = epoch
            self.said = True

    def at(self, names: Iterable[str]) -> int:
        """Return the step of metrics whose line says none."""
        if self.said:
            return self.step
        if not self._names.isdisjoint(names):
            self.step += 1
            self._names.clear()
        self._names.update(names)
        return self.step

    def state(self) -> list[Any]:
        """Return all of it as JSON."""
        return [
            self.step, self.said, self.epoch, self.epochs, self.headers, sorted(self._names), self._fine, self._moved,
            self._inline, self._raw, self._raw_epoch, self._total, self._offset,
        ]  # fmt: skip

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from what `state` returned."""
        (
            self.step, self.said, self.epoch, self.epochs, self.headers, names, self._fine, self._moved,
            self._inline, self._raw, self._raw_epoch, self._total, self._offset,
        ) = state  # fmt: skip
        self._names = set(names)


def _total(step: Step, numbers: Sequence[str]) -> int:
    return step.total if step.total_index < 0 else max(0, whole(numbers[step.total_index]))
