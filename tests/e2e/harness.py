"""A whole yard: the real command line, server, agent and supervisors, in a home of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from runyard.wire import procs
from runyard.wire.errors import UnavailableError
from runyard.wire.http import Http

T = TypeVar("T")
TOP = Path(__file__).resolve().parents[2]
DEADLINE_S = 30.0


def wait_for(look: Callable[[], T | None], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Return what ``look`` finds, once it finds something true; fail after a deadline."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {deadline_s:g} s for {what}")


class Cli:
    """The command line in one home, from one working directory."""

    def __init__(self, home: Path, cwd: Path, **env: str) -> None:
        self.home = home
        self.cwd = cwd
        self.prefix: list[str] = []
        """A command that runs ours as somebody else."""
        self.env = {
            "PATH": os.environ["PATH"], "HOME": str(home.parent), "RUNYARD_HOME": str(home), "LANG": "C.UTF-8",
            "PYTHONPATH": str(TOP / "src"), "GIT_CONFIG_GLOBAL": os.devnull, "RUNYARD_MIN_FREE": "1MB", **env,
        }  # fmt: skip

    def call(
        self, *args: str, code: int | None = 0, cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; fail unless it ends with ``code`` (None: anything goes)."""
        done = subprocess.run(
            [*self.prefix, sys.executable, "-m", "runyard.cli", *args], cwd=cwd or self.cwd, env={**self.env, **env},
            capture_output=True, text=True, errors="replace", timeout=120, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if code is not None and done.returncode != code:
            raise AssertionError(f"{args} ended with {done.returncode}, wanted {code}\n{done.stdout}\n{done.stderr}")
        return done

    def out(self, *args: str, code: int = 0, **kwargs: Any) -> str:
        """Run a command and return what it printed to stdout."""
        return self.call(*args, code=code, **kwargs).stdout

    def json(self, *args: str, **kwargs: Any) -> Any:
        """Run a command with ``--json`` behind its first word and return the value."""
        return json.loads(self.out(args[0], "--json", *args[1:], **kwargs))

    def submit(self, *args: str, **kwargs: Any) -> str:
        """Submit a run and return its id."""
        return str(self.json("run", *args, **kwargs)["id"])

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the server directly: cheaper than a command where a test waits for something."""
        info = json.loads((self.home / "server.json").read_text())
        with Http("unix:" + info["socket"]) as http:
            return http.json(method, path, body)

    def show(self, run: str) -> Any:
        """Return a run."""
        try:
            return self.api("GET", "/api/v1/runs/" + run)
        except (OSError, UnavailableError):
            return self.json("show", run)

    def until(self, run: str, *states: str, deadline_s: float = DEADLINE_S) -> Any:
        """Return a run once it is in one of these states."""
        last: list[Any] = []

        def look() -> Any:
            last[:] = [self.show(run)]
            return last[0] if last[0]["state"] in states else None

        try:
            return wait_for(look, f"{run} to be {' or '.join(states)}", deadline_s)
        except AssertionError as exc:
            raise AssertionError(f"{exc}; it is {json.dumps(last[0], indent=1)}\n{self.server_log()}") from None

    def server_log(self) -> str:
        """Return the end of the server's log, for failures."""
        try:
            return (self.home / "server.log").read_text(errors="replace")[-3000:]
        except OSError:
            return ""

    def pid(self, what: str) -> int:
        """Return the pid of the server or the agent."""
        if what == "server":
            return int(json.loads((self.home / "server.json").read_text())["pid"])
        lock = next(self.home.glob("hosts/*/agent.lock"))
        return int(lock.read_text())

    def kill(self, what: str) -> None:
        """SIGKILL the server or the agent, and wait until it is gone."""
        pid = self.pid(what)
        started = procs.start_time(pid)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not procs.is_alive(pid, started), f"{what} to be gone", 10.0)


def write_repository(path: Path, files: dict[str, str]) -> Path:
    """Make a git repository with one commit of these files."""
    path.mkdir(parents=True)
    for name, text in files.items():
        place = path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    for args in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        git(path, *args)
    return path


def git(path: Path, *args: str) -> str:
    """Run git in a directory and return what it prints."""
    done = subprocess.run(
        ["git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", *args],
        cwd=path, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout


def end_all(home: Path) -> None:
    """End every process whose environment or command line names this home: only those that the test started."""
    mark = os.fsencode(str(home))
    for _ in range(50):
        left = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == os.getpid():
                continue
            try:
                data = Path(f"/proc/{entry}/cmdline").read_bytes() + Path(f"/proc/{entry}/environ").read_bytes()
                state = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()[0]
            except OSError:
                continue
            if mark in data and state not in (b"Z", b"X"):
                left.append(int(entry))
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)
    raise AssertionError(f"processes {left} do not end")


TRAIN = """\
import argparse, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--sleep", type=float, default=0.0)
parser.add_argument("--exit", type=int, default=0)
args = parser.parse_args()
print("lr", args.lr, "version 1", flush=True)
time.sleep(args.sleep)
open("model.txt", "w").write(str(args.lr))
sys.exit(args.exit)
"""
