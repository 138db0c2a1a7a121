"""The server as a process: one per home, found by its file, gone without a trace, and its reasons when it refuses."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runyard.server import lifecycle, ownership, sockets
from runyard.server.localagent import agent_environment
from runyard.services.yard import open_yard
from runyard.wire import files, paths, procs, settings
from runyard.wire.errors import HomeError
from runyard.wire.http import Http
from runyard.wire.paths import Home
from runyard.wire.serverenv import server_environment
from tests.server.harness import until

SRC = str(Path(lifecycle.__file__).resolve().parents[2])


class Servers:
    """Starts servers of one home, and ends those that are left."""

    def __init__(self, home: Path) -> None:
        self.place = Home(str(home))
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str, wait: bool = True, **environ: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, "PYTHONPATH": SRC, "RUNYARD_MIN_FREE": "0", **environ}
        command = [sys.executable, "-m", "runyard.server", "--home", self.place.path, *options]
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.started.append(process)
        if wait:
            until(lambda: process.poll() is not None or self.pid() == process.pid, 30)
            assert process.poll() is None, process.communicate()
        return process

    def refused(self, *options: str, **environ: str) -> str:
        """Start a server that refuses, and return its reason."""
        process = self.start(*options, wait=False, **environ)
        _, stderr = process.communicate(timeout=40)
        assert process.returncode == 1
        assert self.info() is None
        reason = stderr.decode().splitlines()[-1]
        assert "Traceback" not in stderr.decode()
        return reason

    def last_log_line(self) -> str:
        return Path(self.place.server_log).read_text().splitlines()[-1]

    def info(self) -> dict[str, Any] | None:
        return ownership.read(self.place)

    def pid(self) -> int:
        return int((self.info() or {}).get("pid", 0))

    def http(self) -> Http:
        return Http("unix:" + self.place.socket(), timeout=20)


@pytest.fixture
def servers(home: Path) -> Iterator[Servers]:
    found = Servers(home)
    yield found
    for process in found.started:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        process.communicate()
    note = files.read_json(os.path.join(found.place.host_dir(), "agent.json")) or {}
    if procs.is_alive(note.get("pid", 0), note.get("pid_start")):
        os.kill(note["pid"], signal.SIGKILL)


def test_life(servers: Servers):
    process = servers.start(
        "--no-agent", wait=False, PLANTED_SECRET="hunter2", VIRTUAL_ENV="/x", PYTHONSTARTUP="/x", LC_ALL="C.UTF-8",
        RUNYARD_TOKEN="no", RUNYARD_RUN_ID="no", CUDA_VISIBLE_DEVICES="0",
    )  # fmt: skip
    info = until(servers.info, 30)
    with Http(info["url"], timeout=5) as http:  # server.json is there when it answers, and not before
        assert http.json("GET", "/health") == {"status": "ok", "version": info["version"], "yard": info["yard"]}
    assert os.stat(servers.place.server_json).st_mode & 0o777 == 0o600
    assert set(info) >= {
        "yard", "version", "host_id", "host", "boot_id", "pid", "pid_start", "url", "socket", "token",
    }  # fmt: skip
    assert info["host_id"] == paths.host_id()
    assert info["pid"] == process.pid
    assert procs.is_alive(info["pid"], info["pid_start"])
    environ = Path(f"/proc/{process.pid}/environ").read_bytes()
    assert b"hunter2" not in environ
    names = {part.partition(b"=")[0].decode() for part in environ.split(b"\0") if part}
    assert not names & {"PLANTED_SECRET", "VIRTUAL_ENV", "PYTHONSTARTUP", "RUNYARD_TOKEN", "RUNYARD_RUN_ID"}
    assert {"PATH", "LC_ALL", "CUDA_VISIBLE_DEVICES"} <= names
    with servers.http() as http:
        status = http.json("GET", "/api/v1/status")
        assert (status["url"], status["pid"]) == (info["url"], process.pid)
        log = Path(servers.place.server_log).read_text().splitlines()
        assert [line.partition("] ")[2][:5] for line in log if " INFO " in line][:1] == ["ready"], (
            "and no word of libraries"
        )
        for _ in range(100):
            http.json("GET", "/api/v1/runs")
        with open(f"/proc/{process.pid}/status") as file:
            resident = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
        assert resident < 150_000  # kB
        assert http.json("POST", "/api/v1/shutdown")["ok"] is True
    assert process.wait(15) == 0
    assert servers.info() is None
    assert not os.path.exists(servers.place.socket())
    assert not files.is_locked(servers.place.server_lock)
    assert servers.last_log_line().endswith("stopped")


def test_started_again_after_sigkill_and_stopped_by_sigterm(servers: Servers):
    first = servers.start("--no-agent")
    before = servers.info()
    first.kill()
    first.wait()
    assert os.path.exists(servers.place.socket())
    assert before == servers.info()
    second = servers.start("--no-agent")
    after = servers.info()
    assert before is not None
    assert after is not None
    assert after["pid"] != before["pid"]
    assert after["token"] != before["token"]
    assert after["yard"] == before["yard"]
    with servers.http() as http, socket.socket(socket.AF_UNIX) as sock:
        assert http.json("GET", "/health")["yard"] == before["yard"]
        sock.settimeout(10)
        sock.connect(servers.place.socket())
        body = b'{"known": [], "wait_s": 60}'
        sock.sendall(
            b"POST /api/v1/agents/a/poll HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        until(lambda: b"runyard_waiting_requests 1" in http.open("GET", "/metrics").read())
        started = time.monotonic()
        second.send_signal(signal.SIGTERM)
        assert b"200 OK" in sock.recv(65536)
    assert second.wait(15) == 0
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("text", "word"), [("listen = ", "TOML"), ("lissten = 'x'", "lissten"), ("cpu_slots = 'x'", "cpu_slots")]
)
def test_refuses_a_corrupt_configuration(servers: Servers, text: str, word: str):
    Path(servers.place.config).write_text(text)
    reason = servers.refused("--no-agent")
    assert word in reason
    assert servers.last_log_line().endswith(reason)
    assert sorted(os.listdir(servers.place.path)) == ["config.toml", "server.lock", "server.log"]  # nothing half-made


def test_refuses_a_database_that_is_newer(servers: Servers):
    open_yard(servers.place.path, settings.defaults()).close()
    connection = sqlite3.connect(servers.place.database)
    with connection:
        connection.execute("update alembic_version set version_num = '9999'")
    connection.close()
    assert "newer" in servers.refused("--no-agent")
    assert not os.path.exists(servers.place.socket())
    assert not files.is_locked(servers.place.server_lock)


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_home_that_lost_its_database_does_not_begin_an_empty_yard(servers: Servers, how: str):
    place = servers.place
    open_yard(place.path, settings.defaults()).close()
    for name in (place.database, place.database + "-wal", place.database + "-shm"):
        Path(name).unlink(missing_ok=True)
    ownership.check_database(place, "")  # it had no runs
    tree = Path(place.snapshots, "refs", "trees", "0" * 40)
    tree.parent.mkdir(parents=True)
    tree.touch()
    run = Path(place.runs, "digits", "20261121-0800-abc")
    run.mkdir(parents=True)
    if how == "empty":
        Path(place.database).touch()
    reason = servers.refused("--no-agent")
    assert f"yard.db is {how}, though there is {place.runs} and {place.snapshots}" in reason
    assert "runyard restore" in reason
    assert os.path.exists(place.database) == (how == "empty")
    ownership.check_database(place, "postgresql://lab/runyard")
    run.rmdir()
    tree.unlink()
    ownership.check_database(place, "")


def test_the_home_of_an_agent_of_a_yard_elsewhere_may_begin_its_own(home: Path):
    (home / "runs" / "digits" / "20261121-0800-abc").mkdir(parents=True)
    ownership.check_database(Home(str(home)), "")


def test_starters_race_for_one_server(servers: Servers):
    racing = [servers.start("--no-agent", wait=False) for _ in range(3)]
    until(lambda: sum(process.poll() is not None for process in racing) == 2, 40)
    losers = [process for process in racing if process.poll() is not None]
    info = servers.info()
    assert info is not None
    for loser in losers:
        stdout, _ = loser.communicate()
        assert loser.returncode == 0
        assert info["url"] in stdout.decode()
    winner = next(process for process in racing if process.poll() is None)
    assert info["pid"] == winner.pid
    with servers.http() as http:
        assert http.json("GET", "/health")["status"] == "ok"


def test_environment_of_a_server_is_clean_after_one_pass():
    environ = {**os.environ, "SECRET": "x", "LC_TIME": "C", "RUNYARD_SERVER": "x", "SSL_CERT_FILE": "/x"}
    once = server_environment(environ)
    assert server_environment(once) == once
    assert "SECRET" not in once
    assert "RUNYARD_SERVER" not in once
    assert {"LC_TIME", "SSL_CERT_FILE"} <= set(once)


def test_refuses_a_home_that_cannot_be_written(servers: Servers):
    blocked = Path(servers.place.path) / "file"
    blocked.write_text("")
    servers.place = Home(str(blocked / "home"))
    assert "not writable" in servers.refused("--no-agent")


def test_refuses_a_home_of_a_live_server_on_another_host(servers: Servers):
    lock = files.try_lock(servers.place.server_lock)
    assert lock is not None
    other = {"host_id": "0" * 12, "host": "lab7", "url": "http://lab7:8086", "pid": 1, "yard": "x"}
    ownership.publish(servers.place, other)
    process = servers.start("--no-agent", wait=False)
    _, stderr = process.communicate(timeout=30)
    os.close(lock)
    assert process.returncode == 1
    for word in ("lab7", "RUNYARD_SERVER=http://lab7:8086", "runyard agent --server"):
        assert word in stderr.decode()
    assert servers.info() == other
    # With the lock free, on a local disk, that server is dead, whatever host it was on.
    os.close(ownership.acquire(servers.place))


@pytest.fixture
def on_network(home: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose file system counts as one of a network."""
    monkeypatch.setattr(paths, "NETWORK_FILE_SYSTEMS", frozenset({paths.file_system(str(home))}))
    return Home(str(home))


