"""What differs between two frozen trees, as text and as a list of names."""

from __future__ import annotations

from runyard.snapshot.repository import Repository
from runyard.wire.errors import SnapshotError
from runyard.wire.gitobjects import EMPTY_TREE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

EMPTY_DIFF = b""
_OPTIONS = ("--no-color", "--no-ext-diff", "--no-textconv", "--full-index")


class Change:
    """One differing file: path, kind (``added``, ``deleted``, ``changed``, ``mode``), lines added and removed.

    The line counts are None for a binary file.
    """

    __slots__ = ("added", "kind", "path", "removed")

    def __init__(self, path: str, kind: str, added: int | None, removed: int | None) -> None:
        self.path = path
        self.kind = kind
        self.added = added
        self.removed = removed

    @property
    def binary(self) -> bool:
        """Tell whether git takes the file for binary."""
        return self.added is None


def diff(home: str, old: str, new: str, paths: Sequence[str] = (), place: str = "") -> bytes:
    """Return the unified diff of two trees (renames found; binary files only named), empty when they are equal.

    ``paths``: limit it to these files or directories of the tree; ``place``: put before the names of files, for a
    tree beside the code (``../lib/``). Raises `NotFoundError` for a tree that is not kept.
    """
    if old == new:
        return EMPTY_DIFF
    repository = _both(home, old, new)
    limit = [":(literal)" + path for path in paths]
    options = [*_OPTIONS, "--src-prefix=a/" + place, "--dst-prefix=b/" + place]
    with repository.lock(), repository.git(["diff-tree", "-r", "-p", "-M", *options, old, new, "--", *limit]) as git:
        return git.output()


def changes(home: str, old: str, new: str, place: str = "") -> list[Change]:
    """Return the files in which two trees differ, sorted by path; a renamed file is one deleted and one added."""
    if old == new:
        return []
    repository = _both(home, old, new)
    with (
        repository.lock(),
        repository.git(["diff-tree", "-r", "-z", "--raw", "--numstat", "--no-renames", old, new]) as git,
    ):
        return _parse(git.output(), place)


def _both(home: str, old: str, new: str) -> Repository:
    repository = Repository(home)
    for tree in (old, new):
        if tree != EMPTY_TREE:  # git knows that one by itself
            repository.require(tree)
    return repository


def _parse(data: bytes, place: str) -> list[Change]:
    """Parse ``diff-tree -z --raw --numstat``: raw records (``:modes oids letter`` NUL path), then counts."""
    kinds: dict[bytes, str] = {}
    found = []
    fields = iter(data.split(b"\0")[:-1])
    for field in fields:
        if field.startswith(b":"):
            _, _, before, after, letter = field.split(b" ")
            known = {b"A": "added", b"D": "deleted"}.get(letter[:1])
            kinds[next(fields)] = known or ("mode" if before == after else "changed")
            continue
        added, removed, path = field.split(b"\t", 2)
        name = place + path.decode("utf-8", "surrogateescape")
        if path not in kinds:
            raise SnapshotError("git named %r twice" % name)
        binary = added == b"-"
        found.append(Change(name, kinds[path], None if binary else int(added), None if binary else int(removed)))
    return sorted(found, key=lambda change: change.path)
