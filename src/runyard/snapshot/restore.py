"""Getting frozen code back: as a tar stream for agents, or in a directory."""

from __future__ import annotations

import io

from runyard.snapshot.repository import Repository
from runyard.wire import tree
from runyard.wire.gitobjects import EMPTY_TREE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

CHUNK = 1 << 18
"""Bytes of one piece of an archive."""
_EMPTY_TAR = b"\0" * 10240


def archive(home: str, tree_name: str) -> Iterator[bytes]:
    """Yield a tree as an uncompressed tar (pax), in pieces; nothing is removed from the repository meanwhile.

    Raises `NotFoundError` at once when the tree is not kept, `SnapshotError` while reading when it is damaged.
    """
    repository = Repository(home)
    repository.require(tree_name)
    return _archive(repository, tree_name)


def _archive(repository: Repository, tree_name: str) -> Iterator[bytes]:
    if tree_name == EMPTY_TREE:
        yield _EMPTY_TAR
        return
    with repository.lock():
        repository.require(tree_name)
        with repository.git(["archive", "--format=tar", tree_name]) as git:
            yield from git.chunks(CHUNK)
            if git.wait() != 0:
                raise git.failure()


class ArchiveStream(io.RawIOBase):
    """An archive as a raw file to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Stop git if it still runs."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
        super().close()

    def readinto(self, buffer: Buffer) -> int:
        """Fill a buffer with what comes next; 0 at the end."""
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def open_archive(home: str, tree_name: str) -> io.BufferedReader:
    """Return a tree's archive as a file object, for `runyard.wire.tree.fill`."""
    return io.BufferedReader(ArchiveStream(archive(home, tree_name)), CHUNK)


def checkout(home: str, tree_name: str, directory: str, commit: str | None = None, branch: str | None = None) -> int:
    """Write the exact code into a directory that is missing or empty; return the number of files.

    With ``commit``, git answers it there as HEAD. Raises `SnapshotError` for a directory that is not empty, and when
    what was written is not the tree.
    """
    return tree.fill(open_archive(home, tree_name), directory, tree_name, commit, branch)
