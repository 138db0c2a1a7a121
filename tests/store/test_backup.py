"""A backup keeps what the yard knows, and a restored yard does not start twice what still runs."""

from __future__ import annotations

import errno
import json
import os
import tarfile
from pathlib import Path

import pytest

from runyard.services import backup
from runyard.services.api import Actor
from runyard.services.backup import restore
from runyard.services.yard import Yard, open_yard
from runyard.snapshot.repository import Repository
from runyard.store import dump
from runyard.testing.clock import ManualClock
from runyard.testing.stage import TREE, make_spec
from runyard.wire import settings
from runyard.wire.errors import ConflictError, HomeError, InvalidError
from runyard.wire.files import try_lock
from runyard.wire.paths import Home

ME = Actor(user="ada")
SLOT = {"name": "cpu0", "kind": "cpu", "index": 0, "threads": 2, "free": True}


def opened(path: Path) -> Yard:
    return open_yard(str(path), settings.defaults() | {"min_free": "0"})


def hello(yard: Yard, attempts: dict[str, object], agent: str = "a1") -> dict[str, object]:
    host = {"id": "h-" + agent, "name": agent, "boot_id": "b", "cpus": 2, "mem": 1 << 30}
    body = {"host": host, "user": "ada", "uid": 0, "pid": 1, "version": "0", "slots": [SLOT], "attempts": attempts}
    return dict(yard.hello(agent, body))


def test_a_run_that_started_after_the_backup_is_taken_in_and_not_started_again(tmp_path: Path) -> None:
    yard = opened(tmp_path / "old")
    (run_id,) = yard.submit([make_spec(message="kept", tags=["t"])], {"SECRET": "x"}, ME)
    (other,) = yard.submit([make_spec()], {}, ME)
    hello(yard, {})
    yard.backup(str(tmp_path / "b.tgz"), ME)
    yard.tick()
    (given,) = yard.poll("a1", [])["assign"]
    assert given["run"] == run_id
    yard.phase(given["attempt"], given["epoch"], "running")
    yard.close()

    restore(str(tmp_path / "new"), str(tmp_path / "b.tgz"))
    yard = opened(tmp_path / "new")
    said = {"epoch": given["epoch"], "run": run_id, "phase": "running", "number": 1, "slots": ["cpu0"]}
    verdicts = hello(yard, {given["attempt"]: said})["attempts"]
    assert isinstance(verdicts, dict)
    assert verdicts[given["attempt"]]["verdict"] == "keep"
    yard.tick()
    run = yard.run(run_id, ME)
    assert (run["state"], run["message"], run["tags"], run["slots"]) == ("running", "kept", ["t"], ["cpu0"])
    assert yard.run(other, ME)["state"] == "queued"
    end = {
        "attempt": given["attempt"],
        "epoch": 1,
        "exit_code": 0,
        "signal": None,
        "reason": "exited",
        "origin": "user",
    }
    assert yard.finish([end]) == {given["attempt"]: "accepted"}
    assert yard.run(run_id, ME)["state"] == "finished"
    yard.close()


def test_what_an_idle_agent_was_given_since_is_not_started_again(tmp_path: Path) -> None:
    yard = opened(tmp_path / "old")
    (run_id,) = yard.submit([make_spec(hold=True)], {}, ME)
    hello(yard, {}, "a1")
    yard.backup(str(tmp_path / "b.tgz"), ME)
    yard.release(run_id, ME)
    yard.tick()
    (given,) = yard.poll("a1", [])["assign"]
    yard.phase(given["attempt"], given["epoch"], "running")
    yard.close()

    restore(str(tmp_path / "new"), str(tmp_path / "b.tgz"))
    yard = opened(tmp_path / "new")
    yard.release(run_id, ME)
    hello(yard, {}, "a2")
    yard.tick()
    assert yard.poll("a2", [])["assign"] == []
    said = {"epoch": given["epoch"], "run": run_id, "phase": "running", "number": 1, "slots": ["cpu0"]}
    verdicts = hello(yard, {given["attempt"]: said}, "a1")["attempts"]
    assert isinstance(verdicts, dict)
    assert verdicts[given["attempt"]]["verdict"] == "keep"
    assert yard.status()["paused"] is None
    yard.close()


