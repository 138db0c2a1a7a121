"""What several tests play: a yard that works, a run that is lost, a leave to start that has grown old."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from runyard.wire.errors import RunyardError
from tests.crash import points
from tests.crash.yard import Yard, wait_for

WIDTH = 6
"""Yards that are broken at the same time: most of what happens is waiting."""


def in_parallel(cases: Sequence[str], play: Callable[[str], list[str]]) -> None:
    """Play all cases, some at a time, and fail with what is wrong in any."""

    def safely(case: str) -> list[str]:
        try:
            return ["%s: %s" % (case, problem) for problem in play(case)]
        except (AssertionError, RunyardError, OSError) as exc:
            return ["%s: %s %s" % (case, exc, "\n".join(getattr(exc, "__notes__", ())))]

    with ThreadPoolExecutor(WIDTH) as pool:
        problems = [problem for found in pool.map(safely, cases) for problem in found]
    assert not problems, "\n".join(problems)


def work(yard: Yard) -> None:
    """Submit what reaches every point: an output, a failure with a retry, one that logs, a run that is killed."""
    for behaviour, exit_code, retries in (("writer", 0, 0), ("flaky", 3, 2), ("logger", 0, 0)):
        try:
            yard.submit(behaviour, 0.2, exit_code, retries=retries)
        except RunyardError as exc:
            yard.note("refused: %s" % exc.message)
    run_id = yard.submit("plain", 5.0, priority=5)
    time.sleep(0.5)
    yard.act(run_id, "kill")


def alone(yard: Yard, name: str) -> None:
    """Leave one agent of two."""
    for other in yard.proxies:
        if other != name:
            yard.kill(other)

    def others_gone() -> bool:
        with contextlib.suppress(RunyardError, OSError):
            return sum(agent["connected"] for agent in yard.api("GET", "/api/v1/status")["agents"]) == 1
        return False

    wait_for(others_gone, "one agent", 10.0)


def lost(yard: Yard, seconds: float, on: str = "home") -> tuple[str, str]:
    """Start a program on one host, stop that host's agent until the run is lost; return run and attempt.

    The other host is there then, and the run will be given to it.
    """
    alone(yard, on)
    run_id = yard.submit("writer", seconds)
    wait_for(lambda: yard.programs(), "the program", 10.0)
    attempt = yard.ledger(run_id).of("start")[0]["attempt"]
    yard.pause(on)
    for other in yard.proxies:
        yard.start_agent(other)
    yard.until(run_id, "lost")
    return run_id, str(attempt)


def replaced(yard: Yard, seconds: float, on: str = "home") -> tuple[str, str, str]:
    """The same, until its replacement has started; return run and both attempts."""
    run_id, attempt = lost(yard, seconds, on)
    wait_for(lambda: len(yard.ledger(run_id).of("start")) == 2, "the replacement", 30.0)
    return run_id, attempt, yard.ledger(run_id).of("start")[1]["attempt"]


def deafen(yard: Yard, name: str) -> None:
    """Lose an agent's next heartbeats and polls: it learns nothing but by asking."""
    for kind in ("heartbeat", "poll"):
        for _ in range(30):
            yard.proxies[name].trap(kind, "request", lambda message: None)


def one_run(yard: Yard) -> None:
    """Let one run come and go."""
    yard.until(yard.submit("plain", 0.1), "finished")


def leave_grown_old(yard: Yard) -> list[str]:
    """Stop an agent right after it has leave to start, until the run runs elsewhere; return what starts late then."""
    alone(yard, "home")
    points.arm(yard.control, "agent.granted", "stop")
    run_id = yard.submit("plain", 4.0)
    wait_for(lambda: points.fired(yard.control), "the leave", 10.0)
    yard.start_agent("far")
    wait_for(lambda: yard.programs(), "the replacement", 30.0)
    deafen(yard, "home")
    yard.signal("home", signal.SIGCONT)
    yard.until(run_id, "finished")
    starts = yard.ledger(run_id).of("start")
    return ["attempt %s started after its successor" % line["attempt"] for line in starts[1:]]


def submitted_and_killed(yard: Yard) -> None:
    """Kill the server the moment it has answered a submit."""
    yard.submit("plain", 0.1)
    yard.kill("server")


