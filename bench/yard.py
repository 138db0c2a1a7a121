"""A whole yard for benchmarks: the real command line, server, agent and supervisors, in a home of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.common import SOURCE, runyard
from bench.repository import git
from runyard.client.api import Api
from runyard.client.connect import connect
from runyard.wire.ids import new_run_id

Json = dict[str, Any]
DEADLINE_S = 900.0
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Yard:
    """One running yard. ``env`` is what its runs get: the same few variables everywhere, so that sizes compare."""

    def __init__(self, top: Path, slots: int, **settings: str) -> None:
        self.home = top / "home"
        self.env = {"PATH": os.environ["PATH"], "HOME": str(top), "LANG": "C.UTF-8"}
        self.environ = {
            **self.env, "RUNYARD_HOME": str(self.home), "PYTHONPATH": SOURCE, "GIT_CONFIG_GLOBAL": os.devnull,
            "RUNYARD_CPU_SLOTS": str(slots), "RUNYARD_GPUS": "none", "RUNYARD_MIN_FREE": "1MB",
            "RUNYARD_LISTEN": "127.0.0.1:0", **settings,
        }  # fmt: skip

    def call(self, *words: str, cwd: Path | None = None) -> str:
        """Run a command of the yard and return what it prints; raises SystemExit when it fails."""
        done = subprocess.run(
            [*runyard(), *words], env=self.environ, cwd=cwd or self.home.parent, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"runyard {' '.join(words)} failed:\n{done.stderr}")
        return done.stdout

    def connect(self) -> Api:
        """Return a connection to the server."""
        return connect(self.environ, autostart=False)

    def first_run(self, repository: Path, *command: str) -> Json:
        """Submit a command with the command line, wait for it, and return a spec for more like it."""
        submitted = json.loads(self.call("run", "--json", *command, cwd=repository))
        with self.connect() as api:
            run = self.until_ended(api, submitted["id"])
            if run["state"] != "finished":
                raise SystemExit(f"{' '.join(command)} {run['state']}: {run['end']}")
        return like(run)

    @staticmethod
    def until_ended(api: Api, ref: str) -> Json:
        """Return a run once it has ended."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            run = api.wait(ref, timeout=5.0)
            if run["ended_at"] is not None:
                return run
        raise SystemExit(f"run {ref} has not ended after {DEADLINE_S:g} s")

    def all_ended(self, api: Api, every_s: float = 0.1) -> None:
        """Wait until no run is queued or running."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            counts = api.status()["counts"]
            if not counts.get("queued") and not counts.get("running"):
                bad = {state: n for state, n in counts.items() if n and state != "finished"}
                if bad:
                    raise SystemExit(f"not all runs finished: {bad}")
                return
            time.sleep(every_s)
        raise SystemExit(f"runs have not ended after {DEADLINE_S:g} s")

    def submit_many(self, api: Api, spec: Json, number: int) -> list[str]:
        """Queue equal runs in one transaction; return their ids."""
        return api.submit_many([new(spec) for _ in range(number)], self.env)

    def pids(self) -> dict[str, int]:
        """Return the pids of server and agent."""
        server = json.loads((self.home / "server.json").read_text())["pid"]
        agent = next(self.home.glob("hosts/*/agent.lock")).read_text()
        return {"server": int(server), "agent": int(agent)}

    def cpu_s(self) -> dict[str, float]:
        """Return the processor time so far: server, agent, its ended children (supervisors), and what collects."""
        pids = self.pids()
        server, agent = cpu_times(pids["server"]), cpu_times(pids["agent"])
        collectors = sum(sum(cpu_times(pid)) for pid in children(pids["agent"]) if b"collector.py" in command_line(pid))
        return {
            "server": server[0], "agent": agent[0], "supervisors and programs": agent[1], "collectors": collectors,
        }  # fmt: skip


def like(run: Json) -> Json:
    """Return the spec of a run, as far as benchmarks need it, without its id."""
    names = ("project", "command", "program", "cwd", "source", "repo_name", "resources", "snapshot", "links",
             "environment")  # fmt: skip
    return {name: run[name] for name in names}


def new(spec: Json) -> Json:
    """Return a spec under an id of its own."""
    return {"id": new_run_id(), **spec}


def cpu_times(pid: int) -> tuple[float, float]:
    """Return the processor time of a process and of its children that were waited for, seconds (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    own, children = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return own / TICKS, children / TICKS


def children(pid: int) -> list[int]:
    """Return the children of a process (proc(5))."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in lists for child in path.read_text().split()]


def command_line(pid: int) -> bytes:
    """Return the words of a process, each with a NUL behind it; none when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in megabytes (10^6 bytes)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6


def small_repository(path: Path) -> Path:
    """Make a repository of one file."""
    path.mkdir()
    (path / "train.py").write_text("print('hello')\n")
    for words in (["init", "-q", "-b", "main"], ["add", "-A"],
                  ["-c", "user.name=bench", "-c", "user.email=bench@example.org", "commit", "-qm", "x"]):  # fmt: skip
        git(words, path, {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})
    return path


def _exit(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def running(slots: int, prepare: Callable[[Yard], None] | None = None, **settings: str) -> Iterator[Yard]:
    """Start a yard in a directory of its own; end and remove it afterwards. ``prepare``: what fills its home first."""
    if not sys.platform.startswith("linux"):
        raise SystemExit("this benchmark reads /proc, so it needs Linux")
    before = signal.signal(signal.SIGTERM, _exit)  # so that whoever ends the benchmark ends the server too
    try:
        with tempfile.TemporaryDirectory(prefix="ry-bench-") as directory:
            yard = Yard(Path(directory), slots, **settings)
            try:
                if prepare is not None:
                    prepare(yard)
                yard.call("start")
                yield yard
            finally:
                yard.call("stop")
    finally:
        signal.signal(signal.SIGTERM, before)
