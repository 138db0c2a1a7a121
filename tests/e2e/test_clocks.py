"""Wall clocks that are wrong, and that jump: of the program, and of the host that it runs on."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runyard.wire import files
from tests.e2e.harness import Cli, wait_for
from tests.e2e.test_agents import far_home, start_far_agent, stop  # noqa: F401 - a fixture
from tests.e2e.test_tracking import own, points

YEAR_S = 365 * 86400
JUMPS = [0, 3600, -3600, 10 * YEAR_S, -40 * YEAR_S, -80 * YEAR_S, 200 * YEAR_S, 1]
LOGGER = """
import os, sys, time, runyard
def jump(seconds):
    with open(os.environ["FAKE_CLOCK"], "w") as file:
        file.write(str(seconds))
if len(sys.argv) > 2: runyard.init(name=sys.argv[2])
for step, seconds in enumerate(map(int, sys.argv[1].split(","))):
    jump(seconds)
    runyard.log({"a": float(step), "note": "at %d" % step}, step=step)
    runyard.params({"p%d" % step: seconds})
    print("step: %d loss: %d" % (step, step), flush=True)
"""


@pytest.fixture
def clock(tmp_path: Path, require: Callable[[str], None]) -> dict[str, str]:
    """Return the variables that give a process a clock of its own, which the file FAKE_CLOCK moves."""
    require("cc")
    library = tmp_path / "fake_clock.so"
    source = Path(__file__).with_name("fake_clock.c")
    subprocess.run(["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    (tmp_path / "clock").write_text("0")
    return {"LD_PRELOAD": str(library), "FAKE_CLOCK": str(tmp_path / "clock")}


def lasted(run: dict[str, Any]) -> float:
    began, ended = (dt.datetime.fromisoformat(run[name]) for name in ("started_at", "ended_at"))
    assert abs((dt.datetime.now(dt.UTC) - ended).total_seconds()) < 600, "times of runs are those of the server"
    return (ended - began).total_seconds()


def whole(cli: Cli, run_id: str) -> dict[str, Any]:
    """Return a run once all that it said is there."""
    cli.until(run_id, "finished")
    wait_for(lambda: not any(next(cli.home.glob("hosts/*/attempts")).iterdir()), "all to be sent")
    return dict(cli.show(run_id))


def check(cli: Cli, run: dict[str, Any]) -> None:
    """Everything is there, in the order of steps, and can be read and exported, whatever its time is."""
    assert points(cli, run["id"], "a") == [(step, float(step)) for step in range(len(JUMPS))]
    assert {f"p{step}": seconds for step, seconds in enumerate(JUMPS)}.items() <= run["params"].items()
    media = cli.api("GET", f"/api/v1/runs/{run['id']}/media")["media"]
    assert [item["step"] for item in media] == list(range(len(JUMPS)))
    assert run["metrics"]["a"]["last"] == len(JUMPS) - 1.0 and not (run["capture"] or {}).get("missing")
    cli.call("show", run["id"])
    for form in ("csv", "json", "parquet"):
        cli.call("export", "--history", "a", "-o", "a." + form)


def test_the_clock_of_a_program_that_jumps(cli: Cli, clock: dict[str, str]) -> None:
    (cli.cwd / "log.py").write_text(LOGGER)
    variables = [word for item in clock.items() for word in ("--env", "=".join(item))]
    run = whole(cli, cli.submit(*variables, "python", "log.py", ",".join(map(str, JUMPS))))
    check(cli, run)
    assert points(cli, run["id"], "loss") == [(step, float(step)) for step in range(len(JUMPS))]
    assert 0 <= lasted(run) < 60


@pytest.mark.parametrize("start", [-80 * YEAR_S, 200 * YEAR_S])
def test_a_run_begun_by_hand_by_a_wrong_clock(cli: Cli, clock: dict[str, str], start: int) -> None:
    cli.call("start")
    Path(clock["FAKE_CLOCK"]).write_text(str(start))
    (cli.cwd / "hand.py").write_text(LOGGER)
    command = [sys.executable, "hand.py", ",".join(map(str, JUMPS)), "by hand"]
    assert subprocess.run(command, cwd=cli.cwd, env={**cli.env, **clock}).returncode == 0
    run = whole(cli, wait_for(lambda: cli.json("ls", "--name", "by hand"), "the run", 60)[0]["id"])
    check(cli, run)


def test_a_run_that_is_taken_in_late_lasted_as_long_as_it_did(cli: Cli) -> None:
    assert own(cli, "import runyard, time\nrunyard.init(name='brief')\ntime.sleep(0.2)\n").wait(60) == 0
    facts = next(cli.home.glob("hosts/*/own/*/run.json"))
    record, last = files.read_json(str(facts)), files.read_json(str(facts.with_name("finished.json")))
    assert isinstance(record, dict) and isinstance(last, dict)
    hour = 3_600_000_000
    files.write_json(str(facts), {**record, "created_us": record["created_us"] - hour})
    files.write_json(str(facts.with_name("finished.json")), {**last, "ended_us": last["ended_us"] - hour})
    run_id = wait_for(lambda: cli.json("ls", "--name", "brief"), "the run")[0]["id"]
    run = cli.until(run_id, "finished")
    began, ended = (dt.datetime.fromisoformat(run[name]) for name in ("started_at", "ended_at"))
    assert 0.1 < (ended - began).total_seconds() < 30


def test_the_clock_of_a_host_that_is_wrong_and_jumps(
    cli: Cli,
    clock: dict[str, str],
    far_home: Path,  # noqa: F811
) -> None:
    """The collector is killed after its clock went back: by that clock its last words are older than its first."""
    moved = Path(clock["FAKE_CLOCK"])
    moved.write_text(str(YEAR_S))
    process = start_far_agent(cli, far_home, **clock)
    (cli.cwd / "log.py").write_text("""
