"""The working tree of a run: filled from a tar stream, described by a manifest, thinned after the end.

Used by agents (which need no git) and by the command line. Nothing here follows a symlink that the stream brought,
and nothing is written outside of the directory that is being filled.
"""

from __future__ import annotations

import contextlib
import errno
import os

from runyard.wire import gitobjects, tar
from runyard.wire.errors import SnapshotError
from runyard.wire.files import write_atomic
from runyard.wire.gitobjects import EXECUTABLE, FILE, SYMLINK, Entry
from runyard.wire.paths import is_place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import IO, Any


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_GIT_FILES = (b"HEAD", b"packed-refs", b"config")
_GIT_DIRECTORIES = (b"objects", b"refs")


class Record:
    """One line of a manifest: what a file of the code was when the tree was filled.

    path (bytes), mode (as in a git tree), size (bytes), mtime_ns, oid (blob name: the content's hash).
    """

    __slots__ = ("mode", "mtime_ns", "oid", "path", "size")

    def __init__(self, path: bytes, mode: int, size: int, mtime_ns: int, oid: str) -> None:
        self.path = path
        self.mode = mode
        self.size = size
        self.mtime_ns = mtime_ns
        self.oid = oid

    def unchanged(self, directory: bytes) -> bool:
        """Tell whether the file still has this mode, size, time and content."""
        path = os.path.join(directory, self.path)
        try:
            st = os.lstat(path)
            if (gitobjects.mode_of(st.st_mode), st.st_size, st.st_mtime_ns) != (self.mode, self.size, self.mtime_ns):
                return False
            if self.mode == SYMLINK:
                return gitobjects.object_id(b"blob", os.readlink(path)) == self.oid
            return gitobjects.file_id(path) == self.oid
        except OSError:
            return False


def fill(
    stream: IO[bytes],
    directory: str,
    tree: str,
    commit: str | None = None,
    branch: str | None = None,
    links: Sequence[Mapping[str, Any]] = (),
    manifest: str | None = None,
    onto: bool = False,
) -> int:
    """Fill the working tree of a run and return the number of files. The directory appears complete or not at all.

    ``stream`` is a tar of the tree, ``tree`` its name (checked against what came), ``commit`` and ``branch`` what
    git shall answer inside, ``links`` the run's links, ``manifest`` the file to describe the code in. The directory
    must be missing or empty; with ``onto`` the files that it has go over those of the tree. Raises `SnapshotError` when
    the stream is damaged or hostile, OSError when the disk is.
    """
    final = os.fsencode(os.path.abspath(directory))
    if not onto and not is_free(final):
        raise SnapshotError("%s is not empty" % directory, "name a directory that does not exist yet")
    partial = final + b".partial"
    remove_tree(partial)
    os.makedirs(partial)
    try:
        entries = extract(stream, partial)
        _require(entries, tree)
        if commit is not None or branch is not None:
            write_git_dir(partial, commit, branch)
        placed = place_links(partial, os.path.dirname(final), links)
        if manifest is not None:
            paths = {entry.path: entry.oid for entry in entries}
            paths.update(placed)
            write_manifest(manifest, describe(partial, paths))
        while True:
            if onto:
                _move_files(final, partial)
            try:
                os.rename(partial, final)
                break
            except OSError as exc:
                if not onto or exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise  # else more has come meanwhile
    except BaseException:
        remove_tree(partial)
        raise
    return len(entries)


def _move_files(source: bytes, target: bytes) -> None:
    """Move all files below a directory into a tree, over its own; what fits no directory there is removed."""
    for parent, directories, names in os.walk(source, topdown=False):
        inner = os.path.relpath(parent, source)
        for name in names + [name for name in directories if os.path.islink(os.path.join(parent, name))]:
            path = os.path.join(parent, name)
            try:
                os.replace(path, _safe_parent(target, os.path.normpath(os.path.join(inner, name)).split(b"/")))
            except (SnapshotError, IsADirectoryError):
                os.unlink(path)
        with contextlib.suppress(OSError):  # not empty: more has come meanwhile
            os.rmdir(parent)


def is_free(path: bytes) -> bool:
    """Tell whether a directory can be filled here: there is nothing, or an empty directory."""
    return not os.path.lexists(path) or (os.path.isdir(path) and not os.path.islink(path) and not os.listdir(path))


def _require(entries: Sequence[Entry], tree: str) -> None:
    if gitobjects.tree_id(entries) != tree:
        raise SnapshotError("the code that arrived is not tree %s" % tree, "the transfer was damaged; try again")


