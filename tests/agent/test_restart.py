"""The agent is killed and started again: nothing is lost, nothing is executed or reported twice."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runyard.agent import adopt
from runyard.agent.context import Context
from runyard.agent.link import Target
from runyard.agent.state import Attempt
from runyard.wire import files, library, paths, procs, settings
from runyard.wire import tree as trees
from tests.agent.fake_server import DROP_AFTER, assignment, wait_for
from tests.agent.test_life import SLEEPER, WITNESS, witnessed

if TYPE_CHECKING:
    from tests.agent.conftest import AgentBox


def test_live_runs_are_found_again(box: AgentBox) -> None:
    agent = box.start()
    attempts = [box.python(SLEEPER, slots=["cpu%d" % n]) for n in range(2)]
    before = [box.status(attempt) for attempt in attempts]
    box.kill(agent)
    box.start()
    wait_for(lambda: len(box.yard.hellos) == 2)
    assert {a: h["phase"] for a, h in box.yard.hellos[1]["attempts"].items()} == dict.fromkeys(attempts, "running")
    wait_for(lambda: box.yard.heartbeats and set(box.yard.heartbeats[-1]["attempts"]) == set(attempts))
    assert [box.status(attempt) for attempt in attempts] == before
    for attempt in attempts:
        box.yard.stop(attempt, 0.0)
        assert box.end(attempt)["reason"] == "stopped"


def is_locked(directory: str) -> bool:
    """Tell whether systemd-tmpfiles would pass a directory over: it takes its lock, exclusively."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def test_no_cleaner_of_old_files_takes_what_lives(box: AgentBox) -> None:
    old = Path(box.paths.host_dir()) / "trees" / "old.tar"
    old.parent.mkdir(parents=True)
    old.write_text("")
    os.utime(old, (1e9, 1e9))
    agent = box.start()
    attempt = box.python(SLEEPER)
    box.status(attempt)
    assert is_locked(box.paths.host_dir())
    assert old.stat().st_atime > 1e9
    box.kill(agent)
    assert not is_locked(box.paths.host_dir())
    assert is_locked(box.paths.attempt_dir(attempt)), "its supervisor lives"


def test_an_end_that_came_meanwhile_is_reported(box: AgentBox) -> None:
    agent = box.start()
    attempt = box.python("import time\ntime.sleep(0.5)\nopen('o.txt', 'w').write('1')\nraise SystemExit(4)\n")
    box.status(attempt)
    box.kill(agent)
    wait_for(lambda: box.status(attempt).get("end"))
    assert box.yard.end_of(attempt) is None
    box.start()
    assert box.end(attempt)["exit_code"] == 4
    assert [output["path"] for output in box.yard.outputs[attempt]] == ["o.txt"]
    wait_for(lambda: not os.path.exists(box.paths.attempt_dir(attempt)))
    assert attempt in box.yard.hellos[1]["attempts"]


def test_an_end_whose_answer_was_lost_is_reported_again(box: AgentBox) -> None:
    box.yard.fault(DROP_AFTER, "POST", "/finish$", times=10_000)
    agent = box.start()
    attempt = box.run()
    box.end(attempt)
    box.kill(agent)
    box.yard.faults.clear()
    box.start()
    wait_for(lambda: not os.path.exists(box.paths.attempt_dir(attempt)))
    first, *rest = box.yard.ends[attempt]
    assert rest
    assert all(end == first for end in rest)


@pytest.mark.parametrize("agent_lives", [True, False])
def test_a_supervisor_that_died_is_reported_after_its_tree_is_gone(box: AgentBox, agent_lives: bool) -> None:
    agent = box.start()
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        "print(child.pid, flush=True)\ntime.sleep(60)\n"
    )
    attempt = box.python(code)
    status = box.status(attempt)
    log = box.run_dir(attempt) / ".runyard" / "log.1"
    child = int(wait_for(log.read_bytes))
    if not agent_lives:
        box.kill(agent)
    os.kill(status["supervisor_pid"], signal.SIGKILL)
    if not agent_lives:
        box.start()
    end = box.end(attempt)
    assert (end["reason"], end["origin"]) == ("supervisor_died", "infra")
    assert end["started_at"] == status["started_at"]
    assert end["log_bytes"] == log.stat().st_size
    assert procs.start_time(child) is None
    assert procs.start_time(status["pid"]) is None


