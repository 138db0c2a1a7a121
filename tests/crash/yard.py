"""A yard to be broken: a real server, one or two real agents behind proxies, and what the harness can do to them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runyard.wire import files, paths, procs
from runyard.wire.errors import NotFoundError, RunyardError, UnavailableError
from runyard.wire.http import Http
from runyard.wire.ids import new_run_id
from tests.crash import points
from tests.crash.nursery import TOP, Nursery
from tests.crash.proxy import Proxy, tcp_upstream, unix_upstream

HERE = Path(__file__).parent
SLOTS = {"home": 2, "far": 1}
GRACE_S = 0.6


@dataclass(frozen=True)
class Template:
    """What all yards start from: a home with an empty database, the library with fault points, the frozen program."""

    path: Path
    tree: str

    @property
    def library(self) -> str:
        """Directory of the library that supervisors run from."""
        return str(self.path / "library")

    @property
    def source(self) -> str:
        """The user's directory."""
        return str(self.path / "source")


def make_template(path: Path) -> Template:
    """Make the template in a directory that does not exist yet."""
    from runyard.snapshot.freeze import freeze
    from runyard.store import migrate
    from runyard.store.database import Database
    from runyard.wire import library

    source, home = path / "source", path / "home"
    source.mkdir(parents=True)
    home.mkdir(mode=0o700)
    shutil.copy(HERE / "job.py", source)
    frozen = freeze(str(source), str(home), environ={"PATH": os.environ["PATH"], "HOME": str(path)})
    database = Database(f"sqlite:///{home}/yard.db")
    migrate.upgrade(database.url)
    database.close()
    copy = library.install(str(home))
    shutil.move(copy, path / "library")
    shutil.rmtree(home / "lib")
    shutil.copy(HERE / "points.py", path / "library")
    shutil.copy(HERE / "supervisor_script.py", path / "library" / "runyard" / "agent" / "supervisor.py")
    return Template(path, str(frozen.spec()["snapshot"]["tree"]))


@dataclass
class Sent:
    """A run that the harness has asked for."""

    spec: dict[str, Any]
    answered: bool = False
    """The server has said that it has it."""


@dataclass
class Ledger:
    """What the programs of one run said of themselves."""

    lines: list[dict[str, Any]] = field(default_factory=list)

    def of(self, what: str) -> list[dict[str, Any]]:
        """Return the lines of one kind."""
        return [line for line in self.lines if line["what"] == what]

    def alive(self) -> set[str]:
        """Return the attempts whose program lives now."""
        return {line["attempt"] for line in self.of("start") if procs.is_alive(line["pid"], line["ticks"])}


