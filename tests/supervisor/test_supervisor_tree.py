"""After the death of a supervisor: what it left is found, told from what is not its own, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runyard.agent import launch, tree
from runyard.wire import ids, procs
from tests.supervisor.supervised import NAP, SUDO, TREE, UNTOUCHABLE, Attempt, alive, lacking, marked, python, until

Make = Callable[..., Attempt]


def _orphaned(one: Attempt) -> dict[str, Any]:
    """Kill the supervisor; return what it had written."""
    status = one.status()
    os.kill(one.pid, signal.SIGKILL)
    until(lambda: launch.reap(one.pid))
    return status


@pytest.mark.parametrize("lacks", [(), ("cgroup",)], ids=str)
def test_program_outlives_its_supervisor_until_its_tree_is_ended(attempt: Make, lacks: tuple[str, ...]) -> None:
    # With a control group the process that shed its environment, session and parents is found as well.
    code = TREE if not lacks else TREE.replace(", {})", ", os.environ)")
    one = attempt(python(code, "deaf", NAP), lacks=lacks).start()
    pids = until(lambda: p if len(p := [int(line) for line in one.log().split()]) == 4 else None)
    if not lacks and not one.status()["cgroup"]:
        lacking("no control group may be made here")
    status = _orphaned(one)
    assert not launch.is_supervised(str(one.dir)) and "end" not in one.status()
    time.sleep(0.1)
    assert all(alive(pid) for pid in pids), "no SIGHUP when the terminal goes away"
    found = tree.survivors(one.id, status)
    assert {process.pid for process in found} == set(pids)
    assert tree.end_tree(one.id, status) == []
    assert not any(alive(pid) for pid in pids)
    assert tree.survivors(one.id, status) == []
    assert not status["cgroup"] or not os.path.exists(status["cgroup"])


def test_process_without_the_marker_is_found_by_its_session(attempt: Make) -> None:
    one = attempt(["sh", "-c", "env -i sleep 74 & exec sleep 75"], lacks=("cgroup",)).start().running()
    until(lambda: len(tree.survivors(one.id, one.status())) == 2)
    status = _orphaned(one)
    assert sorted(process.name for process in tree.survivors(one.id, status)) == ["sleep", "sleep"]
    assert tree.end_tree(one.id, status) == []


def test_tree_is_found_without_a_status(attempt: Make) -> None:
    one = attempt(["sleep", "76"], lacks=("cgroup",)).start().running()
    pid = one.status()["pid"]
    _orphaned(one)
    assert [process.pid for process in tree.end_tree(one.id, None)] == []
    assert not alive(pid)


def test_supervisor_killed_at_any_moment_of_its_start_leaves_nothing_that_is_not_found(attempt: Make) -> None:
    began = time.monotonic()
    attempt(["true"]).run()
    whole = time.monotonic() - began
    for step in range(16):
        one = attempt(["sh", "-c", "touch ran-%d; exec sleep 77" % step]).start()
        deadline = time.monotonic() + whole * step / 10
        while time.monotonic() < deadline:
            pass
        os.kill(one.pid, signal.SIGKILL)
        until(lambda one=one: launch.reap(one.pid))  # type: ignore[misc]
        status = launch.read_status(str(one.dir))
        if (one.cwd / ("ran-%d" % step)).exists():
            assert status is not None, "nothing is executed before it is written down"
        assert tree.end_tree(one.id, status) == []
        time.sleep(0.02)
        assert tree.survivors(one.id, status) == []
        assert marked(one.id) == []


@pytest.mark.parametrize("stopped", [True, False])
def test_what_outlives_its_kill_is_named_in_the_end_and_found_by_that(attempt: Make, stopped: bool) -> None:
    code = python(UNTOUCHABLE, SUDO, "60" if stopped else "0.5")
    one = attempt(code, lacks=("cgroup", "rights", "patience")).start()
    pid = int(one.says(b"\n"))
    if stopped:
        one.stop(0)
    end = one.end()
    assert end["unkilled"] == [[pid, procs.start_time(pid), "sudo"]]
    assert marked(one.id) == [], "nothing else tells whose it is"
    assert [process.pid for process in tree.survivors(one.id, one.status())] == [pid]
    assert tree.end_tree(one.id, one.status()) == []
    assert not alive(pid)


def test_survivors_of_a_live_supervisor_are_its_program_not_itself(attempt: Make) -> None:
    one = attempt(["sleep", "78"]).start().running()
    assert [process.pid for process in tree.survivors(one.id, one.status())] == [one.status()["pid"]]
    one.stop(0)
    one.end()
    assert tree.survivors(one.id, one.status()) == []


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the same user that has nothing to do with the attempt, in a session of its own."""
    process = subprocess.Popen(["sleep", "79"], start_new_session=True, env={"RUNYARD_ATTEMPT": ids.new_attempt_id()})
    yield process
    process.kill()
    process.wait()


