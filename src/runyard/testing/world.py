"""A pretended world around a yard: hosts, agents and processes of which the truth is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from runyard.services.api import Json
from runyard.testing.stage import FakeAgent, Stage
from runyard.wire import states
from runyard.wire.errors import StaleError

T = TypeVar("T")


class LostError(Exception):
    """The answer to a request was thrown away, or the request itself."""


@dataclass
class Process:
    """What a host has of an attempt."""

    attempt: str
    run: str
    epoch: int
    number: int
    slots: list[str]
    phase: str = states.ASSIGNED
    alive: bool = False
    """The user's program is being executed."""
    end: Json | None = None
    """Its end, once it has one that has not been answered."""


@dataclass
class SimHost:
    """A host with one agent. Calls can be lost on the way there or back; the agent can be down, the host can die."""

    stage: Stage
    name: str
    slots: int
    up: bool = True
    """The agent runs."""
    cut: bool = False
    """No message gets through."""
    lossy: int = 0
    """So many of the next answers are thrown away, after the yard has done what was asked."""
    processes: dict[str, Process] = field(default_factory=dict)
    seen_ends: list[Json] = field(default_factory=list)
    """Ends that were reported, to be reported again."""

    def __post_init__(self) -> None:
        self._agent = FakeAgent(self.stage, self.name, slots=self.slots)

    @property
    def id(self) -> str:
        """The host's id."""
        return self._agent.host

    @property
    def reachable(self) -> bool:
        """Tell whether the yard hears of it."""
        return self.up and not self.cut

    def call(self, work: Callable[[], T]) -> T:
        """Send a request; raises LostError when its answer does not arrive."""
        if not self.reachable:
            raise LostError
        answer = work()
        if self.lossy:
            self.lossy -= 1
            raise LostError
        return answer

    def _said(self) -> dict[str, Json]:
        return {p.attempt: {"epoch": p.epoch, "run": p.run, "phase": p.phase} for p in self.processes.values()}

    def hello(self) -> None:
        """Say hello with all that has a process or an unreported end."""
        self.processes = {key: p for key, p in self.processes.items() if p.alive or p.end is not None}
        self._heed(self.call(lambda: self._agent.hello(self._said()))["attempts"])

    def beat(self) -> None:
        """Do all that an agent does every 15 s, until an answer is lost."""
        try:
            self._heed(self.call(lambda: self._agent.heartbeat(self._said()))["attempts"])
            self.poll()
            for process in list(self.processes.values()):
                self.advance(process)
            self.report()
        except LostError:
            return

    def _heed(self, verdicts: dict[str, Json]) -> None:
        for attempt, verdict in verdicts.items():
            process = self.processes.get(attempt)
            if process is None:
                continue
            if verdict["verdict"] == "keep":
                process.epoch = verdict["epoch"]
            else:
                self.stop(process, states.SUPERSEDED, states.INFRA)

    def poll(self) -> None:
        """Take assignments and stops."""
        answer = self.call(lambda: self.stage.yard.poll(self.name, list(self.processes)))
        for item in answer["assign"]:
            self.processes[item["attempt"]] = Process(
                attempt=item["attempt"], run=item["run"], epoch=item["epoch"], number=item["number"],
                slots=[f"{self.id}:{slot}" for slot in item["slots"]],
            )  # fmt: skip
        for stop in answer["stop"]:
            self.stop(self.processes[stop["attempt"]], stop["reason"], stop["origin"])

    def advance(self, process: Process) -> None:
        """Take an attempt to its next phase, up to running; what may not go on is given up."""
        while process.end is None and process.phase in (states.ASSIGNED, states.STAGING):
            phase = states.STAGING if process.phase == states.ASSIGNED else states.PHASE_RUNNING
            try:
                self.call(lambda phase=phase: self.stage.yard.phase(process.attempt, process.epoch, phase))  # type: ignore[misc]
            except StaleError:
                self.stop(process, states.HANDED_BACK, states.SCHEDULER)
                return
            process.phase = phase
            process.alive = phase == states.PHASE_RUNNING

    def stop(self, process: Process, reason: str, origin: str) -> None:
        """End the program, if there is one, at once."""
        if process.end is None:
            if not process.alive and reason != states.SUPERSEDED:
                reason, origin = states.HANDED_BACK, states.SCHEDULER
            self.exits(process, exit_code=None, signal=15 if process.alive else None, reason=reason, origin=origin)

    def exits(self, process: Process, **how: Any) -> None:
        """The program ends; that is known to this host only, for now."""
        now = self.stage.clock.database_us
        process.end = {
            "attempt": process.attempt, "epoch": process.epoch, "exit_code": None, "signal": None,
            "reason": states.EXITED, "origin": states.USER, "started_at": now if process.alive else None,
            "ended_at": now, "log_bytes": 0, "log_dropped": 0, **how,
        }  # fmt: skip
        process.alive = False

    def report(self) -> dict[str, str]:
        """Report all ends there are; those that were answered are forgotten."""
        ends = [process.end for process in self.processes.values() if process.end is not None]
        if not ends:
            return {}

        def send() -> dict[str, str]:
            self.seen_ends += ends
            return self.stage.yard.finish(ends)

        results = self.call(send)
        for attempt in results:
            del self.processes[attempt]
        return results

    def dies(self) -> None:
        """The host loses its power: nothing is left of its processes, nor of what it had not reported."""
        self.processes.clear()
        self.up = False
