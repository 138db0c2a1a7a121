"""Checks that only rare orders of events reach: a hello that comes late, a slot that somebody has, a clock that is wrong."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from runyard.testing.stage import FakeAgent, Stage
from runyard.wire import states
from runyard.wire.errors import StaleError


def hello(stage: Stage, agent: FakeAgent, attempts: dict[str, Any], sent: int, boot_id: str = "boot-1") -> Any:
    """Say hello for an agent as it was when the host's clock said ``sent``."""
    host = {"id": agent.host, "name": agent.host, "boot_id": boot_id, "cpus": 8, "mem": 1 << 36}
    body = {"host": host, "user": "ada", "uid": 1000, "pid": 1, "version": "0", "sent": sent}
    return stage.yard.hello(agent.name, {**body, "slots": agent.slot_list(), "attempts": attempts})


def test_a_hello_that_comes_after_a_later_one_does_not_end_what_was_started_since(any_stage: Stage) -> None:
    stage = any_stage
    run_id = stage.submit(requeue=False)
    agent = stage.agent()
    hello(stage, agent, {}, sent=200)
    agent.take_and_start()
    for late in (100, 200):
        with pytest.raises(StaleError):
            hello(stage, agent, {}, sent=late)
    assert stage.state(run_id) == states.RUNNING
    hello(stage, agent, agent.said(), sent=300)
    assert stage.state(run_id) == states.RUNNING
    hello(stage, agent, {}, sent=10, boot_id="boot-2")  # after a reboot the clock begins anew
    assert stage.run(run_id)["attempts"][0]["end"]["reason"] == states.HOST_LOST


def test_an_attempt_that_the_yard_forgot_is_not_taken_in_on_a_slot_that_another_one_has(any_stage: Stage) -> None:
    stage = any_stage
    holder = stage.submit()
    agent = stage.agent()
    agent.take_and_start()
    other = stage.submit(hold=True)
    forgotten = {"epoch": 1, "run": other, "phase": states.PHASE_RUNNING, "number": 1, "slots": ["cpu0"]}
    answer = hello(stage, agent, {**agent.said(), "f" * 32: forgotten}, sent=1)
    assert answer["attempts"]["f" * 32] == {"verdict": "stop"}
    assert (stage.state(holder), stage.state(other)) == (states.RUNNING, states.HELD)
    assert stage.run(other)["attempts"] == []


@pytest.mark.parametrize("wrong_s", [-86400, 86400])
def test_a_run_ends_by_the_databases_clock_however_wrong_that_of_its_host_is(any_stage: Stage, wrong_s: int) -> None:
    stage = any_stage
    run_id = stage.submit()
    agent = stage.agent()
    attempt = agent.take_and_start()
    stage.clock.advance(30.0)
    now = stage.clock.database_us
    there = now + wrong_s * 1_000_000
    agent.end(attempt, 0, started_at=there - 20_000_000, ended_at=there)
    run = stage.run(run_id)
    (tried,) = run["attempts"]
    assert run["started_at"] < run["ended_at"]
    assert abs(_seconds(run["ended_at"]) - _seconds(run["started_at"]) - 20.0) < 1.0
    assert _seconds(run["ended_at"]) <= now / 1e6
    assert tried["end"]["exit_code"] == 0


def test_a_run_does_not_end_in_the_future(any_stage: Stage) -> None:
    stage = any_stage
    run_id = stage.submit()
    agent = stage.agent()
    attempt = agent.take_and_start()
    stage.clock.advance(30.0)
    now = stage.clock.database_us
    agent.end(attempt, 0, started_at=now, ended_at=now + 3_600_000_000)  # its clock was set forward meanwhile
    assert _seconds(stage.run(run_id)["ended_at"]) <= now / 1e6


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