def test_the_end_of_a_supervisor_is_noticed_at_once(box: AgentBox) -> None:
    box.start()
    took: list[float] = []
    while min(took, default=9.0) >= 1.0 and len(took) < 4:  # a busy machine may be slow, but not every time
        attempt = box.python(SLEEPER)
        os.kill(box.status(attempt)["pid"], signal.SIGKILL)
        killed = time.monotonic()
        assert box.end(attempt)["signal"] == 9
        took.append(time.monotonic() - killed)
    assert min(took) < 1.0


def test_an_attempt_that_was_never_started_is_handed_back(box: AgentBox) -> None:
    box.yard.late_s = 30.0
    box.yard.fault("late", "GET", "/trees/")
    agent = box.start()
    attempt, witness = witnessed(box)
    wait_for(lambda: os.path.exists(os.path.join(box.paths.attempt_dir(attempt), "assignment.json")))
    wait_for(lambda: any("/trees/" in path for _, path in list(box.yard.requests)))
    box.kill(agent)
    box.start()
    wait_for(lambda: attempt in box.yard.handed_back)
    wait_for(lambda: not os.path.exists(box.paths.attempt_dir(attempt)))
    assert attempt in box.yard.hellos[1]["attempts"]
    assert not witness.exists()


def test_a_supervisor_about_to_start_is_either_taken_in_or_stopped(box: AgentBox) -> None:
    """The journal says `launch`, and no supervisor has written anything yet: it may come at any moment."""
    agent = box.start()
    wait_for(lambda: box.yard.hellos)
    box.kill(agent)
    value = assignment(box.tree({"main.py": WITNESS}), [sys.executable, "main.py"])
    directory = Path(box.paths.attempt_dir(value["attempt"]))
    directory.mkdir(parents=True)
    files.write_json(str(directory / "assignment.json"), {k: v for k, v in value.items() if k != "env"})
    files.write_json(str(directory / "launch.json"), {"argv": ["/bin/true"], "env": {}})
    box.start()
    wait_for(lambda: value["attempt"] in box.yard.handed_back)
    wait_for(lambda: not directory.exists())


def test_after_a_reboot_the_end_says_so(box: AgentBox) -> None:
    agent = box.start()
    attempt = box.python(SLEEPER)
    status = box.status(attempt)
    box.kill(agent)
    os.kill(status["supervisor_pid"], signal.SIGKILL)
    os.kill(status["pid"], signal.SIGKILL)
    path = os.path.join(box.paths.attempt_dir(attempt), "status.json")
    other = subprocess.Popen(["/bin/sleep", "30"])
    try:
        claim = {"pid": other.pid, "pid_start": procs.start_time(other.pid), "boot_id": "an-earlier-boot"}
        files.write_json(path, dict(status, supervisor_pid=other.pid, supervisor_start=claim["pid_start"], **claim))
        box.start()
        end = box.end(attempt)
        assert (end["reason"], end["origin"]) == ("host_rebooted", "infra")
        assert other.poll() is None, "a pid of an earlier boot names nobody"
    finally:
        other.kill()
        other.wait()


def test_supervisors_of_another_version_are_taken_in(box: AgentBox, tmp_path: Path) -> None:
    package = tmp_path / "runyard"
    source = os.path.dirname(os.path.dirname(os.path.abspath(library.__file__)))
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__", "server", "store", "services"))
    (package / "__init__.py").write_text('__version__ = "0.0.9"\n')
    old = library.install(str(box.home), str(package))
    new = library.install(str(box.home))
    assert os.path.basename(old).startswith("0.0.9-")
    assert old != new
    agent = box.start(lib=old)
    attempt = box.python(SLEEPER)
    pid = box.status(attempt)["supervisor_pid"]
    assert old.encode() in Path("/proc/%d/cmdline" % pid).read_bytes()
    assert box.yard.hellos[0]["version"] == "0.0.9"
    box.kill(agent)
    shutil.rmtree(old)
    box.start(lib=new)
    wait_for(lambda: len(box.yard.hellos) == 2)
    assert attempt in box.yard.hellos[1]["attempts"]
    box.yard.stop(attempt, 0.0)
    assert box.end(attempt)["reason"] == "stopped"


