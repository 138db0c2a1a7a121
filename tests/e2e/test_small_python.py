"""An agent whose Python lacks what some builds leave out: the modules for SQLite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from runyard.wire import library
from tests.e2e.harness import Cli, wait_for
from tests.e2e.test_agents import far_home, start_far_agent, stop  # noqa: F401 - a fixture
from tests.e2e.test_tracking import named, points

WITHOUT = ("sqlite3", "_sqlite3")


@pytest.fixture
def python(tmp_path: Path) -> str:
    """This Python without the modules for SQLite."""
    top, stdlib = tmp_path / "python", Path(sysconfig.get_path("stdlib"))
    place = top / "lib" / stdlib.name
    for directory in (place, place / "lib-dynload", top / "bin"):
        directory.mkdir(parents=True)
    for source, target in ((stdlib, place), (stdlib / "lib-dynload", place / "lib-dynload")):
        for entry in source.iterdir():
            if not entry.name.startswith(WITHOUT) and entry.name not in ("lib-dynload", "site-packages"):
                (target / entry.name).symlink_to(entry)
    executable = top / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    shutil.copy2(os.path.realpath(sys.executable), executable)
    code = "import sys, json\ntry: import sqlite3\nexcept ImportError: print(sys.prefix)"
    done = subprocess.run([executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == str(top), done
    return str(executable)


def test_an_agent_whose_python_has_no_sqlite3(cli: Cli, far_home: Path, python: str) -> None:  # noqa: F811
    process = start_far_agent(cli, far_home, command=[python, "-I", "-S", library.install(str(far_home))])
    (cli.cwd / "data.csv").write_text("a,b\n1,2\n")
    (cli.cwd / "log.py").write_text("""
import runyard, time
open("data.csv").read()
for step in range(20):
    runyard.log({"a": float(step)})
    print("step: %d loss: %d" % (step, step), flush=True)
time.sleep(3)
""")  # fmt: skip
    run_id = cli.submit("--host", "far", "python", "log.py")
    cli.until(run_id, "finished")
    wait_for(lambda: not any(next(far_home.glob("hosts/*/attempts")).iterdir()), "all to be sent")
    run = cli.show(run_id)
    for metric in ("a", "loss"):
        assert points(cli, run_id, metric) == [(step, float(step)) for step in range(20)]
    assert [(item["path"], len(item["sha256"])) for item in run["data"]] == [("data.csv", 64)]
    assert run["system"]["memory"]["count"] >= 1 and run["capture"]["notes"] == []
    code = "import runyard\nrunyard.init(name='by hand', params={'lr': 1})\nrunyard.log({'loss': 2.0})\n"
    (cli.cwd / "hand.py").write_text(code)
    env = {**cli.env, "RUNYARD_HOME": str(far_home)}
    assert subprocess.run([sys.executable, "hand.py"], cwd=cli.cwd, env=env).returncode == 0
    run = cli.until(named(cli, "by hand")["id"], "finished")
    assert (run["params"], run["metrics"]["loss"]["last"], run["host"]) == ({"lr": 1}, 2.0, "far")
    stop(process)
