"""Knowing rows again: how many of a table were read, and whether those of a file written anew are the same."""

from __future__ import annotations

import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Chain:
    """Running CRC-32 of the rows that were read, remembered after rows 1, 2, 4, 8, ... and the last."""

    def __init__(self) -> None:
        self.count = 0
        self._crc = 0
        self._marks: list[int] = []

    def add(self, row: bytes) -> None:
        """Append a row."""
        self._crc = zlib.crc32(row, self._crc)
        self.count += 1
        if not self.count & (self.count - 1):
            self._marks.append(self._crc)

    def agrees(self, other: Chain) -> bool | None:
        """Tell whether the rows of another, no longer chain are the first of these; None where that is not known."""
        if other.count == self.count:
            return other._crc == self._crc
        if other.count & (other.count - 1):
            return None
        return other._crc == self._marks[other.count.bit_length() - 1]

    def state(self) -> list[Any]:
        """Return what `restore` needs, as JSON."""
        return [self.count, self._crc, self._marks]

    def restore(self, state: Any) -> None:
        """Go on where a state was taken; raises ValueError, TypeError for what is none."""
        count, crc, marks = state
        self.count, self._crc, self._marks = int(count), int(crc), [int(mark) for mark in marks]
        if self.count < 0 or len(self._marks) != self.count.bit_length():
            raise ValueError("the state of a table does not fit together")

    def copy(self) -> Chain:
        """Return the same."""
        other = Chain()
        other.restore(self.state())
        return other


def digest(row: dict[str, Any]) -> bytes:
    """Return the bytes that stand for a row: its cells in order of their names, without empty ones.

    So a row stays the same when the table gets another column, or its columns another order.
    """
    return "\x1e".join(["%s\x1f%s" % item for item in sorted(row.items()) if item[1] not in ("", None)]).encode(
        "utf-8", "surrogatepass"
    )
