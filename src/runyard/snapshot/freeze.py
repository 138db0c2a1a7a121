"""Freezing a working tree: its files become a git tree in the yard's repository. The user's repository is only read."""

from __future__ import annotations

import errno
import os
import stat
import time

from runyard.snapshot import links as linking
from runyard.snapshot.collect import Collected, Collector, text
from runyard.snapshot.repository import Repository
from runyard.snapshot.source import Source, Status, find, plain_name, read_status, start_status
from runyard.snapshot.statcache import UNSURE, StatCache, settled_key, stat_key
from runyard.wire import gitobjects
from runyard.wire.errors import SnapshotError
from runyard.wire.gitobjects import Entry
from runyard.wire.paths import RECORDS, Home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

MAX_FILE = 50 << 20
"""Default size in bytes above which an untracked file is linked instead of copied."""
_RETRIES = 3
_INLINE = 8
"""Files up to which threads cost more than they save."""
_NAMED = 5
_MUCH = 500 << 20
_GONE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR))
"""What opening a file says when something else has taken its place since it was listed."""


class Tree:
    """One frozen directory: tree (40 hex digits), parent commit, branch, changed paths, number of files, bytes."""

    def __init__(self, source: Source, tree: str, status: Status, changed: list[bytes], found: Collected) -> None:
        self.source = text(source.top)
        name = plain_name(source.top)
        self.name = name if name not in ("", RECORDS) else "code"
        self.tree = tree
        self.commit = status.commit
        self.branch = status.branch
        self.changed_paths = [text(path) for path in changed]
        self.files = len(found.files)
        self.bytes = sum(st.st_size for st in found.files.values())

    def snapshot(self) -> dict[str, Any]:
        """Return what a run spec says of it."""
        return {
            "tree": self.tree,
            "commit": self.commit,
            "branch": self.branch,
            "dirty": bool(self.changed_paths),
            "changed": len(self.changed_paths),
            "files": self.files,
            "bytes": self.bytes,
        }


class Frozen:
    """The result of `freeze`.

    ``main``: the `Tree`; ``also``: (path relative to the working tree, `Tree`) of directories frozen beside it;
    ``cwd``: directory of the call below the top ("" for the top); ``links``: ``{"path", "target", "why"}``;
    ``adopt``: ``{"path", "target"}`` of ignored data directories that the source lacks and that are kept for later
    runs if the run makes them; ``skipped``: ``{"path", "why"}``; ``warnings``: sentences for the user.
    """

    def __init__(self, main: Tree, cwd: str) -> None:
        self.main = main
        self.cwd = cwd
        self.also: list[tuple[str, Tree]] = []
        self.links: list[dict[str, str]] = []
        self.adopt: list[dict[str, str]] = []
        self.skipped: list[dict[str, str]] = []
        self.warnings: list[str] = []

    @property
    def repo_name(self) -> str:
        """Name of the working tree in the run's directory."""
        return self.main.name

    @property
    def source(self) -> str:
        """The user's top directory."""
        return self.main.source

    def spec(self) -> dict[str, Any]:
        """Return the part of a run spec that describes the code (docs/protocol.md)."""
        return {
            "cwd": self.cwd,
            "source": self.source,
            "repo_name": self.repo_name,
            "snapshot": self.main.snapshot(),
            "also": [dict(tree.snapshot(), path=path, source=tree.source) for path, tree in self.also],
            "links": self.links,
            "adopt": self.adopt,
        }


def freeze(
    cwd: str,
    home: str,
    *,
    link: Sequence[str] = (),
    project_link: Sequence[str] = (),
    also: Sequence[str] = (),
    ignore: Sequence[str] = (),
    max_file: int = MAX_FILE,
    require_clean: bool = False,
    environ: Mapping[str, str] | None = None,
) -> Frozen:
    """Freeze the working tree that holds ``cwd`` into the yard's repository.

    ``link`` and ``also`` are paths relative to ``cwd``, ``project_link`` to the top; ``ignore``: git-ignore patterns of
    untracked files; ``max_file`` in bytes. Raises `SnapshotError`: no usable repository, something named that is not
    there, uncommitted changes under ``require_clean``.
    """
    freezer = _Freezer(home, ignore, max_file, require_clean, os.environ if environ is None else environ)
    source = find(cwd)
    below = os.path.relpath(os.path.realpath(os.fsencode(cwd)), source.top)
    below = b"" if below == b"." else below
    try:
        with freezer.repository.open().lock():
            return freezer.freeze(source, below, link, project_link, also)
    except OSError as exc:
        raise SnapshotError(
            "the code of %s cannot be frozen: %s: %s"
            % (text(source.top), os.fsdecode(exc.filename or source.top), exc.strerror),
            "see whether that file and the home are sound",
        ) from exc
    finally:
        freezer.collector.restore_times()


