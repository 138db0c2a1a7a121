"""What the tests of snapshots look trees up with, apart from the code that they test."""

from __future__ import annotations

import os

from runyard.snapshot.repository import Repository
from runyard.wire import gitobjects
from runyard.wire.gitobjects import SYMLINK, Entry


def verify(directory: str) -> str:
    """Return the tree that the files and symlinks of a directory make (``.git`` and empty directories apart)."""
    top = os.fsencode(directory)
    entries: list[Entry] = []
    _hash_into(top, b"", entries)
    return gitobjects.tree_id(entries)


def _hash_into(top: bytes, below: bytes, entries: list[Entry]) -> None:
    with os.scandir(os.path.join(top, below)) as items:
        for item in items:
            path = os.path.join(below, item.name)
            if item.is_dir(follow_symlinks=False):
                if item.name != b".git":
                    _hash_into(top, path, entries)
                continue
            mode = gitobjects.mode_of(item.stat(follow_symlinks=False).st_mode)
            if mode == SYMLINK:
                entries.append(Entry(path, mode, gitobjects.object_id(b"blob", os.readlink(item.path))))
            elif mode:
                entries.append(Entry(path, mode, gitobjects.file_id(item.path)))


def files_of(home: str, tree_name: str) -> list[Entry]:
    """Return the files of a tree, in git's order. Raises `NotFoundError` when it is not kept."""
    repository = Repository(home)
    repository.require(tree_name)
    with repository.lock(), repository.git(["ls-tree", "-r", "-z", "--full-tree", tree_name]) as git:
        rows = git.output().split(b"\0")[:-1]
    entries = []
    for row in rows:
        head, _, path = row.partition(b"\t")
        mode, kind, oid = head.split(b" ")
        if kind != b"blob":
            raise AssertionError("tree %s holds a %s" % (tree_name, kind.decode("ascii")))
        entries.append(Entry(path, int(mode, 8), oid.decode("ascii")))
    return entries
