"""The format of the spool (docs/spool.md): segments, records, messages; reading them, also from damaged files."""

from __future__ import annotations

import json
import os
import struct
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

SEGMENT_BYTES = 1 << 20
MAGIC = b"RYSPOOL1"
HEADER = struct.Struct("<8s8sIQI")
"""Magic, stream, segment number, number of the first record, CRC-32 of what is before."""
HEADER_BYTES = 48
LOST = struct.Struct("<Q")
LOST_AT = 32
LOST_FILE = ".lost"
"""Behind the id of a stream: the name of a file that is as long as records were lost while there was no segment."""
RECORD = struct.Struct("<IIQII")
"""Length of the body, CRC-32 from offset 8 on, record number, kind, shape."""
RECORD_BYTES = 24
CHECKED_AT = 8
"""Where the part of a record begins that its CRC covers."""
CHECKED = struct.Struct("<QII")
CHECK = struct.Struct("<II")
SHAPE, ROW, MESSAGE, GROUP = 1, 2, 3, 4
KINDS = frozenset((SHAPE, ROW, MESSAGE, GROUP))
MAX_RECORD = 1 << 26
MAX_DEPTH = 100
"""Of the JSON in a message."""
_LENGTH = struct.Struct("<I")


def aligned(size: int) -> int:
    """Return the next multiple of 8."""
    return (size + 7) & ~7


def segment_name(stream: str, number: int) -> str:
    """Return the file name of a segment."""
    return "%s.%05d" % (stream, number)


def header(stream: str, segment: int, first: int) -> bytes:
    """Return the first `HEADER_BYTES` bytes of a segment."""
    start = HEADER.pack(MAGIC, bytes.fromhex(stream), segment, first, 0)[:28]
    return (start + _LENGTH.pack(zlib.crc32(start))).ljust(HEADER_BYTES, b"\0")


def record(number: int, kind: int, shape: int, body: bytes) -> bytes:
    """Return a whole record, without the zeros that align the next one."""
    checked = CHECKED.pack(number, kind, shape) + body
    return CHECK.pack(len(body), zlib.crc32(checked)) + checked


def message_body(message: dict[str, Any], attachment: bytes = b"") -> bytes:
    """Return the body of a message."""
    text = json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    return _LENGTH.pack(len(text)) + text + attachment


def parse_message(body: bytes) -> tuple[dict[str, Any], bytes]:
    """Return message and attachment; raises ValueError for what is no message."""
    if len(body) < 4:
        raise ValueError("a message has no length")
    end = 4 + _LENGTH.unpack_from(body)[0]
    if end > len(body):
        raise ValueError("a message is cut off")
    try:
        value = json.loads(body[4:end])
    except RecursionError as exc:
        raise ValueError("a message is nested too deeply") from exc
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise ValueError("a message is no object with a type")  # noqa: TRY004 - callers refuse the record, whatever is wrong
    if body.count(b"[", 4, end) + body.count(b"{", 4, end) > MAX_DEPTH and _is_deep(value):
        raise ValueError("a message is nested too deeply")
    return value, body[end:]


