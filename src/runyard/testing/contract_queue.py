"""Contract: what starts, in which order, and what an end means for a run and for those that wait for it."""

from __future__ import annotations

import threading

import pytest

from runyard.services.assign import PAGE
from runyard.testing.stage import ME, Stage, four, make_spec
from runyard.wire import states
from runyard.wire.errors import ConflictError, InvalidError, NotFoundError, StaleError
from runyard.wire.ids import new_run_id


class QueueContract:
    """Order, dependencies, hold, slots."""

    def test_an_attempt_goes_through_its_phases(self, stage: Stage) -> None:
        run_id = stage.submit()
        agent = stage.agent()
        (given,) = agent.take()
        run = stage.run(run_id)
        assert (run["state"], run["phase"], run["slots"], run["host"]) == ("running", "assigned", ["cpu0"], agent.host)
        assert (given["run"], given["number"], given["epoch"], given["slots"]) == (run_id, 1, 1, ["cpu0"])
        assert (given["resumed"], given["fresh"], given["grace_s"]) == (False, False, 30.0)
        assert given["dir"] == f"runs/digits/20270115-0800-{run_id}"
        assert run["started_at"] is None
        for phase in (states.STAGING, states.PHASE_RUNNING, states.STOPPING):
            stage.clock.advance(1)
            agent.enter(given["attempt"], phase)
            assert stage.run(run_id)["phase"] == phase
        assert stage.run(run_id)["started_at"] == "2027-01-15T08:00:02.000000Z"
        assert agent.end(given["attempt"]) == "accepted"
        run = stage.run(run_id)
        assert (run["state"], run["phase"]) == (states.FINISHED, None)
        assert four(run["end"]) == {"exit_code": 0, "signal": None, "reason": "exited", "origin": "user"}
        assert run["ended_at"] is not None
        (tried,) = run["attempts"]
        assert (tried["number"], tried["phase"], tried["end"]) == (1, "ended", run["end"])

    def test_nothing_starts_on_a_host_whose_disk_is_full(self, stage: Stage) -> None:
        agent = stage.agent()
        agent.disk_free = 1000
        agent.heartbeat()
        run_id = stage.submit()
        assert agent.take() == []
        assert any("MiB free" in reason for reason in stage.run(run_id)["wait_reasons"])
        agent.disk_free = 1 << 40
        agent.heartbeat()
        (given,) = agent.take()
        assert given["run"] == run_id

    def test_what_has_been_taken_on_is_not_assigned_again(self, stage: Stage) -> None:
        stage.submit()
        agent = stage.agent()
        (given,) = agent.take()
        for phase in (states.STAGING, states.PHASE_RUNNING):
            agent.enter(given["attempt"], phase)
            assert stage.yard.poll(agent.name, [])["assign"] == []

    def test_phases_go_forward_only(self, stage: Stage) -> None:
        stage.submit()
        agent = stage.agent()
        (given,) = agent.take()
        attempt = given["attempt"]
        with pytest.raises(StaleError):
            agent.enter(attempt, states.STOPPING)
        agent.start(attempt)
        agent.enter(attempt, states.PHASE_RUNNING)  # the answer was lost
        with pytest.raises(StaleError):
            agent.enter(attempt, states.STAGING)
        with pytest.raises(InvalidError):
            agent.enter(attempt, states.ENDED)
        agent.end(attempt)
        with pytest.raises(StaleError):
            stage.yard.phase(attempt, 1, states.PHASE_RUNNING)
        with pytest.raises(StaleError):
            stage.yard.phase("0" * 32, 1, states.PHASE_RUNNING)

    def test_priority_then_first_in_first_out(self, stage: Stage) -> None:
        ids = stage.yard.submit([make_spec(priority=p) for p in (0, 5, 0, 5, -1)], None, ME)
        agent = stage.agent()
        order = []
        for _ in ids:
            attempt = agent.take_and_start()
            order.append(agent.has[attempt]["run"])
            agent.end(attempt)
        assert order == [ids[1], ids[3], ids[0], ids[2], ids[4]]

    def test_a_changed_priority_counts(self, stage: Stage) -> None:
        first, second = stage.submit(), stage.submit()
        assert stage.yard.edit(second, {"priority": 1}, ME)["priority"] == 1
        agent = stage.agent()
        assert agent.has[agent.take_and_start()]["run"] == second
        assert stage.state(first) == states.QUEUED

    def test_one_run_per_slot(self, stage: Stage) -> None:
        ids = [stage.submit() for _ in range(5)]
        agent = stage.agent(slots=3)
        given = agent.take()
        assert sorted(slot for item in given for slot in item["slots"]) == ["cpu0", "cpu1", "cpu2"]
        assert [item["run"] for item in sorted(given, key=lambda item: item["slots"])] == ids[:3]
        assert agent.take() == []
        agent.start(given[0]["attempt"])
        agent.end(given[0]["attempt"])
        (more,) = agent.take()
        assert (more["run"], more["slots"]) == (ids[3], given[0]["slots"])

    def test_gpus_come_first_and_several_together(self, stage: Stage) -> None:
        agent = stage.agent(gpus=4, slots=2)
        pair, single, cpu = stage.submit(resources={"gpus": 2}), stage.submit(), stage.submit(resources={"gpus": 0})
        given = {item["run"]: item["slots"] for item in agent.take()}
        assert len(given[pair]) == 2
        assert len(given[single]) == 1
        assert all(slot.startswith("gpu") for slot in given[pair] + given[single])
        assert len(set(given[pair] + given[single])) == 3
        assert given[cpu][0].startswith("cpu")

    def test_a_large_request_is_not_passed_by_for_ever(self, stage: Stage) -> None:
        agent = stage.agent(gpus=2, slots=0)
        first = stage.submit()
        (given,) = agent.take()
        agent.start(given["attempt"])
        large, small = stage.submit(resources={"gpus": 2}), stage.submit()
        assert agent.take() == []  # the free GPU is kept for the large one
        agent.end(given["attempt"])
        assert [item["run"] for item in agent.take()] == [large]
        assert (stage.state(first), stage.state(small)) == (states.FINISHED, states.QUEUED)

    def test_a_long_queue_of_large_requests_is_not_passed_by(self, stage: Stage) -> None:
        """The small one is behind more runs than one look into the queue takes in."""
        agent = stage.agent(gpus=2, slots=0)
        stage.submit()
        agent.start(agent.take()[0]["attempt"])
        stage.yard.submit([make_spec(resources={"gpus": 2}) for _ in range(PAGE + 1)], None, ME)
        stage.submit(resources={"gpus": 1})
        assert agent.take() == []

    def test_slots_that_others_use_are_left_alone(self, stage: Stage) -> None:
        run_id = stage.submit()
        agent = stage.agent()
        agent.heartbeat(slots=agent.slot_list(free=False, why="used by somebody"))
        assert agent.take() == []
        assert any("used by somebody" in reason for reason in stage.run(run_id)["wait_reasons"])
        agent.heartbeat()
        assert len(agent.take()) == 1

    def test_a_slot_whose_run_cannot_be_killed_is_taken_and_says_so(self, stage: Stage) -> None:
        agent = stage.agent(slots=2)
        run_id = stage.submit()
        attempt = agent.take()[0]["attempt"]
        agent.start(attempt)
        held, other = agent.slot_list()
        held.update(free=False, why="cannot be killed: 12 python")
        agent.heartbeat({attempt: {"epoch": 1, "phase": "stopping"}}, [held, other])
        assert stage.run(run_id)["wait_reasons"] == [f"{held['name']}: cannot be killed: 12 python"]
        shown = {slot["name"]: slot for slot in stage.yard.status()["slots"]}[held["name"]]
        assert (shown["free"], shown["run"], shown["why"]) == (False, run_id, held["why"])
        stage.submit()
        stage.submit()
        assert [item["slots"] for item in agent.take()] == [[other["name"]]]

    def test_a_slot_that_is_gone_is_not_used(self, stage: Stage) -> None:
        stage.submit()
        stage.submit()
        agent = stage.agent(slots=2)
        agent.slots = 1
        agent.heartbeat()
        assert len(agent.take()) == 1

    def test_nothing_goes_to_an_agent_that_is_silent(self, stage: Stage) -> None:
        agent = stage.agent()
        stage.clock.advance(41)
        run_id = stage.submit()
        stage.tick()
        assert stage.state(run_id) == states.QUEUED
        assert stage.run(run_id)["wait_reasons"]
        agent.poll()
        assert len(agent.take()) == 1

    def test_why_a_run_waits(self, stage: Stage) -> None:
        assert any("host" in why for why in stage.run(stage.submit())["wait_reasons"])
        agent = stage.agent()
        agent.take_and_start()
        second = stage.submit()
        third = stage.submit(after=[second])
        held = stage.submit(hold=True)
        assert any("running" in why or "free" in why for why in stage.run(second)["wait_reasons"])
        assert any(second in why for why in stage.run(third)["wait_reasons"])
        assert any("held" in why for why in stage.run(held)["wait_reasons"])

    # Dependencies

    def test_a_run_starts_after_those_it_waits_for(self, stage: Stage) -> None:
        agent = stage.agent(slots=3)
        a, b = stage.submit(), stage.submit()
        c = stage.submit(after=[a, b])
        d = stage.submit(after=[c])
        given = {item["run"]: item["attempt"] for item in agent.take()}
        assert set(given) == {a, b}
        for attempt in given.values():
            agent.start(attempt)
        agent.end(given[a])
        assert agent.take() == []
        agent.end(given[b])
        (third,) = agent.take()
        assert third["run"] == c
        agent.start(third["attempt"])
        agent.end(third["attempt"])
        assert [item["run"] for item in agent.take()] == [d]

    def test_a_run_that_waits_for_another_keeps_no_slot_from_those_behind_it(self, stage: Stage) -> None:
        agent = stage.agent(slots=2)
        first = stage.submit()
        agent.take_and_start()
        stage.submit(after=[first], priority=5)
        behind = stage.submit()
        assert [item["run"] for item in agent.take()] == [behind]

    def test_two_dependencies_that_end_at_once(self, stage: Stage) -> None:
        agent = stage.agent(slots=8)
        firsts = [stage.submit() for _ in range(8)]
        last = stage.submit(after=firsts)
        given = agent.take()
        for item in given:
            agent.start(item["attempt"])
        ends = [[agent.end_of(item["attempt"])] for item in given]
        threads = [threading.Thread(target=stage.yard.finish, args=(end,)) for end in ends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        agent.has.clear()
        assert [item["run"] for item in agent.take()] == [last]

    def test_a_dependency_that_ends_while_its_dependent_is_submitted(self, stage: Stage) -> None:
        for _ in range(8):
            first = stage.submit()
            thread = threading.Thread(target=stage.yard.kill, args=(first, False, ME))
            thread.start()
            second = stage.submit(after=[first])
            thread.join()
            assert stage.state(second) == states.FAILED

    def test_a_finished_dependency_is_no_reason_to_wait(self, stage: Stage) -> None:
        agent = stage.agent()
        first = stage.submit()
        agent.end(agent.take_and_start())
        second = stage.submit(after=[first, first])
        assert [item["run"] for item in agent.take()] == [second]

    def test_a_dependency_that_was_removed_after_it_finished_is_met(self, stage: Stage) -> None:
        agent = stage.agent(slots=2)
        a, b = stage.submit(), stage.submit()
        c = stage.submit(after=[a, b])
        given = {item["run"]: item["attempt"] for item in agent.take()}
        for attempt in given.values():
            agent.start(attempt)
        agent.end(given[a])
        stage.yard.remove(a, True, ME)
        assert all(a not in why for why in stage.run(c)["wait_reasons"])
        agent.end(given[b])
        assert [item["run"] for item in agent.take()] == [c]

    def test_a_failed_dependency_fails_all_that_wait_for_it(self, stage: Stage) -> None:
        agent = stage.agent()
        first = stage.submit()
        chain = [first]
        for _ in range(4):
            chain.append(stage.submit(after=[chain[-1]], hold=len(chain) == 2))
        agent.end(agent.take_and_start(), 3)
        for run_id in chain[1:]:
            run = stage.run(run_id)
            assert run["state"] == states.FAILED
            assert four(run["end"]) == {"exit_code": None, "signal": None, "reason": "dependency_failed",
                                  "origin": "scheduler"}  # fmt: skip
            assert stage.events(run_id)[-1]["detail"]["dependency"] == chain[chain.index(run_id) - 1]
        late = stage.run(stage.submit(after=[chain[-1]]))
        assert late["state"] == states.FAILED

    def test_a_long_chain_in_one_batch(self, stage: Stage) -> None:
        ids = [new_run_id() for _ in range(400)]
        specs = [make_spec(run_id, after=[ids[i - 1]] if i else []) for i, run_id in enumerate(ids)]
        stage.yard.submit(specs[::-1], None, ME)
        stage.yard.kill(ids[0], False, ME)
        assert stage.yard.status()["counts"] == {
            **dict.fromkeys(states.RUN_STATES, 0), states.KILLED: 1, states.FAILED: 399,
        }  # fmt: skip

    def test_a_batch_behind_a_failed_run_fails_as_a_whole(self, stage: Stage) -> None:
        first = stage.submit()
        stage.yard.kill(first, False, ME)
        a, b = new_run_id(), new_run_id()
        stage.yard.submit([make_spec(b, after=[a]), make_spec(a, after=[first])], None, ME)
        assert (stage.state(a), stage.state(b)) == (states.FAILED, states.FAILED)

    # Hold and release

    def test_hold_and_release(self, stage: Stage) -> None:
        agent = stage.agent()
        first, second = stage.submit(), stage.submit()
        assert stage.yard.hold(first, ME)["state"] == states.HELD
        assert stage.yard.hold(first, ME)["state"] == states.HELD
        attempt = agent.take_and_start()
        assert agent.has[attempt]["run"] == second
        agent.end(attempt)
        assert agent.take() == []
        third = stage.submit()
        assert stage.yard.release(first, ME)["state"] == states.QUEUED
        assert stage.yard.release(first, ME)["state"] == states.QUEUED
        attempt = agent.take_and_start()
        assert agent.has[attempt]["run"] == first  # it kept its place
        with pytest.raises(ConflictError):
            stage.yard.hold(first, ME)
        with pytest.raises(ConflictError):
            stage.yard.release(first, ME)
        agent.end(attempt)
        with pytest.raises(ConflictError):
            stage.yard.hold(first, ME)
        assert stage.state(third) == states.QUEUED

    def test_a_run_submitted_on_hold_waits_for_release_and_for_its_dependency(self, stage: Stage) -> None:
        agent = stage.agent()
        first = stage.submit()
        second = stage.submit(after=[first], hold=True)
        agent.end(agent.take_and_start())
        assert agent.take() == []
        third = stage.submit(hold=True)
        fourth = stage.submit(after=[third])
        stage.yard.release(second, ME)
        assert [item["run"] for item in agent.take()] == [second]
        stage.yard.release(fourth, ME)
        agent.end(next(iter(agent.has)))
        assert agent.take() == []

    # Ticks and topics

    def test_topics_are_published_after_the_commit(self, stage: Stage) -> None:
        heard: list[tuple[str, str]] = []

        def listen(topic: str) -> None:
            if topic.startswith("run:"):
                heard.append((topic, stage.inner.run(topic[4:], ME)["state"]))
            else:
                heard.append((topic, ""))

        stop = stage.inner.subscribe(listen)
        run_id = stage.submit()
        assert ("run:" + run_id, states.QUEUED) in heard
        assert ("queue", "") in heard
        agent = stage.agent()
        heard.clear()
        stage.tick()
        assert ("agent:" + agent.name, "") in heard
        assert ("run:" + run_id, states.RUNNING) in heard
        agent.poll()
        agent.start(next(iter(agent.has)))
        heard.clear()
        agent.end(next(iter(agent.has)))
        assert ("run:" + run_id, states.FINISHED) in heard
        assert ("queue", "") in heard
        stop()
        heard.clear()
        stage.submit()
        assert heard == []

    def test_the_status_counts(self, stage: Stage) -> None:
        agent = stage.agent(slots=2)
        stage.submit()
        agent.take_and_start()
        stage.submit(hold=True)
        status = stage.yard.status()
        assert (status["counts"]["running"], status["counts"]["held"]) == (1, 1)
        assert [(item["id"], item["connected"], item["draining"]) for item in status["agents"]] == [
            (agent.name, True, False)
        ]
        assert sorted((slot["name"], slot["free"]) for slot in status["slots"]) == [("cpu0", False), ("cpu1", True)]
        assert status["paused"] is None
        stage.clock.advance(60)
        assert stage.yard.status()["agents"][0]["connected"] is False

    def test_a_draining_agent_takes_nothing_new(self, stage: Stage) -> None:
        agent = stage.agent(slots=2)
        first = stage.submit()
        agent.take_and_start()
        stage.yard.drain(agent.name, True, ME)
        waiting = stage.submit()
        assert agent.take() == []
        assert agent.poll()["drain"]
        assert agent.heartbeat()["drain"]
        assert any("drained" in reason for reason in stage.run(waiting)["wait_reasons"])
        assert agent.end(next(iter(agent.has))) == "accepted"
        assert (stage.state(first), stage.state(waiting)) == (states.FINISHED, states.QUEUED)
        agent.restart()
        assert [given["run"] for given in agent.take()] == [waiting]
        with pytest.raises(NotFoundError):
            stage.yard.drain("nobody", True, ME)