def test_sqlite_on_a_network_file_system_is_refused(on_network: Home):
    for database in ("", "sqlite:///" + on_network.path + "/x.db"):
        with pytest.raises(HomeError) as caught:
            ownership.check_file_system(on_network, database)
        assert "--database" in caught.value.hint
    ownership.check_file_system(on_network, "postgresql://lab/runyard")


def test_a_free_lock_on_a_network_file_system_proves_nothing(on_network: Home):
    ownership.publish(on_network, {"host_id": "0" * 12, "host": "lab7", "url": "http://lab7:8086"})
    with pytest.raises(HomeError, match="lab7"):
        ownership.acquire(on_network)
    assert not files.is_locked(on_network.server_lock)
    ownership.publish(on_network, {"host_id": paths.host_id(), "host": "here"})
    os.close(ownership.acquire(on_network))


def test_listen_address():
    values = settings.defaults()
    assert lifecycle.listen_address("", values) == "127.0.0.1"
    assert lifecycle.listen_address("0.0.0.0:1", values) == "0.0.0.0:1"
    assert lifecycle.listen_address("", {**values, "listen": "10.0.0.1:8086"}) == "10.0.0.1:8086"
    assert sockets.is_loopback("127.3.2.1")
    assert not sockets.is_loopback("lab.example")


