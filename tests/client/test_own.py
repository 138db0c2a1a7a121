"""Runs that a program begins by itself, one after the other: each is a run of its own, and the program keeps nothing of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.client.streams import messages, program, rows
from tests.house.test_old_pythons import INTERPRETERS


def by_hand(directory: Path, code: str, python: str = sys.executable) -> tuple[list[Path], str]:
    """Run a program with a home in ``directory``; return the directories of its runs and what it said on stderr."""
    home = directory / "home"
    none = {"RUNYARD_SPOOL": "", "RUNYARD_RUN_ID": "", "RUNYARD_RUN_DIR": ""}
    done = program(directory, "import runyard, sys\n" + code, python=python, RUNYARD_HOME=str(home), **none)
    assert done.returncode == 0, done.stderr
    found = [path.parent for path in home.glob("hosts/*/own/*/run.json")]
    return sorted(found, key=lambda path: int(record(path)["created_us"])), str(done.stderr)


def record(run: Path, name: str = "run.json") -> dict[str, Any]:
    return dict(json.loads((run / name).read_text()))


MANY = """
for number in range(20):
    with runyard.init(project="many", params={"number": number}) as run:
        runyard.log({"loss": number})
        run.log({"loss": number + 0.5})
"""


@pytest.mark.parametrize("version", INTERPRETERS)
def test_each_init_after_an_end_begins_another_run(tmp_path: Path, version: str) -> None:
    runs, said = by_hand(tmp_path, MANY, INTERPRETERS[version])
    assert (len(runs), said) == (20, "")
    for number, run in enumerate(runs):
        assert record(run, "finished.json")["exit_code"] == 0
        assert rows(run / "spool") == [(0, {"loss": number}), (1, {"loss": number + 0.5})]
        assert [message["values"] for message in messages(run / "spool", "params")] == [{"number": number}]


def test_the_code_of_runs_that_follow_each_other_is_described_together(tmp_path: Path) -> None:
    runs, _ = by_hand(tmp_path, MANY)
    assert len({record(run)["describer"] for run in runs}) < len(runs)
    deadline = time.monotonic() + 30
    while not all((run / "code.json").exists() for run in runs):
        assert time.monotonic() < deadline, "not all were described"
        time.sleep(0.02)
    trees = {record(run, "code.json")["spec"]["snapshot"]["tree"] for run in runs}
    assert len(trees) == 1 and None not in trees


CHANGED = """
import os, time
before = None
for number in range(3):
    with open("code.py", "w") as file:
        file.write("x = %d\\n" % number)
    run = runyard.init()
    runyard.finish()
    described = os.path.join(os.path.dirname(run.directory), "code.json")
    while not os.path.exists(described):
        time.sleep(0.01)
"""


def test_each_run_has_the_code_as_it_was_when_it_began(tmp_path: Path) -> None:
    runs, _ = by_hand(tmp_path, CHANGED)
    trees = [record(run, "code.json")["spec"]["snapshot"]["tree"] for run in runs]
    repository = tmp_path / "home" / "snapshots.git"
    shown = [
        subprocess.run(
            ["git", "-C", str(repository), "show", f"{tree}:code.py"], capture_output=True, text=True, check=True
        ).stdout
        for tree in trees
    ]
    assert shown == ["x = 0\n", "x = 1\n", "x = 2\n"]


def test_runs_of_another_directory_or_environment_are_described_by_themselves(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    code = """
import os
def one():
    with runyard.init():
        pass
one()
os.chdir("other")
one()
os.environ["COLOUR"] = "blue"
one()
"""
    runs, _ = by_hand(tmp_path, code)
    assert len({record(run)["describer"] for run in runs}) == 3


def test_what_is_logged_to_a_finished_run_is_lost_and_that_is_said_once(tmp_path: Path) -> None:
    code = "run = runyard.init()\nrun.finish()\nrun.log({'late': 1.0})\nrun.log({'late': 1.0})\nrun.params(a=1)\n"
    runs, said = by_hand(tmp_path, code)
    assert said.count("\n") == 1 and "runyard.init() begins another" in said
    assert rows(runs[0] / "spool") == []


def test_the_program_keeps_nothing_of_a_run_that_is_over(tmp_path: Path) -> None:
    """Its directory is gone by then, too: an agent has taken it in."""
    code = """