def _is_deep(value: Any) -> bool:
    """Tell whether JSON is nested so deeply that those who walk through it might not come back."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for item in level
            if isinstance(item, (dict, list))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True


def messages(record: Record, kind: str) -> Iterator[dict[str, Any]]:
    """Yield the messages of a type in a record, or in the records of a group; what cannot be read is left out."""
    mark = b'"%s"' % kind.encode("ascii")
    if record.kind not in (MESSAGE, GROUP) or mark not in record.raw:
        return
    try:
        parts = list(records(record.body)) if record.kind == GROUP else [record]
    except ValueError:
        return
    for part in parts:
        try:
            message = parse_message(part.body)[0] if part.kind == MESSAGE else {}
        except ValueError:
            continue
        if message.get("type") == kind:
            yield message


def parse_shape(body: bytes) -> list[str]:
    """Return the names of a shape; raises ValueError for what is none."""
    try:
        names = json.loads(body)
    except RecursionError as exc:
        raise ValueError("a shape is nested too deeply") from exc
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("a shape is no list of names")
    return names


class Record:
    """One record as it lies in a segment or in a request. ``raw`` is all of it, header included, not aligned."""

    __slots__ = ("end", "kind", "number", "raw", "shape")

    def __init__(self, number: int, kind: int, shape: int, raw: bytes, end: int) -> None:
        self.number = number
        self.kind = kind
        self.shape = shape
        self.raw = raw
        self.end = end
        """Offset of the next record."""

    @property
    def body(self) -> bytes:
        """What follows the header."""
        return self.raw[RECORD_BYTES:]


def record_at(data: Any, offset: int, size: int) -> Record | None:
    """Return the whole, undamaged record at an offset of ``data`` (bytes or a map, of which ``size`` bytes count).

    None when there is none.
    """
    if offset + RECORD_BYTES > size:
        return None
    length, check, number, kind, shape = RECORD.unpack_from(data, offset)
    end = offset + RECORD_BYTES + length
    if end > size or kind not in KINDS or (not length and kind != GROUP):
        return None
    raw = bytes(data[offset:end])
    if zlib.crc32(memoryview(raw)[CHECKED_AT:]) != check:
        return None
    return Record(number, kind, shape, raw, aligned(end))


def records(data: bytes, offset: int = 0) -> Iterator[Record]:
    """Yield the records of a request or of the body of a group; raises ValueError for anything that is none."""
    size = len(data)
    while offset < size:
        found = record_at(data, offset, size)
        if found is None:
            raise ValueError("there is no whole record at byte %d" % offset)
        yield found
        offset = found.end


def join(parts: Sequence[bytes]) -> bytes:
    """Return records one after the other, aligned."""
    return b"".join([part if not len(part) & 7 else part + bytes(8 - (len(part) & 7)) for part in parts])


class Damage:
    """What a reader had to pass over."""

    def __init__(self) -> None:
        self.bytes = 0
        self.records = 0
        """As far as the numbers of the records around it tell."""


class StreamReader:
    """Reads the segments of one stream in order, while it is being written or afterwards.

    ``dead`` (settable): the writer is known to be gone, so what is not whole by now never will be.
    """

    def __init__(self, directory: str, stream: str, dead: bool = False) -> None:
        self.directory = directory
        self.stream = stream
        self.dead = dead
        self.damage = Damage()
        self.shapes: dict[int, bytes] = {}
        """The shape records seen so far, raw."""
        self.next = 0
        """Number of the record after the last one that was returned."""
        self.segment = 0
        self.lost: dict[int, int] = {}
        """By segment: records that the writer could not keep (disk full), as far as it has been read."""
        self._offset = 0
        self._opened = False

    def read(self) -> list[Record]:
        """Return the records that have come since, at most those of one segment; none when there are no more.

        Raises OSError when a segment cannot be read.
        """
        while True:
            found, left = self._read_segment()
            if found or not left:
                return found

    def path(self, segment: int) -> str:
        """Return the path of a segment."""
        return os.path.join(self.directory, segment_name(self.stream, segment))

    def skip_missing(self) -> None:
        """Go on with the first segment that is still there: those before it have been sent and removed."""
        while not os.path.exists(self.path(self.segment)):
            later = [number for number in self._numbers() if number > self.segment]
            if not later:
                return
            self.segment, self._offset, self._opened = min(later), 0, False
            self.next = max(self.next, first_of(self.path(self.segment)))

    def _numbers(self) -> list[int]:
        start = self.stream + "."
        names = os.listdir(self.directory)
        return [int(name[len(start) :]) for name in names if name.startswith(start) and name[len(start) :].isdigit()]

    def _read_segment(self) -> tuple[list[Record], bool]:
        """Return what is new in the current segment, and whether there was nothing and it was left for the next."""
        # Looked at before the content: once there is a later one, nothing is added to this one.
        over = os.path.exists(self.path(self.segment + 1))
        try:
            with open(self.path(self.segment), "rb") as file:
                if not self._opened:
                    self._open()
                self._count_lost(file)
                file.seek(self._offset)
                data = file.read(CHECK.size)
                if data[:4].strip(b"\0") or over or self.dead:
                    data += file.read()
                else:
                    return [], False
        except FileNotFoundError:
            return [], False
        found = self._parse(data, over or self.dead)
        if not found and over:
            self.segment, self._offset, self._opened = self.segment + 1, 0, False
            return [], True
        return found, False

    def _open(self) -> None:
        """Begin with a segment; a damaged header costs no records."""
        self._opened = True
        self._offset = HEADER_BYTES
        self.shapes = {}

    def _count_lost(self, file: Any) -> None:
        file.seek(LOST_AT)
        field = file.read(LOST.size)
        if len(field) == LOST.size:
            (lost,) = LOST.unpack(field)
            if 0 < lost < 1 << 40:
                self.lost[self.segment] = lost

    def _parse(self, data: bytes, final: bool) -> list[Record]:
        """Return the records in ``data``. ``final``: what is not whole by now never will be, so look behind it."""
        found: list[Record] = []
        offset, size = 0, len(data)
        written = len(data.rstrip(b"\0")) if final else 0  # most of a segment is still empty
        while True:
            item = record_at(data, offset, size)
            if item is None:
                after = _next_record(data, offset + 8, written, size) if final else None
                if after is None:
                    if final:
                        # Without length and CRC it is what its writer was killed over: nobody was told that it is there.
                        torn = data[offset : offset + CHECKED_AT] == bytes(CHECKED_AT)
                        self.damage.bytes += 0 if torn else max(0, written - offset)
                        offset = aligned(size)
                    break
                self.damage.bytes += after - offset
                offset = after
                continue
            offset = item.end
            if item.kind == SHAPE:
                self.shapes[item.shape] = item.raw
            if item.number >= self.next:
                self.damage.records += item.number - self.next
                self.next = item.number + 1
                found.append(item)
        self._offset += offset
        return found


def _next_record(data: bytes, offset: int, written: int, size: int) -> int | None:
    """Return the offset of the next whole record that starts before ``written``; None when there is none."""
    while offset < written:
        if data[offset : offset + 4] != b"\0\0\0\0" and record_at(data, offset, size) is not None:
            return offset
        offset += 8
    return None


def first_of(path: str) -> int:
    """Return the number of the first record of a segment; 0 when it does not say."""
    try:
        with open(path, "rb") as file:
            start = file.read(HEADER.size)
    except FileNotFoundError:
        return 0
    if len(start) < HEADER.size:
        return 0
    magic, _, _, first, check = HEADER.unpack(start)
    return int(first) if magic == MAGIC and zlib.crc32(start[:28]) == check else 0


def lost_without_segment(directory: str) -> dict[str, int]:
    """Return how many records streams have lost while they had no segment; only of those that have."""
    found = {}
    for name in os.listdir(directory):
        if name.endswith(LOST_FILE):
            found[name[: -len(LOST_FILE)]] = os.stat(os.path.join(directory, name)).st_size
    return found


def streams(directory: str) -> list[str]:
    """Return the ids of the streams in a spool directory; none when it does not exist."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    found = {name[:16] for name in names if len(name) == 22 and name[16] == "." and name[17:].isdigit()}
    return sorted(name for name in found if all(char in "0123456789abcdef" for char in name))
