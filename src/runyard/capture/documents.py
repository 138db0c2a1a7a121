"""Reading JSON files that programs write anew each time: the log of Hugging Face's Trainer, and last values."""

from __future__ import annotations

import json
import os

from runyard.capture import tablerules
from runyard.capture.chain import Chain, digest
from runyard.capture.tail import Tail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.capture.found import Sink

MAX_BYTES = 16 << 20
CHECKPOINT = "checkpoint-"


class DocumentReader:
    """Reads a JSON file whenever it has changed. ``path``: where it is; ``name``: its path in the run's directory."""

    def __init__(self, path: str, name: str) -> None:
        self._tail = Tail(path)
        self._name = name

    def turn(self, sink: Sink, final: bool = False) -> bool:
        """Give what is new to the sink; return False: it is all read at once. Raises OSError.

        A file that is no JSON is being written, and read again when it has changed.
        """
        fd = self._tail.open(final)
        if fd is None:
            return False
        try:
            if self._tail.size > MAX_BYTES:
                sink.refuse(self._name, "larger than %d MiB" % (MAX_BYTES >> 20))
                return False
            data = os.pread(fd, MAX_BYTES + 1, 0)
        finally:
            os.close(fd)
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return False
        if isinstance(value, dict):
            self._take(value, sink)
        return False

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken; raises KeyError, TypeError, ValueError for what is none."""

    def _take(self, value: dict[str, Any], sink: Sink) -> None:
        raise NotImplementedError


class TrainerStateReader(DocumentReader):
    """Reads ``trainer_state.json`` of Hugging Face's Trainer: ``log_history`` is a list of rows, each with its step.

    Each checkpoint has one with all rows so far, so those of all checkpoints of a directory are read as one table.
    """

    def __init__(self, path: str, name: str) -> None:
        super().__init__(path, name)
        parts = name.split("/")
        self._source = "/".join(part for part in parts if not part.startswith(CHECKPOINT))

    def _take(self, value: dict[str, Any], sink: Sink) -> None:
        history = value.get("log_history")
        rows = [row for row in history if isinstance(row, dict)] if isinstance(history, list) else []
        done = Chain()
        if self._source in sink.ledger.chains:
            done.restore(sink.ledger.chains[self._source])
        again, agreed, known = Chain(), 0, Chain()
        for row in rows[: done.count]:
            again.add(digest(row))
            agrees = done.agrees(again)
            if agrees is False:
                break
            if agrees:
                agreed, known = again.count, again.copy()
        else:
            if len(rows) < done.count:
                return  # an earlier checkpoint
        for row in rows[agreed:]:
            known.add(digest(row))
            values, step, _ = tablerules.Layout(tuple(row)).split(row, known.count - 1)
            if values:
                sink.row(self._source, values, step, self._tail.mtime_us)
        sink.ledger.chains[self._source] = known.state()


class SummaryReader(DocumentReader):
    """Reads ``.last_summary.json`` as GnomeHat has it: one flat object with the last values by name."""

    def __init__(self, path: str, name: str) -> None:
        super().__init__(path, name)
        self._said: dict[str, str] = {}

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON."""
        return {"said": self._said}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken; raises KeyError, TypeError, ValueError for what is none."""
        self._said = {str(name): str(value) for name, value in state["said"].items()}

    def _take(self, value: dict[str, Any], sink: Sink) -> None:
        numbers = {name: cell for name, item in value.items() if (cell := tablerules.number(item)) is not None}
        numbers = {name: numbers[name] for name in list(numbers)[: tablerules.MAX_COLUMNS]}
        changed = {name: cell for name, cell in numbers.items() if repr(cell) != self._said.get(name)}
        if changed:
            sink.summary(self._name, changed, self._tail.mtime_us)
            self._said.update({name: repr(cell) for name, cell in changed.items()})
