"""One attempt after another: assigned, staged, granted, executed, stopped, reported."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runyard.wire import files, ids
from tests.agent.fake_server import CPU_SLOTS, assignment, wait_for

if TYPE_CHECKING:
    from tests.agent.conftest import AgentBox

SLEEPER = "import time\nprint('up', flush=True)\ntime.sleep(60)\n"
DEAF = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(60)\n"
WITNESS = "import os\nopen(os.environ['WITNESS'], 'a').write('x')\n"


def witnessed(box: AgentBox, **changes: object) -> tuple[str, Path]:
    """Assign a run that leaves a mark each time it is executed."""
    path = box.home / ("witness-" + ids.new_run_id())
    env = {"PATH": os.environ["PATH"], "WITNESS": str(path)}
    return box.python(WITNESS, env=env, **changes), path


def test_a_run_goes_from_assignment_to_end(box: AgentBox) -> None:
    box.start()
    attempt = box.run()
    end = box.end(attempt)
    assert (end["reason"], end["origin"], end["exit_code"], end["signal"]) == ("exited", "user", 0, None)
    assert end["epoch"] == 1
    assert end["started_at"] <= end["ended_at"]
    assert box.yard.phases[attempt][-1] == "running"
    wait_for(lambda: not os.path.exists(box.paths.attempt_dir(attempt)), what="the attempt directory to go")
    log = next(box.home.glob("runs/digits/*/.runyard/log.1"))
    assert log.read_bytes() == b"hello from the run\n"
    assert end["log_bytes"] == len(b"hello from the run\n")


def test_exit_code_signal_and_missing_program_are_told_apart(box: AgentBox) -> None:
    box.start()
    failed = box.python("raise SystemExit(3)")
    killed = box.python("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    missing = box.run("/no/such/program")
    assert box.end(failed)["exit_code"] == 3
    assert (box.end(killed)["reason"], box.end(killed)["signal"]) == ("signaled", 9)
    end = box.end(missing)
    assert (end["reason"], end["origin"], end["started_at"]) == ("not_started", "user", None)


def test_hello_names_host_account_slots(box: AgentBox) -> None:
    agent = box.start()
    hello = wait_for(lambda: box.yard.hellos)[0]
    assert hello["pid"] == agent.pid
    assert hello["shared_home"] == str(box.home)
    assert [slot["name"] for slot in hello["slots"]] == ["cpu%d" % number for number in range(CPU_SLOTS)]
    assert all(slot["free"] and slot["threads"] >= 1 for slot in hello["slots"])
    assert hello["host"]["cpus"] >= 1
    assert hello["host"]["mem"] > 1 << 20
    assert hello["attempts"] == {}


def test_running_is_granted_before_the_program_is_executed(box: AgentBox) -> None:
    value = assignment(box.tree({"main.py": WITNESS}), [sys.executable, "main.py"])
    witness = box.home / "witness"
    value["env"]["WITNESS"] = str(witness)
    box.yard.fault("500", "POST", "/phase$", times=6)
    box.start()
    box.submit(value)
    wait_for(lambda: sum(path.endswith("/phase") for _, path in list(box.yard.requests)) >= 4)
    assert not witness.exists()
    assert box.end(value["attempt"])["exit_code"] == 0
    assert witness.read_text() == "x"


def test_a_refused_grant_means_that_nothing_is_executed(box: AgentBox) -> None:
    box.start()
    value = assignment(box.tree({"main.py": WITNESS}), [sys.executable, "main.py"])
    witness = box.home / "witness"
    value["env"]["WITNESS"] = str(witness)
    box.yard.refuse_phase[value["attempt"]] = "running"
    box.submit(value)
    end = box.end(value["attempt"])
    assert (end["reason"], end["origin"], end["started_at"]) == ("handed_back", "scheduler", None)
    wait_for(lambda: not os.path.exists(box.paths.attempt_dir(value["attempt"])))
    follower = box.run()
    box.end(follower)
    assert not witness.exists()


def test_the_working_tree(box: AgentBox, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "x.csv").write_text("1,2\n")
    code = (
        "import json, os, pathlib, subprocess\n"
        "head = subprocess.run(['git', 'rev-parse', 'HEAD'], capture_output=True, text=True).stdout.strip()\n"
        "print(json.dumps({'cwd': os.getcwd(), 'head': head, 'data': open('../data/x.csv').read(),"
        " 'link': os.readlink('../latest'), 'mode': os.access('../run.sh', os.X_OK)}))\n"
        "pathlib.Path('model.pt').write_bytes(b'weights')\n"
        "pathlib.Path('../train.py').write_text('changed')\n"
    )
    tree = {
        "sub/main.py": code,
        "run.sh": "#!/bin/sh\n",
        "latest": "->run.sh",
        "train.py": "same\n",
        "keep.txt": "kept",
    }
    box.start()
    attempt = box.run(
        sys.executable, "main.py", contents=tree, spec_cwd="sub",
        spec_links=[{"path": "data", "target": str(data), "why": "ignored data"}],
    )  # fmt: skip
    box.end(attempt)
    run_dir = next((box.home / "runs" / "digits").iterdir())
    said = json.loads((run_dir / ".runyard" / "log.1").read_text())
    assert said["cwd"] == str(run_dir / "digits" / "sub")
    assert said["head"] == "84a516841ba77a5b4648de2cd0dfcb30ea46dbb4"
    assert (said["data"], said["link"], said["mode"]) == ("1,2\n", "run.sh", True)
    outputs = {output["path"]: output for output in box.yard.outputs[attempt]}
    assert sorted(outputs) == ["sub/model.pt", "train.py"]
    assert outputs["sub/model.pt"]["size"] == 7
    assert outputs["sub/model.pt"]["type"] == "model"


def test_the_environment_of_a_run(box: AgentBox) -> None:
    box.start()
    env = {
        "PATH": os.environ["PATH"], "HOME": "/root", "SECRET": "s3", "SLURM_JOB_ID": "7", "RUNYARD_HOME": "/elsewhere",
        "CUDA_VISIBLE_DEVICES": "5", "PYTHONPATH": ":/nowhere/digits/src:/opt/lib", "GIT_DIR": "/x",
    }  # fmt: skip
    code = "import json, os\nprint(json.dumps(dict(os.environ)))"
    attempt = box.run(
        sys.executable, "main.py", contents={"main.py": code, "src/m.py": "", "lib/n.py": ""}, env=env,
        spec_pythonpath=["lib"],
    )  # fmt: skip
    box.end(attempt)
    run_dir = next((box.home / "runs" / "digits").iterdir())
    tree = str(run_dir / "digits")
    said = json.loads((run_dir / ".runyard" / "log.1").read_text())
    assert said["SECRET"] == "s3"
    assert said["RUNYARD_ATTEMPT"] == attempt
    assert said["RUNYARD_RUN_DIR"] == said["PWD"] == tree
    assert said["RUNYARD_PROJECT"] == "digits"
    assert said["RUNYARD_TOKEN"] == "secret-of-the-run"
    assert said["RUNYARD_SERVER"] == box.server.url
    assert said["CUDA_VISIBLE_DEVICES"] == ""
    assert said["PYTHONUNBUFFERED"] == "1"
    assert int(said["OMP_NUM_THREADS"]) >= 1
    assert 20000 <= int(said["MASTER_PORT"]) < 32768
    inject, _, path = said["PYTHONPATH"].partition(":")
    assert path == ":".join([tree + "/lib", tree, tree + "/src", "/opt/lib"])
    assert os.listdir(inject) and inject.endswith("/runyard/capture/inject")
    assert not {"SLURM_JOB_ID", "RUNYARD_HOME", "GIT_DIR", "RUNYARD_RESUMED"} & set(said)


def test_the_environment_is_in_no_file_after_the_start(box: AgentBox) -> None:
    box.start()
    attempt = box.python(SLEEPER, env={"PATH": os.environ["PATH"], "API_KEY": "planted-secret"})
    box.status(attempt)
    wait_for(lambda: not os.path.exists(os.path.join(box.paths.attempt_dir(attempt), "launch.json")))
    search = subprocess.run(["grep", "-rl", "planted-secret", str(box.home)], capture_output=True, check=False)
    assert search.stdout == b""


def test_a_retry_finds_its_directory_and_a_fresh_one_does_not(box: AgentBox) -> None:
    code = (
        "import os, pathlib\nmark = pathlib.Path('mark')\n"
        "print(os.environ.get('RUNYARD_RESUMED'), mark.exists())\nmark.touch()\n"
    )
    tree = box.tree({"main.py": code})
    box.start()
    first = assignment(tree, [sys.executable, "main.py"])
    box.end(box.submit(first))
    for number, fresh in ((2, False), (3, True)):
        box.end(box.submit(dict(first, attempt=ids.new_attempt_id(), number=number, resumed=True, fresh=fresh)))
    records = next((box.home / "runs" / "digits").iterdir()) / ".runyard"
    said = [(records / name).read_text() for name in ("log.1", "log.2", "log.3")]
    assert said == ["None False\n", "1 True\n", "None False\n"]


def test_outputs_that_another_host_has_sent_are_no_code(box: AgentBox) -> None:
    """An earlier attempt, on a host that shares no directory, has sent what it wrote into the server's home."""
    code = "import os, pathlib\nprint(os.environ.get('RUNYARD_RESUMED'), pathlib.Path('ck/1.pt').read_text())\n"
    second = assignment(
        box.tree({"main.py": code, "lib/m.py": ""}), [sys.executable, "main.py"], number=2, resumed=True
    )
    tree = box.home / second["dir"] / "digits"
    (tree / "ck").mkdir(parents=True)
    (tree / "ck" / "1.pt").write_text("epoch 1")
    box.start()
    assert box.end(box.submit(second))["exit_code"] == 0
    assert (tree.parent / ".runyard" / "log.2").read_text() == "1 epoch 1\n"
    assert (tree / "lib" / "m.py").exists()
    assert [item["path"] for item in box.yard.outputs[second["attempt"]]] == ["ck/1.pt"]