class Yard:
    """One yard. ``agents``: "home", which shares the server's home, and perhaps "far", which does not."""

    def __init__(
        self, nursery: Nursery, template: Template, *, database: str = "", agents: tuple[str, ...] = ("home",),
        seed: int = 0, tmpfs: bool = False, mutation: str = "",
    ) -> None:  # fmt: skip
        self.nursery = nursery
        self.template = template
        self.database = database
        self.mutation = mutation
        self.random = random.Random(seed)
        self.path = Path(tempfile.mkdtemp(prefix="ryc-", dir="/tmp"))
        self.home = self.path / "home"
        self.control = str(self.path / "control")
        for name in ("home", "far", "ledger", "slots", "control/points", "control/fired"):
            (self.path / name).mkdir(parents=True, mode=0o700)
        (self.path / "control" / "clock").write_text("0")
        self.tmpfs = tmpfs
        if tmpfs:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,mode=0700", "tmpfs", str(self.home)], check=True)
        shutil.copytree(template.path / "home", self.home, dirs_exist_ok=True, symlinks=True)
        self.socket = paths.Home(str(self.home)).socket()
        self.proxies = {
            name: Proxy(
                str(self.path / "control" / name) if name == "home" else "",
                unix_upstream(self.socket) if name == "home" else tcp_upstream(str(self.home / "server.json")),
                seed + number,
            )
            for number, name in enumerate(agents)
        }
        self.pids: dict[str, tuple[int, int]] = {}
        """Pid and start time of "server" and of each agent that should be there."""
        self.sent: dict[str, Sent] = {}
        self.paused: set[str] = set()
        self.terminating: set[str] = set()
        """Was asked to end and may still be at it."""
        self.disturbed_at: dict[str, float] = {}
        """When (monotonic) something was last done that takes a process's word from it; see `observer`."""
        self.disk_is_full = self.disk_was_full = False
        self.supervisors_killed: set[str] = set()
        self.log: list[str] = []
        self._began = time.monotonic()
        self._lock = threading.Lock()

    # -- processes

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of servers and agents."""
        return {
            "PATH": os.environ["PATH"], "HOME": str(self.path), "LANG": "C.UTF-8", "RUNYARD_MIN_FREE": "512k",
            "RUNYARD_GRACE": str(GRACE_S), points.VARIABLE: self.control, **more,
        }  # fmt: skip

    def note(self, text: str) -> None:
        """Write into the yard's diary, which is printed when something is wrong."""
        self.log.append("%7.3f %s" % (time.monotonic() - self._began, text))

    def start(self) -> None:
        """Start everything, and wait until it is up."""
        self.start_server()
        self.wait_ready()
        if "far" in self.proxies:
            token = self.api("POST", "/api/v1/tokens", {"name": "far", "scope": "agent"})["token"]
            (self.path / "far" / "token").write_text(token)
        for name in self.proxies:
            self.start_agent(name)

    def start_server(self) -> None:
        """Start the server, unless it is there."""
        if self.is_alive("server"):
            return
        words = ["--home", str(self.home), "--listen", "127.0.0.1:0", "--no-agent"]
        words += ["--database", self.database] if self.database else []
        self._started("server", self.nursery.start(
            "server", words, self.environment(), str(self.path / "control" / "server.out"), self.mutation
        ))  # fmt: skip

    def start_agent(self, name: str) -> None:
        """Start an agent, unless it is there."""
        if self.is_alive(name):
            return
        home = str(self.path / name)
        words = [self.proxies[name].url[5:] if name == "home" else "", self.template.library, "--home", home]
        if name != "home":
            words += ["--server", self.proxies[name].url, "--token-file", home + "/token", "--name", name]
        log = str(self.path / "control" / (name + ".err"))
        environment = self.environment(RUNYARD_CPU_SLOTS=str(SLOTS[name]), RUNYARD_GPUS="none")
        self._started(name, self.nursery.start("agent", words, environment, log, self.mutation))

    def _started(self, name: str, pid: int) -> None:
        self.paused.discard(name)
        self.terminating.discard(name)
        self.disturb(name)
        self.pids[name] = (pid, procs.start_time(pid) or 0)
        self.note("%s started, pid %d" % (name, pid))

    def is_alive(self, name: str) -> bool:
        """Tell whether a process lives (a stopped one does)."""
        pid, started = self.pids.get(name, (0, 0))
        return bool(pid) and procs.is_alive(pid, started)

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a process, if it lives."""
        if self.is_alive(name):
            self.note("%s gets signal %d" % (name, number))
            self.disturb(name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pids[name][0], number)
            if number == signal.SIGTERM:
                self.terminating.add(name)
            if number == signal.SIGKILL:
                wait_for(lambda: not self.is_alive(name), "%s to be gone" % name, 10.0)
        if name == "server" and number == signal.SIGKILL:
            for proxy in self.proxies.values():
                proxy.break_all()

    def kill(self, name: str) -> None:
        """SIGKILL."""
        self.signal(name, signal.SIGKILL)

    def pause(self, name: str) -> None:
        """SIGSTOP."""
        self.paused.add(name)
        self.signal(name, signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        """SIGCONT."""
        self.signal(name, signal.SIGCONT)
        self.paused.discard(name)

    def cut(self, name: str, cut: bool = True) -> None:
        """Let no message of an agent pass, or let them pass again."""
        self.note("%s is %s" % (name, "cut off" if cut else "connected again"))
        self.disturb(name)
        self.proxies[name].cut = cut
        if cut:
            self.proxies[name].break_all()

    def disturb(self, name: str) -> None:
        """Note that a process's word has just been taken from it or given back."""
        self.disturbed_at[name] = time.monotonic()

    def move_clock(self, seconds: float) -> None:
        """Set the server's clock forward or back."""
        path = Path(self.control) / "clock"
        now = float(path.read_text()) + seconds
        temporary = path.with_suffix(".new")
        temporary.write_text(str(now))
        temporary.rename(path)
        self.disturb("server")
        self.note("the clock moves by %+g s" % seconds)

    def fill_disk(self) -> None:
        """Leave no room in the home (a tmpfs)."""
        self.disk_is_full = self.disk_was_full = True
        with contextlib.suppress(OSError), (self.home / "ballast").open("wb") as file:
            while True:
                file.write(b"\0" * 65536)
                file.flush()
        self.note("the disk is full")

    def free_disk(self) -> None:
        """Make room again."""
        if self.disk_is_full:
            (self.home / "ballast").unlink(missing_ok=True)
            self.disk_is_full = False
            self.disturb("server")
            self.note("the disk has room")

    # -- requests

    def api(self, method: str, path: str, body: Any = None, timeout: float = 5.0) -> Any:
        """Ask the server, on its own socket; raises RunyardError."""
        with Http("unix:" + self.socket, timeout=timeout) as http:
            return http.json(method, path, body)

    def wait_ready(self, deadline_s: float = 60.0) -> None:
        """Wait until the server answers, and has said so in ``server.json``: if it cannot write that, it ends."""
        wait_for(self._answers, "the server", deadline_s)

    def _answers(self) -> bool:
        with contextlib.suppress(RunyardError, OSError):
            info = files.read_json(str(self.home / "server.json")) or {}
            if info.get("pid") == self.pids["server"][0] and self.api("GET", "/health", timeout=2.0):
                return True
        self.start_server()  # one that finds no database at its start ends
        return False

    def wait_agents(self, deadline_s: float = 30.0) -> None:
        """Wait until the server knows all agents to be there."""

        def there() -> bool:
            with contextlib.suppress(RunyardError, OSError):
                found = self.api("GET", "/api/v1/status")["agents"]
                return sum(agent["connected"] for agent in found) == len(self.proxies)
            return False

        wait_for(there, "the agents", deadline_s)

    def spec(self, behaviour: str, seconds: float, exit_code: int = 0, **fields: Any) -> dict[str, Any]:
        """Return the spec of a run of `job`; ``frozen=False``: it works in the user's directory."""
        frozen = fields.pop("frozen", True)
        options = [] if behaviour == "logger" else ["-I", "-S"]  # which is faster, and has no hooks and no SDK
        words = ["python", *options, "job.py", str(self.path), behaviour, str(seconds), str(exit_code)]
        return {
            "id": new_run_id(), "project": "crash", "command": words, "program": sys.executable,
            "source": self.template.source, "repo_name": "code", "env": {"PATH": os.environ["PATH"], "PLANTED": "x"},
            "snapshot": {"tree": self.template.tree if frozen else None}, "in_place": not frozen,
            "message": behaviour, **fields,
        }  # fmt: skip

    def submit(self, behaviour: str = "plain", seconds: float = 0.1, exit_code: int = 0, **fields: Any) -> str:
        """Submit a run and return its id; whether the server answered is noted."""
        spec = self.spec(behaviour, seconds, exit_code, **fields)
        self.sent[spec["id"]] = Sent(spec)
        self.note("submit %s %s %g %d %s" % (spec["id"], behaviour, seconds, exit_code, fields or ""))
        self.send(spec["id"])
        return str(spec["id"])

    def send(self, run_id: str) -> bool:
        """(Re)submit a run; tell whether the server took it."""
        sent = self.sent[run_id]
        with contextlib.suppress(UnavailableError, OSError, ValueError):
            self.api("PUT", "/api/v1/runs/" + run_id, sent.spec)
            sent.answered = True
        return sent.answered

    def act(self, run_id: str, action: str, body: Any = None) -> None:
        """Kill, hold or release a run; refusals and silence are all the same."""
        self.note("%s %s" % (action, run_id))
        with contextlib.suppress(RunyardError, OSError):
            self.api("POST", "/api/v1/runs/%s/%s" % (run_id, action), body or {})

    def show(self, run_id: str) -> Any:
        """Return a run."""
        return self.api("GET", "/api/v1/runs/" + run_id)

    def runs(self) -> list[dict[str, Any]]:
        """Return all runs, with their outputs."""
        found: list[dict[str, Any]] = self.api("GET", "/api/v1/runs?limit=500&outputs=true")["runs"]
        return found

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """Return the events of a run."""
        found: list[dict[str, Any]] = self.api("GET", "/api/v1/runs/%s/events" % run_id)["events"]
        return found

    def log_of(self, run_id: str, number: int) -> bytes:
        """Return the raw log of an attempt."""
        with Http("unix:" + self.socket, timeout=10.0) as http:
            return http.open("GET", "/api/v1/runs/%s/log?attempt=%d" % (run_id, number)).read()

    def until(self, run_id: str, *states: str, deadline_s: float = 30.0) -> Any:
        """Return a run once it is in one of these states, or its phase is."""

        def look() -> Any:
            with contextlib.suppress(RunyardError, OSError):
                run = self.show(run_id)
                return run if run["state"] in states or run["phase"] in states else None
            return None

        return wait_for(look, "%s to be %s" % (run_id, " or ".join(states)), deadline_s)

    # -- what is the case

    def ledger(self, run_id: str) -> Ledger:
        """Return what the programs of a run said."""
        try:
            text = (self.path / "ledger" / run_id).read_text()
        except FileNotFoundError:
            return Ledger()
        return Ledger([json.loads(line) for line in text.splitlines() if line.endswith("}")])

    def supervisors(self) -> dict[str, int]:
        """Return the live supervisors' pids by attempt."""
        found = {}
        for name in self.proxies:
            for status in (self.path / name).glob("hosts/*/attempts/*/status.json"):
                with contextlib.suppress(OSError, ValueError, KeyError):
                    value = json.loads(status.read_text())
                    if procs.is_alive(value["supervisor_pid"], value["supervisor_start"]):
                        found[status.parent.name] = value["supervisor_pid"]
        return found

    def programs(self) -> dict[str, tuple[str, int]]:
        """Return run and pid of the live programs by attempt."""
        found = {}
        for run_id in self.sent:
            ledger = self.ledger(run_id)
            for line in ledger.of("start"):
                if procs.is_alive(line["pid"], line["ticks"]):
                    found[line["attempt"]] = (run_id, line["pid"])
        return found

    def collectors(self) -> dict[str, int]:
        """Return the live collectors' pids by attempt: who has the lock of one open and is no agent."""
        agents = {pid for pid, _ in self.pids.values()}
        found = {}
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError):
                place, pid = os.readlink(link), int(link.parts[2])
                if place.startswith(str(self.path)) and place.endswith("/collector.lock") and pid not in agents:
                    found[os.path.basename(os.path.dirname(place))] = pid
        return found

    def series(self, run_id: str, metric: str) -> tuple[list[int], list[float]]:
        """Return steps and values of all points of a metric; none when there is no such metric."""
        try:
            found = self.api("GET", "/api/v1/runs/%s/series?metric=%s&points=0" % (run_id, metric), timeout=30.0)
        except NotFoundError:
            return [], []
        return found["steps"], found["values"]

    def leftovers(self) -> list[str]:
        """Return the processes that belong to this yard, server and agents left out."""
        mark = os.fsencode(str(self.path))
        ours = {pid for pid, _ in self.pids.values()} | {os.getpid()}
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) not in ours:
                with contextlib.suppress(OSError):
                    line = Path("/proc/%s/cmdline" % entry).read_bytes()
                    state = Path("/proc/%s/stat" % entry).read_bytes().rpartition(b")")[2].split()[0]
                    if mark in line and state not in (b"Z", b"X"):
                        found.append("%s %s" % (entry, line.replace(b"\0", b" ").decode(errors="replace")))
        return found

    # -- the end

    def close(self, keep: bool = False) -> None:
        """End every process of the yard and remove it."""
        points.disarm(self.control)
        for name in list(self.pids):
            self.kill(name)
        for proxy in self.proxies.values():
            proxy.close()
        for _ in range(100):
            left = self.leftovers()
            if not left:
                break
            for line in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(line.split()[0]), signal.SIGKILL)
            time.sleep(0.02)
        if self.tmpfs:
            subprocess.run(["umount", "-l", str(self.home)], check=False)
        if not keep:
            shutil.rmtree(self.path, ignore_errors=True)


def wait_for(look: Callable[[], Any], what: str, deadline_s: float) -> Any:
    """Return what ``look`` finds once it finds something true; AssertionError after a deadline."""
    end = time.monotonic() + deadline_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError("waited %g s for %s" % (deadline_s, what))
        time.sleep(0.03)


def nursery_and_template(path: Path) -> Iterator[tuple[Nursery, Template]]:
    """Give what all yards need."""
    nursery = Nursery()
    try:
        yield nursery, make_template(path)
    finally:
        nursery.close()


__all__ = ["TOP", "Yard", "make_template", "nursery_and_template", "wait_for"]
