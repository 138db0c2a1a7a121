"""Directed: a process is killed or stopped at each step of the protocol, and each message goes wrong in each way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from runyard.wire.errors import RunyardError
from tests.crash import points
from tests.crash.children import LOST_REQUEUE_S
from tests.crash.invariants import verdict
from tests.crash.scenes import in_parallel, leave_grown_old, lost, work
from tests.crash.schedule import LEASE_S, Player, Schedule
from tests.crash.yard import Yard, wait_for

Maker = Callable[..., Any]
pytestmark = pytest.mark.timeout(400)


def judged(yard: Yard) -> list[str]:
    """Repair the yard and return what is wrong, with its diary."""
    found = verdict(yard)
    return [*found, *yard.log] if found else []


def caught(yard: Yard, point: str, action: str, player: Player, away_s: float) -> None:
    """Arm a point, let things happen until somebody is caught there, and bring that one back later."""
    points.arm(yard.control, point, action)
    if point.startswith("server.hello"):
        yard.kill("home")
        yard.start_agent("home")
    if point.startswith("server.hand_back"):
        points.arm(yard.control, "agent.journaled")
    work(yard)
    seen: list[str] = []

    def look() -> bool:
        for name, pid, attempt in points.fired(yard.control):
            seen.append(name)
            who = next((who for who, (its, _) in yard.pids.items() if its == pid), "")
            yard.note("%s hit by %s" % (name, who or pid))
            if attempt:
                yard.supervisors_killed.add(attempt)
                time.sleep(0.3 if action == "kill" else away_s)
                player.wake(pid)
            else:
                yard.paused.add(who)
                time.sleep(0.2 if name != point else away_s)
                player.revive(who)
        return point in seen

    wait_for(look, point, 20.0)


def at(make_yard: Maker, action: str, away_s: float, **fields: Any) -> Callable[[str], list[str]]:
    def play(point: str) -> list[str]:
        with make_yard(**fields) as yard:
            caught(yard, point, action, Player(yard, Schedule(1)), away_s)
            return judged(yard)

    return play


def test_the_server_killed_before_and_after_each_commit(make_yard: Maker) -> None:
    in_parallel(points.SERVER, at(make_yard, "kill", 0.1))


def test_the_server_killed_around_commits_on_postgresql(make_yard: Maker, require: Any) -> None:
    require("postgresql")
    chosen = [point for point in points.SERVER if point.split(".")[1] in ("submit", "assign", "phase", "finish")]
    in_parallel(chosen, at(make_yard, "kill", 0.1, on_postgres=True))


def test_the_agent_killed_while_it_sends_what_was_logged(make_yard: Maker) -> None:
    in_parallel(points.LOGGING, at(make_yard, "kill", 0.1))


def test_the_agent_killed_at_each_step(make_yard: Maker) -> None:
    in_parallel(points.AGENT, at(make_yard, "kill", 0.1))


def test_an_agent_elsewhere_killed_at_each_step(make_yard: Maker) -> None:
    in_parallel((*points.AGENT, *points.SHIPPING), at(make_yard, "kill", 0.1, agents=("far",)))


def test_the_supervisor_killed_at_each_step(make_yard: Maker) -> None:
    in_parallel(points.SUPERVISOR, at(make_yard, "kill", 0.1))


def test_the_agent_stopped_at_each_step_past_its_lease(make_yard: Maker) -> None:
    in_parallel(points.AGENT, at(make_yard, "stop", LEASE_S * 1.5))


def test_the_agent_stopped_at_each_step_until_its_runs_are_with_others(make_yard: Maker) -> None:
    away = LEASE_S + LOST_REQUEUE_S + 1.0
    in_parallel(points.AGENT, at(make_yard, "stop", away, agents=("home", "far")))


def test_the_supervisor_stopped_at_each_step(make_yard: Maker) -> None:
    in_parallel(points.SUPERVISOR, at(make_yard, "stop", 1.0))


def test_server_and_agent_killed_together(make_yard: Maker) -> None:
    with make_yard() as yard:
        first = yard.submit("talker", 2.0)
        yard.until(first, "running")
        wait_for(lambda: yard.programs(), "the program", 10.0)
        for name in ("server", "home"):
            yard.kill(name)
        time.sleep(0.3)
        yard.start_server()
        yard.start_agent("home")
        run = yard.until(first, "finished")
        assert len(run["attempts"]) == 1
        assert judged(yard) == []


def test_a_leave_is_asked_for_again_when_it_has_grown_old(make_yard: Maker) -> None:
    with make_yard(agents=("home", "far")) as yard:
        assert leave_grown_old(yard) == []
        assert judged(yard) == []


def test_environments_that_a_killed_server_left_are_swept(make_yard: Maker) -> None:
    with make_yard() as yard:
        yard.kill("server")
        launches = yard.home / "launch"
        launches.mkdir(exist_ok=True)
        for name in ("0" * 32 + ".json", "1" * 32 + ".json.4711.tmp"):
            (launches / name).write_text('{"env": {"PLANTED": "x"}}')
        yard.start_server()
        yard.wait_ready()
        assert os.listdir(launches) == []


# Lost attempts that return


def test_a_lost_attempt_returns_before_its_replacement_has_started(make_yard: Maker) -> None:
    with make_yard(agents=("home", "far")) as yard:
        run_id, attempt = lost(yard, 9.0)
        points.arm(yard.control, "agent.before_grant", "stop")
        wait_for(lambda: any(who == "agent.before_grant" for who, _, _ in points.fired(yard.control)), "the other", 20)
        yard.go_on("home")
        run = wait_for(lambda: _is_back(yard, run_id, attempt), "the first to have it back", 10.0)
        assert run["phase"] == "running"
        yard.signal("far", signal.SIGCONT)
        run = yard.until(run_id, "finished")
        assert [line["attempt"] for line in yard.ledger(run_id).of("start")] == [attempt]
        assert judged(yard) == []


def _is_back(yard: Yard, run_id: str, attempt: str) -> Any:
    run = yard.show(run_id)
    return run if run["state"] == "running" and run["host"] != "far" else None


@pytest.mark.parametrize("seconds", [20.0, 4.0], ids=["still-running", "ended-meanwhile"])
def test_a_lost_attempt_returns_after_its_replacement_has_started(make_yard: Maker, seconds: float) -> None:
    with make_yard(agents=("home", "far")) as yard:
        run_id, attempt = lost(yard, seconds)
        wait_for(lambda: len(yard.ledger(run_id).of("start")) == 2, "the replacement", 30.0)
        second = yard.ledger(run_id).of("start")[1]["attempt"]
        if seconds < 10:
            wait_for(lambda: attempt not in yard.ledger(run_id).alive(), "the first to end by itself", 10.0)
        yard.go_on("home")
        wait_for(lambda: attempt not in yard.ledger(run_id).alive(), "the first to be stopped", 10.0)
        run = yard.show(run_id)
        assert (run["state"], run["host"]) == ("running", "far")
        assert second in yard.ledger(run_id).alive()
        if seconds > 10:
            yard.act(run_id, "kill")
        run = yard.until(run_id, "finished", "killed")
        tries = {one["id"]: one for one in run["attempts"]}
        assert tries[attempt]["end"]["reason"] == ("superseded" if seconds > 10 else "exited")
        assert judged(yard) == []


# Messages

KINDS = ("hello", "heartbeat", "poll", "phase", "finish", "outputs", "log", "spool", "files", "tree")


def disturbed(make_yard: Maker, disturb: Callable[[Yard, str], Any], times: int) -> Callable[[str], list[str]]:
    def play(kind: str) -> list[str]:
        far = kind in ("log", "files")
        with make_yard(agents=("far",) if far else ("home",)) as yard:
            for _ in range(times):
                disturb(yard, kind)
            if kind == "hello":
                for name in yard.proxies:
                    yard.kill(name)
                    yard.start_agent(name)
            work(yard)
            time.sleep(1.0)
            if not far or kind != "tree":
                wait_for(lambda: not any(proxy.traps for proxy in yard.proxies.values()), "%s to pass" % kind, 20.0)
            return judged(yard)

    return play


def test_each_message_lost(make_yard: Maker) -> None:
    def disturb(yard: Yard, kind: str) -> None:
        for proxy in yard.proxies.values():
            proxy.trap(kind, "request", lambda message: None)

    in_parallel(KINDS, disturbed(make_yard, disturb, 1))


def test_each_answer_lost(make_yard: Maker) -> None:
    def disturb(yard: Yard, kind: str) -> None:
        for proxy in yard.proxies.values():
            proxy.trap(kind, "answer", lambda message: None)

    in_parallel(KINDS, disturbed(make_yard, disturb, 1))


def test_each_message_repeated_at_once_and_later(make_yard: Maker) -> None:
    def disturb(yard: Yard, kind: str) -> None:
        for proxy in yard.proxies.values():

            def repeat(message: Any, proxy: Any = proxy) -> None:
                proxy.send_copy(message)
                proxy._send_later(message)
                proxy._send_later(message)

            proxy.trap(kind, "request", repeat, deliver=True)

    in_parallel(KINDS, disturbed(make_yard, disturb, 1))


def test_each_message_arrives_after_its_repetition(make_yard: Maker) -> None:
    def disturb(yard: Yard, kind: str) -> None:
        for proxy in yard.proxies.values():
            proxy.trap(kind, "request", proxy._send_later)

    in_parallel(KINDS, disturbed(make_yard, disturb, 2))


def test_an_old_hello_that_arrives_late_ends_nothing(make_yard: Maker) -> None:
    with make_yard() as yard:
        kept: list[Any] = []
        proxy = yard.proxies["home"]
        proxy.trap("hello", "request", kept.append, deliver=True)
        yard.kill("home")
        yard.start_agent("home")
        run_id = yard.submit("plain", 2.0)
        wait_for(lambda: yard.programs(), "the program", 10.0)
        before = len(yard.show(run_id)["attempts"])
        assert b'"stale"' in proxy.send_copy(kept[0])
        run = yard.until(run_id, "finished")
        assert len(run["attempts"]) == before
        assert judged(yard) == []


# Disk


def test_the_disk_is_full_while_a_run_writes_its_log(make_yard: Maker, require: Any) -> None:
    require("root")
    with make_yard(tmpfs=True) as yard:
        run_id = yard.submit("talker", 2.0)
        wait_for(lambda: yard.programs(), "the program", 10.0)
        yard.fill_disk()
        wait_for(lambda: not yard.programs(), "the program's end", 10.0)
        yard.free_disk()
        run = yard.until(run_id, "finished", "failed")
        assert run["state"] == "finished"
        assert run["attempts"][-1]["log_dropped"] > 0
        assert judged(yard) == []


def test_the_disk_is_full_at_submit(make_yard: Maker, require: Any) -> None:
    require("root")
    with make_yard(tmpfs=True) as yard:
        yard.fill_disk()
        with pytest.raises(RunyardError) as refused:
            yard.api("PUT", "/api/v1/runs/" + "a" * 12, yard.spec("plain", 0.1, id="a" * 12))
        assert refused.value.status >= 500
        yard.free_disk()
        assert yard.runs() == []
        launches = yard.home / "launch"
        assert not launches.exists() or not os.listdir(launches)
        run_id = yard.submit("plain", 0.1)
        yard.until(run_id, "finished")
        assert judged(yard) == []


@pytest.mark.parametrize("point", ["agent.journaled", "agent.staging", "agent.before_launch", "supervisor.before_end"])
def test_the_disk_is_full_at_a_step(make_yard: Maker, require: Any, point: str) -> None:
    require("root")
    with make_yard(tmpfs=True) as yard:
        points.arm(yard.control, point, "stop")
        yard.submit("plain", 0.3)
        fired = wait_for(lambda: points.fired(yard.control), point, 10.0)
        yard.fill_disk()
        os.kill(fired[0][1], signal.SIGCONT)
        time.sleep(1.0)
        yard.free_disk()
        assert judged(yard) == []


# Database


@pytest.mark.parametrize("operation", ["submit", "assign", "phase", "finish", "heartbeat"])
def test_the_database_connection_killed_in_a_transaction(make_yard: Maker, require: Any, operation: str) -> None:
    require("postgresql")
    with make_yard(on_postgres=True) as yard:
        points.arm(yard.control, "server.%s.before_commit" % operation, "stop")
        work_done = ThreadPoolExecutor(1)
        submitted = work_done.submit(work, yard)
        wait_for(lambda: points.fired(yard.control), operation, 15.0)
        Player(yard, Schedule(1)).do_database()
        yard.signal("server", signal.SIGCONT)
        submitted.result(30)
        work_done.shutdown()
        assert judged(yard) == []


# Clock


@pytest.mark.parametrize("step", [7200.0, -7200.0])
def test_the_clock_is_set(make_yard: Maker, step: float) -> None:
    with make_yard() as yard:
        run_id = yard.submit("plain", 3.0)
        wait_for(lambda: yard.programs(), "the program", 10.0)
        yard.move_clock(step)
        run = yard.until(run_id, "finished")
        assert len(run["attempts"]) == 1
        assert not [event for event in yard.events(run_id) if event["kind"] == "lost"]
        assert judged(yard) == []
