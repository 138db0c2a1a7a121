"""Contract: leases, the fence, agents and servers that go away and come back, clocks that jump."""

from __future__ import annotations

from typing import Any

import pytest

from runyard.testing.stage import BEAT_S, ME, TICK_S, FakeAgent, Stage
from runyard.wire import states
from runyard.wire.errors import ConflictError, StaleError

SOON_S = states.LEASE_S + 2 * TICK_S
LONG_S = states.LOST_REQUEUE_S + states.LEASE_S + 4 * TICK_S


def warm(stage: Stage, **fields: Any) -> tuple[str, FakeAgent, str]:
    """Start a run in a yard that has been up for a lease; return run, agent, attempt."""
    agent = stage.agent()
    stage.warm_up(agent)
    run_id = stage.submit(**fields)
    return run_id, agent, agent.take_and_start()


def lost(stage: Stage, **fields: Any) -> tuple[str, FakeAgent, str]:
    """The same, and its agent has been silent until the run was lost."""
    run_id, agent, attempt = warm(stage, **fields)
    stage.pass_time(SOON_S)
    assert stage.state(run_id) == states.LOST
    return run_id, agent, attempt


def replaced(stage: Stage, **fields: Any) -> tuple[str, FakeAgent, str, FakeAgent, str]:
    """The same, and another agent has been given the run; its attempt has no process yet."""
    run_id, old, attempt = lost(stage, **fields)
    other = stage.agent("other")
    stage.pass_time(LONG_S, other)
    other.poll()
    (second,) = other.has
    assert stage.run(run_id)["phase"] == states.ASSIGNED
    return run_id, old, attempt, other, second


def free_slots(stage: Stage, agent: FakeAgent) -> int:
    """Count the free slots of an agent's host."""
    return sum(slot["free"] for slot in stage.yard.status()["slots"] if slot["host_id"] == agent.host)


