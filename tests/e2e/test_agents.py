"""More than one machine: an agent that shares no directory with the server, and a home mounted on a second host."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Cli, end_all, wait_for


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    assert process.wait(20) == 0


@pytest.fixture
def far_home(home: Path) -> Iterator[Path]:
    """The home of an agent on another machine."""
    path = home.with_name(home.name + "-far")
    path.mkdir()
    yield path
    end_all(path)
    subprocess.run(["rm", "-rf", str(path)], check=True)


def start_far_agent(
    cli: Cli, far_home: Path, command: Sequence[str] = (sys.executable, "-m", "runyard.agent"), **env: str
) -> subprocess.Popen[bytes]:
    cli.call("start")
    url = cli.json("status")["url"]
    token_file = far_home / "token"
    token_file.write_text(json.loads(cli.out("token", "create", "far", "--scope", "agent", "--json"))["token"])
    token_file.chmod(0o600)
    with (far_home / "err").open("wb") as err:
        process = subprocess.Popen(
            [*command, "--home", str(far_home), "--server", url, "--token-file", str(token_file), "--name", "far"],
            env={**cli.env, **env, "RUNYARD_HOME": str(far_home)}, stdout=subprocess.DEVNULL, stderr=err, cwd="/",
        )  # fmt: skip
    wait_for(lambda: any(a["host"] == "far" and a["connected"] for a in cli.json("status")["agents"]), "the far agent")
    return process


def test_an_agent_that_shares_nothing_gets_trees_and_sends_everything_back(cli: Cli, far_home: Path) -> None:
    process = start_far_agent(cli, far_home)
    script = (
        "import os, sys; os.makedirs('out'); open('out/big.bin', 'wb').write(os.urandom(3_000_000)); "
        "print('there', open('train.py').read()[:8]); sys.exit(3)"
    )
    run_id = cli.submit("--host", "far", "python", "-c", script)
    run = cli.until(run_id, "failed")
    assert run["host"] == "far"
    assert run["end"]["exit_code"] == 3
    assert not list(far_home.glob("yard.db*"))

    def whole() -> Any:
        found = cli.show(run_id)["outputs"]
        return found if found and found[0]["sha256"] else None

    outputs = wait_for(whole, "the output's bytes and hash")
    assert [output["path"] for output in outputs] == ["out/big.bin"]
    data = (Path(run["run_dir"]) / "out" / "big.bin").read_bytes()
    assert hashlib.sha256(data).hexdigest() == outputs[0]["sha256"]
    assert str(run["run_dir"]).startswith(str(cli.home))
    wait_for(lambda: cli.out("logs", run_id).startswith("there import"), "the log")
    stop(process)


@pytest.mark.parametrize(("token", "complaint"), [("", "needs a credential"), ("ry_wrong", "not valid")])
def test_an_agent_without_a_valid_token_says_so_and_ends(cli: Cli, far_home: Path, token: str, complaint: str) -> None:
    cli.call("start")
    url = cli.json("status")["url"]
    done = cli.call("agent", "--server", url, code=1, RUNYARD_HOME=str(far_home), RUNYARD_TOKEN=token)
    assert complaint in done.stderr
    assert "runyard token create NAME --scope agent" in done.stderr


def test_a_token_that_is_revoked_later_does_not_end_the_agent(cli: Cli, far_home: Path) -> None:
    process = start_far_agent(cli, far_home)
    assert "connected to http" in (far_home / "err").read_text()
    run_id = cli.submit("--host", "far", "python", "train.py", "--sleep", "600")
    cli.until(run_id, "running")
    cli.call("token", "revoke", "far")
    wait_for(lambda: "refuses this agent" in (far_home / "err").read_text(), "the refusal")
    assert process.poll() is None
    stop(process)


def test_a_far_run_that_says_and_writes_nothing_has_an_empty_log(cli: Cli, far_home: Path) -> None:
    process = start_far_agent(cli, far_home)
    run_id = cli.submit("--host", "far", "true")
    assert cli.until(run_id, "finished")["files"] == "here"
    assert cli.out("logs", run_id) == ""
    stop(process)


def test_a_far_run_is_killed_and_its_log_followed(cli: Cli, far_home: Path) -> None:
    process = start_far_agent(cli, far_home)
    run_id = cli.submit("--host", "far", "python", "train.py", "--sleep", "600")
    cli.until(run_id, "running")
    wait_for(lambda: "version 1" in cli.out("logs", run_id), "the live log")
    cli.call("kill", run_id)
    killed = cli.until(run_id, "killed")
    assert (killed["end"]["signal"], killed["outputs"], killed["files"]) == (15, [], "here")
    assert "version 1" in cli.out("logs", run_id)
    stop(process)


def test_a_home_mounted_on_a_second_host_is_never_opened_there(cli: Cli, require: Any) -> None:
    """Another host name makes another host id; commands there use the server of the first, or say what to do."""
    require("root")
    cli.call("start")
    before = cli.pid("server")
    done = subprocess.run(
        on_second_host("ls", "--json"),
        env=cli.env, cwd=cli.cwd, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert cli.pid("server") == before
    assert (done.returncode == 0 and json.loads(done.stdout) == []) or "host" in done.stderr
    assert _holders(cli) <= {str(before)}


def renamed(*words: str) -> list[str]:
    """Return the argv of a command of Runyard on this host, once it has been given another name."""
    line = 'hostname second-host && exec "$@"'
    return ["unshare", "--uts", "sh", "-c", line, "sh", sys.executable, "-m", "runyard.cli", *words]


def on_second_host(*words: str) -> list[str]:
    """Return the argv of a command on a host of another name and with other processes, which shares this one's disks."""
    return ["unshare", "--pid", "--fork", "--mount-proc", *renamed(*words)]


