"""Records of a spool as a test wants them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from runyard.services.api import YardService
from runyard.wire import spool

START_US = 1_700_000_000_000_000


def row_body(values: Sequence[float], step: int, at: int) -> bytes:
    """Return the body of a row."""
    return struct.pack(f"<qq{len(values)}d", at, step, *values)


class Spooled:
    """A stream in memory, and sending it."""

    def __init__(self, stream: str = "00000000000000aa") -> None:
        self.stream = stream
        self.shapes: dict[tuple[str, ...], int] = {}
        self.records: list[bytes] = []
        self.defined: list[bytes] = []

    def _add(self, kind: int, shape: int, body: bytes) -> None:
        self.records.append(spool.record(len(self.records), kind, shape, body))

    def row(self, values: Mapping[str, float], step: int, at: int | None = None) -> None:
        """Log numbers."""
        names = tuple(values)
        if names not in self.shapes:
            self.shapes[names] = len(self.shapes)
            self._add(spool.SHAPE, self.shapes[names], json.dumps(names).encode())
            self.defined.append(self.records[-1])
        when = START_US + step * 1000 if at is None else at
        self._add(spool.ROW, self.shapes[names], row_body(list(values.values()), step, when))

    def message(self, type_: str, content: bytes = b"", **fields: Any) -> None:
        """Say something."""
        self._add(spool.MESSAGE, 0, spool.message_body({"type": type_, "at": START_US, **fields}, content))

    def group(self, rows: Sequence[tuple[Mapping[str, float], int]], messages: Sequence[dict[str, Any]]) -> None:
        """Log rows and messages that belong together."""
        parts = []
        for number, (values, step) in enumerate(rows):
            parts.append(spool.record(0, spool.SHAPE, number, json.dumps(list(values)).encode()))
            parts.append(spool.record(0, spool.ROW, number, row_body(list(values.values()), step, START_US + step)))
        parts += [spool.record(0, spool.MESSAGE, 0, spool.message_body(message)) for message in messages]
        self._add(spool.GROUP, 0, spool.join(parts))

    def part(self, first: int, last: int | None = None) -> bytes:
        """Return the records from ``first`` to before ``last``, with the shapes that they may need."""
        earlier = [shape for shape in self.defined if shape not in self.records[first:last]]
        return spool.join(earlier + self.records[first:last])

    def send(
        self, yard: YardService, attempt: str, first: int = 0, last: int | None = None, *, lost: bool = False
    ) -> int:
        """Send records; return the number of the first that the yard has not got."""
        return yard.append_spool(attempt, self.stream, first, self.part(first, last), lost)