def extract(stream: IO[bytes], directory: bytes) -> list[Entry]:
    """Unpack a tar of regular files, symlinks and directories into an empty directory; returns what came.

    Modes become 0777 or 0666 less the umask. Raises `SnapshotError` for anything that a tree cannot hold: absolute
    or escaping names, ``.git``, other types, a name twice, a name below a file or symlink.
    """
    made = {b""}
    entries: list[Entry] = []
    members = tar.Reader(stream)
    try:
        for member in members:
            path = _checked(member.name)
            if member.kind == tar.DIRECTORY:
                _make_directories(directory, path, made)
                continue
            _make_directories(directory, path.rpartition(b"/")[0], made)
            entries.append(_unpack(members, member, directory, path))
    except tar.TarError as exc:
        raise SnapshotError("the code arrived damaged: %s" % exc, "try again") from exc
    return entries


def _checked(name: bytes) -> bytes:
    path = name.rstrip(b"/")
    parts = path.split(b"/")
    if b"" in parts or b"." in parts or b".." in parts or b".git" in path.lower().split(b"/"):
        raise SnapshotError("the archive holds a forbidden name: %r" % name)
    return path


def _make_directories(directory: bytes, path: bytes, made: set[bytes]) -> None:
    if path in made:
        return
    _make_directories(directory, path.rpartition(b"/")[0], made)
    try:
        os.mkdir(os.path.join(directory, path))
    except FileExistsError:
        raise SnapshotError("the archive holds a file and a directory of one name: %r" % path) from None
    made.add(path)


def _unpack(members: tar.Reader, member: tar.Member, directory: bytes, path: bytes) -> Entry:
    where = os.path.join(directory, path)
    try:
        if member.kind == tar.SYMLINK:
            os.symlink(member.target, where)
            return Entry(path, SYMLINK, gitobjects.object_id(b"blob", member.target))
        if member.kind != tar.FILE:
            raise SnapshotError("the archive holds something that is no file: %r" % member.name)
        mode = EXECUTABLE if member.mode & 0o100 else FILE
        fd = os.open(where, _NEW, 0o777 if mode == EXECUTABLE else 0o666)
    except FileExistsError:
        raise SnapshotError("the archive holds a name twice: %r" % member.name) from None
    try:
        digest = gitobjects.new_digest(b"blob %d\0" % member.size)
        for chunk in members.content():
            digest.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
    return Entry(path, mode, digest.hexdigest())


def write_git_dir(directory: bytes, commit: str | None, branch: str | None) -> None:
    """Write the smallest ``.git`` in which ``git rev-parse HEAD`` answers ``commit`` and the branch is ``branch``.

    At most 6 inodes; it has no objects, so no more than that can be asked of it.
    """
    git = os.path.join(directory, b".git")
    for name in _GIT_DIRECTORIES:
        os.makedirs(os.path.join(git, name))
    ref = b"refs/heads/" + (branch or "").encode("utf-8", "surrogateescape")
    head = b"ref: %s\n" % ref if branch else b"%s\n" % (commit or "").encode("ascii")
    _write(os.path.join(git, b"HEAD"), head)
    if branch and commit:
        _write(os.path.join(git, b"packed-refs"), b"%s %s\n" % (commit.encode("ascii"), ref))
    if commit and len(commit) == 64:
        _write(
            os.path.join(git, b"config"),
            b"[core]\n\trepositoryformatversion = 1\n[extensions]\n\tobjectformat = sha256\n",
        )