import os, time, runyard
for step in range(40):
    print("step: %d loss: %d" % (step, step), flush=True)
    runyard.log({"a": float(step)}, step=step)
    while step in (10, 20) and not os.path.exists("go%d" % step):
        time.sleep(0.01)
time.sleep(1.5)
""")  # fmt: skip
    run_id = cli.submit("--host", "far", "python", "log.py")

    def count() -> int:
        return int((cli.show(run_id)["metrics"].get("loss") or {"count": 0})["count"])

    wait_for(lambda: count() == 11, "the first part")
    tree = next(far_home.glob("runs/*/*")) / "digits"
    moved.write_text(str(-50 * YEAR_S))
    (tree / "go10").touch()
    wait_for(lambda: count() == 21, "the second part")
    wait_for(lambda: cli.show(run_id)["system"].get("memory", {"count": 0})["count"] > 1, "usage by both clocks")
    lock = next(far_home.glob("hosts/*/attempts/*/collector.lock"))
    pid = holder(lock)
    os.kill(pid, signal.SIGKILL)
    (tree / "go20").touch()
    run = cli.until(run_id, "finished")
    wait_for(lambda: not any(next(far_home.glob("hosts/*/attempts")).iterdir()), "all to be sent")
    run = cli.show(run_id)
    for metric in ("a", "loss"):
        assert points(cli, run_id, metric) == [(step, float(step)) for step in range(40)]
        assert run["metrics"][metric]["count"] == 40
    assert "missing" not in run["capture"] and 0 <= lasted(run) < 120
    steps = [step for step, _ in points(cli, run_id, "system/memory")]
    assert steps and steps[0] >= 0 and steps[-1] < 120
    stop(process)


def holder(lock: Path) -> int:
    """Return the collector that has the lock; the agent opens its file, too, to look."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            pid = int(link.parts[2])
            if os.readlink(link) == str(lock) and b"collector.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    raise AssertionError(f"nobody holds {lock}")
