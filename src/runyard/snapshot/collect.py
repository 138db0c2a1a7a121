"""Which files of a working tree there are to freeze: submodules and nested repositories included, as directories."""

from __future__ import annotations

import os
import stat

from runyard.snapshot.git import Git
from runyard.snapshot.source import (
    Source,
    git_dir_of,
    read_listing,
    shared_index_times,
    start_check_ignore,
    start_listing,
)
from runyard.wire.errors import SnapshotError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAMES = {stat.S_IFSOCK: "socket", stat.S_IFIFO: "named pipe", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
_GLOB = b"\\*?["


class Collected:
    """The files and symlinks of a tree, by path below its top; directories in between; what cannot be frozen."""

    def __init__(self) -> None:
        self.files: dict[bytes, os.stat_result] = {}
        self.untracked: set[bytes] = set()
        self.directories: dict[bytes, bool] = {b"": True}
        """Directory → whether it really is one (and not a symlink or file that took its place)."""
        self.skipped: list[dict[str, str]] = []

    def skip(self, path: bytes, why: str) -> None:
        """Note something that is left out."""
        self.skipped.append({"path": text(path), "why": why})

    def without(self, paths: set[bytes]) -> None:
        """Take files out again (those that are linked)."""
        for path in paths:
            self.files.pop(path, None)
        self.untracked -= paths


def text(path: bytes) -> str:
    """Return a path as text: UTF-8, other bytes as lone surrogates."""
    return path.decode("utf-8", "surrogateescape")


class Collector:
    """Walks one working tree. ``yard``: path of the yard's repository; ``exclude``: patterns of untracked files."""

    def __init__(self, yard: str, home: str, exclude: Sequence[str], environ: Mapping[str, str]) -> None:
        self._yard = yard
        self._home = os.path.realpath(os.fsencode(home))
        self._exclude = exclude
        self._environ = environ
        self._times: list[tuple[bytes, int, int]] = []

    def start(self, source: Source) -> Git:
        """Start listing; hand the process to `finish`."""
        self._times += shared_index_times(source)
        return start_listing(source, self._yard, [*self._exclude, *self._own(source.top)], self._environ)

    def restore_times(self) -> None:
        """Undo what reading a split index does to its shared part: git sets that file's times to now."""
        for path, atime_ns, mtime_ns in self._times:
            try:
                os.utime(path, ns=(atime_ns, mtime_ns))
            except OSError:
                continue  # gone, or somebody else's, and then git could not touch it either

    def _own(self, top: bytes) -> list[str]:
        """Return the pattern that leaves the yard's home out when it lies inside of the tree."""
        if not self._home.startswith(top.rstrip(b"/") + b"/"):
            return []
        below = self._home[len(top.rstrip(b"/")) :]
        return [os.fsdecode(b"".join(b"\\%c" % c if c in _GLOB else b"%c" % c for c in below) + b"/")]

    def finish(self, source: Source, listing: Git) -> Collected:
        """Return what the listing names, as it is on disk now."""
        found = Collected()
        self._take(source, b"", read_listing(source, listing), found)
        self._find_specials(source, found)
        return found

    def _take(self, source: Source, prefix: bytes, paths: Mapping[bytes, bool], found: Collected) -> None:
        top = source.top + b"/"
        environments = _environments(paths)
        for directory in environments:
            found.skip(prefix + directory[:-1], "a virtual environment")
        for below, tracked in paths.items():
            path = prefix + below
            if environments and not tracked and below.startswith(environments):
                continue
            if not _is_directory(top, path.rpartition(b"/")[0], found.directories):
                continue
            try:
                st = os.lstat(top + path)
            except (FileNotFoundError, NotADirectoryError):
                continue  # deleted, or not checked out
            kind = stat.S_IFMT(st.st_mode)
            if kind in (stat.S_IFREG, stat.S_IFLNK):
                found.files[path] = st
                if not tracked:
                    found.untracked.add(path)
            elif kind == stat.S_IFDIR:
                self._take_nested(source, path, tracked, found)
            else:
                found.skip(path, _NAMES.get(kind, "no file"))

    def _take_nested(self, source: Source, path: bytes, tracked: bool, found: Collected) -> None:
        """Graft a nested repository, or a submodule that git knows but that is no repository (any more)."""
        directory = source.top + b"/" + path
        try:
            git_dir = git_dir_of(directory)
        except SnapshotError:
            git_dir = None
        if git_dir is None and (any(p.startswith(path + b"/") for p in found.files) or not tracked):
            return  # a directory took a file's place; its files are listed by themselves
        nested = Source(directory, git_dir)
        try:
            with self.start(nested) as listing:
                paths = read_listing(nested, listing)
        except (SnapshotError, FileNotFoundError):
            if os.path.isdir(directory):
                raise
            return  # it vanished meanwhile
        self._take(source, path + b"/", paths, found)

    def _find_specials(self, source: Source, found: Collected) -> None:
        """Name the sockets, pipes and devices that git passes over in silence, unless they are ignored."""
        odd: dict[bytes, int] = {}
        known = {item["path"] for item in found.skipped}
        for directory, real in found.directories.items():
            if not real:
                continue
            try:
                with os.scandir(os.path.join(source.top, directory)) as items:
                    for item in items:
                        if not (item.is_symlink() or item.is_file() or item.is_dir()):
                            path = os.path.join(directory, item.name)
                            if text(path) not in known:
                                odd[path] = stat.S_IFMT(item.stat(follow_symlinks=False).st_mode)
            except (FileNotFoundError, NotADirectoryError):
                continue  # it vanished meanwhile
        for path in sorted(set(odd) - self._ignored(source, odd)):
            found.skip(path, _NAMES.get(odd[path], "no file"))

    def _ignored(self, source: Source, paths: Mapping[bytes, int]) -> set[bytes]:
        if not paths or source.git_dir is None:
            return set()
        with start_check_ignore(source, self._yard, sorted(paths), self._environ) as check:
            data = b"".join(check.chunks())
            check.wait()
        return set(data.split(b"\0"))


def _environments(paths: Mapping[bytes, bool]) -> tuple[bytes, ...]:
    """Return the untracked virtual environments among listed paths, each with a final ``/`` (PEP 405: ``pyvenv.cfg``).

    Python 3.13 and later write a ``.gitignore`` into them; earlier ones do not. A run uses the original by its path.
    """
    mark = b"/pyvenv.cfg"
    return tuple(path[: 1 - len(mark)] for path, tracked in paths.items() if not tracked and path.endswith(mark))


def _is_directory(top: bytes, path: bytes, known: dict[bytes, bool]) -> bool:
    answer = known.get(path)
    if answer is None:
        answer = _is_directory(top, path.rpartition(b"/")[0], known)
        if answer:
            try:
                answer = stat.S_ISDIR(os.lstat(top + path).st_mode)
            except OSError:
                answer = False
        known[path] = answer
    return answer
