"""Reading what is new in a file that another process writes, and noticing when it was written anew."""

from __future__ import annotations

import os
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GUARD_BYTES = 64
"""So much of the start, and of the last that was read, is kept to know the file again."""
SETTLED_NS = 1_000_000_000
"""A file whose time is older than this has another time when it changes again."""


class Tail:
    """The position in one file. ``offset``: how much of it has been read; ``size``, ``mtime_us``: as of the last `open`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.offset = 0
        self.size = 0
        self.mtime_us = 0
        self._head = b""
        self._last = b""
        self._seen: tuple[int, int, int] | None = None

    def open(self, again: bool = False) -> int | None:
        """Return a descriptor when there may be something new; None when not, or when there is no such regular file.

        Links are not followed, and nothing is waited for. ``again``: also when nothing seems to have changed.
        Raises OSError when the file cannot be read.
        """
        try:
            info = os.lstat(self.path)
            if not stat.S_ISREG(info.st_mode):
                return None
            now = (info.st_ino, info.st_size, info.st_mtime_ns)
            if now == self._seen and not again:
                return None
            self._seen = now  # what cannot be opened is not tried again before it has changed
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open(self.path, flags)
        except (FileNotFoundError, NotADirectoryError):
            return None
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            os.close(fd)
            return None
        self.size, self.mtime_us = info.st_size, info.st_mtime_ns // 1000
        settled = info.st_mtime_ns < time.time_ns() - SETTLED_NS
        self._seen = (info.st_ino, info.st_size, info.st_mtime_ns) if settled else None
        return fd

    def unsettle(self) -> None:
        """Have the next `open` look again: not everything was read."""
        self._seen = None

    def is_same(self, fd: int) -> bool:
        """Tell whether what was read is still there, unchanged as far as its first and last bytes tell."""
        return self._begins_same(fd) and (
            self.size >= self.offset
            and os.pread(fd, len(self._last), self.offset - len(self._last)) == self._last
        )  # fmt: skip

    def _begins_same(self, fd: int) -> bool:
        return os.pread(fd, len(self._head), 0) == self._head

    def is_cut(self, fd: int) -> bool:
        """Tell whether it is the same file, but shorter than what was read of it."""
        return len(self._head) <= self.size < self.offset and self._begins_same(fd)

    def read(self, fd: int, size: int) -> bytes:
        """Return up to ``size`` bytes from the position on; the position stays."""
        return os.pread(fd, size, self.offset)

    def advance(self, data: bytes) -> None:
        """Move the position over what was just read there."""
        if len(self._head) < GUARD_BYTES and self.offset == len(self._head):
            self._head += data[: GUARD_BYTES - len(self._head)]
        self._last = (self._last + data[-GUARD_BYTES:])[-GUARD_BYTES:]
        self.offset += len(data)

    def jump(self, offset: int) -> None:
        """Move the position without having read what is before it."""
        self.offset = offset
        self._last = b""
        if not offset:
            self._head = b""

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON."""
        return {"offset": self.offset, "head": self._head.decode("latin-1"), "last": self._last.decode("latin-1")}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken; raises KeyError, TypeError, ValueError for what is none."""
        self.offset = int(state["offset"])
        self._head = str(state["head"]).encode("latin-1")
        self._last = str(state["last"]).encode("latin-1")
        self._seen = None
