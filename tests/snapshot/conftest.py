"""Real repositories and homes for the tests of snapshots."""

from __future__ import annotations

import hashlib
import os
import subprocess
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runyard.snapshot.freeze import Frozen, freeze
from runyard.wire import tree
from runyard.wire.gitobjects import Entry
from tests.snapshot.trees import files_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLEAN_ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


class Repo:
    """A git repository of a test, with shortcuts."""

    def __init__(self, path: Path, init: bool = True) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        if init:
            self.git("init", "-q", "-b", "main")

    def git(self, *args: str, check: bool = True, env: dict[str, str] | None = None) -> str:
        command = ["git", "-c", "protocol.file.allow=always", *args]
        done = subprocess.run(
            command, cwd=self.path, env={**CLEAN_ENV, **(env or {})}, capture_output=True, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError("%s: %s" % (args, done.stderr.decode()))
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    def write(self, name: str | bytes, content: str | bytes = "", mode: int | None = None) -> Path:
        path = os.path.join(os.fsencode(self.path), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        if mode is not None:
            os.chmod(path, mode)
        return Path(os.fsdecode(path))

    def commit(self, message: str = "x") -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")


def fingerprint(top: Path) -> dict[bytes, tuple[Any, ...]]:
    """Return bytes, mode and modification time of everything below a directory, ``.git`` included."""
    seen: dict[bytes, tuple[Any, ...]] = {}
    for directory, names, files in os.walk(os.fsencode(top)):
        for name in [*names, *files, b"."]:
            path = os.path.join(directory, name)
            st = os.lstat(path)
            content = b""
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).digest()
            seen[path] = (st.st_mode, st.st_mtime_ns, st.st_size, st.st_ino, content)
    return seen


@contextmanager
def untouched(top: Path) -> Iterator[None]:
    """Check that nothing below a directory changes."""
    before = fingerprint(top)
    yield
    assert fingerprint(top) == before


class Yard:
    """A home, with shortcuts that freeze and look at what was frozen."""

    def __init__(self, home: Path) -> None:
        self.home = str(home)

    def freeze(self, where: Path | str, **options: Any) -> Frozen:
        return freeze(str(where), self.home, environ=options.pop("environ", CLEAN_ENV), **options)

    def files(self, tree_name: str) -> dict[bytes, Entry]:
        return {entry.path: entry for entry in files_of(self.home, tree_name)}

    def names(self, frozen: Frozen) -> set[bytes]:
        return set(self.files(frozen.main.tree))

    def checkout(self, frozen: Frozen, directory: Path) -> Path:
        from runyard.snapshot.restore import checkout

        checkout(self.home, frozen.main.tree, str(directory), frozen.main.commit, frozen.main.branch)
        return directory

    def fill(self, frozen: Frozen, run_dir: Path) -> Path:
        """Fill a run's directory as an agent does; returns the working tree."""
        from runyard.snapshot.restore import open_archive

        working = run_dir / frozen.repo_name
        main = frozen.main
        with open_archive(self.home, main.tree) as stream:
            tree.fill(
                stream, str(working), main.tree, main.commit, main.branch, frozen.links,
                str(run_dir / ".runyard" / "manifest"),
            )  # fmt: skip
        for number, (path, part) in enumerate(frozen.also, 1):
            with open_archive(self.home, part.tree) as stream:
                where = os.path.normpath(working / path)
                manifest = str(run_dir / ".runyard" / ("manifest.%d" % number))
                tree.fill(stream, where, part.tree, part.commit, part.branch, (), manifest)
        return working


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "work" / "digits")


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path / "home")


@pytest.fixture(name="untouched")
def untouched_fixture() -> Callable[[Path], AbstractContextManager[None]]:
    return untouched


@pytest.fixture
def make_repo() -> type[Repo]:
    return Repo


@pytest.fixture
def make_yard() -> type[Yard]:
    return Yard


@pytest.fixture
def clean_env() -> dict[str, str]:
    return dict(CLEAN_ENV)