def test_an_agent_that_had_left_long_before_the_backup_is_not_waited_for(tmp_path: Path) -> None:
    clock = ManualClock()
    yard = open_yard(str(tmp_path / "old"), settings.defaults() | {"min_free": "0"}, clock=clock)
    yard.submit([make_spec()], {}, ME)
    hello(yard, {}, "a1")
    clock.advance(2 * 86400)
    hello(yard, {}, "a2")
    yard.backup(str(tmp_path / "b.tgz"), ME)
    yard.close()

    restore(str(tmp_path / "new"), str(tmp_path / "b.tgz"))
    yard = opened(tmp_path / "new")
    assert "restored" in str(yard.status()["paused"])
    hello(yard, {}, "a2")
    assert yard.status()["paused"] is None
    yard.close()


def test_nothing_starts_until_agents_that_had_work_have_reported(tmp_path: Path) -> None:
    yard = opened(tmp_path / "old")
    yard.submit([make_spec(), make_spec()], {}, ME)
    hello(yard, {})
    yard.tick()
    (given,) = yard.poll("a1", [])["assign"]
    yard.phase(given["attempt"], given["epoch"], "running")
    yard.backup(str(tmp_path / "b.tgz"), ME)
    yard.close()

    restore(str(tmp_path / "new"), str(tmp_path / "b.tgz"))
    yard = opened(tmp_path / "new")
    (waiting,) = yard.runs({"state": ["queued"]}, ME)["runs"]
    for said in (yard.status()["paused"], yard.run(waiting["id"], ME)["wait_reasons"][0]):
        assert "restored" in str(said)
        assert "goes on by itself in 10 min" in str(said)
    hello(yard, {})
    assert yard.status()["paused"] is None
    yard.close()


def test_a_backup_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yard = opened(tmp_path / "old")
    done: list[object] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(fd: int) -> None:
        done.append(os.fstat(fd).st_ino)
        real_fsync(fd)

    def rename(source: str, target: str) -> None:
        done.append("rename")
        real_rename(source, target)

    def link(*_args: object) -> None:
        raise PermissionError(errno.EPERM, "this file system has no hard links")

    for name, stand_in in (("fsync", fsync), ("rename", rename), ("link", link)):
        monkeypatch.setattr(os, name, stand_in)
    path = tmp_path / "backups" / "b.tgz"
    path.parent.mkdir()
    yard.backup(str(path), ME)
    yard.close()
    steps = [step for step in done if step in (path.stat().st_ino, path.parent.stat().st_ino, "rename")]
    assert steps == [path.stat().st_ino, "rename", path.parent.stat().st_ino]
    assert (path.stat().st_mode & 0o777, [file.name for file in path.parent.iterdir()]) == (0o600, ["b.tgz"])


def test_a_restore_that_failed_half_way_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yard = opened(tmp_path / "old")
    repository = Repository(str(tmp_path / "old")).open()
    repository.write(b"tree", b"")
    repository.keep(TREE)
    (run_id,) = yard.submit([make_spec()], {}, ME)
    yard.backup(str(tmp_path / "b.tgz"), ME)
    yard.close()

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    for place, name in ((backup, "_git"), (dump, "load")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, full)
            with pytest.raises(HomeError, match="no space left"):
                restore(str(tmp_path / "new"), str(tmp_path / "b.tgz"))
    restore(str(tmp_path / "new"), str(tmp_path / "b.tgz"))
    yard = opened(tmp_path / "new")
    assert yard.run(run_id, ME)["state"] == "queued"
    yard.close()
    assert Repository(str(tmp_path / "new")).has(TREE)


def test_what_cannot_be_restored_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    yard = opened(tmp_path / "old")
    yard.submit([make_spec()], {}, ME)
    yard.backup(str(tmp_path / "b.tgz"), ME)
    with pytest.raises(ConflictError, match="exists already"):
        yard.backup(str(tmp_path / "b.tgz"), ME)
    with pytest.raises(InvalidError):
        yard.backup("relative.tgz", ME)
    yard.close()
    with pytest.raises(ConflictError, match="runs already"):
        restore(str(tmp_path / "old"), str(tmp_path / "b.tgz"))
    (tmp_path / "no").write_text("no backup")
    (tmp_path / "half").write_bytes((tmp_path / "b.tgz").read_bytes()[:-100])
    for name in ("no", "half"):
        with pytest.raises(InvalidError):
            restore(str(tmp_path / "fresh"), str(tmp_path / name))
    lock = try_lock(Home(str(tmp_path / "old")).server_lock)
    assert lock is not None
    with pytest.raises(ConflictError, match="running"):
        restore(str(tmp_path / "old"), str(tmp_path / "b.tgz"))
    os.close(lock)
    with tarfile.open(tmp_path / "b.tgz") as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        assert json.load(manifest)["rows"]["runs"] == 1