class _Freezer:
    """One call of `freeze`: settings and what it collects on the way."""

    def __init__(
        self, home: str, ignore: Sequence[str], max_file: int, require_clean: bool, environ: Mapping[str, str]
    ) -> None:
        self.repository = Repository(home)
        self.downloads = Home(home).downloads
        self.collector = Collector(self.repository.path, home, ignore, environ)
        self.max_file = max_file
        self.require_clean = require_clean
        self.environ = environ
        self.warnings: list[str] = []

    def freeze(
        self, source: Source, cwd: bytes, link: Sequence[str], project_link: Sequence[str], also: Sequence[str]
    ) -> Frozen:
        """Freeze the main tree with its links, then those beside it."""
        chosen: list[linking.Links] = []

        def choose(found: Collected) -> None:
            chosen.append(linking.resolve(source.top, cwd, found, link, project_link, self.max_file, self.downloads))

        main, found = self._freeze_tree(source, choose)
        frozen = Frozen(main, text(cwd))
        frozen.links, frozen.adopt = chosen[0].links, chosen[0].adopt
        frozen.skipped = found.skipped
        self._warn(found, cwd)
        for name in also:
            frozen.also.append(self._freeze_beside(source, cwd, name, found, frozen))
        frozen.warnings = chosen[0].warnings + self.warnings
        return frozen

    def _warn(self, found: Collected, cwd: bytes) -> None:
        """Say what will likely surprise: an empty directory to start in, and much that is copied."""
        if cwd not in found.directories:
            self.warnings.append("%s holds nothing that git tracks: the run starts in an empty directory" % text(cwd))
        sizes: dict[bytes, int] = {}
        for path in found.untracked:
            first = path.partition(b"/")[0]
            sizes[first] = sizes.get(first, 0) + found.files[path].st_size
        if sum(sizes.values()) > _MUCH:
            largest = text(max(sizes, key=lambda first: sizes[first]))
            self.warnings.append(
                "%d MB of untracked files were copied, most of them %s: --link %s links it instead"
                % (sum(sizes.values()) >> 20, largest, largest)
            )

    def _freeze_beside(
        self, source: Source, cwd: bytes, name: str, found: Collected, frozen: Frozen
    ) -> tuple[str, Tree]:
        full = os.path.realpath(os.path.join(source.top, cwd, os.fsencode(os.path.expanduser(name))))
        if not os.path.isdir(full):
            raise SnapshotError("%s cannot be frozen: it is no directory" % name, "check the path after --also")
        path = os.path.relpath(full, source.top)
        inside = not path.startswith(b"../")
        if path in (b".", b"..") or source.top.startswith(full + b"/"):
            raise SnapshotError("%s cannot be frozen beside the code: the code is in it" % name)
        if inside and (path in found.files or any(p.startswith(path + b"/") for p in found.files)):
            raise SnapshotError("%s is part of the code already" % name, "leave --also away")
        if path.startswith(b"../../"):
            path = b"../" + os.path.basename(full)
        frozen.links = [item for item in frozen.links if item["path"] != text(path) or item["why"] == "asked for"]
        taken = {other for other, _ in frozen.also} | {item["path"] for item in frozen.links}
        if text(path) in taken or text(path) == "../" + frozen.repo_name:
            raise SnapshotError("%s cannot be frozen: its place beside the code is taken" % name, "rename one of them")
        tree, _ = self._freeze_tree(find(os.fsdecode(full)).at(full), lambda found: None)
        return text(path), tree

    def _freeze_tree(self, source: Source, choose: Callable[[Collected], None]) -> tuple[Tree, Collected]:
        """Freeze one directory; ``choose`` may take files out before they are read."""
        started_ns = time.time_ns()
        status = Status(None, None, [])
        with self.collector.start(source) as listing:
            if source.git_dir is None:
                found = self.collector.finish(source, listing)
                choose(found)
                tree = self._store(source, found, started_ns)
                return Tree(source, tree, status, [], found), found
            with start_status(source, self.repository.path, self.environ) as asked:
                found = self.collector.finish(source, listing)
                choose(found)
                if not self.require_clean:
                    tree = self._store(source, found, started_ns)
                status = read_status(source, self.repository.path, self.environ, asked)
        changed = sorted({*status.changed, *found.untracked})
        if self.require_clean:
            _refuse_changes(source, changed)
            tree = self._store(source, found, started_ns)
        return Tree(source, tree, status, changed, found), found

    def _store(self, source: Source, found: Collected, started_ns: int) -> str:
        """Write the objects that are missing and return the tree."""
        cache = StatCache(self.repository.cache, source.top).load()
        if not self.repository.has(cache.tree):
            cache.clear()
        oids: dict[bytes, tuple[bytes, str]] = {}
        pending = []
        for path, st in found.files.items():
            key, oid = cache.files.get(path, (UNSURE, b""))
            if key == stat_key(st):
                oids[path] = (key, oid.decode("ascii"))
            else:
                pending.append(path)
        if not pending and len(oids) == len(cache.files) and cache.tree:
            self.repository.keep(cache.tree)
            return cache.tree
        self._read(source, found, pending, oids, started_ns)
        entries = [Entry(p, gitobjects.mode_of(found.files[p].st_mode), oid) for p, (_, oid) in oids.items()]
        tree = gitobjects.tree_id(entries, lambda data, oid: self.repository.write(b"tree", data, oid))
        self.repository.keep(tree)
        cache.save(tree, ((path, key, oid) for path, (key, oid) in oids.items()))
        return tree

    def _read(
        self,
        source: Source,
        found: Collected,
        pending: list[bytes],
        oids: dict[bytes, tuple[bytes, str]],
        started_ns: int,
    ) -> None:
        """Read files into the repository, with threads when there are many: compression lets go of the interpreter."""

        def read(path: bytes) -> tuple[os.stat_result, str, bool] | OSError:
            try:
                return _read_one(self.repository, os.path.join(source.top, path))
            except OSError as exc:
                if exc.errno not in _GONE and not isinstance(exc, PermissionError):
                    raise
                return exc

        if len(pending) > _INLINE:
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1)) as pool:
                results = list(pool.map(read, pending))
        else:
            results = [read(path) for path in pending]
        for path, result in zip(pending, results, strict=True):
            if isinstance(result, OSError):
                del found.files[path]
                found.untracked.discard(path)
                if isinstance(result, PermissionError):
                    found.skip(path, "not readable")
                    self.warnings.append("%s cannot be read and is left out" % text(path))
                continue
            st, oid, steady = result
            found.files[path] = st
            oids[path] = (settled_key(st, started_ns) if steady else UNSURE, oid)
            if not steady:
                self.warnings.append("%s was being written while it was frozen" % text(path))


def _read_one(repository: Repository, path: bytes) -> tuple[os.stat_result, str, bool]:
    """Store one file or symlink; return what it was, its blob, and whether it stood still. Raises OSError."""
    for attempt in range(_RETRIES):
        st = os.lstat(path)
        if stat.S_ISLNK(st.st_mode):
            return st, repository.write(b"blob", os.readlink(path)), True
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            st = os.fstat(fd)
            if not stat.S_ISREG(st.st_mode):
                raise FileNotFoundError(path)
            try:
                oid = repository.write_file(fd, st.st_size)
            except EOFError:
                if attempt < _RETRIES - 1:
                    continue
                raise FileNotFoundError(path) from None
            if stat_key(os.fstat(fd)) == stat_key(st):
                return st, oid, True
        finally:
            os.close(fd)
    return st, oid, False


def _refuse_changes(source: Source, changed: list[bytes]) -> None:
    if changed:
        names = ", ".join(text(path) for path in changed[:_NAMED]) + (", ..." if len(changed) > _NAMED else "")
        raise SnapshotError(
            "%s has %d uncommitted change%s: %s" % (text(source.top), len(changed), "s"[: len(changed) > 1], names),
            "commit them, or set require_clean = false",
        )
