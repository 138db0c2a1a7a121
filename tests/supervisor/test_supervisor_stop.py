"""Stopping: everything that came from the program gets SIGTERM at once, has its grace, and is gone after it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runyard.agent import launch, tree
from runyard.wire import files, procs, states
from tests.supervisor.supervised import NAP, TREE, Attempt, alive, fill, marked, python, until

Make = Callable[..., Attempt]

HANDLER = """if True:
    import os, signal, sys, time
    def stop(number, frame):
        os.write(1, b"TERM %d\\n" % (time.monotonic_ns() // 1000))
        time.sleep(float(sys.argv[1])); os.write(1, b"saved\\n"); os._exit(int(sys.argv[2]))
    signal.signal(signal.SIGTERM, stop)
    os.write(1, b"ready\\n")
    while True: time.sleep(100)
"""
STUBBORN = """if True:
    import os, signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(1, b"ready\\n")
    while True: time.sleep(0.01); %s
"""


def test_sigterm_comes_at_once_and_the_program_may_finish(attempt: Make) -> None:
    one = attempt(python(HANDLER, "0.3", "5")).start()
    one.says(b"ready\n")
    asked = time.monotonic_ns() // 1000
    assert one.stop() is True
    end = one.end()
    lines = one.log().splitlines()
    assert int(lines[1].split()[1]) - asked < 200_000
    assert lines[2] == b"saved"
    assert (end["exit_code"], end["signal"]) == (5, None)
    assert (end["reason"], end["origin"], end["leftover"]) == (states.STOPPED, states.HUMAN, [])


def test_reason_and_origin_are_those_of_the_request(attempt: Make) -> None:
    one = attempt(["sleep", "60"]).start().running()
    one.stop(5, states.SUPERSEDED, states.INFRA)
    end = one.end()
    assert (end["reason"], end["origin"], end["signal"]) == (states.SUPERSEDED, states.INFRA, signal.SIGTERM)


def test_sigterm_without_a_request_is_a_stop_with_the_default_grace(attempt: Make) -> None:
    one = attempt(python(STUBBORN % ""), grace_s=0.5).start()
    one.says(b"ready")
    os.kill(one.pid, signal.SIGTERM)
    end = one.end()
    assert (end["reason"], end["origin"], end["signal"]) == (states.STOPPED, states.HUMAN, signal.SIGKILL)


@pytest.mark.parametrize("prints", ["pass", "os.write(1, b'x' * 4096)"])
def test_program_that_ignores_sigterm_is_killed_after_its_grace(attempt: Make, prints: str) -> None:
    one = attempt(python(STUBBORN % prints)).start()
    one.says(b"ready")
    began = time.monotonic()
    one.stop(0.7)
    end = one.end()
    assert 0.65 < time.monotonic() - began < 10
    assert (end["signal"], end["reason"]) == (signal.SIGKILL, states.STOPPED)


def test_second_request_shortens_the_grace(attempt: Make) -> None:
    one = attempt(python(STUBBORN % "")).start()
    one.says(b"ready")
    one.stop(60, "time_limit", "scheduler")
    time.sleep(0.2)
    began = time.monotonic()
    one.stop(0)
    end = one.end()
    assert time.monotonic() - began < 10
    assert end["signal"] == signal.SIGKILL and end["reason"] == states.TIME_LIMIT


def test_second_request_never_lengthens_the_grace(attempt: Make) -> None:
    one = attempt(python(STUBBORN % "")).start()
    one.says(b"ready")
    began = time.monotonic()
    one.stop(0.8)
    time.sleep(0.2)
    one.stop(60)
    one.end()
    assert time.monotonic() - began < 10


def test_no_grace_kills_at_once(attempt: Make) -> None:
    one = attempt(python(HANDLER, "60", "0")).start()
    one.says(b"ready")
    one.stop(0)
    assert one.end()["signal"] == signal.SIGKILL
    assert b"TERM" not in one.log()


@pytest.mark.parametrize("asked_before", [False, True])
def test_no_grace_kills_at_once_on_a_full_disk(
    small_disk: Callable[[int], Path], attempt: Make, tmp_path: Path, asked_before: bool
) -> None:
    disk = small_disk(1 << 20)
    one = attempt(python(STUBBORN % ""), log=str(tmp_path / "log.1"), times=str(tmp_path / "times.1"))
    one.move(disk)
    one.start()
    one.says(b"ready")
    if asked_before:
        assert one.stop(60, states.SUPERSEDED, states.INFRA)
    fill(disk)
    began = time.monotonic()
    assert one.stop(0)
    end = one.end()
    assert time.monotonic() - began < 10
    assert (end["reason"], end["signal"]) == (states.SUPERSEDED if asked_before else states.STOPPED, signal.SIGKILL)


def _pids(one: Attempt, count: int) -> list[int]:
    return until(lambda: pids if len(pids := [int(line) for line in one.log().split()]) == count else None)


@pytest.mark.parametrize("lacks", [(), ("cgroup",)], ids=str)
@pytest.mark.parametrize("how", ["hears", "deaf"])
def test_stop_reaches_the_whole_tree(attempt: Make, how: str, lacks: tuple[str, ...]) -> None:
    one = attempt(python(TREE, how, NAP), lacks=lacks).start()
    pids = _pids(one, 4)
    assert all(alive(pid) for pid in pids)
    one.stop(0.5 if how == "deaf" else 30)
    one.end(10)
    assert not any(alive(pid) for pid in pids)


def test_stop_without_help_of_the_kernel_reaches_what_is_marked(attempt: Make) -> None:
    one = attempt(python(TREE.replace(", {})", ", os.environ)"), "deaf", NAP), lacks=("cgroup", "subreaper")).start()
    pids = _pids(one, 4)
    one.stop(0.3)
    assert one.end(10)["reason"] == states.STOPPED
    assert not any(alive(pid) for pid in pids)


def test_where_processes_cannot_be_listed_the_group_is_stopped(attempt: Make) -> None:
    lacks = ("cgroup", "subreaper", "proc")
    one = attempt(["sh", "-c", "sleep 81 & echo $!; sleep 82"], lacks=lacks).start()
    pid = int(one.says(b"\n"))
    one.stop(5)
    assert one.end(10)["signal"] == signal.SIGTERM and not alive(pid)
    one = attempt(["sh", "-c", "trap '' TERM; sleep 83 & echo $!; sleep 0.2; exit 3"], lacks=lacks).start()
    pid = int(one.says(b"\n"))
    end = one.end(10)
    assert end["exit_code"] == 3 and len(end["leftover"]) == 1 and not alive(pid)


def test_stopped_processes_are_woken_to_hear_it(attempt: Make) -> None:
    code = HANDLER.replace("while True:", "os.kill(os.getpid(), signal.SIGSTOP)\n    while True:")
    one = attempt(python(code, "0", "6")).start()
    one.says(b"ready\n")
    until(lambda: b"\nState:\tT" in Path("/proc/%d/status" % one.status()["pid"]).read_bytes())
    one.stop(20)
    assert one.end(10)["exit_code"] == 6


def test_a_group_is_killed_at_once_with_those_that_nobody_has_seen_yet() -> None:
    """A process that was forked after the look at all processes is in no table, but in the group."""
    shell = subprocess.Popen(["sh", "-c", "sleep 84 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True)
    assert shell.stdout is not None
    with shell, shell.stdout:
        pid = int(shell.stdout.readline())
        table = {shell.pid: tree.processes()[shell.pid]}
        looks = [(table, {shell.pid}), (table, set[int]())]
        tree._sweep(lambda: looks.pop(0))
        shell.wait(10)
    until(lambda: not alive(pid))


@pytest.mark.parametrize("lacks", [(), ("cgroup",)], ids=str)
def test_forks_do_not_outrun_the_kill(attempt: Make, lacks: tuple[str, ...]) -> None:
    code = """if True:
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(1, b"ready\\n")
        for _ in range(20):
            if os.fork() == 0:
                while True:
                    pid = os.fork()          # each lives a moment and goes on as its own child
                    if pid: os._exit(0)
                    time.sleep(0.001)
        while True: time.sleep(1)
    """
    one = attempt(python(code), lacks=lacks).start()
    one.says(b"ready")
    time.sleep(0.2)
    one.stop(0.1)
    end = one.end(20)
    assert end["signal"] == signal.SIGKILL
    assert marked(one.id) == []


def test_child_of_a_wrapper_that_dies_first_has_the_whole_grace(attempt: Make) -> None:
    script = '"$0" -I -S -c "$1" 1.9 0 & wait; exit 1'
    one = attempt(["sh", "-c", script, python("")[0], HANDLER]).start()
    one.says(b"ready")
    one.stop(20)
    end = one.end()
    assert one.log().endswith(b"saved\n") and (end["signal"] or end["exit_code"])
    assert end["reason"] == states.STOPPED


def test_a_signal_between_fork_and_execution_is_not_lost(attempt: Make) -> None:
    """The forked process has the supervisor's handlers for a moment; here it is a long one."""
    one = attempt(["sh", "-c", "echo executed"], lacks=("haste",)).start()
    pid = until(lambda: one.status().get("pid"))
    os.kill(pid, signal.SIGTERM)
    end = one.end()
    assert (end["signal"], one.log()) == (signal.SIGTERM, b"")


def test_stop_before_the_supervisor_can_hear_it(attempt: Make) -> None:
    for _ in range(5):
        one = attempt(["sh", "-c", "echo ran"]).start()
        assert one.stop(10) is True  # within a millisecond of its fork
        end = one.end()
        assert (end["reason"], end["origin"]) == (states.STOPPED, states.HUMAN)
        assert end["exit_code"] is None and end["signal"] is None and end["started_at"] is None
        assert one.log() == b"" and not (one.dir / "launch.json").exists()


def test_request_without_a_signal_is_found_before_the_start(attempt: Make) -> None:
    one = attempt(["sh", "-c", "echo ran"])
    assert launch.request_stop(str(one.dir), 10, states.STOPPED, states.HUMAN) is False
    assert one.run()["reason"] == states.STOPPED and one.log() == b""


def test_a_leave_that_has_grown_old_starts_nothing(attempt: Make) -> None:
    """The agent may have been stopped for hours between its own look at the time and the start of the supervisor."""
    end = attempt(["sh", "-c", "echo ran"], start_by=procs.uptime_s() - 1.0).run()
    assert (end["reason"], end["origin"], end["started_at"]) == (states.HANDED_BACK, states.SCHEDULER, None)
    young = attempt(["sh", "-c", "echo ran"], start_by=procs.uptime_s() + 60.0)
    assert young.run()["reason"] == states.EXITED


def test_stops_at_any_moment_leave_a_true_end(attempt: Make) -> None:
    """The program ends by itself, is stopped, or was never executed; the end says which, and no process is left."""
    began = time.monotonic()
    attempt(["sh", "-c", "sleep 0.03"]).run()
    whole = time.monotonic() - began
    reasons = set()
    for step in range(14):
        one = attempt(["sh", "-c", "echo ran; exec sleep 0.03"]).start()
        deadline = time.monotonic() + whole * step / 8
        while time.monotonic() < deadline:
            pass
        one.stop(10)
        end = one.end()
        if end["reason"] == states.EXITED:
            assert end["exit_code"] == 0 and one.log() == b"ran\n"
        else:
            assert end["reason"] == states.STOPPED
            assert (end["started_at"] is None) <= (one.log() == b"")
        reasons.add((end["reason"], end["started_at"] is None))
        assert not alive(one.status()["pid"])
    assert len(reasons) > 1


def test_stop_after_the_end_changes_nothing(attempt: Make) -> None:
    one = attempt(["sh", "-c", "exit 2"])
    end = one.run()
    assert one.stop() is False
    assert launch.read_status(str(one.dir))["end"] == end  # type: ignore[index]


def test_time_limit(attempt: Make) -> None:
    one = attempt(python(HANDLER, "0.1", "3"), time_limit_s=0.6)
    end = one.run()
    assert (end["reason"], end["origin"], end["exit_code"]) == (states.TIME_LIMIT, states.SCHEDULER, 3)
    assert 500_000 < end["ended_at"] - end["started_at"] < 3_000_000


def test_limits_may_be_absurd(attempt: Make) -> None:
    one = attempt(["sleep", "0.1"], time_limit_s=1e30, grace_s=1e30)
    assert one.run()["exit_code"] == 0


def test_time_limit_kills_after_the_grace(attempt: Make) -> None:
    one = attempt(python(STUBBORN % ""), time_limit_s=0.4, grace_s=0.4)
    end = one.run()
    assert (end["reason"], end["signal"]) == (states.TIME_LIMIT, signal.SIGKILL)


def test_what_a_program_leaves_behind_is_ended(attempt: Make) -> None:
    took: list[float] = []
    while min(took, default=9.0) >= 1.4 and len(took) < 4:  # a busy machine may be slow, but not every time
        one = attempt(["sh", "-c", "setsid sleep 71 & sleep 72 & sleep 0.2; exit 3"])
        began = time.monotonic()
        end = one.run()
        took.append(time.monotonic() - began)
        assert end["exit_code"] == 3 and end["reason"] == states.EXITED
        assert sorted(end["leftover"]) == ["sleep", "sleep"]
    assert min(took) < 1.4, "both hear SIGTERM"


def test_what_a_program_leaves_behind_is_killed_if_deaf(attempt: Make) -> None:
    code = TREE.replace("os.wait()\n    nap()", "os.wait(); time.sleep(0.5); os._exit(0)")
    one = attempt(python(code, "deaf", NAP)).start()
    pids = _pids(one, 3)
    end = one.end()
    assert end["exit_code"] == 0 and len(end["leftover"]) == 3
    assert not any(alive(pid) for pid in pids)


def test_stop_while_leftovers_have_their_grace(attempt: Make) -> None:
    one = attempt(["sh", "-c", "(trap '' TERM; exec sleep 73) & sleep 0.1; exit 3"]).start().running()
    until(lambda: not alive(one.status()["pid"]))
    one.stop(0)
    end = one.end()
    assert (end["reason"], end["exit_code"], end["leftover"]) == (states.EXITED, 3, ["sleep"])


def test_unreadable_request_is_a_stop_all_the_same(attempt: Make) -> None:
    one = attempt(["sleep", "60"]).start().running()
    files.write_json(str(one.dir / "stop.json"), {"grace_s": "soon", "reason": ["x"], "origin": None})
    os.kill(one.pid, signal.SIGTERM)
    end = one.end()
    assert (end["reason"], end["origin"]) == (states.STOPPED, states.HUMAN)
