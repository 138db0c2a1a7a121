"""A run gets the submitter's environment; nothing of it beyond the allow-list is kept anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.harness import Cli, wait_for

SECRET = "s3cr3t-0f-the-submitter-d41d8cd98f"
SHOW = "import os, json, sys; print(json.dumps([os.environ.get(n) for n in sys.argv[1:]]))"


def test_the_run_sees_what_the_submitter_saw_although_the_server_did_not(cli: Cli) -> None:
    cli.call("start", MY_TOKEN="of the server")
    run_id = cli.submit(
        "--env", "EXTRA=1", "python", "-c", SHOW, "MY_TOKEN", "EXTRA", "PYTHONUNBUFFERED", MY_TOKEN=SECRET
    )
    cli.until(run_id, "finished")
    assert json.loads(cli.out("logs", run_id)) == [SECRET, "1", "1"]


def test_a_virtual_environment_is_the_submitters(cli: Cli, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    path = f"{venv}/bin:{os.environ['PATH']}"
    run_id = cli.submit("python", "-c", "import sys; print(sys.prefix)", PATH=path)
    cli.until(run_id, "finished")
    assert cli.out("logs", run_id).strip() == str(venv)
    assert cli.show(run_id)["program"] == f"{venv}/bin/python"


def test_an_active_conda_environment_is_the_submitters_and_its_packages_are_recorded(cli: Cli, tmp_path: Path) -> None:
    """What conda makes of a shell: its prefix first on PATH, its variables; and its records in conda-meta."""
    prefix = tmp_path / "conda" / "envs" / "ml"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(prefix)], check=True)
    (prefix / "conda-meta").mkdir()
    for name in ("cudatoolkit-11.8.0-h6a678d5_0", "numpy-1.26.4-py311h64a7726_0"):
        (prefix / "conda-meta" / (name + ".json")).write_text("{}")
    active = {"PATH": f"{prefix}/bin:{os.environ['PATH']}", "CONDA_PREFIX": str(prefix), "CONDA_DEFAULT_ENV": "ml"}
    cli.call("start")
    run_id = cli.submit("python", "-c", "import os, sys; print(sys.prefix, os.environ['CONDA_DEFAULT_ENV'])", **active)
    cli.until(run_id, "finished")
    assert cli.out("logs", run_id).split() == [str(prefix), "ml"]
    recorded = cli.show(run_id)["environment"]
    assert recorded["conda"] == ["cudatoolkit-11.8.0-h6a678d5_0", "numpy-1.26.4-py311h64a7726_0"]
    assert recorded["variables"]["CONDA_DEFAULT_ENV"] == "ml"


def test_a_planted_secret_is_nowhere_once_the_run_has_ended(cli: Cli, tmp_path: Path) -> None:
    run_id = cli.submit("python", "train.py", "--exit", "1", MY_SECRET=SECRET)
    run = cli.until(run_id, "failed")
    backup = tmp_path / "backup.tgz"
    cli.call("backup", str(backup))
    assert SECRET not in json.dumps(run)
    assert SECRET not in cli.out("show", run_id) + cli.server_log()
    wait_for(lambda: not list((cli.home / "launch").glob("*.json")), "the launch file to go")

    def holders() -> list[str]:
        return [str(path) for path in cli.home.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]

    wait_for(lambda: not holders(), "every file to be free of the secret")
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-xzf", str(backup), "-C", str(unpacked)], check=True)
    assert not [path for path in unpacked.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_a_run_without_a_gpu_sees_none(cli: Cli) -> None:
    run_id = cli.submit(
        "python", "-c", SHOW, "CUDA_VISIBLE_DEVICES", "RUNYARD_RUN_ID", "RUNYARD_ATTEMPT", "RUNYARD_PROJECT"
    )
    cli.until(run_id, "finished")
    run = cli.show(run_id)
    assert json.loads(cli.out("logs", run_id)) == ["", run_id, run["attempts"][0]["id"], "digits"]


def test_the_runs_own_credential_is_masked_where_its_log_is_read(cli: Cli) -> None:
    run_id = cli.submit("python", "-c", "import os; print('token', os.environ['RUNYARD_TOKEN'], 'end')")
    cli.until(run_id, "finished")
    assert cli.out("logs", run_id) == "token *** end\n"
    assert "rya_" in cli.out("logs", "--raw", run_id)
