"""The user's working tree: where its top is, which files belong to it, what git says about its state.

git is only asked to read: no lock, no index refresh, no fsmonitor, no hook, no network. Repositories are named to it
by GIT_DIR and GIT_WORK_TREE, which also works for those that somebody else owns; no filter of theirs is run then.
"""

from __future__ import annotations

import os

from runyard.snapshot.git import Git, user_environment
from runyard.wire.errors import SnapshotError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PLAIN_IGNORE = (
    ".venv/", "venv/", "env/", "node_modules/", "__pycache__/", "*.pyc", ".mypy_cache/", ".pytest_cache/",
    ".ruff_cache/", ".ipynb_checkpoints/", ".tox/", ".nox/", ".cache/", ".conda/", "*.egg-info/", ".DS_Store",
)  # fmt: skip
"""What is left out of a directory that is no repository: it can be made again, and it is large."""
PLAIN_FILES = 20_000
"""Files beyond which a directory that is no repository is taken for a mistake (a home directory, a data disk)."""
_FLAGS = ("-c", "core.fsmonitor=false")


class Source:
    """A directory whose files are to be frozen.

    ``top``: it (absolute, symlinks resolved, bytes); ``git_dir``: of its repository (None: no repository);
    ``work_tree``: the repository's top, which is ``top`` or above it.
    """

    def __init__(self, top: bytes, git_dir: bytes | None, work_tree: bytes | None = None) -> None:
        self.top = top
        self.git_dir = git_dir
        self.work_tree = work_tree or top

    def at(self, directory: bytes) -> Source:
        """Return the part of this working tree below one of its directories."""
        return Source(directory, self.git_dir, self.work_tree)

    def is_foreign(self) -> bool:
        """Tell whether somebody else owns the repository, so that nothing that it configures may be executed."""
        if self.git_dir is None:
            return False
        return any(os.stat(path).st_uid != os.geteuid() for path in (self.work_tree, self.git_dir))


class Status:
    """What git says of a working tree: parent commit (None: none yet), branch (None: detached), changed paths."""

    def __init__(self, commit: str | None, branch: str | None, changed: list[bytes]) -> None:
        self.commit = commit
        self.branch = branch
        self.changed = changed


def find(cwd: str) -> Source:
    """Return the working tree that holds a directory: its repository's, else the directory alone.

    Raises `SnapshotError` for a bare repository, the inside of ``.git``, and a ``.git`` that is none.
    """
    start = os.path.realpath(os.fsencode(cwd))
    if not os.path.isdir(start):
        raise SnapshotError("%s is no directory" % cwd)
    here, device = start, os.stat(start).st_dev
    while True:
        git_dir = git_dir_of(here)
        if git_dir is not None:
            return Source(here, git_dir)
        if _looks_like_git_dir(here):
            raise SnapshotError(
                "%s is a repository without a working tree" % os.fsdecode(here),
                "run this in a checkout (`git worktree add DIR` makes one)",
            )
        above = os.path.dirname(here)
        if above == here or os.stat(above).st_dev != device:
            return Source(start, None)
        here = above


def plain_name(top: bytes) -> str:
    """Return the name of a directory as runs can have it: printable, at most 200 bytes; ``""`` when nothing is left."""
    name = os.path.basename(top).decode("utf-8", "surrogateescape")
    name = "".join(char if char.isprintable() else "_" for char in name)
    return name.encode("utf-8")[:200].decode("utf-8", "ignore").strip()


def git_dir_of(directory: bytes) -> bytes | None:
    """Return the git directory of a top directory, following a ``.git`` file (worktrees, submodules); None if none."""
    path = os.path.join(directory, b".git")
    try:
        with open(path, "rb") as file:
            text = file.read(8192)
    except IsADirectoryError:
        if os.path.exists(os.path.join(path, b"HEAD")):
            return path
        text = b""
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise SnapshotError("%s cannot be read: %s" % (os.fsdecode(path), exc.strerror)) from exc
    if text.startswith(b"gitdir: "):
        target = os.path.normpath(os.path.join(directory, text[8:].rstrip(b"\r\n")))
        if os.path.exists(os.path.join(target, b"HEAD")):
            return target
        raise SnapshotError(
            "%s points to %s, which is no repository" % (os.fsdecode(path), os.fsdecode(target)),
            "repair it (`git worktree repair`, `git submodule update --init`) or remove it",
        )
    raise SnapshotError(
        "%s is damaged: it is no repository" % os.fsdecode(path),
        "repair it, or move it away to freeze the directory without git",
    )


def _looks_like_git_dir(path: bytes) -> bool:
    return all(os.path.exists(os.path.join(path, name)) for name in (b"HEAD", b"objects", b"refs"))


def _environment(source: Source, yard: str, environ: Mapping[str, str]) -> dict[str, str]:
    env = user_environment(environ)
    env["GIT_DIR"] = yard if source.git_dir is None else os.fsdecode(source.git_dir)
    env["GIT_WORK_TREE"] = os.fsdecode(source.work_tree)
    if source.git_dir is None:
        env["GIT_INDEX_FILE"] = os.path.join(yard, "no-index")
    return env