class LeaseContract:
    """DESIGN, "Lease and fence"."""

    def test_heartbeats_keep_a_run(self, stage: Stage) -> None:
        run_id, agent, attempt = warm(stage)
        stage.pass_time(2 * LONG_S, agent)
        assert stage.run(run_id)["phase"] == "running"
        assert agent.verdicts == {attempt: {"verdict": "keep", "epoch": 1}}

    def test_lost_after_one_lease_and_its_slot_stays_taken(self, stage: Stage) -> None:
        run_id, agent, _attempt = warm(stage)
        stage.pass_time(states.LEASE_S - TICK_S)
        assert stage.state(run_id) == states.RUNNING
        stage.pass_time(3 * TICK_S)
        run = stage.run(run_id)
        assert (run["state"], run["end"], run["ended_at"]) == (states.LOST, None, None)
        assert free_slots(stage, agent) == 0
        assert stage.events(run_id)[-1]["kind"] == "lost"
        second = stage.submit()
        stage.pass_time(LONG_S)
        assert free_slots(stage, agent) == 0
        assert stage.state(second) == states.QUEUED

    def test_a_lost_run_is_requeued_after_ten_minutes(self, stage: Stage) -> None:
        run_id, agent, _attempt = lost(stage)
        other = stage.agent("other")
        stage.pass_time(states.LOST_REQUEUE_S - 4 * TICK_S, other)
        assert stage.state(run_id) == states.LOST
        stage.pass_time(8 * TICK_S, other)
        other.poll()
        assert (stage.state(run_id), len(other.has)) == (states.RUNNING, 1)
        assert free_slots(stage, agent) == 0

    def test_a_lost_run_without_requeue_is_lost_for_good(self, stage: Stage) -> None:
        run_id, _agent, _attempt = lost(stage, requeue=False)
        stage.pass_time(LONG_S)
        run = stage.run(run_id)
        assert (run["state"], run["end"]["reason"], run["end"]["origin"]) == ("lost", "host_lost", "infra")

    @pytest.mark.parametrize("phase", [states.ASSIGNED, states.STAGING])
    def test_an_attempt_without_a_process_goes_back_when_its_lease_ends(self, stage: Stage, phase: str) -> None:
        agent = stage.agent()
        stage.warm_up(agent)
        run_id = stage.submit(requeue=False)
        (given,) = agent.take()
        if phase == states.STAGING:
            agent.enter(given["attempt"], states.STAGING)
        stage.pass_time(SOON_S)
        assert stage.state(run_id) == states.QUEUED
        assert free_slots(stage, agent) == 1
        with pytest.raises(StaleError):
            agent.enter(given["attempt"], states.PHASE_RUNNING)
        agent.heartbeat()
        assert agent.verdicts == {given["attempt"]: {"verdict": "stop"}}

    # The agent comes back

    def test_an_agent_that_returns_in_time_keeps_the_run(self, stage: Stage) -> None:
        run_id, agent, attempt = lost(stage)
        agent.heartbeat()
        assert agent.verdicts == {attempt: {"verdict": "keep", "epoch": 2}}
        assert stage.run(run_id)["phase"] == "running"
        assert [(e["kind"], e["from"], e["to"]) for e in stage.events(run_id)][-2:] == [
            ("lost", "running", "lost"), ("returned", "lost", "running"),
        ]  # fmt: skip
        with pytest.raises(StaleError):
            stage.yard.phase(attempt, 1, states.STOPPING)  # the epoch before
        assert stage.run(run_id)["phase"] == "running"
        agent.enter(attempt, states.STOPPING)
        assert agent.end(attempt) == "accepted"
        assert stage.state(run_id) == states.FINISHED

    def test_an_end_that_a_returning_agent_reports_is_the_runs(self, stage: Stage) -> None:
        run_id, agent, attempt = lost(stage)
        assert agent.end(attempt, 0) == "accepted"
        assert (stage.state(run_id), free_slots(stage, agent)) == (states.FINISHED, 1)

    def test_an_agent_that_returns_while_the_run_waits_in_the_queue(self, stage: Stage) -> None:
        run_id, agent, attempt = lost(stage)
        stage.pass_time(LONG_S)
        assert stage.state(run_id) == states.QUEUED
        agent.heartbeat()
        assert agent.verdicts[attempt] == {"verdict": "keep", "epoch": 2}
        stage.tick()
        assert (stage.run(run_id)["phase"], len(stage.run(run_id)["attempts"])) == ("running", 1)
        assert agent.end(attempt) == "accepted"

    def test_an_agent_that_returns_while_the_requeued_run_is_held(self, stage: Stage) -> None:
        run_id, agent, attempt = lost(stage)
        stage.pass_time(LONG_S)
        stage.yard.hold(run_id, ME)
        agent.poll()
        assert agent.stops == []
        agent.heartbeat()
        assert agent.verdicts[attempt]["verdict"] == "keep"
        assert stage.state(run_id) == states.RUNNING
        assert agent.end(attempt) == "accepted"

    def test_an_end_while_the_run_waits_in_the_queue_keeps_the_run(self, stage: Stage) -> None:
        run_id, agent, attempt = lost(stage)
        stage.pass_time(LONG_S)
        assert agent.end(attempt, 0) == "accepted"
        assert stage.state(run_id) == states.FINISHED
        assert agent.take() == []

    def test_a_loss_counts_once(self, stage: Stage) -> None:
        run_id, agent, _attempt = lost(stage)
        stage.pass_time(LONG_S)
        agent.restart(keep=False)  # now the host says that the process is gone
        assert stage.state(run_id) == states.QUEUED
        assert [event["kind"] for event in stage.events(run_id)].count("requeued") == 1
        for _ in range(states.INFRA_LOSS_BUDGET - 1):
            agent.lose(agent.take_and_start())
            assert stage.state(run_id) == states.QUEUED
        agent.lose(agent.take_and_start())
        assert stage.run(run_id)["end"]["origin"] == "infra"

    def test_a_late_loss_does_not_release_a_held_run(self, stage: Stage) -> None:
        run_id, agent, _attempt = lost(stage)
        stage.pass_time(LONG_S)
        stage.yard.hold(run_id, ME)
        agent.restart(keep=False)
        assert (stage.state(run_id), free_slots(stage, agent)) == (states.HELD, 1)

    def test_lost_without_requeue_and_back_again(self, stage: Stage) -> None:
        run_id, agent, attempt = lost(stage, requeue=False)
        stage.pass_time(LONG_S)
        assert stage.run(run_id)["end"] is not None
        agent.heartbeat()  # a lost network never stops a run
        assert agent.verdicts[attempt]["verdict"] == "keep"
        run = stage.run(run_id)
        assert (run["state"], run["end"], run["ended_at"]) == (states.RUNNING, None, None)
        agent.end(attempt)
        assert stage.state(run_id) == states.FINISHED

    def test_a_run_that_was_given_up_ends_as_its_program_did(self, stage: Stage) -> None:
        run_id, agent, attempt = lost(stage, requeue=False)
        stage.pass_time(LONG_S)
        assert agent.end(attempt, 0) == "accepted"
        assert (stage.state(run_id), free_slots(stage, agent)) == (states.FINISHED, 1)
        assert [(e["kind"], e["to"]) for e in stage.events(run_id)][-3:] == [
            ("lost", "lost"), ("given_up", "lost"), ("ended", "finished"),
        ]  # fmt: skip

    def test_a_run_that_was_given_up_can_be_killed_so_that_nothing_of_it_goes_on(self, stage: Stage) -> None:
        run_id, agent, attempt = lost(stage, requeue=False)
        stage.pass_time(LONG_S)
        stage.yard.kill(run_id, False, ME)
        assert stage.state(run_id) == states.KILLED
        agent.heartbeat()
        assert agent.verdicts[attempt]["verdict"] == "stop"
        assert agent.end(attempt, 0) == "recorded"
        assert (stage.state(run_id), free_slots(stage, agent)) == (states.KILLED, 1)

    def test_a_run_that_was_given_up_and_came_back_is_not_started_again(self, stage: Stage) -> None:
        run_id, agent, attempt = lost(stage, requeue=False, retries=1)
        stage.pass_time(LONG_S)
        agent.heartbeat()
        assert agent.end(attempt, 1) == "accepted"
        assert stage.state(run_id) == states.FAILED

    def test_a_lost_run_whose_process_is_known_to_be_gone_has_ended(self, stage: Stage) -> None:
        run_id, agent, attempt = lost(stage, requeue=False)
        agent.restart(keep=False)
        before = stage.run(run_id)
        assert (before["state"], before["end"]["reason"]) == (states.LOST, states.HOST_LOST)
        with pytest.raises(ConflictError, match="ended already"):
            stage.yard.kill(run_id, False, ME)
        assert agent.end(attempt, 0) == "duplicate"
        assert stage.run(run_id) == before

    # An old attempt meets its replacement

    def test_back_before_the_replacement_has_a_process(self, stage: Stage) -> None:
        run_id, old, attempt, other, second = replaced(stage)
        other.enter(second, states.STAGING)
        old.heartbeat()
        assert old.verdicts[attempt] == {"verdict": "keep", "epoch": 3}
        with pytest.raises(StaleError):
            other.enter(second, states.PHASE_RUNNING)
        other.heartbeat()
        assert other.verdicts[second] == {"verdict": "stop"}
        run = stage.run(run_id)
        assert (run["state"], run["phase"], run["host"]) == ("running", "running", old.host)
        assert (free_slots(stage, old), free_slots(stage, other)) == (0, 1)
        assert other.end(second, None, reason=states.SUPERSEDED, origin=states.INFRA) == "duplicate"
        assert old.end(attempt) == "accepted"
        ends = [tried["end"]["reason"] for tried in stage.run(run_id)["attempts"]]
        assert ends == ["exited", "superseded"]

    def test_back_after_the_replacement_has_a_process(self, stage: Stage) -> None:
        run_id, old, attempt, other, second = replaced(stage)
        other.start(second)
        old.heartbeat()
        assert old.verdicts[attempt] == {"verdict": "stop"}
        (stop,) = old.poll()["stop"]
        assert (stop["attempt"], stop["reason"], stop["origin"]) == (attempt, "superseded", "infra")
        for epoch in (1, 2, 3):
            with pytest.raises(StaleError):
                stage.yard.phase(attempt, epoch, states.STOPPING)
        assert old.end(attempt, 0) == "recorded"
        run = stage.run(run_id)
        assert (run["state"], run["phase"], run["host"]) == ("running", "running", other.host)
        assert (free_slots(stage, old), free_slots(stage, other)) == (1, 0)
        assert run["attempts"][0]["end"]["exit_code"] == 0
        assert other.end(second, 5) == "accepted"
        run = stage.run(run_id)
        assert (run["state"], run["end"]["exit_code"]) == (states.FAILED, 5)

    def test_an_end_before_the_replacement_has_a_process_keeps_the_run(self, stage: Stage) -> None:
        run_id, old, attempt, other, second = replaced(stage)
        other.enter(second, states.STAGING)
        assert old.end(attempt, 0) == "accepted"
        with pytest.raises(StaleError):
            other.enter(second, states.PHASE_RUNNING)
        run = stage.run(run_id)
        assert (run["state"], run["end"]["exit_code"], run["host"]) == (states.FINISHED, 0, old.host)
        assert (free_slots(stage, old), free_slots(stage, other)) == (1, 1)

    @pytest.mark.parametrize(("exit_code", "kind"), [(0, "ended"), (1, "requeued")])
    def test_the_event_of_an_end_names_the_attempt_that_ended(self, stage: Stage, exit_code: int, kind: str) -> None:
        run_id, old, attempt, _other, second = replaced(stage, retries=1)
        old.end(attempt, exit_code)
        last = [(event["kind"], event["attempt"]) for event in stage.events(run_id)][-2:]
        assert last == [("superseded", second), (kind, attempt)]

    def test_news_of_a_dead_old_attempt_leave_the_replacement_alone(self, stage: Stage) -> None:
        run_id, old, _attempt, other, second = replaced(stage)
        old.restart(keep=False)
        run = stage.run(run_id)
        assert (run["phase"], run["host"]) == (states.ASSIGNED, other.host)
        assert free_slots(stage, old) == 1
        other.start(second)
        assert other.end(second) == "accepted"

    def test_an_end_after_the_replacement_has_ended(self, stage: Stage) -> None:
        run_id, old, attempt, other, second = replaced(stage)
        other.start(second)
        other.end(second, 0)
        before = stage.run(run_id)
        assert old.end(attempt, 9) == "recorded"
        after = stage.run(run_id)
        assert [after[name] for name in ("state", "end", "ended_at", "host", "slots")] == [
            before[name] for name in ("state", "end", "ended_at", "host", "slots")
        ]
        assert free_slots(stage, old) == 1

    def test_an_old_end_does_not_count_when_the_replacement_is_lost_in_its_turn(self, stage: Stage) -> None:
        run_id, old, attempt, other, second = replaced(stage)
        other.start(second)
        stage.pass_time(SOON_S)
        assert stage.state(run_id) == states.LOST
        assert old.end(attempt, 0) == "recorded"
        assert stage.state(run_id) == states.LOST
        assert other.end(second, 5) == "accepted"
        assert stage.run(run_id)["end"]["exit_code"] == 5

    def test_a_late_loss_of_a_run_that_was_given_up_changes_nothing_of_it(self, stage: Stage) -> None:
        run_id, agent, attempt = lost(stage, requeue=False)
        stage.pass_time(LONG_S)
        before = stage.run(run_id)
        assert agent.lose(attempt) == "recorded"
        after = stage.run(run_id)
        assert [after[name] for name in ("state", "end", "ended_at")] == [
            before[name] for name in ("state", "end", "ended_at")
        ]
        assert stage.events(run_id)[-1]["kind"] == "recorded"

    def test_an_old_attempt_that_was_never_started_leaves_its_replacement_alone(self, stage: Stage) -> None:
        run_id, old, attempt, other, second = replaced(stage)
        given_back = {"reason": states.HANDED_BACK, "origin": states.SCHEDULER, "started_at": None}
        assert old.end(attempt, None, **given_back) == "recorded"
        other.start(second)
        assert other.end(second) == "accepted"
        assert stage.state(run_id) == states.FINISHED

    def test_back_after_the_replacement_was_handed_back(self, stage: Stage) -> None:
        run_id, old, attempt, other, second = replaced(stage)
        stage.yard.hand_back(second, other.has[second]["epoch"], "gpu0 is busy")
        old.heartbeat()
        assert old.verdicts[attempt]["verdict"] == "keep"
        assert "superseded" not in [event["kind"] for event in stage.events(run_id)]
        assert stage.run(run_id)["attempts"][1]["end"]["reason"] == states.HANDED_BACK

    def test_the_epoch_grows_with_every_change_of_the_current_attempt(self, stage: Stage) -> None:
        _run_id, old, attempt, other, second = replaced(stage, retries=1)
        assert other.has[second]["epoch"] == 2
        assert old.end(attempt, 1) == "accepted"
        given = [*old.take(), *other.poll()["assign"]]
        assert [item["epoch"] for item in given] == [4]

    # Kill and lost

    def test_killing_a_lost_run_ends_it_and_stops_it_when_it_returns(self, stage: Stage) -> None:
        run_id, agent, attempt = lost(stage)
        assert stage.yard.kill(run_id, False, ME)["state"] == states.KILLED
        assert free_slots(stage, agent) == 0
        agent.heartbeat()
        assert agent.verdicts[attempt] == {"verdict": "stop"}
        agent.poll()
        assert [stop["attempt"] for stop in agent.stops] == [attempt]
        assert agent.end(attempt, 0) == "recorded"
        assert (stage.state(run_id), free_slots(stage, agent)) == (states.KILLED, 1)

    def test_a_run_that_was_to_be_stopped_is_not_started_again(self, stage: Stage) -> None:
        run_id, _agent, _attempt = warm(stage)
        stage.yard.kill(run_id, False, ME)
        stage.pass_time(SOON_S)
        assert stage.state(run_id) == states.LOST
        other = stage.agent("other")
        stage.pass_time(LONG_S, other)
        run = stage.run(run_id)
        assert (run["state"], run["end"]["reason"], run["end"]["origin"]) == ("killed", "stopped", "human")
        assert other.has == {}

    def test_a_run_that_was_to_be_stopped_returns_and_is_stopped(self, stage: Stage) -> None:
        run_id, agent, attempt = warm(stage)
        stage.yard.kill(run_id, False, ME)
        stage.pass_time(SOON_S)
        agent.heartbeat()
        assert agent.verdicts[attempt]["verdict"] == "keep"
        agent.poll()
        assert [stop["reason"] for stop in agent.stops] == ["stopped"]
        agent.end(attempt, None, signal=15, reason=states.STOPPED, origin=states.HUMAN)
        assert stage.state(run_id) == states.KILLED

    # The agent starts again

    def test_an_agent_that_starts_again_keeps_what_it_names(self, stage: Stage) -> None:
        run_id, agent, attempt = warm(stage)
        answer = agent.restart()
        assert answer["attempts"] == {attempt: {"verdict": "keep", "epoch": 1}}
        assert answer["yard"] == stage.yard.status()["yard"]
        assert (answer["lease_s"], answer["heartbeat_s"]) == (states.LEASE_S, states.HEARTBEAT_S)
        assert stage.run(run_id)["phase"] == "running"

    def test_what_an_agent_does_not_name_is_gone(self, stage: Stage) -> None:
        run_id, agent, attempt = warm(stage)
        agent.restart(keep=False)
        run = stage.run(run_id)
        assert (run["state"], run["attempts"][0]["end"]["reason"]) == (states.QUEUED, "host_lost")
        assert free_slots(stage, agent) == 1
        assert agent.end(attempt) == "duplicate"
        (given,) = agent.take()
        assert (given["run"], given["number"], given["resumed"]) == (run_id, 2, True)

    def test_an_agent_names_attempts_that_the_yard_does_not_know(self, stage: Stage) -> None:
        run_id, agent, attempt = warm(stage)
        unknown = "f" * 32
        said = {**agent.said(), unknown: {"epoch": 7, "run": run_id, "phase": "running"}}
        assert agent.hello(said)["attempts"] == {
            attempt: {"verdict": "keep", "epoch": 1}, unknown: {"verdict": "stop"},
        }  # fmt: skip
        assert agent.heartbeat(said)["attempts"][unknown] == {"verdict": "stop"}
        waiting = stage.submit()
        for run, slot in ((run_id, "cpu1"), (waiting, "cpu0")):  # it has its attempt; that slot is held
            said = {**agent.said(), unknown: {"epoch": 7, "run": run, "phase": "running", "number": 7, "slots": [slot]}}
            assert agent.heartbeat(said)["attempts"][unknown] == {"verdict": "stop"}
            assert stage.run(run_id)["phase"] == "running"
        assert stage.state(waiting) == states.QUEUED

    def test_an_agent_says_nothing_about_the_attempts_of_another(self, stage: Stage) -> None:
        run_id, agent, attempt = warm(stage)
        other = stage.agent("other")
        said = {attempt: {"epoch": 1, "run": run_id, "phase": "running"}}
        assert other.hello(said)["attempts"] == {attempt: {"verdict": "stop"}}
        assert stage.run(run_id)["phase"] == "running"
        stage.pass_time(states.LEASE_S / 2, agent)
        assert agent.verdicts == {attempt: {"verdict": "keep", "epoch": 1}}

    def test_an_assignment_that_was_never_fetched_goes_back_at_hello(self, stage: Stage) -> None:
        run_id = stage.submit(requeue=False)
        agent = stage.agent()
        stage.tick()
        assert stage.state(run_id) == states.RUNNING
        agent.restart(keep=False)
        assert (stage.state(run_id), free_slots(stage, agent)) == (states.QUEUED, 1)

    def test_a_heartbeat_tells_of_stopping(self, stage: Stage) -> None:
        run_id, agent, attempt = warm(stage)
        agent.has[attempt]["phase"] = states.STOPPING
        for _ in range(2):
            agent.heartbeat()
        assert stage.run(run_id)["phase"] == "stopping"
        assert [event["kind"] for event in stage.events(run_id)].count("stopping") == 1
        agent.has[attempt]["phase"] = states.PHASE_RUNNING
        agent.heartbeat()  # an older message
        assert stage.run(run_id)["phase"] == "stopping"

    # Servers, databases and clocks

    def test_a_server_restart_ends_no_lease(self, stage: Stage) -> None:
        run_id, agent, attempt = warm(stage)
        stage.restart(away_s=3600)
        stage.pass_time(states.LEASE_S - TICK_S)
        assert stage.state(run_id) == states.RUNNING
        agent.heartbeat()
        assert agent.verdicts[attempt] == {"verdict": "keep", "epoch": 1}
        stage.pass_time(LONG_S, agent)
        assert stage.run(run_id)["phase"] == "running"

    def test_after_a_server_restart_leases_end_as_ever(self, stage: Stage) -> None:
        run_id, _agent, _attempt = warm(stage)
        stage.restart(away_s=3600)
        stage.pass_time(states.LEASE_S + 4 * TICK_S)
        assert stage.state(run_id) == states.LOST

    def test_a_server_that_was_stopped_ends_no_lease_when_it_wakes(self, stage: Stage) -> None:
        run_id, _agent, _attempt = warm(stage)
        stage.clock.advance(300)  # nobody ticks
        stage.tick()
        assert stage.state(run_id) == states.RUNNING
        stage.pass_time(states.LEASE_S - TICK_S)
        assert stage.state(run_id) == states.RUNNING
        stage.pass_time(4 * TICK_S)
        assert stage.state(run_id) == states.LOST

    @pytest.mark.parametrize("step", [3600.0, -3600.0])
    def test_a_step_of_the_clock_ends_no_lease(self, stage: Stage, step: float) -> None:
        run_id, agent, _attempt = warm(stage)
        stage.clock.step(step)
        stage.tick()
        assert stage.state(run_id) == states.RUNNING
        stage.pass_time(BEAT_S, agent)
        stage.pass_time(BEAT_S * 5, agent)
        assert stage.run(run_id)["phase"] == "running"
        stage.pass_time(states.LEASE_S + 6 * TICK_S)
        assert stage.state(run_id) == states.LOST  # and a silent agent is noticed as soon as ever

    @pytest.mark.parametrize("step", [3600.0, -3600.0])
    def test_a_step_of_the_clock_does_not_change_how_long_a_run_is_lost(self, stage: Stage, step: float) -> None:
        run_id, _agent, _attempt = lost(stage)
        stage.clock.step(step)
        stage.pass_time(states.LOST_REQUEUE_S / 2)
        assert stage.state(run_id) == states.LOST
        stage.pass_time(states.LOST_REQUEUE_S / 2 + states.LEASE_S)
        assert stage.state(run_id) == states.QUEUED

    def test_a_clock_that_went_back_while_the_server_was_away(self, stage: Stage) -> None:
        run_id, _agent, _attempt = warm(stage)
        stage.clock.step(-7200)
        stage.restart()
        stage.pass_time(states.LEASE_S + 4 * TICK_S)
        assert stage.state(run_id) == states.LOST
