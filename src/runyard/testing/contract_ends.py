"""Contract: ends of attempts, budgets, hand-back, kill, and messages that come twice or late."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from runyard.testing.stage import ME, FakeAgent, Stage, four
from runyard.wire import states
from runyard.wire.errors import ConflictError, InvalidError, StaleError
from runyard.wire.timing import Timing

AGAIN_S = Timing().refusal_s
ATTEMPT_FIELDS = ("exit_code", "signal", "reason", "origin")


def started(stage: Stage, **fields: Any) -> tuple[str, FakeAgent, str]:
    """Submit a run and start it; return run, agent, attempt."""
    run_id = stage.submit(**fields)
    agent = stage.agent()
    return run_id, agent, agent.take_and_start()


class EndsContract:
    """What an end means for the run."""

    @pytest.mark.parametrize(
        ("end", "state"),
        [
            ((0, None, states.EXITED, states.USER), states.FINISHED),
            ((3, None, states.EXITED, states.USER), states.FAILED),
            ((None, 9, states.SIGNALED, states.USER), states.FAILED),
            ((None, 9, states.OUT_OF_MEMORY, states.USER), states.FAILED),
            ((None, None, states.NOT_STARTED, states.USER), states.FAILED),
            ((None, 15, states.TIME_LIMIT, states.SCHEDULER), states.FAILED),
            ((None, 15, states.STOPPED, states.HUMAN), states.KILLED),
            ((0, None, states.STOPPED, states.HUMAN), states.KILLED),
        ],
    )
    def test_every_end_has_its_state_and_four_fields(
        self, stage: Stage, end: tuple[int | None, int | None, str, str], state: str
    ) -> None:
        run_id, agent, attempt = started(stage)
        fields: dict[str, Any] = dict(zip(ATTEMPT_FIELDS, end, strict=True))
        assert agent.end(attempt, **fields) == "accepted"
        run = stage.run(run_id)
        assert (run["state"], four(run["end"]), four(run["attempts"][0]["end"])) == (state, fields, fields)
        last = stage.events(run_id)[-1]
        assert (last["kind"], last["from"], last["to"]) == ("ended", states.RUNNING, state)
        assert {name: last["detail"][name] for name in ATTEMPT_FIELDS} == fields
        assert agent.take() == []
        assert all(slot["free"] for slot in stage.yard.status()["slots"])

    @pytest.mark.parametrize("skew_s", [0, -500, 500])
    def test_the_end_of_a_run_is_when_its_program_ended(self, stage: Stage, skew_s: int) -> None:
        run_id, agent, attempt = started(stage)
        begun = stage.clock.database_us + skew_s * 1_000_000
        stage.clock.advance(300)
        agent.end(attempt, 0, started_at=begun, ended_at=begun + 20_000_000)
        run = stage.run(run_id)
        took = datetime.fromisoformat(run["ended_at"]) - datetime.fromisoformat(run["started_at"])
        assert took == timedelta(seconds=20), "not when it was reported"

    def test_retries_count_failures_of_the_program(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage, retries=2)
        for number in (1, 2):
            agent.end(attempt, 1)
            assert stage.state(run_id) == states.QUEUED
            (given,) = agent.take()
            assert (given["number"], given["resumed"]) == (number + 1, True)
            attempt = given["attempt"]
            agent.start(attempt)
        agent.end(attempt, 1)
        run = stage.run(run_id)
        assert (run["state"], run["end"]["exit_code"], len(run["attempts"])) == (states.FAILED, 1, 3)
        assert [tried["number"] for tried in run["attempts"]] == [1, 2, 3]

    def test_a_retry_that_succeeds(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage, retries=1, fresh=False)
        agent.end(attempt, None, signal=11, reason=states.SIGNALED)
        agent.end(agent.take_and_start(), 0)
        assert stage.state(run_id) == states.FINISHED

    @pytest.mark.parametrize(
        ("reason", "origin"),
        [(states.TIME_LIMIT, states.SCHEDULER), (states.NOT_STARTED, states.USER), (states.STOPPED, states.HUMAN)],
    )
    def test_what_is_not_retried(self, stage: Stage, reason: str, origin: str) -> None:
        run_id, agent, attempt = started(stage, retries=5)
        agent.end(attempt, None, reason=reason, origin=origin)
        assert stage.run(run_id)["end"]["reason"] == reason
        assert agent.take() == []

    def test_losses_have_a_budget_of_their_own(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage, retries=1)
        for _ in range(states.INFRA_LOSS_BUDGET):
            agent.lose(attempt)
            assert stage.state(run_id) == states.QUEUED
            attempt = agent.take_and_start()
        agent.end(attempt, 1)  # the user's budget is untouched
        assert stage.state(run_id) == states.QUEUED
        agent.lose(agent.take_and_start())
        run = stage.run(run_id)
        assert (run["state"], run["end"]["reason"], run["end"]["origin"]) == ("failed", "supervisor_died", "infra")

    def test_lost_for_good_when_the_budget_is_spent(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage)
        for _ in range(states.INFRA_LOSS_BUDGET):
            agent.lose(attempt, states.HOST_LOST)
            attempt = agent.take_and_start()
        agent.lose(attempt, states.HOST_LOST)
        run = stage.run(run_id)
        assert (run["state"], run["ended_at"] is not None) == (states.LOST, True)
        assert four(run["end"]) == {"exit_code": None, "signal": None, "reason": "host_lost", "origin": "infra"}
        assert agent.take() == []

    def test_no_requeue_means_that_a_loss_is_the_end(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage, requeue=False, retries=1)
        agent.lose(attempt)
        assert stage.state(run_id) == states.FAILED

    def test_no_requeue_still_retries_failures_of_the_program(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage, requeue=False, retries=1)
        agent.end(attempt, 1)
        assert stage.state(run_id) == states.QUEUED

    # Hand-back

    def test_handing_back_uses_no_budget(self, stage: Stage) -> None:
        run_id = stage.submit(retries=0, requeue=False)
        agent = stage.agent()
        for _ in range(5):
            (given,) = agent.take()
            agent.enter(given["attempt"], states.STAGING)
            stage.yard.hand_back(given["attempt"], given["epoch"], "gpu0 is busy")
            agent.has.clear()
            assert stage.state(run_id) == states.QUEUED
            stage.clock.advance(AGAIN_S)
        assert "gpu0 is busy" in str(stage.events(run_id))
        (given,) = agent.take()
        assert given["resumed"] is False
        agent.start(given["attempt"])
        agent.end(given["attempt"])
        assert stage.state(run_id) == states.FINISHED

    def test_a_host_gets_a_run_that_it_gave_back_again_after_a_moment(self, stage: Stage) -> None:
        run_id, behind = stage.submit(), stage.submit()
        agent = stage.agent()
        (given,) = agent.take()
        stage.yard.hand_back(given["attempt"], given["epoch"], "gpu0 is busy")
        agent.has.clear()
        assert agent.take() == []
        stage.restart(away_s=AGAIN_S - 3)  # which forgets nothing of it
        agent.hello()
        assert agent.take() == []
        (why,) = stage.run(run_id)["wait_reasons"]
        assert why == f"{agent.host} gave it back: gpu0 is busy; asked again in 3 s"
        assert stage.run(run_id)["expected_start"] is not None
        stage.clock.advance(3)
        assert [given["run"] for given in agent.take()] == [run_id]
        assert stage.state(behind) == states.QUEUED  # it kept its place

    def test_another_host_may_have_a_run_at_once_that_was_given_back(self, stage: Stage) -> None:
        run_id = stage.submit()
        agent = stage.agent()
        (given,) = agent.take()
        stage.yard.hand_back(given["attempt"], given["epoch"], "gpu0 is busy")
        other = stage.agent("other")
        assert [given["run"] for given in other.take()] == [run_id]

    def test_a_host_that_gave_a_run_back_may_have_another_at_once(self, stage: Stage) -> None:
        stage.submit()
        agent = stage.agent(slots=2)
        (given,) = agent.take()
        stage.yard.hand_back(given["attempt"], given["epoch"], "gpu0 is busy")
        agent.has.clear()
        other = stage.submit()
        assert [given["run"] for given in agent.take()] == [other]

    def test_a_started_attempt_cannot_be_handed_back(self, stage: Stage) -> None:
        run_id, _agent, attempt = started(stage)
        with pytest.raises(StaleError):
            stage.yard.hand_back(attempt, 1, "busy")
        with pytest.raises(StaleError):
            stage.yard.hand_back("0" * 32, 1, "busy")
        assert stage.run(run_id)["phase"] == "running"

    def test_handing_back_twice_changes_nothing_more(self, stage: Stage) -> None:
        run_id = stage.submit()
        agent = stage.agent()
        (given,) = agent.take()
        with pytest.raises(StaleError):
            stage.yard.hand_back(given["attempt"], given["epoch"] + 1, "busy")
        stage.yard.hand_back(given["attempt"], given["epoch"], "busy")
        agent.has.clear()
        stage.clock.advance(AGAIN_S)
        (again,) = agent.take()
        before = len(stage.events(run_id))
        stage.yard.hand_back(given["attempt"], given["epoch"], "busy")  # the first answer was lost
        assert len(stage.events(run_id)) == before
        agent.start(again["attempt"])
        assert stage.run(run_id)["phase"] == "running"

    # Kill

    @pytest.mark.parametrize("hold", [False, True])
    def test_killing_a_waiting_run_ends_it_at_once(self, stage: Stage, hold: bool) -> None:
        run_id = stage.submit(hold=hold)
        run = stage.yard.kill(run_id, False, ME)
        assert run["state"] == states.KILLED
        assert four(run["end"]) == {"exit_code": None, "signal": None, "reason": "stopped", "origin": "human"}
        assert stage.agent().take() == []
        with pytest.raises(ConflictError):
            stage.yard.kill(run_id, False, ME)

    @pytest.mark.parametrize("phase", [states.ASSIGNED, states.STAGING])
    def test_killing_before_the_process_exists_refuses_the_start(self, stage: Stage, phase: str) -> None:
        run_id = stage.submit()
        agent = stage.agent()
        (given,) = agent.take()
        if phase == states.STAGING:
            agent.enter(given["attempt"], states.STAGING)
        run = stage.yard.kill(run_id, False, ME)
        assert run["state"] == states.RUNNING
        assert run["stop_requested"]["by"]
        with pytest.raises(StaleError):
            agent.enter(given["attempt"], states.PHASE_RUNNING)
        agent.poll()
        assert [stop["attempt"] for stop in agent.stops] == [given["attempt"]]
        stage.yard.hand_back(given["attempt"], given["epoch"], "stopped")
        assert stage.state(run_id) == states.KILLED
        agent.has.clear()
        assert agent.take() == []

    def test_killing_an_assignment_that_nobody_fetched(self, stage: Stage) -> None:
        run_id = stage.submit()
        agent = stage.agent()
        stage.tick()
        stage.yard.kill(run_id, False, ME)
        agent.hello()
        assert stage.state(run_id) == states.KILLED

    @pytest.mark.parametrize("phase", [states.PHASE_RUNNING, states.STOPPING])
    def test_killing_a_running_process_sends_a_stop(self, stage: Stage, phase: str) -> None:
        run_id, agent, attempt = started(stage, retries=3)
        if phase == states.STOPPING:
            agent.enter(attempt, states.STOPPING)
        stage.yard.kill(run_id, False, ME)
        assert stage.state(run_id) == states.RUNNING
        stage.yard.kill(run_id, False, ME)  # again: harmless
        (stop,) = agent.poll()["stop"]
        assert stop == {"attempt": attempt, "grace_s": 30.0, "reason": "stopped", "origin": "human"}
        agent.end(attempt, None, signal=15, reason=states.STOPPED, origin=states.HUMAN)
        assert agent.poll()["stop"] == []
        run = stage.run(run_id)
        assert (run["state"], run["end"]["signal"], run["end"]["origin"]) == (states.KILLED, 15, "human")
        assert [event["kind"] for event in stage.events(run_id)].count("kill") == 1

    def test_a_second_kill_can_shorten_the_grace(self, stage: Stage) -> None:
        run_id, agent, _attempt = started(stage)
        stage.yard.kill(run_id, False, ME)
        agent.poll()
        stage.yard.kill(run_id, True, ME)
        agent.poll()
        assert [stop["grace_s"] for stop in agent.stops] == [30.0, 0.0]
        stage.yard.kill(run_id, False, ME)  # never longer again
        agent.poll()
        assert [stop["grace_s"] for stop in agent.stops] == [30.0, 0.0, 0.0]

    @pytest.mark.parametrize("phase", [states.PHASE_RUNNING, states.STOPPING])
    def test_a_stop_is_sent_until_the_attempt_has_ended_as_any_answer_may_be_lost(
        self, stage: Stage, phase: str
    ) -> None:
        run_id, agent, attempt = started(stage)
        stage.yard.kill(run_id, False, ME)
        first = agent.poll()["stop"]
        if phase == states.STOPPING:
            agent.enter(attempt, states.STOPPING)
        assert agent.poll()["stop"] == first
        stage.yard.kill(run_id, True, ME)
        assert [stop["grace_s"] for _ in range(2) for stop in agent.poll()["stop"]] == [0.0, 0.0]
        agent.end(attempt, None, signal=9, reason=states.STOPPED, origin=states.HUMAN)
        assert agent.poll()["stop"] == []

    def test_a_killed_run_is_killed_whatever_its_program_says(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage, retries=3)
        stage.yard.kill(run_id, False, ME)
        agent.end(attempt, 1)
        assert four(stage.run(run_id)["end"]) == {
            "exit_code": 1,
            "signal": None,
            "reason": "stopped",
            "origin": "human",
        }
        assert stage.state(run_id) == states.KILLED
        second = stage.submit()
        attempt = agent.take_and_start()
        stage.yard.kill(second, False, ME)
        agent.lose(attempt)
        assert stage.state(second) == states.KILLED

    def test_killing_a_run_that_waits_for_its_retry(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage, retries=1)
        agent.end(attempt, 1)
        stage.yard.kill(run_id, False, ME)
        assert stage.state(run_id) == states.KILLED
        assert agent.take() == []

    def test_a_kill_of_an_earlier_attempt_is_not_remembered(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage)
        agent.lose(attempt)
        attempt = agent.take_and_start()
        agent.poll()
        assert agent.stops == []
        assert stage.run(run_id)["stop_requested"] is None

    # Messages that come twice, late, in another order, or make no sense

    def test_an_end_reported_twice_counts_once(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage, retries=1)
        end = agent.end_of(attempt, 1)
        assert stage.yard.finish([end]) == {attempt: "accepted"}
        agent.has.clear()
        assert stage.yard.finish([end]) == {attempt: "duplicate"}
        second = agent.take_and_start()
        assert stage.yard.finish([end, {**end, "exit_code": 0}]) == {attempt: "duplicate"}
        assert stage.run(run_id)["phase"] == "running"
        agent.end(second, 1)
        assert stage.state(run_id) == states.FAILED

    def test_the_same_end_twice_in_one_message(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage, retries=1)
        end = agent.end_of(attempt, 1)
        assert stage.yard.finish([end, end]) == {attempt: "accepted"}
        assert stage.state(run_id) == states.QUEUED
        assert len([event for event in stage.events(run_id) if event["kind"] == "requeued"]) == 1

    def test_ends_in_one_message_are_answered_each(self, stage: Stage) -> None:
        ids = [stage.submit() for _ in range(4)]
        agent = stage.agent(slots=4)
        given = {item["run"]: item["attempt"] for item in agent.take()}
        for attempt in given.values():
            agent.start(attempt)
        agent.end(given[ids[0]])
        ends = [agent.end_of(given[run_id], number) for number, run_id in enumerate(ids)]
        answer = stage.yard.finish([*ends, agent.end_of("0" * 32)])
        assert answer == {
            given[ids[0]]: "duplicate", given[ids[1]]: "accepted", given[ids[2]]: "accepted",
            given[ids[3]]: "accepted", "0" * 32: "unknown",
        }  # fmt: skip
        assert [stage.run(run_id)["end"]["exit_code"] for run_id in ids] == [0, 1, 2, 3]
        agent.has.clear()
        assert stage.yard.finish([]) == {}

    def test_an_end_before_its_phases(self, stage: Stage) -> None:
        run_id = stage.submit()
        agent = stage.agent()
        (given,) = agent.take()
        agent.end(given["attempt"], None, reason=states.NOT_STARTED, origin=states.USER, started_at=None)
        assert stage.state(run_id) == states.FAILED
        for phase in (states.STAGING, states.PHASE_RUNNING):
            with pytest.raises(StaleError):
                stage.yard.phase(given["attempt"], given["epoch"], phase)
        assert stage.state(run_id) == states.FAILED

    def test_an_end_that_makes_no_sense_is_refused(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage)
        for wrong in ({"reason": "bored"}, {"origin": "moon"}, {"reason": None}):
            with pytest.raises(InvalidError):
                stage.yard.finish([{**agent.end_of(attempt), **wrong}])
        with pytest.raises(InvalidError):
            stage.yard.finish([{"reason": "exited", "origin": "user"}])
        assert stage.state(run_id) == states.RUNNING

    def test_an_assignment_whose_answer_was_lost_is_given_again(self, stage: Stage) -> None:
        stage.submit()
        agent = stage.agent()
        (first,) = agent.take()
        agent.has.clear()
        (again,) = agent.poll()["assign"]
        assert again == first
        assert agent.poll()["assign"] == []

    def test_an_unknown_agent_is_told_to_say_hello(self, stage: Stage) -> None:
        agent = FakeAgent(stage, "stranger")
        with pytest.raises(InvalidError):
            agent.heartbeat()
        assert agent.poll() == {"assign": [], "stop": [], "drain": False}

    def test_every_change_of_state_is_an_event(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage, retries=1, hold=False)
        agent.end(attempt, 1)
        stage.yard.hold(run_id, ME)
        stage.yard.release(run_id, ME)
        agent.enter(agent.take_and_start(), states.STOPPING)
        stage.yard.edit(run_id, {"message": "late", "add_tags": ["x"]}, ME)
        agent.lose(next(iter(agent.has)))
        stage.yard.kill(run_id, False, ME)
        stage.yard.remove(run_id, False, ME)
        stage.yard.restore(run_id, ME)
        found = stage.events(run_id)
        assert [event["kind"] for event in found] == [
            "submitted", "assigned", "staging", "running", "requeued", "held", "released", "assigned", "staging",
            "running", "stopping", "edited", "requeued", "ended", "trashed", "restored",
        ]  # fmt: skip
        state = None
        for event in found:
            assert event["from"] == state
            state = event["to"]
            assert event["at"]
            assert event["actor"]
        assert state == stage.state(run_id) == states.KILLED
        assert stage.yard.events(run_id, found[3]["id"], ME) == found[4:]