def start_listing(source: Source, yard: str, exclude: Sequence[str], environ: Mapping[str, str]) -> Git:
    """Start listing the files of a working tree; `parse_listing` reads the result.

    ``exclude``: patterns (as in .gitignore) of untracked files to leave out, besides those that git ignores.
    """
    patterns = [*exclude, *(PLAIN_IGNORE if source.git_dir is None else ())]
    args = [
        "-C",
        os.fsdecode(source.top),
        *_FLAGS,
        "ls-files",
        "-z",
        "-t",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    if _has_sparse_index(source):
        args.append("--sparse")  # expanding it would touch objects of the user's repository
    for pattern in patterns:
        args += ["-x", pattern]
    return Git(args, _environment(source, yard, environ))


def shared_index_times(source: Source) -> list[tuple[bytes, int, int]]:
    """Return (path, atime, mtime in ns) of the shared parts of a split index (gitformat-index(5))."""
    found = []
    for name in os.listdir(source.git_dir) if source.git_dir is not None else ():
        if name.startswith(b"sharedindex."):
            path = os.path.join(source.git_dir or b"", name)
            st = os.stat(path)
            found.append((path, st.st_atime_ns, st.st_mtime_ns))
    return found


def _has_sparse_index(source: Source) -> bool:
    """Tell whether the index holds whole directories as one entry (gitformat-index(5), extension ``sdir``)."""
    if source.git_dir is None or not os.path.exists(os.path.join(source.git_dir, b"info", b"sparse-checkout")):
        return False
    try:
        with open(os.path.join(source.git_dir, b"index"), "rb") as file:
            return b"sdir" in file.read()
    except OSError:
        return False


def read_listing(source: Source, listing: Git) -> dict[bytes, bool]:
    """Return the paths of a working tree, True for tracked ones; nested repositories are one path each."""
    paths: dict[bytes, bool] = {}
    limit = PLAIN_FILES * 256 if source.git_dir is None else None
    try:
        data = listing.output(limit)
    except OverflowError:
        data = b""
        limit = 0
    for row in data.split(b"\0"):
        if row:
            path = row[2:].rstrip(b"/")
            paths[path] = row[:1] != b"?" or paths.get(path, False)
    if source.git_dir is None and (limit == 0 or len(paths) > PLAIN_FILES):
        raise SnapshotError(
            "%s is no git repository and holds more than %d files" % (os.fsdecode(source.top), PLAIN_FILES),
            "run this in the directory of the code, or make it a repository: git init",
        )
    return paths


def start_check_ignore(source: Source, yard: str, paths: Sequence[bytes], environ: Mapping[str, str]) -> Git:
    """Start asking which of these paths git ignores; it answers with those, NUL-terminated."""
    args = ["-C", os.fsdecode(source.top), *_FLAGS, "check-ignore", "-z", "--stdin"]
    return Git(args, _environment(source, yard, environ), b"\0".join(paths) + b"\0")


def start_status(source: Source, yard: str, environ: Mapping[str, str]) -> Git:
    """Start asking for commit, branch and changes of a repository; `read_status` reads the result."""
    return _status(source, yard, environ, source.is_foreign())


def read_status(source: Source, yard: str, environ: Mapping[str, str], process: Git) -> Status:
    """Return what `start_status` asked for; asks again without the user's filters when they make git fail."""
    try:
        return parse_status(process.output())
    except SnapshotError:
        if _has_no_objects(source.git_dir):
            return _status_without_objects(source, yard, environ)
        with _status(source, yard, environ, True) as again:
            return parse_status(again.output())


def _has_no_objects(git_dir: bytes | None) -> bool:
    """Tell whether this is the ``.git`` that a run gets."""
    try:
        return git_dir is not None and not os.listdir(os.path.join(git_dir, b"objects"))
    except FileNotFoundError:
        return False  # a linked worktree's: the objects are elsewhere


def _status_without_objects(source: Source, yard: str, environ: Mapping[str, str]) -> Status:
    """Return commit and branch as HEAD names them; every file is untracked there, so no changes besides."""
    args = ["-C", os.fsdecode(source.top), *_FLAGS, "rev-parse", "HEAD", "--symbolic-full-name", "HEAD"]
    with Git(args, _environment(source, yard, environ)) as git:
        commit, ref = git.output().decode("utf-8", "surrogateescape").splitlines()
    heads = "refs/heads/"
    return Status(commit, ref[len(heads) :] if ref.startswith(heads) else None, [])


def _status(source: Source, yard: str, environ: Mapping[str, str], without_filters: bool) -> Git:
    env = _environment(source, yard, environ)
    args = ["-C", os.fsdecode(source.top), *_FLAGS]
    if without_filters:
        for driver in _filter_drivers(args, env):
            for key, value in (("clean", ""), ("process", ""), ("required", "false")):
                args += ["-c", "filter.%s.%s=%s" % (driver, key, value)]
    args += ["status", "--porcelain=v2", "-z", "--branch", "-uno", "--no-renames", "--no-ahead-behind"]
    if without_filters:
        args.append("--ignore-submodules=dirty")
    return Git([*args, "--", "."] if source.top != source.work_tree else args, env)


def _filter_drivers(args: Sequence[str], env: Mapping[str, str]) -> list[str]:
    with Git([*args, "config", "-z", "--name-only", "--get-regexp", r"^filter\."], env) as config:
        try:
            names = config.output().decode("utf-8", "surrogateescape").split("\0")
        except SnapshotError:
            return []  # none configured: exit status 1
    return sorted({name[len("filter.") : name.rindex(".")] for name in names if name.count(".") >= 2})


def parse_status(data: bytes) -> Status:
    """Parse ``git status --porcelain=v2 -z --branch`` (git-status(1), Porcelain Format Version 2)."""
    commit, branch, changed = None, None, []
    for row in data.split(b"\0"):
        if row.startswith(b"# branch.oid ") and not row.endswith(b"(initial)"):
            commit = row[13:].decode("ascii")
        elif row.startswith(b"# branch.head ") and not row.endswith(b" (detached)"):
            branch = row[14:].decode("utf-8", "surrogateescape")
        elif row[:2] == b"1 ":
            changed.append(row.split(b" ", 8)[8])
        elif row[:2] == b"u ":
            changed.append(row.split(b" ", 10)[10])
    return Status(commit, branch, changed)
