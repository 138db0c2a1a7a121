"""Writing a run's log: raw bytes, and beside them an index of when they came."""

from __future__ import annotations

import errno
import os
import time

from runyard.wire.logs import TIME_RECORD

INDEX_US = 100_000
INDEX_BYTES = 64 * 1024
"""A read gets a record when it comes this much later, or further on, than the last record."""


class Recorder:
    """Appends to the log and its time index. A disk that takes nothing more costs bytes, which are counted, never time.

    ``size`` is the length of the log in bytes, ``dropped`` the bytes that could not be written. A file that cannot be
    opened is tried again with the next bytes.
    """

    def __init__(self, log: str, times: str) -> None:
        self.size = 0
        self.dropped = 0
        self._log_path = log
        self._times_path = times
        self._log = -1
        self._times = -1
        self._records = 0
        self._last_time = 0
        self._last_offset = 0
        self._open()

    def write(self, data: bytes) -> None:
        """Append what one read returned."""
        if self._log < 0 and not self._open():
            self.dropped += len(data)
            return
        self._index(time.time_ns() // 1000)
        view = memoryview(data)
        while view:
            try:
                written = os.write(self._log, view)
            except OSError:
                self.dropped += len(view)
                return
            self.size += written
            view = view[written:]

    def close(self) -> None:
        """Close both files."""
        for fd in (self._log, self._times):
            if fd >= 0:
                try:
                    os.close(fd)
                except OSError as exc:
                    # Network file systems report a full disk here; the bytes are not recoverable either way.
                    if exc.errno == errno.EBADF:
                        raise
        self._log = self._times = -1

    def _open(self) -> bool:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        try:
            self._log = os.open(self._log_path, flags | os.O_APPEND, 0o644)
            self.size = os.fstat(self._log).st_size
        except OSError:
            return False
        try:
            self._times = os.open(self._times_path, flags, 0o644)
            self._records = os.fstat(self._times).st_size // TIME_RECORD.size
        except OSError:
            self._times = -1
        return True

    def _index(self, now_us: int) -> None:
        """Note when the bytes at the present end of the log came, unless the last record is near enough."""
        near = abs(now_us - self._last_time) < INDEX_US and self.size - self._last_offset < INDEX_BYTES
        if self._times < 0 or near:
            return
        try:
            # At its place, not appended: half a record left by a full disk is overwritten by the next.
            written = os.pwrite(self._times, TIME_RECORD.pack(self.size, now_us), self._records * TIME_RECORD.size)
        except OSError:
            return
        if written == TIME_RECORD.size:
            self._records += 1
            self._last_time, self._last_offset = now_us, self.size