def finish_repeated(yard: Yard) -> None:
    """Send the report of an end twice more."""
    proxy = yard.proxies["home"]

    def repeat(message: object) -> None:
        for _ in range(2):
            proxy.send_copy(message)  # type: ignore[arg-type]

    trap = proxy.trap("finish", "request", repeat, deliver=True)
    yard.submit("plain", 0.1)
    wait_for(trap.sprung.is_set, "the end", 20.0)


def finish_dropped(yard: Yard) -> None:
    """Lose the report of an end, also as the connection repeats it."""
    traps = [yard.proxies["home"].trap("finish", "request", lambda message: None) for _ in range(2)]
    yard.submit("plain", 0.1)
    wait_for(traps[-1].sprung.is_set, "the end", 20.0)


def log_dropped(yard: Yard) -> None:
    """Lose a piece of a log, also as the connection repeats it."""
    proxy = yard.proxies["far"]
    traps = [proxy.trap("log", "request", lambda message: None, contains=b" line 1\n") for _ in range(2)]
    yard.submit("plain", 1.0)
    wait_for(traps[-1].sprung.is_set, "the log", 20.0)


def records_repeated(yard: Yard) -> None:
    """Send records twice more, as happens where an answer is lost."""
    proxy = yard.proxies["home"]

    def repeat(message: object) -> None:
        for _ in range(2):
            proxy.send_copy(message)  # type: ignore[arg-type]

    trap = proxy.trap("spool", "request", repeat, deliver=True, contains=b"logged/")
    yard.submit("logger", 1.0)
    wait_for(trap.sprung.is_set, "the records", 20.0)


def records_dropped(yard: Yard) -> None:
    """Lose records that are not the first ones, also as the connection repeats them."""
    proxy = yard.proxies["home"]
    run_id = yard.submit("logger", 3.0)
    wait_for(lambda: yard.show(run_id)["metrics"], "the first records", 20.0)
    traps = [proxy.trap("spool", "request", lambda message: None, contains=b"logged/") for _ in range(2)]
    wait_for(traps[-1].sprung.is_set, "the records", 20.0)


def returned_after_the_end(yard: Yard) -> None:
    """Let a lost attempt, whose program has ended meanwhile, return after its replacement has started."""
    _, attempt, _ = replaced(yard, 5.0)
    wait_for(lambda: attempt not in yard.programs(), "the first to end by itself", 20.0)
    yard.go_on("home")
    time.sleep(1.0)


def returned_with_a_log(yard: Yard) -> None:
    """Let a lost attempt on the host that ships its log return after its replacement has started."""
    replaced(yard, 9.0, on="far")
    yard.go_on("far")
    time.sleep(1.0)


def stopped_before_the_leave(yard: Yard) -> None:
    """Stop an agent before it asks for leave to start, until its lease is over; a program elsewhere is no excuse."""
    points.arm(yard.control, "agent.before_grant", "stop")
    run_id = yard.submit("plain", 0.5)
    wait_for(lambda: points.fired(yard.control), "the question", 10.0)
    yard.until(run_id, "queued")
    deafen(yard, "home")
    yard.signal("home", signal.SIGCONT)
    time.sleep(1.0)


def agent_gone(yard: Yard) -> None:
    """Kill an agent for good while a program runs, which then ends."""
    yard.submit("plain", 0.3)
    wait_for(lambda: yard.programs(), "the program", 10.0)
    yard.kill("home")
    time.sleep(8.0)


def agent_restarted(yard: Yard) -> None:
    """Kill an agent and start it again while a program runs."""
    yard.submit("plain", 3.0)
    wait_for(lambda: yard.programs(), "the program", 10.0)
    yard.kill("home")
    yard.start_agent("home")
    time.sleep(1.0)


def host_full_and_cut_off(yard: Yard) -> None:
    """Cut off a host whose slots are all taken until its runs are lost, with others waiting."""
    first = [yard.submit("plain", 6.0) for _ in range(2)]
    wait_for(lambda: len(yard.programs()) == 2, "the programs", 10.0)
    yard.submit("plain", 0.3, priority=5)
    yard.cut("home")
    for run_id in first:
        yard.until(run_id, "lost")
    yard.cut("home", False)
    wait_for(
        lambda: len([run for run in yard.runs() if run["state"] == "queued"]) == 0 or not yard.programs(), "all", 20
    )
