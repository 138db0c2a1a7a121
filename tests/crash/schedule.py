"""Random schedules: what happens to a yard and when, all of it from one seed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runyard.wire.errors import RunyardError
from tests.crash import points
from tests.crash.children import LOST_REQUEUE_S, timing
from tests.crash.invariants import verdict
from tests.crash.nursery import Nursery
from tests.crash.observer import Observer
from tests.crash.yard import Template, Yard

LEASE_S = timing().lease_s
BEHAVIOURS = ("plain", "plain", "writer", "talker", "flaky", "stubborn", "family", "logger", "logger")
ALL_POINTS = points.SERVER + points.AGENT + points.SUPERVISOR + points.LOGGING


@dataclass(frozen=True)
class Step:
    """Something done to the yard: when (seconds from the start), what, with which arguments."""

    at: float
    what: str
    arguments: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return "%6.2f %s%s" % (self.at, self.what, self.arguments or "")


@dataclass
class Schedule:
    """What is done to one yard."""

    seed: int
    postgres: bool = False
    agents: tuple[str, ...] = ("home",)
    tmpfs: bool = False
    noise: float = 0.0
    steps: list[Step] = field(default_factory=list)

    def __str__(self) -> str:
        head = "seed %d: %s, agents %s, noise %g%s" % (
            self.seed, "PostgreSQL" if self.postgres else "SQLite", "+".join(self.agents), self.noise,
            ", small disk" if self.tmpfs else "",
        )  # fmt: skip
        return "\n".join([head, *map(str, self.steps)])


def generate(seed: int, *, postgres: bool, root: bool) -> Schedule:
    """Return the schedule of a seed. ``postgres``, ``root``: whether such a server, such rights are there."""
    choose = random.Random(seed)
    schedule = Schedule(
        seed,
        postgres=choose.random() < 0.3 and postgres,
        agents=("home", "far") if choose.random() < 0.6 else ("home",),
        tmpfs=choose.random() < 0.12 and root,
        noise=choose.choice((0.0, 0.0, 0.05, 0.2)),
    )
    kinds = {
        "kill_server": 3, "restart_server": 1, "kill_agent": 3, "kill_both": 2, "stop_agent": 2, "cut_agent": 2,
        "kill_supervisor": 2, "kill_program": 2, "kill_run": 2, "hold_release": 1, "point": 5, "clock": 1,
        "disk": 4 if schedule.tmpfs else 0, "database": 4 if schedule.postgres else 0, "absence": 1, "replay": 2,
        "kill_collector": 2,
    }  # fmt: skip
    at = 0.0
    for number in range(choose.randint(5, 9)):
        for _ in range(choose.randint(1, 3) if number < 4 else choose.randint(0, 1)):
            schedule.steps.append(Step(at, "submit", _run(choose, schedule)))
            at += choose.uniform(0.0, 0.1)
        kind = choose.choices(list(kinds), list(kinds.values()))[0]
        schedule.steps.append(Step(at, kind, _arguments(choose, schedule, kind)))
        at += choose.uniform(0.05, 0.9)
    return schedule


def _run(choose: random.Random, schedule: Schedule) -> tuple[Any, ...]:
    """Return behaviour, seconds, exit code and fields of a run."""
    fields: dict[str, Any] = {"priority": choose.choice((0, 0, 5)), "frozen": choose.random() < 0.7}
    if choose.random() < 0.3:
        fields["retries"] = choose.choice((1, 2))
    if choose.random() < 0.1:
        fields["requeue"] = False
    if choose.random() < 0.1:
        fields["hold"] = True
    if choose.random() < 0.15:
        fields["after_last"] = True
    if choose.random() < 0.1:
        fields["time_limit_s"] = 0.4
    if "far" in schedule.agents and choose.random() < 0.2:
        fields["resources"] = {"host": "far"}
    behaviour = choose.choice([one for one in BEHAVIOURS if one != "logger" or not schedule.tmpfs])
    exit_code = 3 if behaviour == "flaky" or choose.random() < 0.15 else 0
    return behaviour, choose.choice((0.05, 0.3, 0.3, 1.2, 3.0)), exit_code, fields


def _arguments(choose: random.Random, schedule: Schedule, kind: str) -> tuple[Any, ...]:
    agent = choose.choice(schedule.agents)
    pause = choose.choice((0.0, 0.1, 0.5, 1.5))
    if kind in ("kill_server", "restart_server", "kill_both"):
        return (pause, agent) if kind == "kill_both" else (pause,)
    if kind == "kill_agent":
        return agent, choose.choice((0.0, 0.3, LEASE_S * 1.5))
    if kind in ("stop_agent", "cut_agent"):
        return agent, choose.choice((0.3, LEASE_S * 1.3, LEASE_S * 2.0))
    if kind == "absence":
        return agent, choose.choice(("stop_agent", "cut_agent")), LEASE_S + LOST_REQUEUE_S + choose.uniform(0.3, 1.5)
    if kind == "clock":
        return (choose.choice((-7200.0, -3.0, 1.0, 90.0, 7200.0)),)
    if kind == "point":
        return choose.choice(ALL_POINTS), choose.choice(("kill", "kill", "stop"))
    if kind in ("disk", "hold_release"):
        return (choose.choice((0.3, 1.0)),)
    if kind == "replay":
        return (
            agent,
            choose.choice(("hello", "heartbeat", "phase", "finish", "poll", "hand-back")),
            choose.uniform(0.1, 2.0),
        )
    return ()


class Player:
    """Plays a schedule on a yard."""

    def __init__(self, yard: Yard, schedule: Schedule) -> None:
        self.yard = yard
        self.schedule = schedule
        self.random = random.Random(schedule.seed + 1)
        self._due: list[tuple[float, Callable[[], object]]] = []
        self._stopped: list[tuple[str, int, float]] = []

    def play(self) -> None:
        """Do everything at its time."""
        begin = time.monotonic()
        for step in self.schedule.steps:
            self._wait(begin + step.at)
            self.yard.note("-- %s" % step)
            getattr(self, "do_" + step.what)(*step.arguments)
        while self._due:
            self._wait(min(at for at, _ in self._due))

    def _wait(self, until: float) -> None:
        while True:
            now = time.monotonic()
            for entry in sorted((e for e in self._due if e[0] <= now), key=lambda entry: entry[0]):
                self._due.remove(entry)
                entry[1]()
            self._look_after_points()
            left = min([until, *(at for at, _ in self._due)]) - time.monotonic()
            if time.monotonic() >= until:
                return
            time.sleep(max(0.0, min(left, 0.05)))

    def _later(self, seconds: float, action: Callable[..., object], *arguments: Any) -> None:
        self._due.append((time.monotonic() + seconds, lambda: action(*arguments)))

    def _look_after_points(self) -> None:
        """Start again what was killed at a point, and wake what was stopped there."""
        for point, pid, attempt in points.fired(self.yard.control):
            self.yard.note("%s hit by %s" % (point, pid))
            if attempt:
                self._later(self.random.uniform(0.1, 1.0), self.wake, pid)
                self.yard.supervisors_killed.add(attempt)
                continue
            name = next((name for name, (its, _) in self.yard.pids.items() if its == pid), "")
            if name:
                self.yard.disturb(name)
                wait = self.random.choice((0.2, 1.0, LEASE_S * 1.5))
                self.yard.paused.add(name)
                self._later(wait, self.revive, name)

    def wake(self, pid: int) -> None:
        """SIGCONT, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def revive(self, name: str) -> None:
        """Wake a process that was stopped, or start it again."""
        if self.yard.is_alive(name):
            if name not in self.yard.terminating:
                self.yard.go_on(name)
        elif name == "server":
            for proxy in self.yard.proxies.values():
                proxy.break_all()
            self.yard.start_server()
        else:
            self.yard.start_agent(name)

    # -- steps

    def do_submit(self, behaviour: str, seconds: float, exit_code: int, fields: dict[str, Any]) -> None:
        """Submit a run."""
        fields = dict(fields)
        earlier = [run for run, sent in self.yard.sent.items() if sent.answered]
        if fields.pop("after_last", False) and earlier:
            fields["after"] = [earlier[-1]]
        try:
            self.yard.submit(behaviour, seconds, exit_code, **fields)
        except RunyardError as exc:
            self.yard.note("refused: %s" % exc.message)

    def do_kill_server(self, pause: float) -> None:
        """SIGKILL, and start it again later."""
        self.yard.kill("server")
        self._later(pause, self.yard.start_server)

    def do_restart_server(self, pause: float) -> None:
        """SIGTERM, and start it again later."""
        self.yard.signal("server", signal.SIGTERM)
        self._later(0.3 + pause, self.revive, "server")

    def do_kill_both(self, pause: float, agent: str) -> None:
        """SIGKILL server and agent at once."""
        self.yard.kill(agent)
        self.do_kill_server(pause)
        self._later(pause, self.yard.start_agent, agent)

    def do_kill_agent(self, agent: str, pause: float) -> None:
        """SIGKILL, and start it again later."""
        self.yard.kill(agent)
        self._later(pause, self.yard.start_agent, agent)

    def do_stop_agent(self, agent: str, pause: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        self.yard.pause(agent)
        self._later(pause, self.yard.go_on, agent)

    def do_cut_agent(self, agent: str, pause: float) -> None:
        """Let nothing pass between agent and server for a while."""
        self.yard.cut(agent)
        self._later(pause, self.yard.cut, agent, False)

    def do_absence(self, agent: str, how: str, pause: float) -> None:
        """Let an agent be away until its runs have been given to others."""
        getattr(self, "do_" + how)(agent, pause)

    def do_kill_supervisor(self) -> None:
        """SIGKILL one of the supervisors."""
        found = sorted(self.yard.supervisors().items())
        if found:
            attempt, pid = self.random.choice(found)
            self.yard.supervisors_killed.add(attempt)
            self.yard.note("the supervisor of %s is killed" % attempt)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def do_kill_collector(self) -> None:
        """SIGKILL one of the processes that look at runs from outside."""
        found = sorted(self.yard.collectors().items())
        if found:
            attempt, pid = self.random.choice(found)
            self.yard.note("the collector of %s is killed" % attempt)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def do_kill_program(self) -> None:
        """SIGKILL one of the user's programs."""
        found = sorted(self.yard.programs().items())
        if found:
            attempt, (_, pid) = self.random.choice(found)
            self.yard.note("the program of %s is killed" % attempt)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def do_kill_run(self) -> None:
        """Kill a run, as a user does."""
        if self.yard.sent:
            run_id = self.random.choice(list(self.yard.sent))
            self.yard.act(run_id, "kill", {"now": self.random.random() < 0.5})

    def do_hold_release(self, pause: float) -> None:
        """Hold a run, and release it later."""
        if self.yard.sent:
            run_id = self.random.choice(list(self.yard.sent))
            self.yard.act(run_id, "hold")
            self._later(pause, self.yard.act, run_id, "release")

    def do_point(self, name: str, action: str) -> None:
        """Have whoever comes to a point next killed, or stopped for a while."""
        points.arm(self.yard.control, name, action)

    def do_clock(self, seconds: float) -> None:
        """Set the server's clock."""
        self.yard.move_clock(seconds)

    def do_disk(self, pause: float) -> None:
        """Fill the home's disk, and make room later."""
        self.yard.fill_disk()
        self._later(pause, self.yard.free_disk)

    def do_database(self) -> None:
        """Break all connections to the database."""
        import psycopg

        self.yard.disturb("server")
        name = self.yard.database.rpartition("/")[2]
        with psycopg.connect(os.environ["RUNYARD_TEST_POSTGRESQL_URL"], autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
                (name,),
            )

    def do_replay(self, agent: str, kind: str, later: float) -> None:
        """Keep the next message of a kind and send it once more, later."""
        proxy = self.yard.proxies[agent]

        def again(message: Any) -> None:
            generation = proxy.generation
            self._later(later, proxy.send_copy, message, generation)

        proxy.trap(kind, "request", again, deliver=True)


@dataclass
class Result:
    """How a schedule went."""

    schedule: Schedule
    violations: list[str]
    diary: list[str]
    seconds: float
    looks: int
    runs: int

    def report(self) -> str:
        """Return what one needs to understand a failure."""
        return "\n".join([str(self.schedule), "", *self.diary, "", "VIOLATIONS", *self.violations])


def run(schedule: Schedule, nursery: Nursery, template: Template, database: str = "", mutation: str = "") -> Result:
    """Play a schedule on a yard of its own, and judge."""
    began = time.monotonic()
    yard = Yard(
        nursery, template, database=database, agents=schedule.agents, seed=schedule.seed, tmpfs=schedule.tmpfs,
        mutation=mutation,
    )  # fmt: skip
    violations: list[str] = []
    observer = None
    try:
        yard.start()
        yard.wait_agents()
        observer = Observer(yard)
        for proxy in yard.proxies.values():
            proxy.noise = schedule.noise
        Player(yard, schedule).play()
        violations += verdict(yard)
        observer.close()
        violations += observer.violations
    except AssertionError as exc:
        violations.append(str(exc))
    finally:
        if violations:
            yard.log += logs(yard)
        if observer is not None:
            observer.close()
        yard.close(keep=bool(os.environ.get("CRASH_KEEP")) and bool(violations))
    looks = observer.looks if observer else 0
    return Result(schedule, violations, yard.log, time.monotonic() - began, looks, len(yard.sent))


def logs(yard: Yard) -> list[str]:
    """Return the ends of what server and agents have logged."""
    found = []
    for path in [yard.home / "server.log", *sorted((yard.path / "control").glob("*.[eo][ru][rt]"))]:
        with contextlib.suppress(OSError):
            found += ["", "== " + path.name, *path.read_text(errors="replace").splitlines()[-60:]]
    return found
