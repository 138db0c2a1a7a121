"""The yard's bare repository: where frozen code is kept.

Objects are written directly in git's loose format, so no filter, attribute or configuration can change a byte and no
process is needed; everything else that git does there (archive, diff, packing) is done by git. Each distinct tree has
one commit, whose name follows from the tree's, and one ref, ``refs/trees/<tree>``. A ref means that all objects of
its tree are there. The time of the ref file says when the tree was last frozen, so that `gc` spares the young ones.
"""

from __future__ import annotations

import fcntl
import os

from runyard.snapshot.git import Git, yard_environment
from runyard.wire import gitobjects
from runyard.wire.errors import HomeError, NotFoundError, SnapshotError
from runyard.wire.files import sync_path, write_atomic
from runyard.wire.paths import Home
from runyard.wire.tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CONFIG = """[core]
	repositoryformatversion = 0
	filemode = true
	bare = true
	logAllRefUpdates = false
[gc]
	auto = 0
[maintenance]
	auto = false
[tar]
	umask = 0
"""
_ATTRIBUTES = "* -text -eol -filter -ident -working-tree-encoding -export-ignore -export-subst\n"
"""Bytes come back unchanged: no line ends, no LFS, no keyword expansion, nothing left out of an archive."""
_WHO = b"Runyard <runyard@localhost> 0 +0000"
_WHOLE = 4 << 20
"""Files up to this many bytes are read at once; larger ones in pieces."""
_LEVEL = 1


class Repository:
    """The snapshot repository of one home. Cheap to make; `open` creates what is missing on disk."""

    def __init__(self, home: str) -> None:
        self.path = Home(home).snapshots
        self.objects = os.path.join(self.path, "objects")
        self.refs = os.path.join(self.path, "refs", "trees")
        self.cache = os.path.join(self.path, "cache")
        self._touched: set[str] = set()

    def open(self) -> Repository:
        """Create the repository if it is missing; many may do so at once. Raises `HomeError` when it cannot."""
        if not os.path.isdir(self.refs):
            try:
                self._create()
            except OSError as exc:
                raise HomeError(
                    "%s cannot be created: %s" % (self.path, exc.strerror),
                    "make the home writable, or set RUNYARD_HOME",
                ) from exc
        return self

    def _create(self) -> None:
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        new = "%s.%d.%s.tmp" % (self.path, os.getpid(), os.urandom(4).hex())
        os.makedirs(os.path.join(new, "refs", "trees"), mode=0o700)
        os.chmod(new, 0o700)
        for name in ("objects", "info", "cache"):
            os.mkdir(os.path.join(new, name))
        for path, text in (
            ("HEAD", "ref: refs/heads/none\n"),
            ("config", _CONFIG),
            ("info/attributes", _ATTRIBUTES),
            ("lock", ""),
        ):
            write_atomic(os.path.join(new, path), text.encode("ascii"))
        try:
            os.rename(new, self.path)
        except OSError:
            remove_tree(os.fsencode(new))
            if not os.path.isdir(self.refs):
                raise

    def lock(self, exclusive: bool = False) -> Lock:
        """Return a context manager that holds the repository: shared to freeze and read, exclusive to remove."""
        return Lock(os.path.join(self.path, "lock"), exclusive)

    def git(self, args: Sequence[str | bytes], stdin: bytes = b"") -> Git:
        """Start git in this repository, shielded from all other configuration."""
        hint = "the frozen code may be damaged, see: git --git-dir %s fsck; backups hold it too" % self.path
        return Git(args, yard_environment(os.environ, self.path), stdin, hint)

    def has(self, tree: str) -> bool:
        """Tell whether a tree is kept here, whole."""
        return is_tree_name(tree) and os.path.exists(os.path.join(self.refs, tree))

    def require(self, tree: str) -> None:
        """Raise `NotFoundError` unless the tree is kept here."""
        if not self.has(tree):
            raise NotFoundError(
                "the code of tree %s is not kept" % tree, "it was removed with the last run that used it"
            )

    def keep(self, tree: str) -> None:
        """Make the commit and ref of a tree whose objects are written, or mark them as used now."""
        ref = os.path.join(self.refs, tree)
        try:
            os.utime(ref)
            return
        except FileNotFoundError:
            pass
        commit = self.write(
            b"commit", b"tree %s\nauthor %s\ncommitter %s\n\n%s\n" % (tree.encode(), _WHO, _WHO, b"frozen")
        )
        self.flush()
        new = "%s/tmp_ref_%s" % (self.path, os.urandom(8).hex())
        write_atomic(new, commit.encode("ascii") + b"\n", sync=True)
        os.rename(new, ref)
        sync_path(self.refs)

    def trees(self) -> list[str]:
        """Return all trees that are kept."""
        return [name for name in os.listdir(self.refs) if is_tree_name(name)]

    def write(self, kind: bytes, data: bytes, oid: str = "") -> str:
        """Store an object and return its name; one that is there already costs nothing."""
        oid = oid or gitobjects.object_id(kind, data)
        if not os.path.exists("%s/%s/%s" % (self.objects, oid[:2], oid[2:])):
            import zlib

            packed = zlib.compress(b"%s %d\0" % (kind, len(data)) + data, _LEVEL)
            with _New(self.objects) as new:
                new.write(packed)
                self._name(new, oid)
        return oid

    def write_file(self, fd: int, size: int) -> str:
        """Store ``size`` bytes of an open file as a blob and return its name; raises EOFError when it is shorter."""
        if size <= _WHOLE:
            return self.write(b"blob", b"".join(_exactly(fd, size)))
        return self._write_large(fd, size)

    def _write_large(self, fd: int, size: int) -> str:
        import zlib

        header = b"blob %d\0" % size
        digest, packer = gitobjects.new_digest(header), zlib.compressobj(_LEVEL)
        with _New(self.objects) as new:
            new.write(packer.compress(header))
            for chunk in _exactly(fd, size):
                digest.update(chunk)
                new.write(packer.compress(chunk))
            new.write(packer.flush())
            self._name(new, digest.hexdigest())
        return digest.hexdigest()

    def _name(self, new: _New, oid: str) -> None:
        """Make a new object durable and give it its name."""
        directory = os.path.join(self.objects, oid[:2])
        new.finish(directory, oid[2:])
        self._touched.add(directory)

    def flush(self) -> None:
        """Make the names of all objects written so far durable."""
        for directory in [*self._touched, self.objects] if self._touched else ():
            sync_path(directory)
        self._touched.clear()