def _write(path: bytes, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def place_links(directory: bytes, run_dir: bytes, links: Sequence[Mapping[str, Any]]) -> dict[bytes, str]:
    """Put the symlinks of a run in place and return blob names of those inside of the tree, by path.

    ``path`` is relative to the working tree; one leading ``..`` (``../data``) puts the link beside the tree, in
    ``run_dir``. A frozen symlink is replaced (it is the same target, made absolute), a frozen file never.
    """
    placed: dict[bytes, str] = {}
    for link in links:
        path = str(link["path"]).encode("utf-8", "surrogateescape")
        target = str(link["target"]).encode("utf-8", "surrogateescape")
        parts = path.split(b"/")
        beside = parts[0] == b".."
        inner = parts[1:] if beside else parts
        if not is_place(str(link["path"]), beside=True):
            raise SnapshotError("%s cannot be linked: it would leave the run's directory" % link["path"])
        where = _safe_parent(run_dir if beside else directory, inner)
        if os.path.islink(where):
            os.unlink(where)
        elif os.path.lexists(where):
            raise SnapshotError(
                "%s cannot be linked: the frozen code has a file of that name" % link["path"], "drop the link"
            )
        os.symlink(target, where)
        if not beside:
            placed[path] = gitobjects.object_id(b"blob", target)
    return placed


def _safe_parent(base: bytes, parts: Sequence[bytes]) -> bytes:
    """Make the directories above a link, refusing to pass through symlinks and files; return the link's path."""
    where = base
    for part in parts[:-1]:
        where = os.path.join(where, part)
        try:
            os.mkdir(where)
        except FileExistsError:
            if os.path.islink(where) or not os.path.isdir(where):
                raise SnapshotError("%r is no directory, so nothing can be linked in it" % where) from None
    return os.path.join(where, parts[-1])


def describe(directory: bytes, oids: Mapping[bytes, str]) -> list[Record]:
    """Return a manifest record for each path of a freshly filled tree."""
    records = []
    for path in sorted(oids):
        st = os.lstat(os.path.join(directory, path))
        records.append(Record(path, gitobjects.mode_of(st.st_mode), st.st_size, st.st_mtime_ns, oids[path]))
    return records


def write_manifest(path: str, records: Iterable[Record]) -> None:
    """Write a manifest: NUL-terminated records ``mode size mtime_ns oid path``, mode in octal."""
    rows = (b"%o %d %d %s %s\0" % (r.mode, r.size, r.mtime_ns, r.oid.encode("ascii"), r.path) for r in records)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    write_atomic(path, b"".join(rows))


def read_manifest(path: str) -> list[Record]:
    """Read a manifest; a missing one is empty. Raises `SnapshotError` when it is damaged."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return []
    records = []
    try:
        for row in data.split(b"\0")[:-1]:
            mode, size, mtime_ns, oid, name = row.split(b" ", 4)
            records.append(Record(name, int(mode, 8), int(size), int(mtime_ns), oid.decode("ascii")))
    except ValueError:
        raise SnapshotError("%s is damaged" % path, "the run's directory cannot be thinned") from None
    return records


def thin(directory: str, manifest: str) -> int:
    """Remove the code that is unchanged since the tree was filled, and what only served it; return bytes freed.

    Files that the run changed, and all that it wrote, stay. The manifest keeps the records of what stays. Directories
    that are empty afterwards go, and so does the minimal ``.git`` unless the run made a real one of it.
    """
    top = os.fsencode(directory)
    freed, left, parents = 0, [], set()
    real = {b"": True}
    for record in read_manifest(manifest):
        if not is_real(top, record.path.rpartition(b"/")[0], real) or not record.unchanged(top):
            left.append(record)
            continue
        os.unlink(os.path.join(top, record.path))
        freed += record.size
        parents.add(record.path.rpartition(b"/")[0])
    _thin_git_dir(top)
    for parent in sorted(parents, key=len, reverse=True):
        _remove_empty(top, parent)
    if left:
        write_manifest(manifest, left)
    elif os.path.exists(manifest):
        os.unlink(manifest)
    return freed


def _remove_empty(top: bytes, directory: bytes) -> None:
    """Remove a directory below ``top`` and those above it, as long as they are empty."""
    while directory:
        try:
            os.rmdir(os.path.join(top, directory))
        except OSError:
            return
        directory = directory.rpartition(b"/")[0]


def is_real(top: bytes, parent: bytes, known: dict[bytes, bool]) -> bool:
    """Tell whether no part of a directory's path is a symlink: the run may have moved code away and linked it back."""
    if parent not in known:
        path = os.path.join(top, parent)
        known[parent] = (
            is_real(top, parent.rpartition(b"/")[0], known) and os.path.isdir(path) and not os.path.islink(path)
        )
    return known[parent]


def _thin_git_dir(top: bytes) -> None:
    git = os.path.join(top, b".git")
    try:
        names = os.listdir(git)
        inner = [name for part in _GIT_DIRECTORIES for name in os.listdir(os.path.join(git, part))]
    except OSError:
        return
    if inner or set(names) - set(_GIT_FILES + _GIT_DIRECTORIES):
        return
    remove_tree(git)


def restore(stream: IO[bytes], directory: str) -> int:
    """Bring thinned code back: unpack what the directory lacks, touch nothing that it has; return the file count."""
    top = os.fsencode(os.path.abspath(directory))
    partial = top + b".partial"
    remove_tree(partial)
    os.makedirs(partial)
    count = 0
    try:
        for entry in extract(stream, partial):
            try:
                where = _safe_parent(top, entry.path.split(b"/"))
            except SnapshotError:
                continue  # the run put a file where the code had a directory
            if not os.path.lexists(where):
                os.rename(os.path.join(partial, entry.path), where)
                count += 1
    finally:
        remove_tree(partial)
    return count


def remove_tree(path: bytes) -> None:
    """Remove a directory and all that is in it, following no symlink; a missing one is fine."""
    try:
        with os.scandir(path) as items:
            children = list(items)
    except FileNotFoundError:
        return
    for child in children:
        if child.is_dir(follow_symlinks=False):
            remove_tree(child.path)
        else:
            os.unlink(child.path)
    os.rmdir(path)
