"""Reading a tar as `git archive` writes it: a header block per member, pax records for what does not fit into one.

``tarfile`` takes 15 ms to import, and copies its whole buffer for every member that it reads from a stream: ten times
as long as everything else that filling a tree takes. Names are bytes here, as in git.
Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header".
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

BLOCK = 512
FILE, SYMLINK, DIRECTORY, OTHER = "file", "symlink", "directory", "other"
_KINDS = {b"0": FILE, b"\0": FILE, b"2": SYMLINK, b"5": DIRECTORY}
_END = b"\0" * BLOCK
_MAX_RECORDS = 1 << 16
"""Bytes of one pax header: a path and a target, each at most 4 KiB, and little else."""
_CHUNK = 1 << 20


class TarError(ValueError):
    """The stream is no tar, or not a whole one."""


class Member:
    """One member: ``name`` and ``target`` (of a symlink) in bytes, ``kind``, ``mode``, ``size`` of the content."""

    __slots__ = ("kind", "mode", "name", "size", "target")

    def __init__(self, name: bytes, kind: str, mode: int, size: int, target: bytes) -> None:
        self.name = name
        self.kind = kind
        self.mode = mode
        self.size = size
        self.target = target


class Reader:
    """The members of a stream in turn. Content that is not asked for is skipped."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Take a buffered stream; nothing is read after the end of the archive."""
        self._stream = stream
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        """Yield members; raises `TarError` where the archive is damaged or ends early."""
        records: dict[bytes, bytes] = {}
        while True:
            for _ in self.content():
                pass
            header = self._exactly(BLOCK)
            if header == _END:
                return
            kind = header[156:157]
            member = _parse(header, records)
            self._left, self._padding = member.size, -member.size % BLOCK
            if kind == b"x":
                if member.size > _MAX_RECORDS:
                    raise TarError("a pax header is too long")
                records = _records(b"".join(self.content()))
            elif kind != b"g":  # of all members git says the commit, and nothing else
                records = {}
                yield member

    def content(self) -> Iterator[bytes]:
        """Yield the content of the member that came last, in pieces of at most 1 MiB."""
        while self._left:
            piece = self._exactly(min(self._left, _CHUNK))
            self._left -= len(piece)
            yield piece
        if self._padding:
            self._exactly(self._padding)
            self._padding = 0

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        while len(data) < size:
            more = self._stream.read(size - len(data))
            if not more:
                raise TarError("it ends early")
            data += more
        return data


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    try:
        number = int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        number = -1
    if number < 0:
        raise TarError("a number is malformed")
    return number


def _parse(header: bytes, records: dict[bytes, bytes]) -> Member:
    if sum(header) - sum(header[148:156]) + 8 * 32 != _number(header[148:156]):
        raise TarError("a checksum is wrong")
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and header[345] != 0:
        name = _text(header[345:500]) + b"/" + name
    kind = _KINDS.get(header[156:157], OTHER)
    size = int(records[b"size"]) if b"size" in records else _number(header[124:136])
    if kind in (SYMLINK, DIRECTORY):
        size = 0
    target = records.get(b"linkpath", _text(header[157:257]))
    return Member(records.get(b"path", name), kind, _number(header[100:108]), size, target)


def _records(data: bytes) -> dict[bytes, bytes]:
    """Return the records of a pax header: ``<length of the record> <keyword>=<value>`` and a newline, each."""
    found = {}
    try:
        while data:
            length = int(data.partition(b" ")[0])
            record, data = data[:length], data[length:]
            key, equals, value = record.partition(b" ")[2].partition(b"=")
            if not equals or value[-1:] != b"\n" or len(record) != length:
                raise TarError("a pax record is malformed")
            found[key] = value[:-1]
        if int(found.get(b"size", b"0")) < 0:
            raise TarError("a size is malformed")
    except TarError:
        raise
    except ValueError as exc:
        raise TarError("a pax record is malformed") from exc
    return found
