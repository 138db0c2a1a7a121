"""Getting a run's directory ready: code from the server's tree, links in place, or the directory of an earlier attempt.

Trees come as uncompressed tars over HTTP, whether or not the home is shared; the last few are kept.
"""

from __future__ import annotations

import os
import threading
import time

from runyard.agent import outputs
from runyard.wire import paths
from runyard.wire import tree as trees
from runyard.wire.errors import RunyardError, SnapshotError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from runyard.agent.state import Attempt

CACHED_TREES = 8
CACHED_BYTES = 256 << 20
FETCH_TRIES = 3
"""Transfers of a tree that arrive damaged before the attempt fails."""
FETCH_AGAIN_S = 0.2
_BUFFER = 1 << 18


class StagingError(RunyardError):
    """The run's directory cannot be made ready on this host."""

    code = "staging"


class Staged:
    """A directory that is ready: ``run_dir``, its working ``tree``, the ``cwd`` to start in, whether it is old."""

    def __init__(self, run_dir: str, tree: str, cwd: str, resumed: bool) -> None:
        self.run_dir = run_dir
        self.tree = tree
        self.cwd = cwd
        self.resumed = resumed

    @property
    def manifest(self) -> str:
        """The description of the code as filled."""
        return paths.manifest_path(self.run_dir)


def places(home: str, attempt: Attempt) -> Staged:
    """Return where an attempt's directory is (whether or not it exists yet); ``resumed`` is not known here."""
    run_dir = os.path.join(home, os.path.normpath(attempt.record["dir"]))
    tree = os.path.join(run_dir, attempt.spec["repo_name"])
    top = attempt.spec["source"] if attempt.spec.get("in_place") else tree
    return Staged(run_dir, tree, os.path.normpath(os.path.join(top, attempt.spec["cwd"])), False)


