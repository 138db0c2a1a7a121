"""The server drops, delays, repeats, refuses and babbles; runs go on and every end arrives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from runyard.wire import files, library, procs
from tests.agent.fake_server import DROP_AFTER, DROP_BEFORE, NONSENSE, PROXY_401, FakeYard, assignment, wait_for
from tests.agent.test_life import SLEEPER, witnessed

if TYPE_CHECKING:
    from tests.agent.conftest import AgentBox

REQUESTS = [
    ("PUT", "/agents/[^/]*$"), ("POST", "/poll$"), ("POST", "/heartbeat$"), ("POST", "/phase$"), ("POST", "/finish$"),
    ("PUT", "/outputs$"), ("GET", "/trees/"),
]  # fmt: skip


@pytest.mark.parametrize("kind", [DROP_BEFORE, DROP_AFTER, NONSENSE, "500", "503"])
def test_a_lost_or_senseless_answer_to_anything_is_harmless(box: AgentBox, kind: str) -> None:
    for method, pattern in REQUESTS:
        box.yard.fault(kind, method, pattern, times=2)
    agent = box.start()
    code = "import os\nopen(os.environ['WITNESS'], 'a').write('x')\nopen('out.csv', 'w').write('1')\n"
    witness = box.home / "witness"
    attempt = box.python(code, env={"PATH": os.environ["PATH"], "WITNESS": str(witness)})
    end = box.end(attempt)
    assert end["exit_code"] == 0
    assert witness.read_text() == "x", "executed exactly once"
    assert [output["path"] for output in box.yard.outputs[attempt]] == ["out.csv"]
    assert agent.poll() is None
    wait_for(lambda: not os.path.exists(box.paths.attempt_dir(attempt)))


def test_repeated_assignments_are_executed_once(box: AgentBox) -> None:
    box.yard.repeat_assignments = True
    box.start()
    attempt, witness = witnessed(box)
    box.end(attempt)
    wait_for(lambda: not os.path.exists(box.paths.attempt_dir(attempt)))
    with box.yard.changed:
        box.yard.pending[attempt] = assignment("0" * 40, ["/bin/true"], attempt=attempt)
        box.yard.changed.notify_all()
    polls = len(box.yard.requests)
    wait_for(lambda: sum(path.endswith("/poll") for _, path in box.yard.requests[polls:]) >= 3)
    assert witness.read_text() == "x"
    assert len(box.yard.ends[attempt]) == 1


def test_a_server_that_is_away_ends_no_run(box: AgentBox) -> None:
    agent = box.start()
    survivor = box.python(SLEEPER)
    quick = box.python("import time\ntime.sleep(0.6)\n")
    pid = box.status(survivor)["pid"]
    box.status(quick)
    box.server.down()
    time.sleep(1.5)
    assert procs.start_time(pid) is not None
    assert agent.poll() is None
    box.server.up()
    assert box.end(quick)["exit_code"] == 0
    assert procs.start_time(pid) is not None
    box.yard.stop(survivor, 0.0)
    assert box.end(survivor)["reason"] == "stopped"


def test_the_agent_waits_for_a_server_that_comes_later(box: AgentBox) -> None:
    box.server.down()
    box.start()
    wait_for(lambda: "does not answer" in box.log())
    box.server.up()
    assert box.end(box.run())["exit_code"] == 0


def test_a_refusal_without_an_error_body_of_ours_counts_too(box: AgentBox) -> None:
    """A proxy before the server may have said it."""
    box.yard.fault(PROXY_401, "PUT", "/agents/[^/]*$", times=9)
    assert box.start().wait(10) == 1
    assert "401" in box.log()


def token_of_the_home(box: AgentBox, token: str) -> None:
    files.write_json(box.paths.server_json, {"yard": box.yard.yard, "token": token})


def test_an_agent_of_a_shared_home_takes_up_the_token_of_a_server_that_starts_again(box: AgentBox) -> None:
    """The server answers a moment before server.json names its new token."""
    (box.home / "token").write_text("first")
    token_of_the_home(box, "first")
    box.yard.token = "first"
    agent = box.start("--token-file", str(box.home / "token"))
    attempt = box.python("import time\ntime.sleep(2)\n")
    box.status(attempt)
    hellos = len(box.yard.hellos)
    box.yard.token = "second"
    wait_for(lambda: "refuses this agent" in box.log())
    token_of_the_home(box, "second")
    wait_for(lambda: len(box.yard.hellos) > hellos)
    assert box.end(attempt)["exit_code"] == 0
    assert box.end(box.run())["exit_code"] == 0
    assert agent.poll() is None


def test_the_token_is_shown_to_no_other_yard(box: AgentBox) -> None:
    """Another program may have the port once the server has ended."""
    (box.home / "token").write_text("secret")
    box.yard.token = "secret"
    agent = box.start("--token-file", str(box.home / "token"))
    wait_for(lambda: box.yard.heartbeats)
    mine, other = box.yard, FakeYard()
    other.yard = "another"
    for yard in (other, mine):
        box.server.down()
        box.server.yard = yard
        box.server.up()
        if yard is other:
            wait_for(lambda: len(other.requests) > 2)
    assert {path for _, path in other.requests} == {"/health"}
    assert other.shown == {""}
    assert "another yard is at %s now" % box.server.url in box.log()
    assert box.end(box.run())["exit_code"] == 0
    assert agent.poll() is None


def test_the_token_is_shown_to_a_server_of_runyard_only(box: AgentBox) -> None:
    (box.home / "token").write_text("secret")
    box.yard.fault("404", "GET", "/health", times=10**6)
    box.start("--token-file", str(box.home / "token"))
    wait_for(lambda: "does not say which yard it is" in box.log())
    assert box.yard.shown == {""}


def test_attempts_to_reconnect_grow_apart(box: AgentBox) -> None:
    box.server.down()
    agent = box.start()
    wait_for(lambda: "does not answer" in box.log())
    before = _cpu_s(agent.pid)
    time.sleep(2.0)
    assert _cpu_s(agent.pid) - before < 0.1


def _cpu_s(pid: int) -> float:
    with open("/proc/%d/stat" % pid) as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_an_agent_that_the_server_does_not_know_says_hello_again(box: AgentBox) -> None:
    box.start()
    attempt = box.python(SLEEPER)
    box.status(attempt)
    box.yard.knows_agents = False
    wait_for(lambda: len(box.yard.hellos) >= 2)
    assert attempt in box.yard.hellos[-1]["attempts"]
    assert box.end(box.run())["exit_code"] == 0
    box.yard.stop(attempt, 0.0)
    box.end(attempt)


def test_a_late_answer_to_the_grant_still_starts_once(box: AgentBox) -> None:
    box.yard.late_s = 1.5
    box.yard.fault("late", "POST", "/phase$", times=2)
    box.start()
    attempt, witness = witnessed(box)
    assert box.end(attempt)["exit_code"] == 0
    assert witness.read_text() == "x"


def test_an_end_that_the_server_refuses_does_not_hold_up_others(box: AgentBox) -> None:
    box.yard.fault("400", "POST", "/finish$", times=1)
    box.start()
    first = box.run()
    wait_for(lambda: "refuses its end" in box.log())
    second = box.run()
    assert box.end(second)["exit_code"] == 0
    assert box.yard.end_of(first) is None
    assert os.path.exists(box.paths.attempt_dir(first)), "kept until it is answered"


def test_an_end_that_the_server_fails_over_does_not_hold_up_others(box: AgentBox) -> None:
    value = assignment(box.tree({}), ["/bin/true"])
    box.yard.fails_over = value["attempt"]
    box.start()
    failing = box.submit(value)
    wait_for(lambda: "fails over its end" in box.log())
    assert box.end(box.run())["exit_code"] == 0
    box.yard.fails_over = ""
    assert box.end(failing)["exit_code"] == 0


def test_outputs_that_the_server_fails_over_hold_up_no_end_for_ever(box: AgentBox) -> None:
    """Not those of others at all, and their own for a few seconds."""
    value = assignment(box.tree({"main.sh": "echo 1 > out.csv"}), ["/bin/sh", "main.sh"])
    box.yard.fault("500", "PUT", value["attempt"] + "/outputs$", times=10_000)
    box.start()
    failing = box.submit(value)
    wait_for(lambda: any(path.endswith("/outputs") for _, path in list(box.yard.requests)))
    assert box.end(box.run())["exit_code"] == 0
    assert box.end(failing)["exit_code"] == 0
    assert "refuses its outputs" in box.log()


@pytest.mark.parametrize(
    ("field", "value"),
    [("dir", "../../etc"), ("dir", "/etc"), ("epoch", "1"), ("slots", None), ("spec", []), ("env", {"A": 1})],
)
def test_an_assignment_that_makes_no_sense_is_handed_back(box: AgentBox, field: str, value: object) -> None:
    box.start()
    bad = assignment(box.tree({"a": "1"}), ["/bin/true"])
    bad[field] = value
    box.yard.assign(bad)
    wait_for(lambda: bad["attempt"] in box.yard.handed_back)
    assert box.end(box.run())["exit_code"] == 0


def test_an_attempt_id_never_becomes_a_path(box: AgentBox) -> None:
    agent = box.start()
    bad = assignment(box.tree({"a": "1"}), ["/bin/true"], attempt="../../../escaped")
    box.yard.assign(bad)
    wait_for(lambda: "attempt id" in box.log())
    box.yard.pending.clear()
    assert box.end(box.run())["exit_code"] == 0
    assert agent.poll() is None
    assert not list(box.home.parent.glob("escaped*"))


def test_drain_finishes_what_runs_then_ends(box: AgentBox) -> None:
    agent = box.start()
    attempt = box.python("import time\ntime.sleep(0.7)\n")
    box.status(attempt)
    box.yard.drain = True
    with box.yard.changed:
        box.yard.changed.notify_all()
    assert box.end(attempt)["exit_code"] == 0
    assert agent.wait(10) == 0
    polls = sum(path.endswith("/poll") for _, path in box.yard.requests)
    assert polls < 20, "no busy loop while draining"


def test_sigterm_ends_the_agent_and_no_run(box: AgentBox) -> None:
    agent = box.start()
    attempt = box.python(SLEEPER)
    status = box.status(attempt)
    started = time.monotonic()
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(20) == 0
    assert time.monotonic() - started < 10.0
    assert procs.is_alive(status["pid"], status["pid_start"])


def test_a_second_agent_of_the_home_refuses(box: AgentBox) -> None:
    first = box.start()
    wait_for(lambda: box.yard.hellos)
    lib = library.install(str(box.home))
    second = subprocess.run(
        [sys.executable, "-I", "-S", lib, "--home", str(box.home), "--server", box.server.url],
        capture_output=True, env=box.environ, timeout=20,
    )  # fmt: skip
    assert second.returncode == 1
    assert b"runs on this host already (pid %d)" % first.pid in second.stderr
    assert first.poll() is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hom"], b"unknown option --hom"),
        (["--home"], b"needs a value"),
        (["--token-file", "/no/file"], b"cannot be read"),
    ],
)
def test_bad_usage_is_said(box: AgentBox, words: list[str], said: bytes) -> None:
    lib = library.install(str(box.home))
    done = subprocess.run(
        [sys.executable, "-I", "-S", lib, *words], capture_output=True, timeout=20,
        env=dict(box.environ, RUNYARD_HOME=str(box.home)),
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr
    assert b"Traceback" not in done.stderr


def test_the_wall_clock_does_not_matter(box: AgentBox) -> None:
    """The agent's clock jumps by a year with every look at it, to and fro."""
    lib = library.install(str(box.home))
    code = (
        "import itertools, sys, time\n"
        "jump, real, real_ns = itertools.cycle((-31536000, 31536000)), time.time, time.time_ns\n"
        "time.time = lambda: real() + next(jump)\n"
        "time.time_ns = lambda: real_ns() + next(jump) * 10**9\n"
        "sys.path.insert(0, sys.argv.pop(1))\n"
        "from runyard.agent.main import main\nsys.exit(main())"
    )
    box.yard.fault("503", "POST", "/(phase|finish|poll|heartbeat)$", times=4)
    agent = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code, lib, "--home", str(box.home), "--server", box.server.url],
        env=box.environ, start_new_session=True,
    )  # fmt: skip
    box.agents.append(agent)
    assert box.end(box.run())["exit_code"] == 0
    sleeper = box.python(SLEEPER)
    box.status(sleeper)
    box.yard.stop(sleeper, 0.0)
    assert box.end(sleeper)["reason"] == "stopped"
    beats = len(box.yard.heartbeats)
    wait_for(lambda: len(box.yard.heartbeats) >= beats + 2)
    assert agent.poll() is None


def test_a_full_disk_at_the_start_is_reported(box: AgentBox) -> None:
    box.start()
    wait_for(lambda: box.yard.hellos)
    value = assignment(box.tree({"a": "1"}), ["/bin/true"])
    blocked = box.home / "runs"
    blocked.write_text("a file where a directory should be")
    end = box.end(box.submit(value))
    assert (end["reason"], end["origin"]) == ("staging_failed", "infra")
    assert json.dumps(end)


def test_a_stop_that_cannot_be_written_down_stops_the_run_all_the_same(box: AgentBox) -> None:
    """As on a disk that the run has filled."""
    agent = box.start()
    attempt = box.python(SLEEPER)
    box.status(attempt)
    wait_for((box.run_dir(attempt) / ".runyard" / "log.1").read_bytes, what="the program")
    os.mkdir(os.path.join(box.paths.attempt_dir(attempt), "stop.json"))
    box.yard.stop(attempt, 5.0)
    end = box.end(attempt)
    assert (end["reason"], end["origin"], end["signal"]) == ("stopped", "human", signal.SIGTERM)
    assert agent.poll() is None
