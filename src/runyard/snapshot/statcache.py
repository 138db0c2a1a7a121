"""What each file of a working tree was when it was last frozen, so that only changed files are read again.

One file per top directory in the yard's repository, replaced as a whole, so several submits at once are harmless. It
may be used only while the ref of its tree exists: then every object that it names is there.
"""

from __future__ import annotations

import hashlib
import os

from runyard.wire.files import write_atomic
from runyard.wire.gitobjects import mode_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

UNSURE = b"-"
_COARSE_NS = 2_000_000_000
_FINE_NS = 50_000_000


class StatCache:
    """The last frozen state of one top directory: ``tree`` ("" when unknown) and ``files``: path → (stat key, oid)."""

    def __init__(self, directory: str, top: bytes) -> None:
        self.path = os.path.join(directory, hashlib.sha256(top).hexdigest())
        self.tree = ""
        self.files: dict[bytes, tuple[bytes, bytes]] = {}

    def load(self) -> StatCache:
        """Read the file; a missing or damaged one leaves the cache empty."""
        try:
            with open(self.path, "rb") as file:
                data = file.read()
        except OSError:
            return self
        head, *rows = data.split(b"\0")
        if len(head) != 40 or not data.endswith(b"\0end\0"):
            return self
        self.tree = head.decode("ascii", "replace")
        try:
            for row in rows[:-2]:
                key, oid, path = row.split(b" ", 2)
                self.files[path] = (key, oid)
        except ValueError:
            self.clear()
        return self

    def clear(self) -> None:
        """Forget everything."""
        self.tree = ""
        self.files = {}

    def save(self, tree: str, files: Iterable[tuple[bytes, bytes, str]]) -> None:
        """Replace the file: the tree, and (path, stat key, oid) of each entry."""
        rows = [b"%s %s %s\0" % (key, oid.encode("ascii"), path) for path, key, oid in files]
        temporary = "%s.%s" % (self.path, os.urandom(6).hex())
        write_atomic(temporary, tree.encode("ascii") + b"\0" + b"".join(rows) + b"end\0")
        os.rename(temporary, self.path)


def stat_key(st: os.stat_result) -> bytes:
    """Return what must stay the same for a file to count as unread: mode, size, both times, inode."""
    return b"%o:%d:%d:%d:%d" % (mode_of(st.st_mode), st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino)


def settled_key(st: os.stat_result, now_ns: int) -> bytes:
    """Return the stat key, or `UNSURE` when the file is so young that it could change again within one clock tick."""
    latest = max(st.st_mtime_ns, st.st_ctime_ns)
    tick = _COARSE_NS if st.st_ctime_ns % 1_000_000 == 0 else _FINE_NS
    return stat_key(st) if latest < now_ns - tick else UNSURE
