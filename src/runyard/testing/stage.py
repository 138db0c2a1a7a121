"""A yard under test with everything around it that moves: clock, ticks, agents, restarts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runyard.services.api import Actor, Json, YardService
from runyard.services.yard import Yard
from runyard.testing.clock import ManualClock
from runyard.wire import states
from runyard.wire.ids import new_run_id

ME = Actor(user="ada")
TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
TICK_S = 5.0
BEAT_S = 15.0


def four(end: Json) -> Json:
    """Return the four fields that every end has, without those that were added later."""
    return {name: end[name] for name in ("exit_code", "signal", "reason", "origin")}


def make_spec(run_id: str | None = None, **fields: Any) -> Json:
    """Return a valid run spec; any field can be given."""
    return {
        "id": run_id or new_run_id(),
        "project": "digits",
        "command": ["python", "train.py"],
        "program": "/usr/bin/python3",
        "source": "/home/ada/digits",
        "repo_name": "digits",
        "snapshot": {"tree": TREE, "commit": None, "branch": "main", "dirty": False},
        **fields,
    }


@dataclass(kw_only=True)
class Opened:
    """A yard that has been opened: what the tests call, the yard in this process behind it, and how to close both."""

    service: YardService
    inner: Yard
    close: Callable[[], None]


class Stage:
    """What one test plays on."""

    def __init__(self, open_it: Callable[[ManualClock], Opened], dump: Callable[[], str], *, remote: bool) -> None:
        self.clock = ManualClock()
        self.remote = remote
        """True: calls travel over HTTP, so values that HTTP cannot carry or that its edge refuses are left out."""
        self.dump = dump
        """Return everything that the database holds, as text."""
        self._open = open_it
        self._opened = open_it(self.clock)

    @property
    def yard(self) -> YardService:
        """The service under test."""
        return self._opened.service

    @property
    def inner(self) -> Yard:
        """The yard in this process, for ticks and for looking behind the interface."""
        return self._opened.inner

    @property
    def launch_files(self) -> list[str]:
        """Names of the files that hold environments."""
        path = self.inner.context.home.launch
        return sorted(os.listdir(path)) if os.path.isdir(path) else []

    def close(self) -> None:
        """Close everything."""
        self._opened.close()

    def restart(self, away_s: float = 0.0) -> None:
        """Stop the server and start it again later."""
        self._opened.close()
        self.clock.advance(away_s)
        self._opened = self._open(self.clock)

    def submit(self, *, env: Mapping[str, str] | None = None, **fields: Any) -> str:
        """Submit one run; return its id."""
        return self.yard.submit([make_spec(**fields)], env, ME)[0]

    def run(self, ref: str) -> Json:
        """Return a run."""
        return self.yard.run(ref, ME)

    def state(self, ref: str) -> str:
        """Return the state of a run."""
        return str(self.run(ref)["state"])

    def events(self, run_id: str) -> list[Json]:
        """Return all events of a run."""
        return self.yard.events(run_id, 0, ME)

    def tick(self) -> None:
        """Let the yard do its own work once."""
        self.inner.tick()

    def agent(self, name: str = "agent", **facts: Any) -> FakeAgent:
        """Return an agent that has said hello, on a host of its own unless told otherwise."""
        agent = FakeAgent(self, name, **facts)
        agent.hello()
        return agent

    def pass_time(self, seconds: float, *alive: FakeAgent) -> None:
        """Let time pass as it does: ticks, and a heartbeat and a poll of these agents every 15 s.

        Ticks come every 5 s, for fewer calls every 15 s of more than five minutes.
        """
        left, since = seconds, 0.0
        while left > 0:
            piece = min(TICK_S if left < 300 else BEAT_S, left)
            self.clock.advance(piece)
            left, since = left - piece, since + piece
            if since >= BEAT_S:
                since = 0.0
                for agent in alive:
                    agent.heartbeat()
                    agent.poll()
            self.tick()

    def warm_up(self, *alive: FakeAgent) -> None:
        """Let the first lease after a start pass, in which none expires."""
        self.pass_time(states.LEASE_S + TICK_S, *alive)


@dataclass
class FakeAgent:
    """Speaks the agent protocol as an agent does, but its processes are entries of `has`."""

    stage: Stage
    name: str
    host: str = ""
    cpus: int = 8
    gpus: int = 0
    slots: int = 1
    """CPU slots."""
    disk_free: int = 1 << 40
    mem: int = 64 << 30
    threads: int = 1
    user: str = "ada"
    boot_id: str = "boot-1"
    shared_home: str | None = None
    has: dict[str, Json] = field(default_factory=dict)
    """Attempts on this host by id: the assignment, with ``phase`` and ``epoch``."""
    stops: list[Json] = field(default_factory=list)
    verdicts: dict[str, Json] = field(default_factory=dict)
    """The last ones heard."""

    def __post_init__(self) -> None:
        self.host = self.host or "host-" + self.name

    def slot_list(self, **changes: Any) -> list[Json]:
        """Return the slots as the agent reports them."""
        gpus = [
            {"name": f"gpu{i}", "kind": "gpu", "index": i, "uuid": f"GPU-{self.host}-{i}", "model": "NVIDIA A100",
             "mem": 40 << 30, "threads": 1, "free": True, "why": "", **changes}
            for i in range(self.gpus)
        ]  # fmt: skip
        cpus = [
            {"name": f"cpu{i}", "kind": "cpu", "index": i, "uuid": None, "model": None, "mem": None,
             "threads": self.threads, "free": True, "why": "", **changes}
            for i in range(self.slots)
        ]  # fmt: skip
        return gpus + cpus

    def said(self) -> dict[str, Json]:
        """Return the attempts as hello and heartbeat name them."""
        return {
            key: {name: held[name] for name in ("epoch", "run", "phase", "number", "slots")}
            for key, held in self.has.items()
        }

    def hello(self, attempts: Mapping[str, Json] | None = None) -> Json:
        """Say hello; by default with all that it has."""
        said = self.said() if attempts is None else dict(attempts)
        answer = self.stage.yard.hello(
            self.name,
            {
                "host": {"id": self.host, "name": self.host, "boot_id": self.boot_id, "cpus": self.cpus,
                         "mem": self.mem, "os": "Linux", "gpus": []},
                "user": self.user, "uid": 1000, "pid": 4711, "version": "0.1.0", "shared_home": self.shared_home,
                "slots": self.slot_list(), "attempts": said,
            },
        )  # fmt: skip
        self._heed(answer["attempts"])
        return answer

    def heartbeat(self, attempts: Mapping[str, Json] | None = None, slots: list[Json] | None = None) -> Json:
        """Renew the leases; returns the answer."""
        body = {
            "attempts": self.said() if attempts is None else dict(attempts),
            "slots": self.slot_list() if slots is None else slots,
            "disk_free": self.disk_free,
            "boot_id": self.boot_id,
        }
        answer = self.stage.yard.heartbeat(self.name, body)
        self._heed(answer["attempts"])
        return answer

    def _heed(self, verdicts: dict[str, Json]) -> None:
        self.verdicts = verdicts
        for attempt, verdict in verdicts.items():
            if verdict["verdict"] == "keep" and attempt in self.has:
                self.has[attempt]["epoch"] = verdict["epoch"]

    def poll(self) -> Json:
        """Ask what there is; assignments go to `has`, stops to `stops`."""
        answer = self.stage.yard.poll(self.name, list(self.has))
        for assignment in answer["assign"]:
            self.has[assignment["attempt"]] = {**assignment, "phase": states.ASSIGNED}
        self.stops += answer["stop"]
        return answer

    def take(self) -> list[Json]:
        """Let the yard assign what it can, and return what came to this agent."""
        self.stage.tick()
        return list(self.poll()["assign"])

    def enter(self, attempt: str, phase: str) -> Json:
        """Ask to enter a phase; raises StaleError."""
        answer = self.stage.yard.phase(attempt, self.has[attempt]["epoch"], phase)
        self.has[attempt]["phase"] = phase
        return answer

    def start(self, attempt: str) -> None:
        """Go through staging to running."""
        self.enter(attempt, states.STAGING)
        self.enter(attempt, states.PHASE_RUNNING)

    def take_and_start(self) -> str:
        """Take the one assignment there is and start it; return the attempt's id."""
        (assignment,) = self.take()
        self.start(assignment["attempt"])
        return str(assignment["attempt"])

    def end_of(self, attempt: str, exit_code: int | None = 0, **fields: Any) -> Json:
        """Return the end of an attempt as it is reported."""
        return {
            "attempt": attempt, "epoch": self.has.get(attempt, {}).get("epoch", 1), "exit_code": exit_code,
            "signal": None, "reason": states.EXITED, "origin": states.USER,
            "started_at": self.stage.clock.database_us - 1_000_000, "ended_at": self.stage.clock.database_us,
            "log_bytes": 0, "log_dropped": 0, **fields,
        }  # fmt: skip

    def end(self, attempt: str, exit_code: int | None = 0, **fields: Any) -> str:
        """Report an end; return how it was taken."""
        result = self.stage.yard.finish([self.end_of(attempt, exit_code, **fields)])[attempt]
        self.has.pop(attempt, None)
        return result

    def lose(self, attempt: str, reason: str = states.SUPERVISOR_DIED) -> str:
        """Report that an attempt was lost to infrastructure."""
        return self.end(attempt, None, reason=reason, origin=states.INFRA)

    def restart(self, keep: bool = True) -> Json:
        """Start again: it names what it still has (``keep``), or nothing."""
        if not keep:
            self.has.clear()
        self.stops.clear()
        return self.hello()
