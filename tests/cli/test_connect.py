from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runyard.cli.submit import started_text
from runyard.client import connect
from runyard.client.api import Api
from runyard.wire import files, paths, procs
from runyard.wire.errors import AuthError, HomeError, NotFoundError, UnavailableError
from runyard.wire.http import Address, Http, Response
from tests.cli.conftest import Cli
from tests.cli.fake import FakeYard, serve, until, write_server_json

SPEC = {
    "id": "a" * 12, "project": "p", "name": "n", "message": "", "tags": [], "command": ["true"], "cwd": "",
    "priority": 0, "resources": {}, "snapshot": {"tree": "t"}, "hold": False, "program": "/bin/true",
    "source": "/s", "repo_name": "s", "links": [], "in_place": False,
}  # fmt: skip


@pytest.fixture
def starting(home: Path, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """An environment in which a real server may be started; it is stopped at the end."""
    yield {**environment, "RUNYARD_AUTOSTART": "1", "RUNYARD_LISTEN": "127.0.0.1:0"}
    found = connect.find(paths.Home(str(home)))
    if found is not None and found.alive:
        os.kill(found.info["pid"], signal.SIGTERM)
        until(lambda: not procs.is_alive(found.info["pid"], found.info["pid_start"]))


def url_of(listener: socket.socket) -> str:
    return "http://127.0.0.1:%d" % listener.getsockname()[1]


def spawn(environ: dict[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "runyard.cli", *words], env=environ, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)  # fmt: skip


def test_the_first_commands_start_one_server_and_say_so(home: Path, starting: dict[str, str]) -> None:
    started = [spawn({**starting, "MY_SECRET": "planted"}, "ls", "--json") for _ in range(3)]
    ends = [(*process.communicate(timeout=90), process.returncode) for process in started]
    assert [(out, code) for out, _, code in ends] == [("[]\n", 0)] * 3, ends
    assert any("Started the server at http://127.0.0.1:" in err for _, err, _ in ends)
    found = connect.find(paths.Home(str(home)))
    assert found is not None
    assert found.alive
    environ = Path("/proc/%d/environ" % found.info["pid"]).read_bytes()
    assert b"planted" not in environ
    assert (home / "server.log").stat().st_mode & 0o077 == 0
    quiet = spawn(starting, "ls", "--json")
    assert quiet.communicate(timeout=60) == ("[]\n", "")
    stopped = spawn(starting, "stop")
    assert stopped.communicate(timeout=60)[0] == "stopped; runs go on\n"
    assert not procs.is_alive(found.info["pid"], found.info["pid_start"])
    again = spawn(starting, "stop")
    assert "not running" in again.communicate(timeout=60)[1]
    assert again.returncode == 0


@pytest.mark.parametrize("command", ["ls", "start", "restart"])
def test_a_server_that_cannot_start_says_why(home: Path, cli: Cli, starting: dict[str, str], command: str) -> None:
    (home / "config.toml").write_text("# mine\nlistn = 1\n")
    done = cli(command, env=starting)
    assert (done.returncode, done.stdout) == (2, "")
    assert "config.toml, line 2: unknown setting listn" in done.stderr
    assert [path.name for path in home.iterdir()] == ["config.toml"]


def test_a_restart_with_wrong_settings_leaves_the_server_running(home: Path, cli: Cli, yard: FakeYard) -> None:
    (home / "config.toml").write_text("grace = -1\n")
    done = cli("restart")
    assert (done.returncode, yard.requests) == (2, [])
    assert "config.toml, line 1: grace is -1" in done.stderr


def test_a_restart_that_fails_brings_the_old_server_back(
    home: Path, process_cli: Cli, starting: dict[str, str]
) -> None:
    assert process_cli("start", env=starting).returncode == 0
    done = process_cli("restart", "--database", "nonsense", env=starting)
    assert (done.returncode, done.stdout) == (1, "")
    assert "not a database URL" in done.stderr
    assert "starts as it was" in done.stderr
    assert process_cli("status", env=starting).returncode == 0
    assert "nonsense" not in (home / "config.toml").read_text()


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(
    home: Path, process_cli: Cli, starting: dict[str, str]
) -> None:
    del starting["RUNYARD_LISTEN"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "127.0.0.1:%d" % taken.getsockname()[1]
        done = process_cli("start", "--listen", address, env=starting)
        assert (done.returncode, done.stdout) == (1, "")
        assert "cannot listen on %s" % address in done.stderr
        assert not (home / "config.toml").exists()
        assert process_cli("start", "--listen", "127.0.0.1:0", env=starting).returncode == 0
        done = process_cli("restart", "--listen", address, env=starting)
        assert done.returncode == 1
        assert "starts as it was" in done.stderr
    assert process_cli("status", env=starting).returncode == 0


def test_that_the_port_has_moved_is_said(home: Path, cli: Cli, yard: FakeYard) -> None:
    write_server_json(home, os.getpid(), yard, moved=True)
    assert cli("start").stdout == "running at %s because port 8086 is taken\n" % yard.url
    assert started_text({"url": "http://x:8087", "moved": True}, {}).startswith(
        "Started the server at http://x:8087 because port 8086 is taken"
    )


def test_that_a_variable_narrows_the_gpus_is_said() -> None:
    info = {"url": "http://x:8086"}
    assert "CUDA_VISIBLE_DEVICES=2,3 only" in started_text(info, {"CUDA_VISIBLE_DEVICES": "2,3"})
    assert started_text(info, {"CUDA_VISIBLE_DEVICES": ""}) == started_text(info, {})


def test_autostart_can_be_forbidden(home: Path, cli: Cli, environment: dict[str, str]) -> None:
    done = cli("ls")
    assert done.returncode == 1
    assert "RUNYARD_AUTOSTART forbids" in done.stderr
    assert "runyard start" in done.stderr
    assert not list(home.iterdir())
    (home / "config.toml").write_text("autostart = false\n")
    del environment["RUNYARD_AUTOSTART"]
    done = cli("ls", env=environment)
    assert done.returncode == 1
    assert "config.toml forbids" in done.stderr
    assert [path.name for path in home.iterdir()] == ["config.toml"]


@pytest.mark.parametrize("variable", ["SLURM_JOB_ID", "RAY_JOB_ID", "RUNYARD_RUN_ID"])
def test_no_server_is_started_inside_of_a_job(home: Path, cli: Cli, variable: str) -> None:
    done = cli("ls", env={"RUNYARD_AUTOSTART": "1", variable: "1"})
    assert done.returncode == 1
    assert "no server is started" in done.stderr
    assert not list(home.iterdir())


def test_status_does_not_start_a_server(home: Path, cli: Cli) -> None:
    assert cli("status", env={"RUNYARD_AUTOSTART": "1"}).returncode == 1
    assert not list(home.iterdir())


def test_an_unusable_home_is_named_with_the_remedy(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = cli("ls", env={"RUNYARD_AUTOSTART": "1", "RUNYARD_HOME": str(tmp_path / "file" / "home")})
    assert done.returncode == 1
    assert "cannot be created" in done.stderr
    assert "set RUNYARD_HOME" in done.stderr


def test_a_dead_server_and_one_of_before_a_reboot_are_not_taken_for_alive(home: Path) -> None:
    fake = FakeYard()
    write_server_json(home, os.getpid(), fake)
    place = paths.Home(str(home))
    assert (found := connect.find(place)) is not None
    assert found.alive
    write_server_json(home, os.getpid(), fake, pid_start=1)
    assert (found := connect.find(place)) is not None
    assert not found.alive
    write_server_json(home, os.getpid(), fake, boot_id="another")
    assert (found := connect.find(place)) is not None
    assert not found.alive


def test_a_home_of_another_host_is_used_over_its_address_or_refused(home: Path) -> None:
    fake = FakeYard()
    environ = {"RUNYARD_HOME": str(home)}
    other = {"host_id": "other", "host": "box7", "boot_id": "other"}
    write_server_json(home, 1, fake, **other, url="http://10.0.0.7:8086", token="abc")
    lock = files.try_lock(str(home / "server.lock"))
    api = connect.connect(environ)
    assert (api.url, api.token) == ("http://10.0.0.7:8086", "abc")
    write_server_json(home, 1, fake, **other)
    with pytest.raises(HomeError, match="belongs to box7") as caught:
        connect.connect(environ)
    assert "runyard restart --listen" in caught.value.hint
    assert lock is not None
    os.close(lock)


def test_a_home_whose_host_got_another_name_is_used_again(home: Path) -> None:
    """The server was killed, so its server.json is still there; on a local disk the lock says that it is gone."""
    former = {"host_id": "former", "host": "box7", "pid_start": 1}
    write_server_json(home, 1, FakeYard(), **former, url="http://10.0.0.7:8086", token="abc")
    (home / "server.lock").touch()
    with pytest.raises(UnavailableError, match="not running"):
        connect.connect({"RUNYARD_HOME": str(home)}, autostart=False)


def test_a_host_that_gets_another_name_still_has_its_server(home: Path) -> None:
    write_server_json(home, os.getpid(), FakeYard(), host_id="former", host="box7")
    found = connect.find(paths.Home(str(home)))
    assert found is not None
    assert (found.here, found.alive) == (True, True)


def test_the_home_of_another_user_is_refused_in_words(home: Path) -> None:
    write_server_json(home, 1, FakeYard())
    os.chmod(home, 0)
    read, write = os.pipe()
    child = os.fork()
    if not child:  # permissions do not bind root
        try:
            if not os.getuid():
                os.setuid(65534)
            connect.find(paths.Home(str(home)))
        except Exception as exc:  # noqa: BLE001  whatever it is, the parent judges it
            os.write(write, repr(exc).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.chmod(home, 0o700)
    os.close(write)
    with open(read) as said:
        assert said.read().startswith("HomeError")


def test_a_server_elsewhere_by_address_and_token(cli: Cli, tmp_path: Path) -> None:
    fake = FakeYard()
    fake.token = "good"
    server = serve(fake, ("127.0.0.1", 0))
    url = url_of(server.socket)
    try:
        done = cli("ls", "--json", env={"RUNYARD_SERVER": url, "RUNYARD_TOKEN": "good"})
        assert (done.returncode, json.loads(done.stdout)) == (0, [])
        bad = cli("ls", env={"RUNYARD_SERVER": url, "RUNYARD_TOKEN": "bad"})
        assert bad.returncode == 1
        assert "no credential" in bad.stderr
        # Code is frozen into the home, which is not that server's:
        refused = cli("run", "true", env={"RUNYARD_SERVER": url, "RUNYARD_TOKEN": "good"})
        assert refused.returncode == 1
        assert "has another home" in refused.stderr
        assert not fake.specs
        with Api(url, "good") as api:
            old = api.submit({**SPEC, "source": str(tmp_path)})["id"]
        refused = cli("rerun", old, "--code", "now", env={"RUNYARD_SERVER": url, "RUNYARD_TOKEN": "good"})
        assert (refused.returncode, len(fake.specs)) == (1, 1)
        assert "code is frozen into the home" in refused.stderr
        with Api(url) as api, pytest.raises(AuthError):
            api.status()
    finally:
        server.shutdown()
        server.server_close()


def test_inside_of_a_run_the_homes_server_goes_before_the_runs_own_credential(home: Path, yard: FakeYard) -> None:
    environ = {"RUNYARD_HOME": str(home), "RUNYARD_SERVER": yard.url, "RUNYARD_RUN_ID": "a" * 12}
    assert connect.connect(environ).url.startswith("unix:")
    assert connect.connect({**environ, "RUNYARD_SERVER": "http://10.0.0.7:1"}).url == "http://10.0.0.7:1"
    del environ["RUNYARD_RUN_ID"]
    assert connect.connect(environ).url == yard.url


def test_a_server_that_lives_but_does_not_listen_is_an_error_not_a_second_server(home: Path, cli: Cli) -> None:
    write_server_json(home, os.getpid(), FakeYard())
    done = cli("ls", env={"RUNYARD_AUTOSTART": "1"})
    assert done.returncode == 1
    assert "no answer from unix:" in done.stderr
    assert not (home / "server.log").exists()


def test_nothing_on_the_address_is_said_with_what_to_look_at(cli: Cli) -> None:
    done = cli("ls", env={"RUNYARD_SERVER": "http://127.0.0.1:9"})
    assert (done.returncode, done.stdout) == (1, "")
    assert "no answer from http://127.0.0.1:9" in done.stderr
    assert "runyard status" in done.stderr


def test_something_else_on_the_address_is_named(cli: Cli) -> None:
    import socketserver

    class Page(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = cli("ls", env={"RUNYARD_SERVER": url_of(server.socket)})
        server.shutdown()
    assert done.returncode == 1
    assert "no Runyard answer" in done.stderr


def test_every_method_of_the_api_speaks_to_its_route(running_api: Api, yard: FakeYard, home: Path) -> None:
    api = running_api
    assert api.health()["yard"] == "yard1"
    assert api.submit({**SPEC, "env": {"A": "b"}})["state"] == "queued"
    assert api.submit({**SPEC, "env": {"A": "b"}})["id"] == "a" * 12
    assert [run["id"] for run in api.all_runs(limit=5, project="p")] == ["a" * 12]
    assert api.edit("n", {"add_tags": ["x"], "message": "m"})["tags"] == ["x"]
    assert api.hold("n")["state"] == "held"
    assert api.release("n")["state"] == "queued"
    yard.write("n", b"0123456789")
    assert api.log("n", 3, 4) == (b"3456", 10, False, 1)
    assert api.log("n", -2) == (b"89", 10, False, 1)
    assert api.wait("n", 0.0)["ended_at"] is None
    assert api.kill("n", now=True)["state"] == "killed"
    assert b"".join(api.follow_log("n", 8)[1]) == b"89"
    assert api.events("n") == []
    assert api.outputs("n") == []
    yard.files["a" * 12] = {"a b/ü%?.txt": b"data"}
    assert b"".join(api.output("n", "a b/ü%?.txt")) == b"data"
    with pytest.raises(NotFoundError):
        b"".join(api.output("n", "none"))
    yard.trees["t"] = b"tar"
    assert b"".join(api.tree("t")) == b"tar"
    assert api.create_token("t1", "agent", 60.0)["token"]
    assert [token["name"] for token in api.tokens()] == ["t1"]
    api.revoke_token("t1")
    assert api.tokens() == []
    api.remove("n")
    assert api.restore("n")["trashed"] is False
    assert api.open()["url"]
    assert api.du()["total"]
    assert api.gc({"do": False})["done"] is False
    assert api.backup(str(home / "b"))["size"] == 2048


@pytest.fixture
def running_api(yard: FakeYard, home: Path) -> Iterator[Api]:
    """A connection to the fake server."""
    with connect.connect({"RUNYARD_HOME": str(home)}) as api:
        yield api


def test_the_reason_is_the_last_line_of_the_log(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = paths.Home(str(home))
    monkeypatch.setattr(
        connect, "SERVER_COMMAND", (sys.executable, "-c", "import sys; print('the reason'); sys.exit(1)")
    )
    with pytest.raises(UnavailableError, match="the reason"):
        connect.start(place, {})


def test_a_starter_waits_for_the_one_that_holds_the_lock(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = paths.Home(str(home))
    lock = files.try_lock(place.server_lock)
    assert lock is not None
    monkeypatch.setattr(connect, "SERVER_COMMAND", ("/nonexistent",))
    ready = threading.Timer(0.3, write_server_json, (home, os.getpid(), FakeYard()))
    ready.start()
    try:
        assert connect.start(place, {})["pid"] == os.getpid()
    finally:
        ready.join()
        os.close(lock)


def test_a_followed_log_may_be_silent_for_longer_than_an_answer_may_take(yard: FakeYard, home: Path) -> None:
    yard.runs["a" * 12] = {"id": "a" * 12, "name": None, "ended_at": None}
    with Api("unix:" + paths.Home(str(home)).socket(), timeout=0.2) as api:
        _, shown = api.follow_log("a" * 12)
        later = threading.Timer(1.0, yard.write, ("a" * 12, b"done\n"))
        later.start()
        assert next(shown) == b"done\n"
        later.join()


def test_a_socket_of_another_user_is_told_nothing(tmp_path: Path, require: Callable[[str], None]) -> None:
    """As one at the place in /tmp where the socket of a long home would be."""
    require("root")
    path = tmp_path / "api"
    code = (
        "import os, socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\n"
        "os.setgid(65534); os.setuid(65534)\ns.listen()\nprint(flush=True)\n"
        "s.settimeout(20)\nc = s.accept()[0]\nprint(c.recv(1000))\n"
    )
    words = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as other, Http("unix:%s" % path, timeout=5.0) as http:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(UnavailableError, match="another user"):
            http.json("GET", "/health")
        assert other.stdout.read() == b"b''\n"


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"220 mail.example ESMTP\n", b"HTTP/1.1 \xb200 OK\r\n\r\n"]
)
def test_another_program_at_the_servers_port_is_no_server(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Http(url_of(listener), timeout=5.0) as http:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(UnavailableError):
            http.json("GET", "/health")
        thread.join()


def test_an_answer_of_less_than_no_bytes_is_an_empty_one() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n")
        ours.settimeout(5.0)
        assert Response(ours).read() == b""


def test_a_tcp_connection_notices_a_dead_host() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Address(url_of(listener)).connect(5.0) as connection:
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