def test_half_written_journals_are_no_obstacle(box: AgentBox) -> None:
    top = Path(os.path.dirname(box.paths.attempt_dir("x")))
    for name, content in (("empty", None), ("torn", b'{"attempt": "to'), ("odd", b"[1]")):
        (top / name).mkdir(parents=True)
        if content is not None:
            (top / name / "assignment.json").write_bytes(content)
    box.start()
    assert box.end(box.run())["exit_code"] == 0
    wait_for(lambda: not list(top.iterdir()))


def test_a_journal_half_removed_is_that_of_no_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent killed while it removes an attempt that has ended must not leave one that looks as if never started."""

    def context() -> Context:
        home = paths.Home(str(tmp_path))
        return Context(home, "", sys.executable, Target("unix:/nowhere"), settings.defaults(), None)

    def killed(path: bytes) -> None:
        os.unlink(os.path.join(os.fsdecode(path), "status.json"))
        raise OSError("cut short")

    value = assignment("", ["true"])
    first = context()
    directory = Path(first.home.attempt_dir(value["attempt"]))
    directory.mkdir(parents=True)
    files.write_json(str(directory / "assignment.json"), {k: v for k, v in value.items() if k != "env"})
    files.write_json(str(directory / "status.json"), {"end": {}})
    files.write_json(str(directory / "reported"), True)
    ((kind, attempt),) = adopt.find(first)
    assert kind == adopt.DONE
    monkeypatch.setattr(trees, "remove_tree", killed)
    first.forget(attempt)
    monkeypatch.undo()
    assert directory.exists()
    assert adopt.find(context()) == []
    assert not directory.exists()


def test_an_epoch_that_comes_while_the_journal_is_removed_brings_nothing_back(tmp_path: Path) -> None:
    value = assignment("", ["true"])
    attempt = Attempt(str(tmp_path / "attempt"), value)
    os.mkdir(attempt.dir)
    attempt.set_epoch(2)
    assert files.read_json(attempt.path("assignment.json"))["epoch"] == 2
    attempt.remove()
    attempt.set_epoch(3)
    assert not os.path.exists(attempt.dir)


def test_an_epoch_that_cannot_be_written_is_kept_in_mind(tmp_path: Path) -> None:
    attempt = Attempt(str(tmp_path / "nowhere"), assignment("", ["true"]))
    attempt.set_epoch(2)
    assert attempt.epoch == 2


def _is_over(box: AgentBox, attempt: str) -> bool:
    return attempt in box.yard.ends or attempt in box.yard.handed_back


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment(box: AgentBox, seed: int) -> None:
    """The agent is killed again and again while runs come and go: each run ends once, and is executed at most once."""
    chance = random.Random(seed)
    box.start()
    marks, attempts = {}, []
    for number in range(8):
        witness = box.home / ("mark-%d" % number)
        env = {"PATH": os.environ["PATH"], "WITNESS": str(witness)}
        code = WITNESS + "import time\ntime.sleep(%f)\n" % (chance.random() * 0.4)
        attempt = box.python(code, env=env, slots=["cpu%d" % (number % 4)])
        marks[attempt] = witness
        attempts.append(attempt)
        time.sleep(chance.random() * 0.3)
        if chance.random() < 0.7:
            box.kill(box.agents[-1])
            box.start()
    for attempt in attempts:
        wait_for(functools.partial(_is_over, box, attempt), 20, box.log())
    for attempt, witness in marks.items():
        ends = box.yard.ends.get(attempt, [])
        assert all(end == ends[0] for end in ends), json.dumps(ends)
        executed = bool(ends) and ends[0]["reason"] == "exited"
        assert (attempt in box.yard.handed_back) == (not ends)
        assert executed or not ends or (ends[0]["reason"], ends[0]["origin"]) == ("not_started", "infra")
        assert (witness.read_text() if witness.exists() else "") == ("x" if executed else "")
    wait_for(lambda: not os.listdir(os.path.dirname(box.paths.attempt_dir("x"))), what="an empty journal")


@pytest.mark.parametrize("server", ["up", "down"])
def test_an_agent_whose_home_is_gone_ends(box: AgentBox, tmp_path: Path, server: str) -> None:
    agent = box.start()
    wait_for(lambda: box.yard.heartbeats)
    if server == "down":
        box.server.down()
    os.rename(box.home, tmp_path / "moved")
    assert agent.wait(20) == 0
    assert "this agent ends" in (tmp_path / "moved" / "agent.err").read_text()