class TreeCache:
    """The tars of the trees used last, one download at a time per tree. Thread-safe."""

    def __init__(self, directory: str, download: Callable[[str, int], None]) -> None:
        self.directory = directory
        self.download = download
        """Writes the tar of a tree to a file descriptor."""
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}

    def path(self, tree: str) -> str:
        """Return where the tar of a tree is kept."""
        return os.path.join(self.directory, tree + ".tar")

    def has(self, tree: str) -> bool:
        """Tell whether the tar of a tree is here."""
        return os.path.exists(self.path(tree))

    def open(self, tree: str) -> int:
        """Return a descriptor of the tar of a tree, downloading it if need be. Raises as `Link.download` does."""
        if not tree.isalnum():
            raise StagingError("%r cannot be the name of a tree" % tree)
        with self._lock:
            lock = self._busy.setdefault(tree, threading.Lock())
        with lock:
            path = self.path(tree)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                os.utime(path)
                return fd
            except FileNotFoundError:
                pass
            os.makedirs(self.directory, 0o700, exist_ok=True)
            partial = os.path.join(self.directory, "%s.%d.partial" % (tree, os.getpid()))
            fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                self.download(tree, fd)
                os.lseek(fd, 0, os.SEEK_SET)
                os.rename(partial, path)
            except (OSError, RunyardError):
                os.close(fd)
                os.unlink(partial)
                raise
        self.prune()
        return fd

    def drop(self, tree: str) -> None:
        """Forget the tar of a tree, because it turned out damaged."""
        _unlink(self.path(tree))

    def prune(self) -> None:
        """Keep the tars used last within the limits, and nothing that a killed agent left half done."""
        found = []
        with self._lock:
            for name in os.listdir(self.directory):
                path = os.path.join(self.directory, name)
                try:
                    info = os.stat(path)
                except OSError:
                    continue
                if name.endswith(".tar"):
                    found.append((info.st_mtime_ns, info.st_size, path))
            total = 0
            for number, (_, size, path) in enumerate(sorted(found, reverse=True)):
                total += size
                if number >= CACHED_TREES or total > CACHED_BYTES:
                    _unlink(path)

    def clean(self) -> None:
        """Remove partial downloads of earlier processes; call it once at start, under the agent's lock."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return
        for name in names:
            if name.endswith(".partial"):
                os.unlink(os.path.join(self.directory, name))


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def stage(home: str, attempt: Attempt, cache: TreeCache) -> Staged:
    """Make the directory of a run ready and return it.

    An attempt after the first finds the directory as the earlier one left it, unless the run wants a fresh one. Raises
    `StagingError` or `SnapshotError` when it cannot be made ready here, OSError for the disk, and what the server says.
    """
    spec = attempt.spec
    staged = places(home, attempt)
    os.makedirs(os.path.join(staged.run_dir, paths.RECORDS), exist_ok=True)
    if attempt.record.get("fresh"):
        trees.remove_tree(os.fsencode(staged.tree))
    if spec.get("in_place"):
        os.makedirs(staged.tree, exist_ok=True)
        if not os.path.isdir(staged.cwd):
            raise StagingError("%s does not exist on this host, and the run is to work in place" % staged.cwd)
        staged.resumed = bool(attempt.record.get("resumed"))
        return staged
    # An earlier attempt on a host that shares nothing may have sent its outputs here, where no code has been yet.
    found = not trees.is_free(os.fsencode(staged.tree))
    staged.resumed = found and bool(attempt.record.get("resumed")) and not attempt.record.get("fresh")
    if not _is_filled(staged.tree, staged.manifest):
        links = [*(spec.get("links") or []), *_downloaded(spec, paths.Home(home).downloads)]
        _fill(spec.get("snapshot") or {}, staged.tree, staged.manifest, cache, links)
    for place, manifest, part in beside(spec, staged):
        if attempt.record.get("fresh"):
            trees.remove_tree(os.fsencode(place))
        if not _is_filled(place, manifest):
            _fill(part, place, manifest, cache, [])
    os.makedirs(staged.cwd, exist_ok=True)
    return staged


def _downloaded(spec: dict[str, Any], store: str) -> list[dict[str, Any]]:
    """Return links to data that another run has downloaded since this one was submitted (`outputs.hand_on`)."""
    return [
        item
        for item in spec.get("adopt") or []
        if outputs.is_stored(item["target"], store) and os.path.isdir(item["target"])
    ]


def beside(spec: dict[str, Any], staged: Staged) -> list[tuple[str, str, dict[str, Any]]]:
    """Return place, manifest and snapshot of each directory that was frozen beside the code (``also``)."""
    found = []
    for number, part in enumerate(spec.get("also") or [], 1):
        place = os.path.normpath(os.path.join(staged.tree, part["path"]))
        found.append((place, "%s.%d" % (staged.manifest, number), part))
    return found


def written(spec: dict[str, Any], staged: Staged) -> list[dict[str, Any]]:
    """Return the outputs of a run (`outputs.scan`)."""
    manifests = [("", staged.manifest)]
    for place, manifest, _ in beside(spec, staged):
        if place.startswith(staged.tree + "/"):
            manifests.append((place[len(staged.tree) + 1 :], manifest))
    return outputs.scan(staged.tree, manifests)


def _is_filled(directory: str, manifest: str) -> bool:
    """Tell whether a tree has its code. The manifest is written before the last step, which removes ``.partial``."""
    if not os.path.exists(manifest) or os.path.lexists(directory + ".partial"):
        return False
    return os.path.isdir(directory) and bool(os.listdir(directory))


def _fill(
    snapshot: dict[str, Any], directory: str, manifest: str, cache: TreeCache, links: Sequence[dict[str, Any]]
) -> None:
    tree = str(snapshot.get("tree") or "")
    for tries_left in range(FETCH_TRIES - 1, -1, -1):
        fd = cache.open(tree)
        try:
            with open(fd, "rb", _BUFFER) as stream:
                trees.fill(
                    stream, directory, tree, snapshot.get("commit"), snapshot.get("branch"), links, manifest, onto=True
                )
            return
        except SnapshotError:
            cache.drop(tree)
            if not tries_left:
                raise
            time.sleep(FETCH_AGAIN_S)
