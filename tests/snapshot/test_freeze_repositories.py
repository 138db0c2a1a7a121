"""Freezing repositories of all kinds and in every condition: where the files come from."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runyard.wire.errors import SnapshotError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.snapshot.conftest import Repo, Yard

    Untouched = Callable[[Path], AbstractContextManager[None]]


def test_call_from_a_subdirectory(repo: Repo, yard: Yard) -> None:
    repo.write("a", "1")
    repo.write("sub/deep/b", "2")
    frozen = yard.freeze(repo.path / "sub" / "deep")
    assert frozen.cwd == "sub/deep" and frozen.source == str(repo.path)
    assert yard.names(frozen) == {b"a", b"sub/deep/b"}


def test_call_through_a_symlinked_directory(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("sub/b", "2")
    os.symlink(repo.path, tmp_path / "alias")
    frozen = yard.freeze(tmp_path / "alias" / "sub")
    assert frozen.cwd == "sub" and frozen.source == str(repo.path)


def test_linked_worktree(repo: Repo, yard: Yard, untouched: Untouched) -> None:
    repo.write("a", "1")
    repo.commit()
    repo.git("worktree", "add", "-q", "-b", "feature", "../tree")
    tree = repo.path.parent / "tree"
    (tree / "a").write_text("2")
    with untouched(repo.path), untouched(tree):
        frozen = yard.freeze(tree)
    assert (frozen.main.branch, frozen.main.changed_paths, frozen.repo_name) == ("feature", ["a"], "tree")
    assert yard.names(frozen) == {b"a"}


def test_shallow_clone_detached_head_and_no_network(repo: Repo, yard: Yard, make_repo: type[Repo]) -> None:
    repo.write("a", "1")
    repo.commit()
    repo.write("a", "2")
    commit = repo.commit()
    repo.git("clone", "-q", "--depth=1", "file://%s" % repo.path, "../shallow")
    shallow = make_repo(repo.path.parent / "shallow", init=False)
    shallow.git("checkout", "-q", "--detach")
    frozen = yard.freeze(shallow.path)
    assert (frozen.main.commit, frozen.main.branch) == (commit, None)


def test_repository_without_a_commit(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("a", "1")
    frozen = yard.freeze(repo.path)
    assert (frozen.main.commit, frozen.main.branch) == (None, "main")
    assert frozen.main.snapshot()["dirty"] is True and frozen.main.snapshot()["changed"] == 1
    out = yard.checkout(frozen, tmp_path / "out")
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=out, capture_output=True, check=False)
    assert done.returncode != 0


def test_empty_repository(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    frozen = yard.freeze(repo.path)
    assert frozen.main.files == 0
    out = yard.checkout(frozen, tmp_path / "out")
    assert [p.name for p in out.iterdir()] == [".git"]


def test_in_the_middle_of_a_merge(repo: Repo, yard: Yard, untouched: Untouched) -> None:
    repo.write("a", "base\n")
    repo.commit()
    repo.git("checkout", "-q", "-b", "other")
    repo.write("a", "theirs\n")
    repo.commit()
    repo.git("checkout", "-q", "main")
    repo.write("a", "ours\n")
    head = repo.commit()
    repo.git("merge", "other", check=False)
    assert repo.git("ls-files", "-u")
    with untouched(repo.path):
        frozen = yard.freeze(repo.path)
    assert yard.names(frozen) == {b"a"} and frozen.main.changed_paths == ["a"]
    assert frozen.main.commit == head


def test_stash_and_intent_to_add(repo: Repo, yard: Yard, untouched: Untouched) -> None:
    repo.write("a", "1")
    repo.commit()
    repo.write("a", "2")
    repo.git("stash", "-q")
    repo.write("new", "n")
    repo.git("add", "-N", "new")
    with untouched(repo.path):
        frozen = yard.freeze(repo.path)
    assert yard.names(frozen) == {b"a", b"new"} and frozen.main.changed_paths == ["new"]


@pytest.mark.parametrize("sparse_index", ["true", "false"])
def test_sparse_checkout_freezes_what_is_there(repo: Repo, yard: Yard, sparse_index: str, untouched: Untouched) -> None:
    for name in ("in/a", "out/b", "top"):
        repo.write(name, name)
    repo.commit()
    repo.git("config", "index.sparse", sparse_index)
    repo.git("sparse-checkout", "init", "--cone")
    repo.git("sparse-checkout", "set", "in")
    with untouched(repo.path):
        frozen = yard.freeze(repo.path)
    assert yard.names(frozen) == {b"in/a", b"top"} and frozen.main.changed_paths == []


def test_split_index_is_not_freshened(repo: Repo, yard: Yard, untouched: Untouched) -> None:
    repo.write("a", "1")
    repo.commit()
    repo.git("update-index", "--split-index")
    repo.write("b", "2")
    repo.git("add", "b")
    shared = next((repo.path / ".git").glob("sharedindex.*"))
    os.utime(shared, (1e9, 1e9))
    with untouched(repo.path):
        frozen = yard.freeze(repo.path)
    assert yard.names(frozen) == {b"a", b"b"}


def test_stale_stat_information_is_not_refreshed_in_the_users_index(
    repo: Repo, yard: Yard, untouched: Untouched
) -> None:
    repo.write("a", "1")
    repo.commit()
    os.utime(repo.path / "a", (1, 1))
    with untouched(repo.path):
        frozen = yard.freeze(repo.path)
    assert frozen.main.changed_paths == []


def test_hooks_and_fsmonitor_are_not_run(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("a", "1")
    repo.commit()
    trap = tmp_path / "trap.sh"
    trap.write_text("#!/bin/sh\ntouch %s/sprung\n" % tmp_path)
    trap.chmod(0o755)
    repo.git("config", "core.fsmonitor", str(trap))
    for hook in ("post-index-change", "reference-transaction", "pre-commit"):
        (repo.path / ".git" / "hooks").mkdir(exist_ok=True)
        (repo.path / ".git" / "hooks" / hook).write_text(trap.read_text())
        (repo.path / ".git" / "hooks" / hook).chmod(0o755)
    yard.freeze(repo.path)
    assert not (tmp_path / "sprung").exists()


def test_repository_of_somebody_else_is_frozen_and_none_of_its_filters_run(
    repo: Repo, yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.write("a.x", "1")
    commit = repo.commit()
    repo.write(".gitattributes", "*.x filter=evil\n")
    trap = tmp_path / "trap.sh"
    trap.write_text("#!/bin/sh\ntouch %s/sprung\ncat\n" % tmp_path)
    trap.chmod(0o755)
    repo.git("config", "filter.evil.clean", str(trap))
    repo.git("config", "filter.evil.process", str(trap))
    os.utime(repo.path / "a.x", (1, 1))
    if os.geteuid() == 0:
        for path in [repo.path, *repo.path.rglob("*")]:
            os.lchown(path, 12345, 12345)
    else:  # only root can give files away; then the others are told that they are somebody else
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    frozen = yard.freeze(repo.path)
    assert yard.names(frozen) == {b"a.x", b".gitattributes"} and frozen.main.commit == commit
    assert not (tmp_path / "sprung").exists()


def test_callers_git_variables_do_not_leak(
    repo: Repo, yard: Yard, tmp_path: Path, make_repo: type[Repo], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_repo(tmp_path / "other")
    other.write("wrong", "w")
    other.commit()
    repo.write("a", "1")
    leaking = {"GIT_DIR": str(other.path / ".git"), "GIT_WORK_TREE": str(other.path), "GIT_INDEX_FILE": "/nonexistent",
               "GIT_OBJECT_DIRECTORY": "/nonexistent", "PATH": os.environ["PATH"], "HOME": "/nonexistent"}  # fmt: skip
    for name, value in leaking.items():
        monkeypatch.setenv(name, value)
    frozen = yard.freeze(repo.path, environ=os.environ)
    assert yard.names(frozen) == {b"a"}
    yard.checkout(frozen, tmp_path / "out")


def test_submodules_and_nested_repositories_become_directories(
    repo: Repo, yard: Yard, make_repo: type[Repo], untouched: Untouched
) -> None:
    library = make_repo(repo.path.parent / "library")
    library.write("lib.py", "v1")
    library.write(".gitignore", "*.o\n")
    library.commit()
    repo.write("main.py", "m")
    repo.git("submodule", "--quiet", "add", str(library.path), "vendor/library")
    repo.git("submodule", "--quiet", "add", str(library.path), "empty")
    repo.commit()
    repo.git("submodule", "--quiet", "deinit", "-f", "empty")
    submodule = make_repo(repo.path / "vendor" / "library", init=False)
    submodule.write("lib.py", "v2, not committed")
    submodule.write("new.py", "untracked")
    submodule.write("x.o", "ignored there")
    nested = make_repo(repo.path / "nested")
    nested.write("n.py", "n")
    deeper = make_repo(nested.path / "deeper")
    deeper.write("d.py", "d")
    deeper.commit()
    with untouched(repo.path):
        frozen = yard.freeze(repo.path)
    assert yard.names(frozen) == {
        b"main.py", b".gitmodules", b"vendor/library/lib.py", b"vendor/library/new.py",
        b"vendor/library/.gitignore", b"nested/n.py", b"nested/deeper/d.py",
    }  # fmt: skip
    assert frozen.main.snapshot()["dirty"] is True


@pytest.mark.parametrize("branch", ["main", "topic/é", None])
def test_the_directory_of_a_run_is_frozen_with_the_commit_that_its_head_names(
    repo: Repo, yard: Yard, tmp_path: Path, branch: str | None
) -> None:
    repo.write("a", "1")
    commit = repo.commit()
    repo.git(*(["checkout", "-q", "--detach"] if branch is None else ["checkout", "-q", "-B", branch]))
    working = yard.fill(yard.freeze(repo.path), tmp_path / "run")
    (working / "new").write_text("written by the run")
    frozen = yard.freeze(working)
    assert yard.names(frozen) == {b"a", b"new"}
    assert (frozen.main.commit, frozen.main.branch) == (commit, branch)
    assert frozen.main.changed_paths == ["a", "new"]  # there is nothing to compare them with


def test_nothing_is_a_repository(yard: Yard, tmp_path: Path) -> None:
    top = tmp_path / "plain"
    for name in ("train.py", "pkg/m.py", ".venv/lib/x.py", "node_modules/y.js", "pkg/__pycache__/m.pyc", "skip.tmp"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    (top / ".gitignore").write_text("*.tmp\n")
    frozen = yard.freeze(top)
    assert yard.names(frozen) == {b"train.py", b"pkg/m.py", b".gitignore"}
    assert frozen.main.snapshot()["commit"] is None and frozen.main.snapshot()["dirty"] is False
    assert frozen.repo_name == "plain"


def test_a_directory_with_too_many_files_is_refused(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runyard.snapshot import source

    monkeypatch.setattr(source, "PLAIN_FILES", 50)
    for number in range(60):
        (tmp_path / "plain").mkdir(exist_ok=True)
        (tmp_path / "plain" / str(number)).touch()
    with pytest.raises(SnapshotError, match="more than 50 files") as info:
        yard.freeze(tmp_path / "plain")
    assert "git init" in info.value.hint


def test_bare_and_damaged_repositories_are_refused_clearly(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("a", "1")
    repo.commit()
    repo.git("clone", "-q", "--bare", ".", "../bare.git")
    for inside in (repo.path.parent / "bare.git", repo.path / ".git" / "refs"):
        with pytest.raises(SnapshotError, match="without a working tree"):
            yard.freeze(inside)
    (repo.path / ".git" / "index").write_bytes(b"garbage")
    with pytest.raises(SnapshotError, match="index") as info:
        yard.freeze(repo.path)
    assert info.value.hint
    (repo.path / ".git" / "HEAD").unlink()
    with pytest.raises(SnapshotError, match="damaged"):
        yard.freeze(repo.path)
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / ".git").write_text("gitdir: /nonexistent/worktrees/x\n")
    with pytest.raises(SnapshotError, match="points to"):
        yard.freeze(moved)
