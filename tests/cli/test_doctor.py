"""Each check of the doctor, with its condition made real."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runyard.cli.checks import CHECKS, Host
from runyard.wire import files, paths, settings
from tests.cli.conftest import SRC, Cli
from tests.cli.fake import FakeYard, write_server_json


@pytest.fixture
def cli(process_cli: Cli) -> Cli:
    """Libraries and limits are those of a process."""
    return process_cli


def finding(cli: Cli, name: str, **env: str) -> dict[str, str]:
    """What one check finds; the exit status must agree with it."""
    done = cli("doctor", "--json", name, env=env)
    (found,) = json.loads(done.stdout)
    assert done.returncode == (1 if found["level"] == "fail" else 0)
    if found["level"] != "ok":
        assert found["hint"]
    return dict(found)


def failing(cli: Cli, name: str, said: str, **env: str) -> None:
    found = finding(cli, name, **env)
    assert found["level"] == "fail"
    assert said in found["text"]


def test_a_good_host_passes_every_check(cli: Cli, yard: FakeYard, home: Path) -> None:
    lock_path = paths.Home(str(home)).agent_lock()
    lock = files.try_lock(lock_path)
    assert lock is not None
    done = cli("doctor", env={"RUNYARD_MIN_FREE": "1MB"})
    os.close(lock)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    lines = [line for line in lines if not line.startswith(" ")]
    assert [line.split()[1] for line in lines] == list(CHECKS)
    # The homes of tests are in /tmp.
    assert [line.split()[1] for line in lines if line.split()[0] != "ok"] == ["home"]


def test_python_lacks_packages() -> None:
    code = "import os; from runyard.cli.checks import *; f = check_python(Host(os.environ)); print(f.level, f.text)"
    env = {"PYTHONPATH": str(SRC), "HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-S", "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("fail Python")
    assert "sqlalchemy" in done.stdout


def test_git_is_missing_broken_or_too_old(cli: Cli, tmp_path: Path) -> None:
    failing(cli, "git", "not on PATH", PATH=str(tmp_path))
    git = tmp_path / "git"
    git.write_text("#!/bin/sh\necho git version 1.8.3\n")
    git.chmod(0o755)
    failing(cli, "git", "too old", PATH="%s:/usr/bin:/bin" % tmp_path)
    git.write_text("#!/bin/sh\nexit 3\n")
    failing(cli, "git", "does not work", PATH="%s:/usr/bin:/bin" % tmp_path)


def test_home_cannot_be_written(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    failing(cli, "home", "is no directory", RUNYARD_HOME=str(tmp_path / "file" / "home"))
    failing(cli, "home", "not writable", RUNYARD_HOME="/proc/runyard")


def test_home_on_a_network_file_system(cli: Cli, home: Path, tmp_path: Path) -> None:
    mounts = tmp_path / "proc" / "self"
    mounts.mkdir(parents=True)
    (mounts / "mountinfo").write_text("22 1 0:21 / %s rw - nfs4 server:/export rw\n" % home)
    code = ("import os, sys; from runyard.cli.checks import *; f = check_file_system(Host(os.environ, sys.argv[1])); "
            "print(f.level, f.text)")  # fmt: skip
    env = {"PYTHONPATH": str(SRC), "RUNYARD_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("fail")
    assert "network file system (nfs4)" in done.stdout


def test_config_is_wrong(cli: Cli, home: Path) -> None:
    (home / "config.toml").write_text("= broken")
    failing(cli, "config", "is not valid TOML")
    (home / "config.toml").unlink()
    failing(cli, "config", "RUNYARD_CPU_SLOTS: 'many'", RUNYARD_CPU_SLOTS="many")


def test_disk_is_full(cli: Cli) -> None:
    failing(cli, "disk", "nothing starts below min_free", RUNYARD_MIN_FREE="9999TB")


def test_server_does_not_answer_or_has_another_version(cli: Cli, home: Path, yard: FakeYard) -> None:
    yard.version = "0.0.1"
    found = finding(cli, "server")
    assert found["level"] == "warn"
    assert "has version 0.0.1" in found["text"]
    write_server_json(home, os.getpid(), yard, socket=str(home / "nothing"))
    failing(cli, "server", "does not answer")


def test_agent_is_gone(cli: Cli, yard: FakeYard) -> None:
    failing(cli, "agent", "no run can start")


def test_nvml_is_broken(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    failing(cli, "gpus", "NVML cannot be loaded", LD_LIBRARY_PATH=str(tmp_path))


def test_nvml_does_not_start(cli: Cli, tmp_path: Path, require: object) -> None:
    require("cc")  # type: ignore[operator]
    source = tmp_path / "nvml.c"
    source.write_text("int nvmlInit_v2(void) { return 18; }\n")  # NVML_ERROR_LIB_RM_VERSION_MISMATCH
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "libnvidia-ml.so.1", source], check=True)
    failing(cli, "gpus", "NVML does not start (error 18)", LD_LIBRARY_PATH=str(tmp_path))


@pytest.mark.parametrize(
    ("kill", "linger", "level"), [("yes", False, "warn"), ("yes", True, "ok"), ("no", False, "ok")]
)
def test_logind_kills_at_log_out(tmp_path: Path, kill: str, linger: bool, level: str) -> None:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/logind.conf.d").mkdir(parents=True)
    (tmp_path / "etc/systemd/logind.conf").write_text("[Login]\n#KillUserProcesses=no\nKillUserProcesses=no\n")
    (tmp_path / "etc/systemd/logind.conf.d/site.conf").write_text("[Login]\nKillUserProcesses=%s\n" % kill)
    if linger:
        (tmp_path / "var/lib/systemd/linger").mkdir(parents=True)
        (tmp_path / "var/lib/systemd/linger/anna").write_text("")
    code = ("import os, sys; from runyard.cli.checks import *; f = check_logout(Host(os.environ, sys.argv[1])); "
            "print(f.level, f.hint)")  # fmt: skip
    env = {"PYTHONPATH": str(SRC), "USER": "anna", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[0] == level
    assert ("enable-linger anna" in done.stdout) == (level == "warn")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_others_can_write_the_home(environment: dict[str, str], home: Path, mode: int) -> None:
    home.chmod(mode)
    found = CHECKS["home"](Host(environment))
    assert (found.level, found.hint) == ("warn", "chmod go-w %s" % home)
    home.chmod(0o755)
    assert "chmod" not in CHECKS["home"](Host(environment)).hint


@pytest.mark.parametrize("place", ["/tmp", "/var/tmp/me"])
def test_a_home_where_old_files_are_removed(environment: dict[str, str], place: str) -> None:
    found = CHECKS["home"](Host({**environment, "RUNYARD_HOME": place + "/never-made"}))
    assert found.level == "warn"
    assert "old files are removed" in found.text


def test_frozen_code_is_lost(cli: Cli, environment: dict[str, str], home: Path, tmp_path: Path) -> None:
    assert finding(cli, "snapshots")["level"] == "ok"
    records = home / "runs" / "digits" / "20261120-0930-k3vq7nw2xd5a" / ".runyard"
    records.mkdir(parents=True)
    (home / "yard.db").touch()
    assert finding(cli, "snapshots")["level"] == "ok"  # of a run in place nothing is frozen
    (records / "manifest").touch()
    failing(cli, "snapshots", "is gone")
    git = ["git", "--git-dir", str(home / "snapshots.git")]
    subprocess.run(["git", "init", "-q", "--bare", str(home / "snapshots.git")], check=True)
    entry = b"100644 blob %s\ta\n" % (b"1" * 40)
    tree = subprocess.run([*git, "mktree", "--missing"], input=entry, capture_output=True, check=True).stdout.decode()
    commit = [*git, "commit-tree", "-m", "x", tree.strip()]
    frozen = subprocess.run(commit, capture_output=True, check=True, text=True).stdout.strip()
    subprocess.run([*git, "update-ref", "refs/trees/" + tree.strip(), frozen], check=True)
    assert finding(cli, "snapshots")["text"] == "frozen trees: 1"
    (home / "snapshots.git" / "objects" / tree[:2] / tree.strip()[2:]).unlink()
    failing(cli, "snapshots", "1 of 1 frozen trees are missing")
    (home / "snapshots.git" / "HEAD").unlink()
    failing(cli, "snapshots", "cannot be read")


def test_the_database_is_damaged_or_lost(cli: Cli, home: Path) -> None:
    assert finding(cli, "database")["level"] == "ok"
    place = home / "yard.db"
    with contextlib.closing(sqlite3.connect(place)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (x)")
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 100,)] * 1000)
    assert finding(cli, "database")["text"] == "SQLite, sound"
    data = place.read_bytes()
    place.write_bytes(data[:8192] + b"junk" * 1024 + data[12288:])
    failing(cli, "database", "damaged")
    place.write_bytes(b"no database" * 1000)
    failing(cli, "database", "damaged: file is not a database")
    (home / "secret").write_text("x")
    (home / "runs" / "digits" / "20261121-0800-abc").mkdir(parents=True)
    place.unlink()
    failing(cli, "database", "missing, though there is %s" % (home / "runs"))


def test_clock_is_behind_the_home(cli: Cli, home: Path) -> None:
    (home / "yard.db").write_text("")
    os.utime(home / "yard.db", (time.time() + 3600,) * 2)
    failing(cli, "clock", "behind")


def test_the_usual_port_is_taken(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(settings, "DEFAULT_PORT", taken.getsockname()[1])
        found = CHECKS["port"](Host(environment))
        assert (found.level, "next free port" in found.hint) == ("warn", True)


def test_a_port_that_was_named_is_taken(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        failing(cli, "port", "in use", RUNYARD_LISTEN="127.0.0.1:%d" % taken.getsockname()[1])
    failing(cli, "port", "is no address", RUNYARD_LISTEN="127.0.0.1:http")
    failing(cli, "port", "cannot be used", RUNYARD_LISTEN="192.0.2.1:8086")


def test_too_few_open_files(environment: dict[str, str]) -> None:
    line = 'ulimit -n 256 && exec "$0" -m runyard.cli doctor --json open-files'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable], env=environment, capture_output=True, text=True, check=True
    )
    (found,) = json.loads(done.stdout)
    assert (found["level"], "at most 256" in found["text"]) == ("warn", True)


def test_unknown_check_is_bad_usage(cli: Cli) -> None:
    assert cli("doctor", "nonsense").returncode == 2
