"""What outlives its kill keeps the slots of its attempt, whichever agent looks on, and the end waits for it."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest

from runyard.wire import library, procs
from tests.agent.fake_server import wait_for
from tests.supervisor.supervised import SOURCE, SUDO, UNTOUCHABLE, take_away

if TYPE_CHECKING:
    from pathlib import Path

    from tests.agent.conftest import AgentBox


@pytest.fixture
def powerless(box: AgentBox, tmp_path: Path) -> str:
    """The client half where a process named sudo cannot be killed."""
    package = tmp_path / "runyard"
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__", "server", "store", "services"))
    take_away(package, ("cgroup", "rights", "patience", "agents_patience"))
    return library.install(str(box.home), str(package))


def untouchable(box: AgentBox, slot: str) -> tuple[str, int]:
    """Assign a run that leaves what cannot be killed; returns its attempt, and that process."""
    code = "import sys\nsys.argv[1:] = [%r, '60']\n%s" % (SUDO, UNTOUCHABLE)
    attempt = box.python(code, slots=[slot])
    box.status(attempt)
    return attempt, int(wait_for((box.run_dir(attempt) / ".runyard" / "log.1").read_bytes))


def slot_of(box: AgentBox, name: str) -> dict[str, Any]:
    """Return a slot as the last heartbeat says it is."""
    slots = box.yard.heartbeats[-1]["slots"] if box.yard.heartbeats else []
    return next((slot for slot in slots if slot["name"] == name), {"free": True, "why": ""})


@pytest.mark.parametrize("how", ["stopped", "supervisor died"])
def test_a_slot_is_taken_as_long_as_what_was_killed_lives(box: AgentBox, powerless: str, how: str) -> None:
    agent = box.start(lib=powerless)
    attempt, pid = untouchable(box, "cpu3")
    if how == "stopped":
        box.yard.stop(attempt, 0.0)
        wait_for(lambda: box.status(attempt).get("end"))
    else:
        os.kill(box.status(attempt)["supervisor_pid"], signal.SIGKILL)
    wait_for(lambda: not slot_of(box, "cpu3")["free"], 30.0, "the slot to be taken, " + box.log())
    assert slot_of(box, "cpu3")["why"] == "cannot be killed: %d sudo" % pid
    assert box.yard.heartbeats[-1]["attempts"][attempt]["phase"] == "stopping"
    assert slot_of(box, "cpu4")["free"]
    intruder = box.run(slots=["cpu3"])
    wait_for(lambda: sum(intruder in beat["attempts"] for beat in list(box.yard.heartbeats)) > 3)

    box.kill(agent)
    seen = len(box.yard.heartbeats)
    box.start(lib=powerless)
    wait_for(lambda: len(box.yard.heartbeats) > seen and not slot_of(box, "cpu3")["free"], 30.0)
    assert attempt in box.yard.hellos[1]["attempts"]
    wait_for(lambda: intruder in box.yard.handed_back)
    assert intruder not in box.yard.phases, "it was never started"
    assert box.yard.end_of(attempt) is None
    assert procs.start_time(pid) is not None

    os.kill(pid, signal.SIGUSR1)
    end = box.end(attempt)
    assert procs.start_time(pid) is None
    assert end["reason"] == ("stopped" if how == "stopped" else "supervisor_died")
    assert end["detail"] == "its slots were kept until what could not be killed was gone: %d sudo" % pid
    assert slot_of(box, "cpu3") == dict(slot_of(box, "cpu3"), free=True, why=""), "before the end was reported"
    assert box.end(box.run(slots=["cpu3"]))["exit_code"] == 0
