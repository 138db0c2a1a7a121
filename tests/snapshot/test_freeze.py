"""Freezing: what goes into a tree, byte for byte, and that the user's repository is only read."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.snapshot.trees import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.snapshot.conftest import Repo, Yard

    Untouched = Callable[[Path], AbstractContextManager[None]]


def test_tree_equals_the_working_tree_and_git_agrees_on_its_name(repo: Repo, yard: Yard, untouched: Untouched) -> None:
    repo.write("a.py", "print(1)\n")
    repo.write("pkg/b.py", "x\n", 0o755)
    repo.write("pkg.py", "sorted after pkg as a directory\n")
    os.symlink("a.py", repo.path / "link")
    commit = repo.commit()
    with untouched(repo.path):
        frozen = yard.freeze(repo.path)
    main = frozen.main
    assert main.tree == repo.git("rev-parse", "HEAD^{tree}") == verify(str(repo.path))
    assert (main.commit, main.branch, main.changed_paths) == (commit, "main", [])
    assert (main.files, main.bytes) == (4, sum(os.lstat(p).st_size for p in repo.path.rglob("*") if not p.is_dir()
                                               and ".git" not in p.parts))  # fmt: skip
    assert frozen.repo_name == "digits" and frozen.source == str(repo.path) and frozen.cwd == ""
    assert main.snapshot()["dirty"] is False


def test_modified_staged_untracked_deleted_renamed_and_ignored(repo: Repo, yard: Yard, untouched: Untouched) -> None:
    for name in ("same", "modified", "staged", "deleted", "removed", "old"):
        repo.write(name, name)
    repo.write(".gitignore", "*.log\nout/\n")
    repo.write("forced.log", "tracked although ignored")
    repo.git("add", "-f", "forced.log")
    repo.commit()
    repo.write("modified", "changed in place")
    repo.write("staged", "first")
    repo.git("add", "staged")
    repo.write("staged", "then changed again")
    (repo.path / "deleted").unlink()
    repo.git("rm", "-q", "removed")
    repo.git("mv", "old", "new")
    repo.write("sub/untracked", "u")
    repo.write("x.log", "ignored")
    repo.write("out/model", "ignored")
    with untouched(repo.path):
        frozen = yard.freeze(repo.path)
    assert yard.names(frozen) == {
        b"same", b"modified", b"staged", b"new", b"sub/untracked", b".gitignore", b"forced.log",
    }  # fmt: skip
    assert set(frozen.main.changed_paths) == {
        "modified", "staged", "deleted", "removed", "old", "new", "sub/untracked",
    }  # fmt: skip
    out = yard.checkout(frozen, repo.path.parent / "out")
    assert (out / "staged").read_text() == "then changed again"
    assert (out / "modified").read_text() == "changed in place"


def test_symlinks_of_all_kinds_come_back_as_they_were(
    repo: Repo, yard: Yard, tmp_path: Path, untouched: Untouched
) -> None:
    repo.write("dir/file", "x")
    for name, target in (
        ("relative", "dir/file"), ("absolute", str(tmp_path)), ("dangling", "nowhere/at all"), ("to_dir", "dir"),
        ("dir/up", "../dir/file"), ("long", "d/" * 150 + "x"),
        ("itself", "itself"), ("dir/round", "../dir/about"), ("dir/about", "round"),
    ):  # fmt: skip
        os.symlink(target, repo.path / name)
    os.symlink(b"caf\xe9", os.fsencode(repo.path) + b"/bytes")
    with untouched(repo.path):
        frozen = yard.freeze(repo.path)
    out = yard.checkout(frozen, tmp_path / "out")
    for name in (
        "relative", "absolute", "dangling", "to_dir", "dir/up", "long", "itself", "dir/round", "dir/about", "bytes",
    ):  # fmt: skip
        assert os.readlink(out / name) == os.readlink(repo.path / name)
    assert verify(str(out)) == frozen.main.tree
    assert not [link for link in frozen.links if link["path"] in ("relative", "dangling", "to_dir")]


def test_a_directory_replaced_by_a_symlink_is_not_followed(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("pkg/a.py", "tracked")
    repo.commit()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.py").write_text("not ours")
    (repo.path / "pkg" / "a.py").unlink()
    (repo.path / "pkg").rmdir()
    os.symlink(tmp_path / "elsewhere", repo.path / "pkg")
    frozen = yard.freeze(repo.path)
    assert yard.names(frozen) == {b"pkg"}
    out = yard.checkout(frozen, tmp_path / "out")
    assert os.readlink(out / "pkg") == str(tmp_path / "elsewhere")


def test_a_file_replaced_by_a_directory(repo: Repo, yard: Yard) -> None:
    repo.write("config", "file")
    repo.commit()
    (repo.path / "config").unlink()
    repo.write("config/a.ini", "1")
    assert yard.names(yard.freeze(repo.path)) == {b"config/a.ini"}


def test_line_ends_filters_and_export_attributes_change_no_byte(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write(
        ".gitattributes",
        "* text=auto\n*.bin filter=lfs diff=lfs merge=lfs -text\n*.id ident\n*.u16 working-tree-encoding=UTF-16\n"
        "secret export-ignore\nsub export-subst\n",
    )
    content = {
        "crlf.txt": b"a\r\nb\r\n",
        "mixed.txt": b"a\r\nb\n",
        "smudged.bin": b"\0the real model" * 100,
        "pointer.bin": b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 12\n" % (b"0" * 64),
        "k.id": b"$Id$ $Id: 123 $\n",
        "t.u16": "text".encode("utf-16"),
        "secret": b"kept",
        "sub": b"$Format:%H$\n",
    }
    for name, data in content.items():
        repo.write(name, data)
    clean = tmp_path / "clean.py"
    clean.write_text("import sys; sys.stdin.buffer.read(); print('POINTER')")
    smudging = ["-c", "filter.lfs.clean=%s %s" % (sys.executable, clean), "-c", "filter.lfs.required=true"]
    repo.git(*smudging, "add", "-A")
    repo.git(*smudging, "commit", "-qm", "x")
    repo.git("config", "filter.lfs.clean", "%s %s" % (sys.executable, clean))
    repo.git("config", "filter.lfs.required", "true")
    repo.git("config", "core.autocrlf", "true")
    frozen = yard.freeze(repo.path)
    out = yard.checkout(frozen, tmp_path / "out")
    assert {name: (out / name).read_bytes() for name in content} == content
    assert frozen.main.changed_paths == []


def test_a_required_filter_that_is_missing_does_not_stop_the_freeze(repo: Repo, yard: Yard) -> None:
    repo.write("a.bin", "model")
    repo.commit()
    repo.git("config", "filter.gone.clean", "/nonexistent/filter")
    repo.git("config", "filter.gone.required", "true")
    repo.git("worktree", "add", "-q", "../tree")
    tree = repo.path.parent / "tree"
    for path in (repo.path, tree):
        (path / "a.bin").write_text("model")
        (path / ".gitattributes").write_text("*.bin filter=gone\n")
        os.utime(path / "a.bin", (1, 1))
        frozen = yard.freeze(path)
        assert b"a.bin" in yard.names(frozen)
        assert frozen.main.commit == repo.git("rev-parse", "HEAD")


HOSTILE = [
    b"with space", b"quote\"s", b"apo'strophe", b"new\nline", b"tab\there", b"back\\slash", b"caf\xe9-latin1",
    "größe-日本".encode(), b"-rf", b"--help", b"*glob?[x]", b"#hash", b"!bang", b" lead", b"trail ", b"$(id)",
    b"\x01\x7f\xff", b"a" * 255, b"dir with\nnewline/\xff\xfe", b"x/" * 60 + b"deep",
]  # fmt: skip


def test_hostile_names_come_back(repo: Repo, yard: Yard, tmp_path: Path, untouched: Untouched) -> None:
    for index, name in enumerate(HOSTILE):
        repo.write(name, b"%d" % index)
    repo.git("add", "-A", "--", "with space", "new\nline")
    with untouched(repo.path):
        frozen = yard.freeze(repo.path)
    assert yard.names(frozen) == set(HOSTILE)
    out = yard.checkout(frozen, tmp_path / "out")
    assert verify(str(out)) == frozen.main.tree == verify(str(repo.path))
    for index, name in enumerate(HOSTILE):
        assert Path(os.fsdecode(os.path.join(os.fsencode(out), name))).read_bytes() == b"%d" % index


def test_executable_bits(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("run.sh", "x", 0o755)
    repo.write("plain", "x", 0o644)
    repo.commit()
    repo.write("plain", "x", 0o744)
    frozen = yard.freeze(repo.path)
    out = yard.checkout(frozen, tmp_path / "out")
    assert os.access(out / "run.sh", os.X_OK) and os.access(out / "plain", os.X_OK)
    assert frozen.main.changed_paths == ["plain"]