def test_reused_pids_are_not_killed(stranger: subprocess.Popen[bytes]) -> None:
    """The recorded pids now belong to somebody else, who even leads a session of that number."""
    status = {
        "supervisor_pid": stranger.pid,
        "supervisor_start": 1,
        "boot_id": procs.boot_id(),
        "pid": stranger.pid,
        "pid_start": 1,
        "cgroup": None,
    }
    assert tree.end_tree(ids.new_attempt_id(), status) == []
    assert stranger.poll() is None and alive(stranger.pid)


def test_status_of_an_earlier_boot_names_nothing(stranger: subprocess.Popen[bytes]) -> None:
    start = procs.start_time(stranger.pid)
    status = {"supervisor_pid": 1, "supervisor_start": 1, "boot_id": "other", "pid": stranger.pid, "pid_start": start}
    assert tree.survivors(ids.new_attempt_id(), status) == []
    assert tree.end_tree(ids.new_attempt_id(), status) == []
    assert alive(stranger.pid)


def test_a_process_whose_first_thread_has_ended_lives(attempt: Make) -> None:
    code = """if True:
        import ctypes, threading, time
        threading.Thread(target=time.sleep, args=(1000,)).start()
        print("two", flush=True)
        ctypes.CDLL(None).pthread_exit(None)
    """
    one = attempt(python(code)).start()
    one.says(b"two")
    pid = one.status()["pid"]
    until(lambda: Path("/proc/%d/stat" % pid).read_bytes().rpartition(b")")[2].split()[0] == b"Z")
    assert procs.is_alive(pid, one.status()["pid_start"])
    assert one.stop(0.0)
    assert one.end()["reason"] == "stopped"
    assert not procs.is_alive(pid, one.status()["pid_start"])


def test_marker_must_match_whole(attempt: Make) -> None:
    value = ids.new_attempt_id()
    process = subprocess.Popen(["sleep", "80"], env={"X_RUNYARD_ATTEMPT": value, "RUNYARD_ATTEMPT": value + "0"})
    try:
        assert tree.survivors(value, None) == []
        assert [found.pid for found in tree.survivors(value + "0", None)] == [process.pid]
    finally:
        process.kill()
        process.wait()


def test_caller_is_never_among_them(monkeypatch: pytest.MonkeyPatch, lib: Path) -> None:
    """An agent that was itself started within a run carries that run's marker."""
    value = ids.new_attempt_id()
    code = "import sys; sys.path.insert(0, sys.argv[1]); from runyard.agent import tree; print(tree.end_tree(sys.argv[2], None))"
    done = subprocess.run(
        [*python(code), str(lib), value], env={"RUNYARD_ATTEMPT": value}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_stat_of_a_process_with_an_odd_name(tmp_path: Path) -> None:
    name = "a) R 1 (b"
    os.symlink("/bin/sleep", tmp_path / name)
    process = subprocess.Popen([str(tmp_path / name), "81"])
    try:
        until(lambda: tree.processes()[process.pid].name == name)
        found = tree.processes()[process.pid]
        assert found.parent == os.getpid() and found.session == os.getsid(0)
        assert found.started == procs.start_time(process.pid)
    finally:
        process.kill()
        process.wait()
