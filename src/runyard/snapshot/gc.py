"""Removing code that no run needs any more."""

from __future__ import annotations

import os
import time

from runyard.snapshot.repository import Repository
from runyard.wire.errors import SnapshotError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

GRACE_S = 86400.0
"""A tree that was frozen less than this long ago stays: its run may not be in the database yet."""

_USERS_BUSINESS = ("gitmodulesName", "gitmodulesParse", "gitmodulesSymlink", "gitmodulesUrl")
"""What git fsck dislikes in a ``.gitmodules`` is no damage: the file is kept as it was."""


class Swept:
    """What `gc` did: trees removed, trees kept, bytes on disk before and after."""

    def __init__(self, removed: list[str], kept: int, before: int, after: int) -> None:
        self.removed = removed
        self.kept = kept
        self.before = before
        self.after = after


def gc(home: str, live_trees: Iterable[str], grace_s: float = GRACE_S, now: float | None = None) -> Swept:
    """Remove all trees but the live and the young ones, pack what stays, and drop the rest.

    Waits until nobody freezes or reads, and keeps them waiting. Raises `SnapshotError` when git fails; then nothing
    that a ref names is lost.
    """
    repository = Repository(home)
    if not os.path.isdir(repository.refs):
        return Swept([], 0, 0, 0)
    with repository.lock(exclusive=True):
        before = size_of(repository.path)
        dead = removable(repository, live_trees, grace_s, now)
        for tree in dead:
            os.unlink(os.path.join(repository.refs, tree))
        _remove_leftovers(repository)
        for args in (["repack", "-a", "-d", "-q"], ["prune", "--expire=now"]):
            with repository.git(args) as git:
                git.output()
        return Swept(dead, len(repository.trees()), before, size_of(repository.path))


def would_free(
    home: str, live_trees: Iterable[str], grace_s: float = GRACE_S, now: float | None = None
) -> tuple[int, int]:
    """Return how many trees `gc` would remove, and the bytes on disk that only they use."""
    repository = Repository(home)
    if not os.path.isdir(repository.refs):
        return 0, 0
    with repository.lock():
        dead = removable(repository, live_trees, grace_s, now)
        if not dead:
            return 0, 0
        kept = sorted(set(repository.trees()) - set(dead))
        lines = ["refs/trees/" + tree for tree in dead] + ["^refs/trees/" + tree for tree in kept]
        text = "".join(line + "\n" for line in lines).encode("ascii")
        with repository.git(["rev-list", "--objects", "--disk-usage", "--stdin"], text) as git:
            return len(dead), int(git.output())


def removable(repository: Repository, live_trees: Iterable[str], grace_s: float, now: float | None) -> list[str]:
    """Return the trees that no run needs and that nobody froze within the grace time."""
    live = set(live_trees)
    limit = (time.time() if now is None else now) - grace_s
    return sorted(
        tree
        for tree in repository.trees()
        if tree not in live and os.stat(os.path.join(repository.refs, tree)).st_mtime < limit
    )


def _remove_leftovers(repository: Repository) -> None:
    """Remove what killed processes left; with the exclusive lock held nobody is writing."""
    for name in os.listdir(repository.cache):
        path = os.path.join(repository.cache, name)
        with open(path, "rb") as file:
            if not repository.has(file.read(40).decode("ascii", "replace")):
                os.unlink(path)
    for directory, prefix in ((repository.path, "tmp_ref_"), (repository.objects, "tmp_obj_")):
        for name in os.listdir(directory):
            if name.startswith(prefix):
                os.unlink(os.path.join(directory, name))


def check(home: str) -> None:
    """Verify every object of every kept tree (git fsck); raises `SnapshotError` naming what is damaged."""
    repository = Repository(home)
    args = [word for name in _USERS_BUSINESS for word in ("-c", "fsck.%s=ignore" % name)]
    args += ["fsck", "--full", "--no-dangling", "--no-progress"]
    with repository.lock(), repository.git(args) as git:
        said = b"".join(git.chunks())
        if git.wait() != 0:
            raise SnapshotError(
                "%s is damaged: %s" % (repository.path, git.errors() or said.decode("utf-8", "replace")[:500]),
                "restore it from a backup",
            )


def size_of(path: str) -> int:
    """Return the bytes on disk of all files below a directory."""
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
