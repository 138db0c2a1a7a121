"""Freezing again, several at once, while files change, and when something breaks."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runyard.snapshot.source import git_dir_of
from runyard.wire.errors import SnapshotError
from tests.snapshot.trees import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.snapshot.conftest import Repo, Yard

    Untouched = Callable[[Path], AbstractContextManager[None]]

SRC = str(Path(__file__).resolve().parents[2] / "src")


def test_require_clean(repo: Repo, yard: Yard) -> None:
    repo.write("a", "1")
    repo.commit()
    yard.freeze(repo.path, require_clean=True)
    repo.write("a", "2")
    repo.write("b", "2")
    with pytest.raises(SnapshotError, match="2 uncommitted changes: a, b"):
        yard.freeze(repo.path, require_clean=True)


def test_every_change_is_seen_the_second_time(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    for number in range(20):
        repo.write("f%d" % number, "start")
    for step in range(12):
        st = os.stat(repo.path / "f3")
        repo.write("f3", "%05d" % step)  # same size, and the same time for whoever looks only at that
        os.utime(repo.path / "f3", ns=(st.st_atime_ns, st.st_mtime_ns))
        frozen = yard.freeze(repo.path)
        assert frozen.main.tree == verify(str(repo.path))
    (repo.path / "f4").unlink()
    repo.write("g", "new")
    assert yard.freeze(repo.path).main.tree == verify(str(repo.path))


def test_second_time_reads_no_file(repo: Repo, yard: Yard) -> None:
    repo.write("a", "1" * 1000)
    repo.commit()
    deadline = time.monotonic() + 20
    while True:  # a file counts as settled once its clock tick is over
        first = yard.freeze(repo.path).main.tree
        os.chmod(yard.home + "/snapshots.git/objects", 0o500)
        before = os.stat(repo.path / "a").st_atime_ns
        yard.freeze(repo.path)
        cache = next(Path(yard.home, "snapshots.git", "cache").iterdir()).read_bytes()
        os.chmod(yard.home + "/snapshots.git/objects", 0o700)
        if b"\0- " not in cache:
            break
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert os.stat(repo.path / "a").st_atime_ns == before
    assert yard.freeze(repo.path).main.tree == first


def test_lost_objects_are_written_again_when_the_ref_is_gone(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    from runyard.snapshot.gc import gc

    repo.write("a", "1")
    frozen = yard.freeze(repo.path)
    assert gc(yard.home, [], grace_s=-1).removed == [frozen.main.tree]
    again = yard.freeze(repo.path)
    assert again.main.tree == frozen.main.tree
    yard.checkout(again, tmp_path / "out")


def test_damaged_cache_is_ignored(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("a", "1")
    tree = yard.freeze(repo.path).main.tree
    cache = next(Path(yard.home, "snapshots.git", "cache").iterdir())
    whole = cache.read_bytes()
    for data in (b"", whole[:-3], whole[:20], b"x" * 100, whole.replace(b" ", b"")):
        cache.write_bytes(data)
        assert yard.freeze(repo.path).main.tree == tree


def test_four_at_once(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    for number in range(60):
        repo.write("d%d/f%d" % (number % 7, number), os.urandom(2000))
    program = (
        "import sys; sys.path.insert(0, %r)\nfrom runyard.snapshot.freeze import freeze\n"
        "print(freeze(%r, %r).main.tree)" % (SRC, str(repo.path), yard.home)
    )
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    trees = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert trees == {verify(str(repo.path))} and all(process.returncode == 0 for process in processes)
    assert not [name for name in os.listdir(yard.home) if name.endswith(".tmp")]
    from runyard.snapshot.gc import check

    check(yard.home)


def test_files_that_change_and_vanish_meanwhile(repo: Repo, yard: Yard) -> None:
    for number in range(30):
        repo.write("f%d" % number, "x" * 5000)
    repo.commit()
    stop = threading.Event()

    def meddle() -> None:
        step = 0
        while not stop.is_set():
            step += 1
            path = repo.path / ("f%d" % (step % 30))
            path.unlink(missing_ok=True)
            path.write_text("y" * (step % 9000))

    thread = threading.Thread(target=meddle)
    thread.start()
    try:
        trees = {yard.freeze(repo.path).main.tree for _ in range(10)}
    finally:
        stop.set()
        thread.join()
    assert len(trees) > 1
    from runyard.snapshot.gc import check

    check(yard.home)
    assert yard.freeze(repo.path).main.tree == verify(str(repo.path))


@pytest.mark.parametrize("scans", [1, 2])
def test_a_directory_that_vanishes_meanwhile_does_not_stop_the_freeze(
    repo: Repo, yard: Yard, monkeypatch: pytest.MonkeyPatch, scans: int
) -> None:
    repo.write("a", "1")
    repo.write("data/gone", "1")
    repo.commit()
    gone, left, scandir = os.fsencode(repo.path / "data"), [scans], os.scandir

    def vanishing(path: bytes) -> Iterator[os.DirEntry[bytes]]:
        if path == gone:
            left[0] -= 1
            if left[0] == 0:
                os.unlink(gone + b"/gone")
                os.rmdir(gone)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert yard.names(yard.freeze(repo.path)) == {b"a"}
    assert left[0] <= 0


def test_a_nested_repository_that_vanishes_meanwhile_does_not_stop_the_freeze(
    repo: Repo, yard: Yard, make_repo: type[Repo], monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.write("a", "1")
    nested = make_repo(repo.path / "nested")

    def vanishing(directory: bytes) -> bytes | None:
        answer = git_dir_of(directory)
        if directory == os.fsencode(nested.path):
            shutil.rmtree(directory)
        return answer

    monkeypatch.setattr("runyard.snapshot.collect.git_dir_of", vanishing)
    assert yard.names(yard.freeze(repo.path)) == {b"a"}
    assert not nested.path.exists()


def test_what_cannot_be_read_is_named(repo: Repo, yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error", path)

    repo.write("a", "1")
    monkeypatch.setattr(os, "scandir", broken)
    with pytest.raises(SnapshotError, match="cannot be frozen: %s/?: Input/output error$" % repo.path):
        yard.freeze(repo.path)


def test_a_growing_log_does_not_stop_the_freeze(repo: Repo, yard: Yard) -> None:
    repo.write("a", "1")
    stop = threading.Event()

    def grow() -> None:
        with open(repo.path / "nohup.out", "ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b"line\n" * 10)
                time.sleep(0.0002)  # several times while it is read, without taking the whole processor

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        for _ in range(3):
            frozen = yard.freeze(repo.path)
            assert b"a" in yard.names(frozen)
    finally:
        stop.set()
        thread.join()


def test_one_commit_and_ref_per_tree_and_the_yard_repository_is_sound(repo: Repo, yard: Yard) -> None:
    from runyard.snapshot.gc import check

    trees = []
    for content in ("1", "2", "1"):
        repo.write("a", content)
        trees.append(yard.freeze(repo.path).main.tree)
    git_dir = yard.home + "/snapshots.git"
    refs = repo.git("--git-dir", git_dir, "for-each-ref", "--format=%(refname:lstrip=2) %(tree) %(objecttype)")
    assert sorted(refs.splitlines()) == sorted("%s %s commit" % (tree, tree) for tree in set(trees))
    assert repo.git("--git-dir", git_dir, "rev-list", "--all", "--count", "--max-parents=0") == "2"
    check(yard.home)


def test_disk_full_says_so_and_leaves_nothing_half_made(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("a", "1")
    yard.freeze(repo.path)
    repo.write("big", os.urandom(3_000_000))
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(SnapshotError, match="cannot be written"):
            yard.freeze(repo.path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert not list(Path(yard.home, "snapshots.git", "objects").glob("tmp_obj_*"))
    yard.freeze(repo.path)


def test_home_that_cannot_be_written(repo: Repo, make_yard: type[Yard], tmp_path: Path) -> None:
    from runyard.wire.errors import HomeError

    repo.write("a", "1")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HomeError, match="cannot be created"):
        make_yard(tmp_path / "file" / "home").freeze(repo.path)


def test_no_git_on_the_path(repo: Repo, yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SnapshotError, match="git cannot be started"):
        yard.freeze(repo.path)


def test_nothing_slow_is_imported(tmp_path: Path) -> None:
    program = "import sys, runyard.snapshot.freeze; print([m for m in %r if m in sys.modules])" % [
        "subprocess", "tarfile", "tempfile", "threading", "concurrent.futures", "dataclasses", "typing", "inspect",
        "pathlib", "shutil", "logging", "zlib",
    ]  # fmt: skip
    env = {"PYTHONPATH": SRC, "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_killed_while_freezing(repo: Repo, yard: Yard) -> None:
    from runyard.snapshot.gc import check, gc

    program = (
        "import sys; sys.path.insert(0, %r)\nfrom runyard.snapshot.freeze import freeze\nprint('go', flush=True)\n"
        "freeze(%r, %r)" % (SRC, str(repo.path), yard.home)
    )
    for step in range(8):
        for number in range(40):
            repo.write("d%d/f%d" % (number % 5, number), os.urandom(3000))
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        with process:
            assert process.stdout is not None and process.stdout.readline() == b"go\n"
            time.sleep(0.005 * step)  # any moment will do
            process.kill()
        if step:
            check(yard.home)
        assert yard.freeze(repo.path).main.tree == verify(str(repo.path))
    gc(yard.home, [], grace_s=-1)
    assert not list(Path(yard.home, "snapshots.git", "objects").glob("tmp_obj_*"))
