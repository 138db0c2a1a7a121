"""A random life of a yard with some hosts, and what must hold at every moment of it.

For hypothesis; see `YardMachine.open_stage`. ``lost`` is the one state that may be left again after its end: a lost
network never stops a run.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runyard.services.api import Json
from runyard.store import runs
from runyard.testing.stage import ME, Stage, make_spec
from runyard.testing.world import LostError, Process, SimHost
from runyard.wire import states
from runyard.wire.errors import ConflictError, StaleError

TRUE_WITHIN_S = 90.0
STEP_S = 5.0
BEAT_S = 15.0
SHOWN = ("state", "end", "ended_at", "host", "slots")

HOSTS = st.integers(0, 2)
PICK = st.integers(0, 1000)


class YardMachine(RuleBasedStateMachine):
    """Rules are what people, programs, networks and clocks do; invariants are what the yard promises."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = self.open_stage()
        self.hosts = [SimHost(self.stage, f"agent{i}", slots=2 if i == 0 else 1) for i in range(3)]
        self.runs: list[str] = []
        self.false_since: dict[Any, float] = {}
        """Since when (monotonic seconds) something that is shown is not so, by what it is."""

    def open_stage(self) -> Stage:
        """Return a new yard; a subclass gives it."""
        raise NotImplementedError

    @initialize(retries=st.lists(st.integers(0, 1), min_size=3, max_size=5), requeue=st.booleans())
    def start(self, retries: list[int], requeue: bool) -> None:
        for host in self.hosts:
            host.hello()
        specs = [make_spec(retries=number, requeue=requeue) for number in retries]
        self.runs += self.stage.yard.submit(specs, None, ME)
        self.live(15)
        self.live(states.LEASE_S + BEAT_S)

    # People

    @rule(
        priority=st.integers(-1, 1), retries=st.integers(0, 1), requeue=st.booleans(), hold=st.booleans(),
        after=st.lists(PICK, max_size=2),
    )  # fmt: skip
    def submit(self, priority: int, retries: int, requeue: bool, hold: bool, after: list[int]) -> None:
        if len(self.runs) < 8:
            waits = sorted({self.runs[i % len(self.runs)] for i in after}) if self.runs else []
            spec = make_spec(priority=priority, retries=retries, requeue=requeue, hold=hold and not waits, after=waits)
            self.runs += self.stage.yard.submit([spec], None, ME)

    @precondition(lambda self: self.runs)
    @rule(which=PICK, what=st.sampled_from(["kill", "hold", "release"]), now=st.booleans())
    def ask(self, which: int, what: str, now: bool) -> None:
        run_id = self.runs[which % len(self.runs)]
        before = self.stage.run(run_id)
        try:
            if what == "kill":
                self.stage.yard.kill(run_id, now, ME)
            else:
                getattr(self.stage.yard, what)(run_id, ME)
        except ConflictError:
            after = self.stage.run(run_id)
            assert [after[name] for name in SHOWN] == [before[name] for name in SHOWN]

    # Time, networks, machines

    @rule(seconds=st.sampled_from([5, 20, 95]))
    def time_passes(self, seconds: int) -> None:
        self.live(seconds)

    @rule(
        which=HOSTS, how=st.sampled_from(["network", "agent", "host"]), seconds=st.sampled_from([10, 75, 700, 700]),
        back=st.booleans(),
    )  # fmt: skip
    def goes_away(self, which: int, how: str, seconds: int, back: bool) -> None:
        host = self.hosts[which]
        if how == "network":
            host.cut = True
        elif how == "agent":
            host.up = False
        else:
            host.dies()
        self.live(seconds)
        if back:
            self.comes_back(which)

    @rule(which=HOSTS)
    def comes_back(self, which: int) -> None:
        host = self.hosts[which]
        host.cut = False
        if not host.up:
            host.up = True
            try:
                host.hello()
            except LostError:
                host.up = False  # it tries again when it is started again

    @rule(which=HOSTS, number=st.integers(1, 3))
    def answers_are_lost(self, which: int, number: int) -> None:
        self.hosts[which].lossy = number

    @rule(away=st.sampled_from([0, 100, 700]))
    def server_restarts(self, away: int) -> None:
        self.stage.restart(away)
        self.false_since.clear()

    @rule(seconds=st.sampled_from([-3600, 3600]))
    def clock_is_set(self, seconds: int) -> None:
        self.stage.clock.step(seconds)
        self.false_since.clear()

    # Agents and programs

    @rule(which=HOSTS, what=st.sampled_from(["poll", "beat", "report"]))
    def agent_acts(self, which: int, what: str) -> None:
        self.stage.tick()
        host = self.hosts[which]
        before = self.shown()
        try:
            if what == "report":
                self.check_recorded(host.report(), before)
            else:
                getattr(host, what)()
        except LostError:
            return

    @rule(which=HOSTS, pick=PICK, exit_code=st.sampled_from([0, 0, 1]))
    def program_ends(self, which: int, pick: int, exit_code: int) -> None:
        alive = [process for process in self.hosts[which].processes.values() if process.alive]
        if alive:
            self.hosts[which].exits(alive[pick % len(alive)], exit_code=exit_code)

    @rule(which=HOSTS)
    def supervisor_dies(self, which: int) -> None:
        for process in self.hosts[which].processes.values():
            if process.alive:
                self.hosts[which].exits(process, reason=states.SUPERVISOR_DIED, origin=states.INFRA)

    # Messages that come again

    @rule(which=HOSTS, pick=PICK)
    def an_old_end_comes_again(self, which: int, pick: int) -> None:
        host = self.hosts[which]
        if host.seen_ends:
            end = host.seen_ends[pick % len(host.seen_ends)]
            before = self.shown()
            taken = self.stage.yard.finish([end])
            if end["attempt"] not in host.processes:
                assert taken == {end["attempt"]: "duplicate"}
                assert self.shown() == before

    @rule(which=HOSTS, pick=PICK, phase=st.sampled_from([states.STAGING, states.PHASE_RUNNING]))
    def a_stale_epoch_asks(self, which: int, pick: int, phase: str) -> None:
        processes = list(self.hosts[which].processes.values())
        if not processes:
            return
        process = processes[pick % len(processes)]
        current = self.stage.run(process.run)
        wrong = process.epoch - 1
        try:
            self.stage.yard.phase(process.attempt, wrong, phase)
        except StaleError:
            assert self.stage.run(process.run)["phase"] == current["phase"]
        else:
            raise AssertionError(f"epoch {wrong} of attempt {process.attempt} was let into {phase}")

    # What passes

    def live(self, seconds: float) -> None:
        """Let time pass; agents that can do what they do every 15 s."""
        left, since = seconds, 0.0
        while left > 0:
            piece = min(STEP_S if seconds <= 100 else BEAT_S, left)
            left, since = left - piece, since + piece
            self.stage.clock.advance(piece)
            if since >= BEAT_S:
                since = 0.0
                for host in self.hosts:
                    if host.reachable:
                        host.beat()
            self.stage.tick()
            if since == 0.0 or left <= 0:
                self.check_truth()

    def check_recorded(self, results: dict[str, str], before: dict[str, Json]) -> None:
        """An end that is only recorded changes nothing that is shown."""
        for attempt, result in results.items():
            run_id = next((i for i, run in before.items() if attempt in {a["id"] for a in run["attempts"]}), None)
            if result == "recorded" and run_id is not None and list(results.values()) == ["recorded"]:
                after = self.shown()[run_id]
                assert [after[name] for name in SHOWN] == [before[run_id][name] for name in SHOWN]

    def check_truth(self) -> None:
        """Whatever is shown and is not so must have been so, or become so, within 90 s."""
        shown, current = self.shown(), self.current()
        alive = {p.attempt: (p, host) for host in self.hosts for p in host.processes.values() if p.alive}
        wrong = set()
        for run_id, run in shown.items():
            if run["state"] == states.RUNNING and run["phase"] in (states.PHASE_RUNNING, states.STOPPING):
                attempt = current[run_id]
                if attempt not in alive or not alive[attempt][1].reachable:
                    wrong.add((run_id, "shown as running, but it is not, or nobody knows"))
        for attempt, (process, host) in alive.items():
            run = shown[process.run]
            if host.reachable and not (run["state"] == states.RUNNING and current[run["id"]] == attempt):
                wrong.add((attempt, "its program runs, and the run is not shown as running"))
        now = self.stage.clock.monotonic_s
        self.false_since = {key: self.false_since.get(key, now) for key in wrong}
        for key, since in self.false_since.items():
            assert now - since <= TRUE_WITHIN_S, f"for {now - since:g} s: {key}"

    # Invariants

    @invariant()
    def no_run_is_lost_and_every_end_is_whole(self) -> None:
        found = self.shown()
        assert set(found) == set(self.runs)
        for run in found.values():
            assert run["state"] in states.RUN_STATES
            ended = run["state"] in states.ENDED_STATES
            assert ended <= (run["ended_at"] is not None)
            if run["ended_at"] is not None:
                assert run["state"] in (*states.ENDED_STATES, states.LOST)
                assert set(run["end"]) >= {"exit_code", "signal", "reason", "origin"}
                assert run["end"]["reason"] in states.END_REASONS
                assert run["end"]["origin"] in states.ORIGINS

    @invariant()
    def none_ends_twice(self) -> None:
        shown = self.shown()
        for run_id in self.runs:
            state, ended = None, False
            for event in self.stage.events(run_id):
                assert event["from"] == state, f"{run_id}: {event} after {state}"
                assert not ended or event["to"] == state, f"{run_id} had ended: {event}"
                state = event["to"]
                ended = state in states.ENDED_STATES
            assert state == shown[run_id]["state"]

    @invariant()
    def no_slot_has_two_programs(self) -> None:
        taken: dict[str, Process] = {}
        for host in self.hosts:
            for process in host.processes.values():
                if process.alive:
                    for slot in process.slots:
                        assert slot not in taken, f"{slot}: {taken.get(slot)} and {process}"
                        taken[slot] = process
        held = {slot["id"] for slot in self.stage.yard.status()["slots"] if slot["run"] is not None}
        assert set(taken) <= held, "a program runs on a slot that the yard holds to be free"

    def teardown(self) -> None:
        try:
            self.heal()
        finally:
            self.stage.close()

    def heal(self) -> None:
        """Everything is well again: every run must come to its end."""
        for run_id in self.runs:
            if self.stage.state(run_id) == states.HELD:
                self.stage.yard.release(run_id, ME)
        for host in self.hosts:
            host.cut, host.lossy = False, 0
            if not host.up:
                host.up = True
                host.hello()
        for _ in range(60):
            self.live(2 * BEAT_S)
            for host in self.hosts:
                for process in host.processes.values():
                    if process.alive:
                        host.exits(process, exit_code=0)
            shown = self.shown().values()
            if all(run["ended_at"] for run in shown) and all(s["free"] for s in self.stage.yard.status()["slots"]):
                break
        assert {run["id"]: run["state"] for run in shown if run["ended_at"] is None} == {}, "never came to an end"
        assert [slot for slot in self.stage.yard.status()["slots"] if not slot["free"]] == []
        self.no_run_is_lost_and_every_end_is_whole()
        self.none_ends_twice()

    def shown(self) -> dict[str, Json]:
        """Return all runs as they are shown, by id."""
        return {run["id"]: run for run in self.stage.yard.runs({}, ME)["runs"]}

    def current(self) -> dict[str, str | None]:
        """Return the current attempt of each run."""
        with self.stage.inner.context.db.read() as connection:
            return {run_id: row.attempt_id for run_id, row in runs.find_many(connection, self.runs).items()}