import gc, os, shutil, weakref
hook = sys.excepthook
for _ in range(3):
    run = runyard.init()
    runyard.log({"loss": 1.0})
    assert sys.excepthook is not hook
    runyard.finish()
    shutil.rmtree(os.path.dirname(run.directory))
gone = weakref.ref(run)
del run
gc.collect()
assert sys.excepthook is hook and gone() is None
assert os.fork() or os._exit(0) or True
"""
    runs, said = by_hand(tmp_path, code)
    assert (runs, said) == ([], "")


def test_an_exception_fails_the_run_that_is_in_progress_and_no_other(tmp_path: Path) -> None:
    code = "runyard.init()\nrunyard.finish()\nrunyard.init()\nraise ValueError('x')\n"
    with pytest.raises(AssertionError, match="ValueError: x"):
        by_hand(tmp_path, code)
    ends = [
        (record(path.parent)["created_us"], record(path.parent, "finished.json")["exit_code"])
        for path in (tmp_path / "home").glob("hosts/*/own/*/run.json")
    ]
    assert [code for _, code in sorted(ends)] == [0, 1]


@pytest.mark.parametrize(
    ("code", "expected"),
    [("sys.exit(3)", 3), ("sys.exit()", 0), ("sys.exit('no')", 1), ("sys.exit(-1)", 255), ("raise ValueError", 1),
     ("import argparse; argparse.ArgumentParser().error('x')", 2)],
)  # fmt: skip
def test_how_the_program_leaves_is_how_its_run_ends(tmp_path: Path, code: str, expected: int) -> None:
    home = tmp_path / "home"
    none = {"RUNYARD_SPOOL": "", "RUNYARD_RUN_ID": "", "RUNYARD_RUN_DIR": ""}
    done = program(tmp_path, "import runyard, sys\nrunyard.log({'loss': 1})\n" + code, RUNYARD_HOME=str(home), **none)
    assert done.returncode == expected
    (path,) = home.glob("hosts/*/own/*/finished.json")
    assert json.loads(path.read_text())["exit_code"] == expected


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_log_to_the_run_of_their_program(tmp_path: Path, method: str) -> None:
    code = f"""
import multiprocessing
def work(number):
    runyard.init()
    runyard.log({{"loss": float(number)}}, step=number)
if __name__ == "__main__":
    runyard.init(project="p")
    with multiprocessing.get_context("{method}").Pool(2) as pool:
        pool.map(work, range(4))
        pool.close(); pool.join()
"""
    (run,), _ = by_hand(tmp_path, code)
    assert sorted(step for step, _ in rows(run / "spool")) == [0, 1, 2, 3]


def test_a_worker_whose_program_has_no_run_ends_its_own(tmp_path: Path) -> None:
    code = """
import multiprocessing
def work(): runyard.log({"loss": 1.0})
worker = multiprocessing.get_context("fork").Process(target=work)
worker.start(); worker.join()
"""
    (run,), _ = by_hand(tmp_path, code)
    assert record(run, "finished.json")["exit_code"] == 0


def test_a_silent_rank_begins_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert by_hand(tmp_path, "runyard.init(project='p').log({'loss': 1})") == ([], "")


def test_a_run_in_a_file_begins_none_where_it_is_read(tmp_path: Path) -> None:
    runs, _ = by_hand(tmp_path, "import pickle; open('run.pkl', 'wb').write(pickle.dumps(runyard.init()))")
    assert len(runs) == 1
    code = "import pickle; pickle.load(open('run.pkl', 'rb')).log({'loss': 1})"
    assert by_hand(tmp_path, code)[0] == runs