class _New:
    """An object that is being written under a temporary name; gone unless it was finished."""

    def __init__(self, objects: str) -> None:
        self._path = "%s/tmp_obj_%s" % (objects, os.urandom(8).hex())
        self._fd = -1

    def __enter__(self) -> _New:
        try:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        except OSError as exc:
            raise self._failure(exc) from exc
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass

    def write(self, data: bytes) -> None:
        """Append all of ``data``."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as exc:
            raise self._failure(exc) from exc

    def finish(self, directory: str, name: str) -> None:
        """Flush to disk and move to the final place."""
        try:
            os.fsync(self._fd)
            try:
                os.rename(self._path, os.path.join(directory, name))
            except FileNotFoundError:
                os.makedirs(directory, exist_ok=True)
                os.rename(self._path, os.path.join(directory, name))
        except OSError as exc:
            raise self._failure(exc) from exc

    def _failure(self, exc: OSError) -> SnapshotError:
        return SnapshotError(
            "the code cannot be written to %s: %s" % (os.path.dirname(self._path), exc.strerror),
            "free some disk space: runyard gc",
        )


class Lock:
    """An flock held from ``with`` to its end; the kernel drops it when the process dies."""

    def __init__(self, path: str, exclusive: bool) -> None:
        self._path = path
        self._kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        self._fd = -1

    def __enter__(self) -> Lock:
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise SnapshotError("%s cannot be locked: %s" % (self._path, exc.strerror), "check the home") from exc
        fcntl.flock(self._fd, self._kind)
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)


def is_tree_name(text: str) -> bool:
    """Tell whether text has the form of a tree's name: 40 hex digits."""
    return len(text) == 40 and not text.strip("0123456789abcdef")


def _exactly(fd: int, size: int) -> Iterator[bytes]:
    """Yield ``size`` bytes of a file in pieces; raises EOFError when it is shorter."""
    while size:
        chunk = os.read(fd, min(_WHOLE, size))
        if not chunk:
            raise EOFError
        size -= len(chunk)
        yield chunk
