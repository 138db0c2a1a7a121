"""What differs between frozen trees, and removing those that nobody needs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runyard.snapshot.diff import changes, diff
from runyard.snapshot.gc import check, gc, would_free
from runyard.snapshot.repository import Repository
from runyard.wire.errors import NotFoundError, SnapshotError

if TYPE_CHECKING:
    from tests.snapshot.conftest import Repo, Yard


def test_text_diff_names_files_and_binary_ones(repo: Repo, yard: Yard) -> None:
    repo.write("train.py", "lr = 0.1\nepochs = 3\n")
    repo.write("old name.py", "same\n" * 20)
    repo.write("model.bin", b"\0\1\2")
    repo.write("gone", "x\n")
    repo.write("run.sh", "x\n")
    repo.write("crlf.txt", b"a\r\n")
    first = yard.freeze(repo.path).main.tree
    repo.write("train.py", "lr = 0.2\nepochs = 3\n")
    (repo.path / "old name.py").rename(repo.path / "new name.py")
    repo.write("model.bin", b"\0\1\3")
    (repo.path / "gone").unlink()
    repo.write("run.sh", "x\n", 0o755)
    repo.write("crlf.txt", b"a\n")
    repo.write("added \xff\n.py".encode("latin-1"), "new\n")
    second = yard.freeze(repo.path).main.tree
    text = diff(yard.home, first, second).decode()
    assert "-lr = 0.1\n+lr = 0.2\n epochs = 3\n" in text
    assert "rename from old name.py\nrename to new name.py" in text
    assert "Binary files a/model.bin and b/model.bin differ" in text
    assert "old mode 100644\nnew mode 100755" in text and "deleted file mode" in text and "-a\r\n+a\n" in text
    found = {change.path: (change.kind, change.added, change.removed) for change in changes(yard.home, first, second)}
    assert found == {
        "train.py": ("changed", 1, 1), "old name.py": ("deleted", 0, 20), "new name.py": ("added", 20, 0),
        "model.bin": ("changed", None, None), "gone": ("deleted", 0, 1), "run.sh": ("mode", 0, 0),
        "crlf.txt": ("changed", 1, 1), "added \udcff\n.py": ("added", 1, 0),
    }  # fmt: skip
    only = diff(yard.home, first, second, ["train.py"]).decode()
    assert only.count("diff --git") == 1
    assert diff(yard.home, first, second, ["*.py"]) == b""


def test_diff_applies(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("a", "1\n")
    old = yard.freeze(repo.path)
    repo.write("a", "2\n")
    repo.write("sub/b", "3\n")
    new = yard.freeze(repo.path)
    out = yard.checkout(old, tmp_path / "out")
    patch = diff(yard.home, old.main.tree, new.main.tree)
    subprocess.run(["patch", "-p1", "-s"], cwd=out, input=patch, check=True)
    assert (out / "a").read_text() == "2\n" and (out / "sub" / "b").read_text() == "3\n"


def test_no_difference_and_unknown_trees(repo: Repo, yard: Yard) -> None:
    repo.write("a", "1")
    tree = yard.freeze(repo.path).main.tree
    assert diff(yard.home, tree, tree) == b"" and changes(yard.home, tree, tree) == []
    with pytest.raises(NotFoundError):
        diff(yard.home, tree, "0" * 40)


def test_users_diff_configuration_is_not_used(
    repo: Repo, yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "gitconfig"
    config.write_text("[diff]\n\texternal = /nonexistent\n\tnoprefix = true\n[color]\n\tui = always\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "/nonexistent")
    repo.write("a", "1\n")
    old = yard.freeze(repo.path).main.tree
    repo.write("a", "2\n")
    assert diff(yard.home, old, yard.freeze(repo.path).main.tree).startswith(b"diff --git a/a b/a\n")


def test_gc_keeps_live_and_young_trees_and_frees_the_rest(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    frozen = []
    for content in ("live", "dead", "young"):
        repo.write("common", "c" * 10_000)
        repo.write("a", os.urandom(50_000).hex() + content)
        frozen.append(yard.freeze(repo.path))
    live, dead, _ = (each.main.tree for each in frozen)
    for tree in (live, dead):
        os.utime(Path(yard.home, "snapshots.git", "refs", "trees", tree), (1, 1))
    count, size = would_free(yard.home, [live])
    assert count == 1 and 40_000 < size < 200_000
    swept = gc(yard.home, [live])
    assert swept.removed == [dead] and swept.kept == 2 and swept.before - swept.after > 40_000
    check(yard.home)
    yard.checkout(frozen[0], tmp_path / "live")
    yard.checkout(frozen[2], tmp_path / "young")
    with pytest.raises(NotFoundError):
        yard.checkout(frozen[1], tmp_path / "dead")
    assert would_free(yard.home, [live]) == (0, 0)
    repo.write("b", "after packing")
    again = yard.freeze(repo.path)
    yard.checkout(again, tmp_path / "again")
    gc(yard.home, [], grace_s=-1)
    assert yard.freeze(repo.path).main.tree == again.main.tree
    assert Repository(yard.home).trees() == [again.main.tree]


def test_freezing_again_makes_a_tree_young(repo: Repo, yard: Yard) -> None:
    repo.write("a", "1")
    tree = yard.freeze(repo.path).main.tree
    os.utime(Path(yard.home, "snapshots.git", "refs", "trees", tree), (1, 1))
    yard.freeze(repo.path)
    assert gc(yard.home, []).removed == []


def test_gc_removes_what_killed_processes_left(repo: Repo, yard: Yard) -> None:
    repo.write("a", "1")
    yard.freeze(repo.path)
    home = Path(yard.home, "snapshots.git")
    left = [home / "objects" / "tmp_obj_1234", home / "tmp_ref_1234", home / "cache" / "abc.1234"]
    for path in left:
        path.write_bytes(b"half")
    gc(yard.home, [])
    assert not any(path.exists() for path in left)
    assert len(list((home / "cache").iterdir())) == 1


def test_gc_of_a_home_without_snapshots(tmp_path: Path) -> None:
    assert gc(str(tmp_path / "none"), []).removed == [] and would_free(str(tmp_path / "none"), []) == (0, 0)
    assert not (tmp_path / "none").exists()


def test_gc_waits_for_readers_and_writers_wait_for_gc(repo: Repo, yard: Yard) -> None:
    repo.write("a", "1")
    yard.freeze(repo.path)
    done = threading.Event()

    def sweep() -> None:
        gc(yard.home, [], grace_s=-1)
        done.set()

    thread = threading.Thread(target=sweep)
    with Repository(yard.home).lock():
        thread.start()
        assert not done.wait(0.3)
    assert done.wait(20)
    thread.join()
    with Repository(yard.home).lock(exclusive=True):

        def freeze() -> None:
            yard.freeze(repo.path)
            done.clear()

        late = threading.Thread(target=freeze)
        late.start()
        time.sleep(0.2)
        assert done.is_set()
    late.join(20)
    assert not done.is_set()


def test_freezing_and_gc_at_once_lose_nothing(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, %r)\nfrom runyard.snapshot.gc import gc\n"
        "for _ in range(15): gc(%r, [], grace_s=1000)" % (str(Path("src").resolve()), yard.home)
    )
    repo.write("a", "1")
    yard.freeze(repo.path)
    sweeper = subprocess.Popen([sys.executable, "-c", program])
    step = 0
    while sweeper.poll() is None:
        repo.write("a", "%d" % (step % 3))
        frozen = yard.freeze(repo.path)
        yard.checkout(frozen, tmp_path / ("out%d" % step))
        os.utime(Path(yard.home, "snapshots.git", "refs", "trees", frozen.main.tree), (1, 1))
        step += 1
    assert sweeper.returncode == 0 and step > 0
    check(yard.home)


def test_check_names_damage(repo: Repo, yard: Yard) -> None:
    repo.write("a", "1")
    frozen = yard.freeze(repo.path)
    check(yard.home)
    oid = yard.files(frozen.main.tree)[b"a"].oid
    Path(yard.home, "snapshots.git", "objects", oid[:2], oid[2:]).unlink()
    with pytest.raises(SnapshotError, match="damaged"):
        check(yard.home)