def test_the_agent_gets_settings_that_it_cannot_read_itself():
    values = {**settings.defaults(), "cpu_slots": 3, "gpu_allow": ["a", "b"]}
    environ = agent_environment(values, {"PATH": "/bin", "PYTHONPATH": "/x"})
    assert environ["RUNYARD_CPU_SLOTS"] == "3"
    assert environ["RUNYARD_GPU_ALLOW"] == "a,b"
    assert "PYTHONPATH" not in environ
    assert settings.from_environment(environ)["gpu_allow"] == ["a", "b"]


def agent_pid(servers: Servers) -> int:
    """Return the pid of the agent that holds the lock, 0 when there is none."""
    if not files.is_locked(servers.place.agent_lock()):
        return 0
    return int(Path(servers.place.agent_lock()).read_text() or 0)


def connected(servers: Servers) -> bool:
    with servers.http() as http:
        return any(agent["connected"] for agent in http.json("GET", "/api/v1/status")["agents"])


def test_the_local_agent(servers: Servers):
    first = servers.start(PLANTED_SECRET="hunter2")
    until(lambda: connected(servers), 30)
    agent = agent_pid(servers)
    assert b"hunter2" not in Path(f"/proc/{agent}/environ").read_bytes()
    os.kill(agent, signal.SIGKILL)  # it is started again
    until(lambda: agent_pid(servers) not in (0, agent), 30)
    agent = agent_pid(servers)
    first.kill()  # it outlives a killed server, and the next one leaves it alone
    first.wait()
    second = servers.start()
    until(lambda: connected(servers), 30)
    assert agent_pid(servers) == agent
    second.terminate()  # a clean stop ends it
    assert second.wait(20) == 0
    assert agent_pid(servers) == 0
    assert procs.start_time(agent) is None


def test_server_and_agent_of_a_home_that_is_gone_end(servers: Servers, tmp_path: Path):
    first = servers.start()
    until(lambda: agent_pid(servers), 30)
    agent = agent_pid(servers)
    os.rename(servers.place.path, tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved")
    second = servers.start()  # in a new home of that name, which the first must leave alone
    until(lambda: connected(servers), 30)
    its_agent = agent_pid(servers)
    assert first.wait(30) == 0
    until(lambda: procs.start_time(agent) is None, 30)
    assert second.poll() is None
    assert agent_pid(servers) == its_agent
    assert connected(servers)


def test_an_agent_that_somebody_else_started_is_left_alone(servers: Servers):
    process = servers.start("--no-agent")
    from runyard.wire.library import install

    library = install(servers.place.path)
    command = [sys.executable, "-I", "-S", library, "--home", servers.place.path]
    agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        until(lambda: connected(servers), 30)
        process.terminate()
        assert process.wait(20) == 0
        second = servers.start()
        until(lambda: connected(servers), 30)
        second.terminate()
        assert second.wait(20) == 0
        assert agent.poll() is None
    finally:
        agent.terminate()
        agent.communicate(timeout=20)


def test_help_says_what_there_is(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        lifecycle.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--home", "--listen", "--database", "--foreground"))