def test_a_run_whose_environment_is_lost_is_not_executed_with_another(box: AgentBox) -> None:
    box.start()
    attempt, witness = witnessed(box, env_lost=True)
    end = box.end(attempt)
    assert (end["reason"], end["origin"]) == ("not_started", "user")  # so it is not tried again
    assert "environment of this run is gone" in end["detail"]
    assert "runyard rerun" in end["detail"]
    assert not witness.exists()


def test_in_place_works_in_the_users_directory(box: AgentBox, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    box.start()
    code = "import os; print(os.getcwd(), os.path.isdir(os.environ['RUNYARD_RUN_DIR']))"
    value = assignment("", [sys.executable, "-c", code], spec_in_place=True, spec_source=str(tmp_path), spec_cwd="sub")
    value["spec"]["snapshot"] = {"tree": None}
    box.end(box.submit(value))
    assert next(box.home.glob("runs/digits/*/.runyard/log.1")).read_text() == "%s True\n" % (tmp_path / "sub")
    gone = assignment("", ["/bin/true"], spec_in_place=True, spec_source=str(tmp_path / "gone"))
    end = box.end(box.submit(gone))
    assert (end["reason"], end["origin"]) == ("staging_failed", "infra")


def test_a_shell_line_only_where_it_was_asked_for(box: AgentBox) -> None:
    box.start()
    line = "echo one && echo two"
    shell = box.run(line, spec_shell=True, spec_program="/bin/sh")
    plain = box.run("/bin/echo", "a", "&&", "rm -rf *")
    box.end(shell)
    box.end(plain)
    said = sorted(path.read_text() for path in box.home.glob("runs/digits/*/.runyard/log.1"))
    assert said == ["a && rm -rf *\n", "one\ntwo\n"]


def test_frozen_directories_beside_the_code(box: AgentBox) -> None:
    lib = box.tree({"helper.py": "VALUE = 7\n"})
    box.start()
    attempt = box.python(
        "import helper; print(helper.VALUE, helper.__file__)",
        spec_also=[{"path": "../lib", "source": "/nowhere/lib", "tree": lib, "commit": None, "branch": None}],
        spec_pythonpath=["../lib"],
    )
    box.end(attempt)
    run_dir = next((box.home / "runs" / "digits").iterdir())
    assert (run_dir / ".runyard" / "log.1").read_text() == "7 %s\n" % (run_dir / "lib" / "helper.py")
    assert (run_dir / ".runyard" / "manifest.1").exists()
    assert attempt not in box.yard.outputs


def test_downloaded_data_is_handed_on(box: AgentBox) -> None:
    code = "import os\nos.mkdir('data')\nopen('data/big', 'w').write('1')\n"
    box.start()
    target = box.home / "downloads" / "abc" / "data"
    attempt = box.python(code, spec_adopt=[{"path": "data", "target": str(target)}])
    box.end(attempt)
    tree = next((box.home / "runs" / "digits").iterdir()) / "digits"
    assert (target / "big").read_text() == "1"
    assert os.readlink(tree / "data") == str(target)
    outside = box.python(code, spec_adopt=[{"path": "data", "target": str(box.home / "else" / "data")}])
    box.end(outside)
    assert not (box.home / "else").exists()


def test_a_stop_reaches_the_program_within_200_ms(box: AgentBox) -> None:
    box.start()
    code = (
        "import signal, sys, time\n"
        "def stop(number, frame):\n    open('stopped', 'w').write(repr(time.monotonic()))\n    sys.exit(5)\n"
        "signal.signal(signal.SIGTERM, stop)\nprint('up', flush=True)\ntime.sleep(60)\n"
    )
    delays = []
    for _ in range(3):
        attempt = box.python(code)
        box.status(attempt)
        tree = box.run_dir(attempt) / "digits"
        wait_for((tree.parent / ".runyard" / "log.1").read_bytes, what="the program")
        box.yard.stop(attempt)
        end = box.end(attempt)
        assert (end["reason"], end["origin"], end["exit_code"]) == ("stopped", "human", 5)
        delays.append(float((tree / "stopped").read_text()) - box.yard.stopped_at)
    assert min(delays) < 0.2, delays


def test_a_second_stop_shortens_the_grace(box: AgentBox) -> None:
    box.start()
    attempt = box.python(DEAF)
    box.status(attempt)
    log = box.run_dir(attempt) / ".runyard" / "log.1"
    wait_for(log.read_bytes)
    box.yard.stop(attempt, 60.0)
    wait_for(lambda: any(b["attempts"].get(attempt, {}).get("phase") == "stopping" for b in box.yard.heartbeats))
    box.yard.stop(attempt, 0.0)
    end = box.end(attempt)
    assert (end["reason"], end["signal"]) == ("stopped", 9)


def test_a_stop_before_the_start_executes_nothing(box: AgentBox) -> None:
    box.yard.late_s = 1.0
    box.yard.fault("late", "POST", "/phase$")
    box.yard.fault("500", "POST", "/phase$", times=1000)
    box.start()
    attempt, witness = witnessed(box)
    wait_for(lambda: any(path.endswith("/phase") for _, path in list(box.yard.requests)))
    box.yard.stop(attempt)
    end = box.end(attempt)
    assert (end["reason"], end["origin"], end["started_at"]) == ("stopped", "human", None)
    assert not witness.exists()


def test_a_verdict_stops_a_superseded_attempt_and_its_end_is_reported(box: AgentBox) -> None:
    box.start()
    attempt = box.python(SLEEPER, grace_s=1.0)
    box.status(attempt)
    box.yard.result = "recorded"
    box.yard.verdicts[attempt] = {"verdict": "stop"}
    end = box.end(attempt)
    assert (end["reason"], end["origin"]) == ("superseded", "infra")
    wait_for(lambda: not os.path.exists(box.paths.attempt_dir(attempt)))


def test_a_verdict_may_bring_a_new_epoch(box: AgentBox) -> None:
    agent = box.start()
    attempt = box.python(SLEEPER)
    box.status(attempt)
    box.yard.verdicts[attempt] = {"verdict": "keep", "epoch": 4}
    journal = os.path.join(box.paths.attempt_dir(attempt), "assignment.json")
    wait_for(lambda: files.read_json(journal)["epoch"] == 4)
    box.yard.verdicts.clear()
    box.kill(agent)
    box.start()
    wait_for(lambda: len(box.yard.hellos) == 2)
    assert box.yard.hellos[1]["attempts"][attempt]["epoch"] == 4
    box.yard.stop(attempt, 0.0)
    assert box.end(attempt)["epoch"] == 4


def test_a_new_attempt_waits_for_the_old_one_of_its_run(box: AgentBox) -> None:
    box.start()
    first = assignment(box.tree({"main.py": SLEEPER}), [sys.executable, "main.py"], grace_s=0.5)
    box.submit(first)
    box.status(first["attempt"])
    second = dict(first, attempt=ids.new_attempt_id(), number=2, epoch=2, resumed=True, slots=["cpu1"])
    box.submit(second)
    time.sleep(0.3)
    assert second["attempt"] not in box.yard.phases
    box.yard.verdicts[first["attempt"]] = {"verdict": "stop"}
    box.end(first["attempt"])
    wait_for(lambda: "running" in box.yard.phases.get(second["attempt"], []))
    box.yard.stop(second["attempt"], 0.0)
    box.end(second["attempt"])


def test_a_new_attempt_waits_for_the_old_one_on_its_slot(box: AgentBox) -> None:
    box.start()
    first = box.python(SLEEPER, grace_s=0.5, slots=["cpu3"])
    box.status(first)
    second = box.run(slots=["cpu3"])
    time.sleep(0.3)
    assert second not in box.yard.phases
    box.yard.verdicts[first] = {"verdict": "stop"}
    box.end(first)
    assert box.end(second)["exit_code"] == 0


def test_time_limit(box: AgentBox) -> None:
    box.start()
    end = box.end(box.python(SLEEPER, spec_time_limit_s=0.3))
    assert (end["reason"], end["origin"]) == ("time_limit", "scheduler")


def test_a_slot_that_is_not_here_is_handed_back(box: AgentBox) -> None:
    box.start()
    attempt = box.run(slots=["gpu7"])
    wait_for(lambda: attempt in box.yard.handed_back)
    assert "gpu7" in box.yard.handed_back[attempt]
    wait_for(lambda: not os.path.exists(box.paths.attempt_dir(attempt)))


def test_code_that_cannot_be_had_fails_the_attempt(box: AgentBox) -> None:
    box.start()
    end = box.end(box.submit(assignment("0" * 40, ["/bin/true"])))
    assert (end["reason"], end["origin"]) == ("staging_failed", "infra")


def test_a_damaged_transfer_is_fetched_again(box: AgentBox) -> None:
    name = box.tree({"train.py": "print(1)\n" * 1000})
    whole = box.yard.trees[name]
    box.yard.trees[name] = whole[:700]
    box.start()
    box.yard.fault("late", "GET", "/trees/", times=1)
    attempt = box.submit(assignment(name, ["/bin/true"]))
    wait_for(lambda: sum("/trees/" in path for _, path in list(box.yard.requests)) >= 1)
    box.yard.trees[name] = whole
    end = box.end(attempt)
    assert end["exit_code"] == 0 or end["reason"] == "staging_failed"
    assert box.end(box.submit(assignment(name, ["/bin/true"])))["exit_code"] == 0


def test_one_tree_is_fetched_once(box: AgentBox) -> None:
    box.start()
    attempts = [box.run() for _ in range(4)]
    for attempt in attempts:
        box.end(attempt)
    assert sum("/trees/" in path for _, path in box.yard.requests) == 1


OLD_PYTHONS = [str(path) for path in Path.home().glob(".pyenv/versions/3.[89].*/bin/python3")]


@pytest.mark.parametrize("old", OLD_PYTHONS or [None], ids=lambda path: str(path).split("/")[-3] if path else "none")
def test_under_the_oldest_pythons(box: AgentBox, old: str | None) -> None:
    """Without pidfds (Python 3.8) the end of a supervisor is found by looking."""
    if old is None:
        pytest.skip("needs Python 3.8 or 3.9")
    agent = box.start(python=old)
    assert box.end(box.run())["reason"] == "exited"
    sleeper = box.python(SLEEPER)
    box.status(sleeper)
    box.kill(agent)
    box.start(python=old)
    wait_for(lambda: len(box.yard.hellos) == 2)
    box.yard.stop(sleeper, 0.0)
    assert box.end(sleeper)["reason"] == "stopped"


def collector(directory: Path) -> int | None:
    """Return the process that has the lock of an attempt's collector, and was forked from the first one."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(link) == str(directory / "collector.lock"):
                pid = int(link.parts[2])
                parent = int(Path("/proc/%d/stat" % pid).read_bytes().rpartition(b")")[2].split()[1])
                if b"collector.py" in Path("/proc/%d/cmdline" % parent).read_bytes():
                    return pid
    return None


def test_a_collector_that_is_killed_is_followed_by_another_one(box: AgentBox) -> None:
    box.start()
    attempt = box.python(SLEEPER)
    directory = Path(box.paths.attempt_dir(attempt))
    wait_for(lambda: files.is_locked(str(directory / "collector.lock")))
    first = wait_for(lambda: collector(directory))
    os.kill(first, signal.SIGKILL)
    second = wait_for(lambda: (found := collector(directory)) not in (None, first) and found, 40)
    assert second != first and files.is_locked(str(directory / "collector.lock"))
    box.yard.stop(attempt, 0)
    assert box.end(attempt)["reason"] == "stopped"
