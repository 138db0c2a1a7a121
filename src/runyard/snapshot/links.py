"""Data is linked into a run, not copied: which links a run gets, and why.

A link is ``{"path", "target", "why"}``: ``path`` relative to the run's working tree, ``target`` absolute. The working
tree lies at ``<run directory>/<repository name>/``, so ``../data`` is ``<run directory>/data``: one level above the
tree can be linked, more cannot. A link never replaces a tracked file: where a directory holds tracked files, those of
its children that hold none are linked one by one.
"""

from __future__ import annotations

import hashlib
import os
import stat

from runyard.snapshot.collect import Collected, text
from runyard.wire.errors import SnapshotError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DATA_NAMES = (b"data", b"dataset", b"datasets", b"input", b"inputs", b"raw", b"pretrained", b"weights")
"""Directories (or files) that are linked without being asked for when git ignores them."""
ADOPTED_NAMES = DATA_NAMES[:-1]
"""Those that are kept for later runs when a run downloads them; ``weights`` may as well be a result."""
CHILDREN = 64
"""Links that one directory with tracked and ignored files may become."""


class Links:
    """Collects the links of one freeze: ``links``, ``adopt``, ``warnings`` and the paths taken out of the tree."""

    def __init__(self, top: bytes, cwd: bytes, found: Collected) -> None:
        self._top = top
        self._cwd = cwd
        self._found = found
        self._tracked_in: set[bytes] = set()
        self._holds: set[bytes] = set()
        for path in found.files:
            self._note_parents(path, path not in found.untracked)
        self.links: list[dict[str, str]] = []
        self.adopt: list[dict[str, str]] = []
        self.warnings: list[str] = []
        self.removed: set[bytes] = set()

    def _note_parents(self, path: bytes, tracked: bool) -> None:
        parent = path.rpartition(b"/")[0]
        while parent and not (parent in self._holds and (not tracked or parent in self._tracked_in)):
            self._holds.add(parent)
            if tracked:
                self._tracked_in.add(parent)
            parent = parent.rpartition(b"/")[0]

    def _add(self, path: bytes, target: bytes, why: str) -> None:
        if any(link["path"] == text(path) for link in self.links):
            return
        self.links.append({"path": text(path), "target": text(target), "why": why})

    def add_requested(self, paths: Iterable[str], base: bytes, why: str, required: bool = True) -> None:
        """Link what the user names, relative to ``base``; raises `SnapshotError` for what is not there."""
        for name in paths:
            full = os.path.normpath(os.path.join(base, os.fsencode(os.path.expanduser(name))))
            if not os.path.lexists(full):
                if required:
                    raise SnapshotError("%s cannot be linked: there is no such file" % name, "check the path")
                self.warnings.append("%s is to be linked, but does not exist" % name)
                continue
            path = os.path.relpath(full, self._top)
            if path == b"." or self._top.startswith(full.rstrip(b"/") + b"/"):
                raise SnapshotError("%s cannot be linked: the code is in it" % name, "name the data directory itself")
            if path.startswith(b"../../"):
                if not os.path.isabs(name):
                    raise SnapshotError(
                        "%s cannot be linked: it is more than one level above %s" % (name, os.fsdecode(self._top)),
                        "use its absolute path in the program; that works without a link",
                    )
            elif path.startswith(b"../"):
                self._add(path, full, why)
            else:
                self._inside(path, full, why)

    def _inside(self, path: bytes, full: bytes, why: str) -> None:
        above = path.rpartition(b"/")[0]
        while above:
            if above in self._found.files:
                self.warnings.append("%s is not linked: %s is a symlink" % (text(path), text(above)))
                return
            above = above.rpartition(b"/")[0]
        if path in self._found.files and path not in self._found.untracked:
            self.warnings.append("%s is tracked by git: frozen, not linked" % text(path))
        elif path in self._tracked_in:
            self._children(path, full, why, self._tracked_in)
        else:
            self.removed.update(p for p in self._found.untracked if p == path or p.startswith(path + b"/"))
            self._add(path, full, why)

    def _children(self, path: bytes, full: bytes, why: str, keep: set[bytes]) -> None:
        """Link the children of a directory that hold nothing to keep."""
        free = []
        try:
            with os.scandir(full) as items:
                children = sorted(items, key=lambda item: item.name)
        except (FileNotFoundError, NotADirectoryError):
            return  # it vanished meanwhile
        for item in children:
            child = path + b"/" + item.name
            frozen = child in self._found.files and (child not in self._found.untracked or keep is self._holds)
            if not frozen and child not in keep and item.name != b".git":
                free.append((child, item.path))
        if len(free) > CHILDREN:
            self.warnings.append(
                "%s holds tracked files and %d others: too many to link one by one" % (text(path), len(free))
            )
            return
        for child, target in free:
            self.removed.update(p for p in self._found.untracked if p == child or p.startswith(child + b"/"))
            self._add(child, target, why)

    def add_defaults(self, downloads: str) -> None:
        """Link ignored data at the top, in the directory of the call, and beside the tree.

        ``downloads``: where the yard keeps what earlier runs of this source downloaded.
        """
        for directory in sorted({b"", self._cwd}):
            for name in DATA_NAMES:
                path = os.path.join(directory, name)
                full = os.path.join(self._top, path)
                if path in self._found.files or self._found.directories.get(directory) is False:
                    continue
                if path in self._holds:
                    self._children(path, full, "ignored data", self._holds)
                elif os.path.lexists(full):
                    self._add(path, full, "ignored data")
        for name in DATA_NAMES:
            full = os.path.join(os.path.dirname(self._top), name)
            if full != self._top and os.path.isdir(full):
                self._add(b"../" + name, full, "data beside the tree")
        self._add_downloads(downloads)

    def _add_downloads(self, downloads: str) -> None:
        store = os.path.join(os.fsencode(downloads), hashlib.sha256(self._top).hexdigest()[:16].encode("ascii"))
        for name in self._ignored_names():
            if os.path.lexists(os.path.join(self._top, name)) or name in self._holds:
                continue
            kept = os.path.join(store, name)
            if os.path.isdir(kept):
                self._add(name, kept, "downloaded by an earlier run")
            else:
                self.adopt.append({"path": text(name), "target": text(kept)})

    def _ignored_names(self) -> list[bytes]:
        """Return the data names that the top ``.gitignore`` lists plainly (``data``, ``/data/``, ``data/*``)."""
        try:
            with open(os.path.join(self._top, b".gitignore"), "rb") as file:
                lines = file.read(1 << 20).splitlines()
        except OSError:
            return []
        plain = {line.strip().lstrip(b"/").rstrip(b"*").rstrip(b"/") for line in lines}
        return [name for name in ADOPTED_NAMES if name in plain]

    def add_large(self, max_file: int) -> None:
        """Link untracked files of more than ``max_file`` bytes."""
        for path in sorted(self._found.untracked - self.removed):
            st = self._found.files[path]
            if st.st_size > max_file and stat.S_ISREG(st.st_mode):
                self.removed.add(path)
                self._add(path, os.path.join(self._top, path), "untracked, larger than %s" % _size(max_file))

    def add_symlinks_out(self) -> None:
        """Give frozen symlinks whose relative target leaves the tree that target in the run, made absolute."""
        for path, st in self._found.files.items():
            if not stat.S_ISLNK(st.st_mode) or path in self.removed:
                continue
            full = os.path.join(self._top, path)
            try:
                target = os.readlink(full)
            except OSError:
                continue
            if not os.path.isabs(target):
                meant = os.path.normpath(os.path.join(os.path.dirname(full), target))
                if not (meant + b"/").startswith(self._top + b"/") and os.path.exists(full):
                    self._add(path, meant, "symlink out of the tree")


def resolve(
    top: bytes,
    cwd: bytes,
    found: Collected,
    link: Sequence[str],
    project_link: Sequence[str],
    max_file: int,
    downloads: str,
) -> Links:
    """Work out all links of a freeze; ``link`` is relative to the call, ``project_link`` to the top."""
    links = Links(top, cwd, found)
    links.add_requested(link, os.path.join(top, cwd), "asked for")
    links.add_requested(project_link, top, "project setting", required=False)
    links.add_defaults(downloads)
    links.add_large(max_file)
    links.add_symlinks_out()
    found.without(links.removed)
    return links


def _size(count: int) -> str:
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB")):
        if count >= unit:
            return "%g %s" % (round(count / unit, 1), name)
    return "%d bytes" % count
