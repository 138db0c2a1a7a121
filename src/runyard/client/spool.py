"""Writing the spool (docs/spool.md): no network, no lock of other processes, nothing that a full disk can break.

A row costs a few microseconds and no system call: it is packed into memory that is mapped from a file, so it survives
the death of the process at any instruction.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import threading
import time
import zlib

from runyard.wire import paths, spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Row = tuple[dict[str, Any], int, int]
    """Numbers by name, step, time in microseconds (0: now)."""
    Message = tuple[dict[str, Any], bytes]
    """A message and its attachment."""

COPY_ON_WRITE = frozenset("btrfs zfs bcachefs overlay fuse.fuse-overlayfs".split())
"""There the blocks that `posix_fallocate` reserves are not those that will be written."""
RETRY_S = 1.0
"""How long after a full disk the next segment is tried."""


class SpoolWriter:
    """Writes one stream. Thread-safe, and safe to call from a signal handler that interrupted a call.

    ``process``: the first message of the stream. ``warn``: called once, with a sentence, when something cannot be kept.
    ``begin``: called with this writer when a later segment begins, to say again what each segment must hold.
    """

    def __init__(
        self,
        directory: str,
        process: dict[str, Any],
        warn: Callable[[str], None],
        begin: Callable[[SpoolWriter], None] | None = None,
    ) -> None:
        self.directory = directory
        self.stream = os.urandom(8).hex()
        self.lost = 0
        """Records that could not be kept."""
        self._process = process
        self._warn: Callable[[str], None] | None = warn
        self._begin = begin
        self._lock = threading.RLock()
        self._busy = False
        self._waiting: list[tuple[int, Any]] = []
        self._shapes: dict[tuple[str, ...], tuple[int, Callable[..., bytes], int]] = {}
        self._shape_count = 0
        self._map: mmap.mmap | None = None
        self._fd = -1
        self._offset = self._size = 0
        self._segment = -1
        self._number = self._first = 0
        """Of the next record, and of the first one of the segment."""
        self._introduced = False
        """The first message of the stream is there."""
        self._segment_lost = self._lost_without = 0
        """Records lost since the segment was begun, which its header says, and while there was none."""
        self._try_at = 0.0

    def row(self, values: dict[str, Any], step: int, at: int = 0) -> None:
        """Write numbers by name, all at one step. ``at``: microseconds since 1970 UTC; now, if 0.

        Raises:
            struct.error, TypeError, ValueError, OverflowError: a name is no text, a value no number, or the step no
                64-bit whole number. Nothing is written then.
        """
        with self._lock:
            if self._busy:
                self._waiting.append((spool.ROW, (dict(values), step, at or time.time_ns() // 1000)))
                return
            area, fd, offset, number = self._map, self._fd, self._offset, self._number
            try:
                self._busy = True
                known = self._shapes.get(tuple(values))
                if known is None:
                    self._slow_row(values, step, at)
                else:
                    shape, pack, size = known
                    end = offset + size
                    if area is None or end > self._size:
                        self._slow_row(values, step, at)
                    else:
                        checked = pack(number, spool.ROW, shape, at or time.time_ns() // 1000, step, *values.values())
                        area[offset + 8 : end] = checked
                        area[offset : offset + 8] = _CHECK(size - 24, _crc(checked))
                        self._offset = end
                        self._number = number + 1
                self._busy = False  # here and not in a `finally`, which an exception could find just begun
            except BaseException:
                self._busy = False
                self._settle(fd, offset, number)
                raise
            if self._waiting:
                self._drain()

    def message(self, message: dict[str, Any], attachment: bytes = b"") -> None:
        """Write a message, ``type`` and its fields; ``at`` is added.

        Raises:
            TypeError, ValueError: it is no JSON, or is too large.
        """
        self._put(spool.MESSAGE, spool.message_body(_timed(message), attachment))

    def group(self, rows: Sequence[Row], messages: Sequence[Message]) -> None:
        """Write rows and messages that are taken in together or not at all; raises as `row` and `message` do."""
        shapes: dict[tuple[str, ...], int] = {}
        parts = []
        for values, step, at in rows:
            names = tuple(values)
            if names not in shapes:
                shapes[names] = len(shapes)
                parts.append(spool.record(0, spool.SHAPE, shapes[names], _shape_body(names)))
            body = _packer(len(names))(0, 0, 0, at or time.time_ns() // 1000, step, *values.values())[16:]
            parts.append(spool.record(0, spool.ROW, shapes[names], body))
        for message, attachment in messages:
            parts.append(spool.record(0, spool.MESSAGE, 0, spool.message_body(_timed(message), attachment)))
        if parts:
            self._put(spool.GROUP, spool.join(parts))

    def close(self) -> None:
        """Cut the last segment to what is used. What is written later begins a new one."""
        with self._lock:
            if self._busy:
                return
            self._drain()
            self._end_segment()

    def forget(self) -> None:
        """Let go of everything without touching the file: after a fork, in the child, it is the parent's."""
        self._map = None
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    # -- with the lock held

    def _slow_row(self, values: dict[str, Any], step: int, at: int) -> None:
        names = tuple(values)
        if not all(isinstance(name, str) for name in names):
            raise TypeError("names of metrics are text")
        numbers = tuple(values.values())  # once: it may be code of the program, and log
        if any(getattr(value, "requires_grad", False) for value in numbers):
            raise TypeError("tensors that are part of a graph warn when they are made a number")
        body = _packer(len(names))(0, 0, 0, at or time.time_ns() // 1000, step, *numbers)[16:]
        known = self._shapes.get(names)
        size = spool.aligned(spool.RECORD_BYTES + len(body))
        if known is None or self._offset + size > self._size:
            said = _shape_body(names)
            if not self._room(size + spool.aligned(spool.RECORD_BYTES + len(said))):
                return
            known = self._shapes.get(names)
            if known is None:
                known = (self._shape_count, _packer(len(names)), size)
                if not self._write(spool.SHAPE, known[0], said):
                    return
                self._shape_count += 1
                self._shapes[names] = known
        elif not self._room(size):
            return
        self._write(spool.ROW, known[0], body)

    def _put(self, kind: int, body: bytes) -> None:
        if len(body) > spool.MAX_RECORD:
            raise ValueError("%d bytes are more than one record can hold (%d)" % (len(body), spool.MAX_RECORD))
        with self._lock:
            if self._busy:
                self._waiting.append((kind, body))
                return
            fd, offset, number = self._fd, self._offset, self._number
            try:
                self._busy = True
                if self._room(spool.aligned(spool.RECORD_BYTES + len(body))):
                    self._write(kind, 0, body)
                self._busy = False
            except BaseException:
                self._busy = False
                self._settle(fd, offset, number)
                raise
            self._drain()

    def _drain(self) -> None:
        """Write what was put off because a call was in progress."""
        while self._waiting:
            kind, value = self._waiting.pop(0)
            if kind == spool.ROW:
                self.row(*value)
            else:
                self._put(kind, value)

    def _settle(self, fd: int, offset: int, number: int) -> None:
        """After an exception in the middle of a call: records that are whole count, whoever may have read them.

        ``fd, offset, number``: where the call began.
        """
        if self._fd < 0:
            return
        if self._fd != fd:  # a segment was begun meanwhile
            offset, number = spool.HEADER_BYTES, self._first
        found: Any = self._map
        if found is None:
            found = bytes(offset) + os.pread(self._fd, max(0, self._size - offset), offset)
        while True:
            record = spool.record_at(found, offset, len(found))
            if record is None or record.number != number:
                break
            offset, number = record.end, number + 1
        self._offset, self._number = offset, number

    def _write(self, kind: int, shape: int, body: bytes) -> bool:
        """Write a record for which there is room; False when the disk has none."""
        raw = spool.record(self._number, kind, shape, body)
        end = self._offset + spool.aligned(len(raw))
        if self._map is not None:
            self._map[self._offset + 8 : self._offset + len(raw)] = raw[8:]
            self._map[self._offset : self._offset + 8] = raw[:8]
        else:
            try:
                _write_all(self._fd, raw.ljust(end - self._offset, b"\0"), self._offset)
            except OSError as exc:
                self._lose(exc)
                return False
        self._offset = end
        self._number += 1
        return True

    def _room(self, size: int) -> bool:
        """Make sure that a record of that size fits; False when it cannot be kept."""
        if self._offset + size <= self._size and self._fd >= 0:
            return True
        if self._try_at and time.monotonic() < self._try_at:
            self._lose(None)
            return False
        return self._open_segment(size)

    def _open_segment(self, size: int) -> bool:
        """Begin a segment; False when the disk is full. It has its name once it is whole, and ends the one before."""
        usual = spool.SEGMENT_BYTES if self._segment >= 0 else min(spool.FIRST_BYTES, spool.SEGMENT_BYTES)
        wanted = max(usual, spool.HEADER_BYTES + size + 4096)
        path = os.path.join(self.directory, spool.segment_name(self.stream, self._segment + 1))
        self._first = self._number
        fd = -1
        try:
            os.makedirs(self.directory, exist_ok=True)
            fd = os.open(path + ".new", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            area = _map(fd, wanted, self.directory)
            start = spool.header(self.stream, self._segment + 1, self._number)
            if area is None:
                _write_all(fd, start, 0)
            else:
                area[: len(start)] = start
            os.rename(path + ".new", path)
        except BaseException as exc:
            if fd >= 0:
                os.close(fd)
                try:
                    os.unlink(path + ".new")
                except OSError:
                    pass
            if not isinstance(exc, OSError):
                self._size = 0  # it may have its name already, and what a reader takes for ended must not be written on
                raise
            self._lose(exc)
            return False
        try:
            self._end_segment()
            self._segment += 1
            self._map, self._fd, self._offset, self._size = area, fd, spool.HEADER_BYTES, wanted
            self._segment_lost = 0
            self._try_at = 0.0
            self._shapes.clear()
            self._begin_segment()
        except BaseException:
            self._map, self._fd, self._size = area, fd, wanted
            self._settle(-1, 0, 0)
            self._size = 0  # so that another one is begun
            raise
        return self._offset + size <= self._size or self._open_segment(size)

    def _begin_segment(self) -> None:
        if not self._introduced:
            self._introduced = self._write(spool.MESSAGE, 0, spool.message_body(_timed(self._process)))
        elif self._begin is not None:
            self._begin(self)

    def _end_segment(self) -> None:
        if self._fd < 0:
            return
        # A few zeros stay: cutting may wait for the disk.
        cut = self._map is None or not self._size or self._size - self._offset >= spool.FIRST_BYTES
        if self._map is not None:
            self._map.close()
            self._map = None
        fd, self._fd, self._size = self._fd, -1, 0
        try:
            if cut:
                os.ftruncate(fd, self._offset)
        except OSError:
            pass  # it stays longer than needed; zeros end it
        os.close(fd)

    def _lose(self, exc: OSError | None) -> None:
        self.lost += 1
        self._try_at = time.monotonic() + RETRY_S
        try:
            if self._fd < 0:
                self._lost_without += 1
                _set_length(os.path.join(self.directory, self.stream + spool.LOST_FILE), self._lost_without)
            else:
                self._segment_lost += 1
                os.pwrite(self._fd, spool.LOST.pack(self._segment_lost), spool.LOST_AT)
        except OSError:
            pass
        if self._warn is not None and exc is not None:
            warn, self._warn = self._warn, None
            warn("%s; what is logged now is lost, and counted, until there is room" % (exc.strerror or exc))


_CHECK = spool.CHECK.pack
_crc = zlib.crc32


def _packer(count: int) -> Callable[..., bytes]:
    """Return what packs the checked part of a row: number, kind, shape, time, step and ``count`` values."""
    return struct.Struct("<QIIqq%dd" % count).pack


def _shape_body(names: Sequence[str]) -> bytes:
    return json.dumps(list(names), separators=(",", ":")).encode("ascii")


def _timed(message: dict[str, Any]) -> dict[str, Any]:
    return message if "at" in message else dict(message, at=time.time_ns() // 1000)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _set_length(path: str, length: int) -> None:
    """Make a file as long as that, without a byte in it: on a full disk there may still be room for its name."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, length)
    finally:
        os.close(fd)


def _map(fd: int, size: int, directory: str) -> mmap.mmap | None:
    """Reserve and map a segment; None where that is not safe. Raises OSError when the disk is full."""
    if not hasattr(os, "posix_fallocate"):
        return None  # macOS
    kind = paths.file_system(directory)
    if kind in COPY_ON_WRITE or kind in paths.NETWORK_FILE_SYSTEMS or not kind:
        return None
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as exc:
        import errno

        if exc.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.ESPIPE):
            return None
        raise
    return mmap.mmap(fd, size)
