r"""Git's object format: the names of blobs and trees, worked out without git.

Source: gitformat-pack(5), git-hash-object(1), git-mktree(1). A blob is named by the SHA-1 of ``blob <size>\0<bytes>``,
a tree by that of ``tree <size>\0`` and its entries ``<octal mode> <name>\0<20 bytes>``, sorted as if the names of
directories ended in ``/``. Paths are bytes, relative, with ``/`` between the parts.
"""

from __future__ import annotations

import hashlib
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FILE, EXECUTABLE, SYMLINK, DIRECTORY = 0o100644, 0o100755, 0o120000, 0o040000
"""The modes of tree entries that a snapshot has."""
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_CHUNK = 1 << 20


class Entry:
    """One file or symlink of a tree: path (bytes), mode (`FILE`, `EXECUTABLE`, `SYMLINK`), oid (40 hex digits)."""

    __slots__ = ("mode", "oid", "path")

    def __init__(self, path: bytes, mode: int, oid: str) -> None:
        self.path = path
        self.mode = mode
        self.oid = oid


def new_digest(data: bytes) -> hashlib._Hash:
    """Return a SHA-1 that has taken in ``data``; git's names are no matter of security, so FIPS mode allows it."""
    try:
        return hashlib.sha1(data, usedforsecurity=False)  # novermin
    except TypeError:  # Python 3.8
        return hashlib.sha1(data)


def object_id(kind: bytes, data: bytes) -> str:
    """Return the name of an object: kind is ``b"blob"``, ``b"tree"`` or ``b"commit"``."""
    digest = new_digest(b"%s %d\0" % (kind, len(data)))
    digest.update(data)
    return digest.hexdigest()


def file_id(path: bytes) -> str:
    """Return the blob name of a regular file's bytes; raises OSError, also for a symlink."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        digest = new_digest(b"blob %d\0" % os.fstat(fd).st_size)
        chunk = os.read(fd, _CHUNK)
        while chunk:
            digest.update(chunk)
            chunk = os.read(fd, _CHUNK)
    finally:
        os.close(fd)
    return digest.hexdigest()


def mode_of(st_mode: int) -> int:
    """Return the tree mode of what ``lstat`` says: 0 for anything but regular files and symlinks."""
    kind = st_mode & 0o170000
    if kind == 0o100000:
        return EXECUTABLE if st_mode & 0o100 else FILE
    return SYMLINK if kind == 0o120000 else 0


def tree_id(entries: Iterable[Entry], emit: Callable[[bytes, str], object] | None = None) -> str:
    """Return the name of the tree that holds these entries.

    ``emit(data, oid)`` is called for each tree object, innermost first. Raises ValueError when one path is a file and
    a directory at once.
    """
    root: dict[bytes, object] = {}
    for entry in entries:
        node = root
        *parents, name = entry.path.split(b"/")
        for part in parents:
            child = node.setdefault(part, {})
            if not isinstance(child, dict):
                raise ValueError(  # noqa: TRY004 - a clash of values
                    "both a file and a directory: %r" % entry.path
                )
            node = child
        if name in node:
            raise ValueError("twice in one tree: %r" % entry.path)
        node[name] = entry
    return _tree(root, emit)


def _tree(node: dict[bytes, object], emit: Callable[[bytes, str], object] | None) -> str:
    rows = []
    for name, child in node.items():
        if isinstance(child, Entry):
            rows.append((name, b"%o %s\0" % (child.mode, name) + bytes.fromhex(child.oid)))
        elif isinstance(child, dict):
            rows.append((name + b"/", b"40000 %s\0" % name + bytes.fromhex(_tree(child, emit))))
    rows.sort()
    data = b"".join(row for _, row in rows)
    oid = object_id(b"tree", data)
    if emit is not None:
        emit(data, oid)
    return oid
