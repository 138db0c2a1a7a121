"""Freezing: what is left out or linked, and that it is named."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.snapshot.conftest import Repo, Yard

    Untouched = Callable[[Path], AbstractContextManager[None]]


def test_sockets_and_pipes_are_named_and_left_out(repo: Repo, yard: Yard) -> None:
    repo.write("a", "1")
    repo.write("was_file", "1")
    repo.write(".gitignore", "ignored.sock\n")
    repo.commit()
    os.mkfifo(repo.path / "pipe")
    (repo.path / "was_file").unlink()
    os.mkfifo(repo.path / "was_file")
    here = Path.cwd()
    sockets = []
    try:
        os.chdir(repo.path)  # the kernel limits the length of a socket's path
        for name in ("s.sock", "ignored.sock"):
            sockets.append(socket.socket(socket.AF_UNIX))
            sockets[-1].bind(name)
    finally:
        os.chdir(here)
    try:
        frozen = yard.freeze(repo.path)
    finally:
        for each in sockets:
            each.close()
    assert yard.names(frozen) == {b"a", b".gitignore"}
    assert sorted((item["path"], item["why"]) for item in frozen.skipped) == [
        ("pipe", "named pipe"), ("s.sock", "socket"), ("was_file", "named pipe"),
    ]  # fmt: skip


def test_an_unreadable_file_is_named_and_left_out(make_repo: type[Repo], make_yard: type[Yard]) -> None:
    with tempfile.TemporaryDirectory() as place:
        repo = make_repo(Path(place) / "repo")
        repo.write("a", "1")
        repo.write("secret", "1", 0o000)
        root = os.geteuid() == 0
        for path in [Path(place), *Path(place).rglob("*")] if root else ():
            os.chown(path, 65534, 65534)
        if root:
            os.seteuid(65534)  # root can read everything
        try:
            yard = make_yard(Path(place) / "home")
            frozen = yard.freeze(repo.path)
            assert yard.names(frozen) == {b"a"}
        finally:
            if root:
                os.seteuid(0)
    assert "secret" in frozen.warnings[0] and frozen.skipped == [{"path": "secret", "why": "not readable"}]


def test_user_exclude_files_and_patterns_are_respected(
    repo: Repo, yard: Yard, tmp_path: Path, clean_env: dict[str, str]
) -> None:
    for name in ("keep.py", "a.local", "b.global", "c.setting", "sub/c.setting", "tracked.setting"):
        repo.write(name, name)
    repo.git("add", "tracked.setting")
    (repo.path / ".git" / "info").mkdir(exist_ok=True)
    (repo.path / ".git" / "info" / "exclude").write_text("*.local\n")
    (tmp_path / "globalignore").write_text("*.global\n")
    (tmp_path / "gitconfig").write_text("[core]\n\texcludesFile = %s\n" % (tmp_path / "globalignore"))
    environ = {**clean_env, "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig")}
    frozen = yard.freeze(repo.path, environ=environ, ignore=["*.setting"])
    assert yard.names(frozen) == {b"keep.py", b"tracked.setting"}


def test_home_inside_of_the_tree_is_left_out(repo: Repo, make_yard: type[Yard]) -> None:
    repo.write("a", "1")
    yard = make_yard(repo.path / "odd [home]*" / ".runyard")
    for _ in range(2):
        assert yard.names(yard.freeze(repo.path)) == {b"a"}


def test_thirty_gigabytes_of_ignored_outputs_cost_nothing(repo: Repo, yard: Yard) -> None:
    repo.write("a", "1")
    repo.write(".gitignore", "outputs/\n")
    repo.commit()
    (repo.path / "outputs").mkdir()
    for number in range(30):
        with open(repo.path / "outputs" / ("model%d.pt" % number), "wb") as file:
            file.truncate(1 << 30)
    started = time.monotonic()
    frozen = yard.freeze(repo.path)
    assert time.monotonic() - started < 10  # reading them would take minutes
    assert yard.names(frozen) == {b"a", b".gitignore"}


def test_large_tracked_files_go_in_whole(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 5
    repo.write("weights.bin", content)
    repo.commit()
    frozen = yard.freeze(repo.path, max_file=1000)
    out = yard.checkout(frozen, tmp_path / "out")
    assert (out / "weights.bin").read_bytes() == content and frozen.links == []


def test_a_directory_of_the_call_that_holds_nothing_is_named(repo: Repo, yard: Yard) -> None:
    repo.write(".gitignore", "out/\n")
    repo.write("out/x", "1")
    frozen = yard.freeze(repo.path / "out")
    assert frozen.cwd == "out" and "empty directory" in frozen.warnings[0]
    assert yard.names(frozen) == {b".gitignore"}


def test_large_files_of_a_plain_directory_are_linked(yard: Yard, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "train.py").write_text("x")
    (tmp_path / "plain" / "corpus.bin").write_bytes(b"x" * 5000)
    frozen = yard.freeze(tmp_path / "plain", max_file=4000)
    assert [link["path"] for link in frozen.links] == ["corpus.bin"] and yard.names(frozen) == {b"train.py"}


def test_a_repository_whose_name_the_yard_needs(yard: Yard, make_repo: type[Repo], tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "x" / ".runyard")
    repo.write("a", "1")
    frozen = yard.freeze(repo.path)
    assert frozen.repo_name == "code"
    assert (yard.fill(frozen, tmp_path / "run") / "a").exists()


@pytest.mark.parametrize(
    ("name", "plain"),
    [(b"new\nline\xff", "new_line_"), (b" blanks ", "blanks"), (b"\xe3\x81\x82" * 80, "あ" * 66), (b" ", "code")],
)
def test_a_repository_whose_name_no_run_can_have(
    yard: Yard, make_repo: type[Repo], tmp_path: Path, name: bytes, plain: str
) -> None:
    repo = make_repo(tmp_path / os.fsdecode(name))
    repo.write("a", "1")
    commit = repo.commit()
    frozen = yard.freeze(repo.path)
    assert (frozen.repo_name, frozen.source, frozen.main.commit) == (plain, str(repo.path), commit)
    assert (yard.fill(frozen, tmp_path / "run") / "a").exists()


def test_an_untracked_virtual_environment_is_named_and_left_out(repo: Repo, yard: Yard) -> None:
    repo.write("a.py", "1")
    repo.commit()
    repo.write("tools/my env/pyvenv.cfg", "home = /usr/bin\n")
    repo.write("tools/my env/lib/big.py", "x")
    repo.write("tools/own.py", "2")
    frozen = yard.freeze(repo.path)
    assert yard.names(frozen) == {b"a.py", b"tools/own.py"}
    assert {"path": "tools/my env", "why": "a virtual environment"} in frozen.skipped