def stop_second(process: subprocess.Popen[bytes]) -> None:
    """Stop an agent on the second host: it is the child of the process that made that host."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGTERM)
    assert process.wait(20) == 0


def test_a_host_that_is_given_another_name_keeps_its_server_and_runs(cli: Cli, require: Any) -> None:
    require("root")
    subprocess.run(renamed("start"), env=cli.env, cwd=cli.cwd, check=True, timeout=60)
    server = cli.pid("server")
    rename = ["nsenter", "--uts", f"--target={server}", "hostname", "third-host"]
    subprocess.run(rename, check=True)
    run_id = cli.submit("python", "train.py", "--sleep", "6")
    run = cli.until(run_id, "running")
    assert cli.out("start").startswith("running at")
    assert cli.pid("server") == server
    cli.call("stop")
    cli.call("start")  # under this host's own name
    wait_for(lambda: all(agent["connected"] for agent in cli.json("status")["agents"]), "the same agent")
    after = cli.until(run_id, "finished")
    assert [attempt["id"] for attempt in after["attempts"]] == [run["attempts"][0]["id"]]
    assert len(list((cli.home / "hosts").iterdir())) == 1, "journals, locks and sockets stay in one place"


def test_a_host_that_mounts_the_home_joins_as_an_agent(cli: Cli, require: Any) -> None:
    """It needs neither address nor token: both are in the home, and the logs and outputs are where they belong."""
    require("root")
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        port = probe.getsockname()[1]
    cli.call("start", "--listen", f"0.0.0.0:{port}")
    (cli.home / "config.toml").write_text("cpu_slots = 3\n")
    environ = {name: value for name, value in cli.env.items() if name != "RUNYARD_CPU_SLOTS"}
    with (cli.home / "second.err").open("wb") as err:
        process = subprocess.Popen(
            on_second_host("agent"), env=environ, cwd=cli.cwd, stdout=subprocess.DEVNULL, stderr=err
        )
    try:
        wait_for(
            lambda: any(a["host"] == "second-host" and a["connected"] for a in cli.json("status")["agents"]),
            "the second host",
        )
        assert sum(slot["id"].startswith(_host(cli, "second-host")) for slot in cli.json("status")["slots"]) == 3
        run_id = cli.submit("--host", "second-host", "python", "train.py")
        run = cli.until(run_id, "finished")
        assert (run["host"], run["outputs"][0]["path"]) == ("second-host", "model.txt")
        assert cli.out("logs", run_id) == "lr 0.1 version 1\n"
        listed = subprocess.run(
            on_second_host("ls", "-q"), env=cli.env, cwd=cli.cwd, capture_output=True, text=True, check=True
        )
        assert listed.stdout.split() == [run_id]
        assert _holders(cli) <= {str(cli.pid("server"))}
        cli.call("restart")  # which makes another token
        again = cli.submit("--host", "second-host", "python", "train.py")
        assert cli.until(again, "finished")["host"] == "second-host"
    finally:
        stop_second(process)


def _host(cli: Cli, name: str) -> str:
    return next(str(agent["host_id"]) for agent in cli.json("status")["agents"] if agent["host"] == name)


def _holders(cli: Cli) -> set[str]:
    """Return the processes that have the database open."""
    files = [path for path in Path("/proc").glob("[0-9]*/fd/*") if _target(path).startswith(str(cli.home / "yard.db"))]
    return {str(path).split("/")[2] for path in files}


def _target(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def test_the_address_that_agents_know_is_kept(cli: Cli) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cli.call("start", "--listen", f"127.0.0.1:{port}")
    cli.kill("server")
    cli.call("ls")  # starts it again
    assert cli.json("status")["url"] == f"http://127.0.0.1:{port}"
    cli.call("stop")
    cli.call("ls")
    assert cli.json("status")["url"] == f"http://127.0.0.1:{port}"
