from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runyard.cli import submit
from runyard.client import connect
from runyard.client.api import Api
from runyard.wire import paths
from tests.cli.conftest import Cli
from tests.cli.fake import FakeYard


def test_submit_says_in_six_lines_what_was_queued(cli: Cli, yard: FakeYard, repository: Path) -> None:
    done = cli("-m", "first", sys.executable, "train.py", "--lr", "0.1", "-m", "theirs", cwd=repository)
    assert done.returncode == 0, done.stderr
    (run_id, spec), *others = yard.specs.items()
    assert not others
    assert spec["command"] == [sys.executable, "train.py", "--lr", "0.1", "-m", "theirs"]
    assert (spec["program"], spec["message"], spec["project"]) == (sys.executable, "first", "digits")
    assert (spec["source"], spec["cwd"], spec["repo_name"]) == (str(repository), "", "digits")
    assert re.fullmatch("[0-9a-f]{40}", spec["snapshot"]["tree"])
    lines = done.stdout.splitlines()
    assert len(lines) <= 6
    assert run_id in lines[0]
    assert "2 files frozen (1 changed)" in lines[1]
    assert sys.executable in lines[2]
    assert lines[-1].endswith("http://127.0.0.1:8086/runs/" + run_id)
    assert done.stderr == ""


def test_json_prints_the_run_and_nothing_else(cli: Cli, yard: FakeYard, repository: Path) -> None:
    done = cli("run", "--json", "-t", "a", "-t", "b", "--mem", "2GB", "--gpus", "0", "--time-limit", "1h30m", "true",
               cwd=repository)  # fmt: skip
    run = json.loads(done.stdout)
    assert run["id"] in yard.specs
    assert run["tags"] == ["a", "b"]
    spec = yard.specs[run["id"]]
    assert spec["resources"] == {"gpus": 0, "cpus": None, "mem": 2 << 30, "gpu_model": None, "host": None}
    assert spec["time_limit_s"] == 5400


def test_the_whole_environment_goes_to_env_and_only_the_allowed_is_recorded(
    cli: Cli, yard: FakeYard, repository: Path
) -> None:
    secret = "s3cr3t-value"
    done = cli("--env", "EXTRA=1", sys.executable, "train.py", cwd=repository,
               env={"MY_API_KEY": secret, "OMP_NUM_THREADS": "3", "RUNYARD_TOKEN": "abc"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run_id,) = yard.specs
    env = yard.envs[run_id]
    assert (env["MY_API_KEY"], env["EXTRA"]) == (secret, "1")
    assert "RUNYARD_TOKEN" not in env
    recorded = yard.specs[run_id]["environment"]
    assert secret not in json.dumps(yard.specs[run_id])
    assert recorded["variables"]["OMP_NUM_THREADS"] == "3"
    assert recorded["python"]["path"] == sys.executable
    assert recorded["python"]["version"] == "%d.%d.%d" % sys.version_info[:3]
    assert "pytest" in recorded["packages"]


def test_a_call_from_a_subdirectory_starts_there(cli: Cli, yard: FakeYard, repository: Path) -> None:
    (repository / "sub").mkdir()
    (repository / "sub" / "a.sh").write_text("#!/bin/sh\n")
    (repository / "sub" / "a.sh").chmod(0o755)
    assert cli("./a.sh", cwd=repository / "sub").returncode == 0
    (spec,) = yard.specs.values()
    assert (spec["cwd"], spec["program"], spec["command"]) == ("sub", str(repository / "sub" / "a.sh"), ["./a.sh"])


def test_a_venv_is_found_on_path_and_by_relative_path(cli: Cli, yard: FakeYard, repository: Path) -> None:
    python = repository / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (repository / ".gitignore").write_text(".venv\n")
    assert cli(".venv/bin/python", "train.py", cwd=repository).returncode == 0
    path = "%s:%s" % (python.parent, os.environ["PATH"])
    assert cli("python", "train.py", cwd=repository, env={"PATH": path}).returncode == 0
    assert [spec["program"] for spec in yard.specs.values()] == [str(python), str(python)]


def test_uv_uses_the_venv_and_leaves_it_alone(cli: Cli, yard: FakeYard, repository: Path, tmp_path: Path) -> None:
    (repository / ".venv").mkdir()
    (repository / ".venv" / "pyvenv.cfg").write_text("")
    (repository / ".gitignore").write_text(".venv\n")
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)
    path = {"PATH": "%s:%s" % (uv.parent, os.environ["PATH"])}
    assert cli("uv", "run", "train.py", cwd=repository, env=path).returncode == 0
    assert cli("uv", "run", "train.py", cwd=repository, env={**path, "UV_NO_SYNC": "0"}).returncode == 0
    assert cli("true", cwd=repository, env=path).returncode == 0
    first, second, third = yard.envs.values()
    assert (first["UV_PROJECT_ENVIRONMENT"], first["UV_NO_SYNC"]) == (str(repository / ".venv"), "1")
    assert second["UV_NO_SYNC"] == "0"
    assert "UV_NO_SYNC" not in third


def test_after_is_resolved_and_an_unknown_run_stops_the_submit(cli: Cli, yard: FakeYard, repository: Path) -> None:
    assert cli("--name", "prepare", "true", cwd=repository).returncode == 0
    (first,) = yard.specs
    assert cli("--after", "prepare", "--after", first[:5], "true", cwd=repository).returncode == 0
    assert yard.specs[list(yard.specs)[1]]["after"] == [first, first]
    done = cli("--after", "nobody", "true", cwd=repository)
    assert (done.returncode, len(yard.specs)) == (1, 2)
    assert "no run 'nobody'" in done.stderr


def test_dry_run_submits_nothing(cli: Cli, yard: FakeYard, repository: Path) -> None:
    done = cli("--dry-run", "true", cwd=repository)
    assert done.returncode == 0, done.stderr
    assert "nothing was submitted" in done.stdout
    assert not yard.specs
    spec = json.loads(cli("--dry-run", "--json", "true", cwd=repository).stdout)
    assert "env" not in spec
    assert spec["command"] == ["true"]


def test_in_place_freezes_nothing(cli: Cli, yard: FakeYard, repository: Path) -> None:
    done = cli("--in-place", "true", cwd=repository)
    (spec,) = yard.specs.values()
    assert spec["in_place"]
    assert spec["snapshot"]["tree"] is None
    assert "code not frozen" in done.stdout


def test_shell_is_one_line(cli: Cli, yard: FakeYard, repository: Path) -> None:
    assert cli("--shell", "echo a && echo b | cat", cwd=repository).returncode == 0
    (spec,) = yard.specs.values()
    assert (spec["shell"], spec["command"]) == (True, ["echo a && echo b | cat"])


def test_project_comes_from_option_then_variable_then_file(cli: Cli, yard: FakeYard, repository: Path) -> None:
    (repository / "runyard.toml").write_text('project = "filed"\n')
    assert cli("true", cwd=repository).returncode == 0
    assert cli("true", cwd=repository, env={"RUNYARD_PROJECT": "var"}).returncode == 0
    assert cli("-p", "opt", "true", cwd=repository, env={"RUNYARD_PROJECT": "var"}).returncode == 0
    assert [spec["project"] for spec in yard.specs.values()] == ["filed", "var", "opt"]


@pytest.mark.parametrize("options", [[], ["--in-place"]])
def test_a_directory_whose_name_no_run_can_have_gives_a_plain_one(
    cli: Cli, yard: FakeYard, tmp_path: Path, options: list[str]
) -> None:
    odd = tmp_path / "new\nline\udcff"
    odd.mkdir()
    assert cli("run", *options, "true", cwd=odd).returncode == 0
    (spec,) = yard.specs.values()
    assert (spec["project"], spec["repo_name"], spec["source"]) == ("new_line_", "new_line_", str(odd))


def test_a_wrong_project_file_stops_the_submit(cli: Cli, yard: FakeYard, repository: Path) -> None:
    (repository / "runyard.toml").write_text('projct = "x"\n')
    done = cli("true", cwd=repository)
    assert (done.returncode, bool(yard.specs)) == (2, False)
    assert "unknown setting projct" in done.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["run"], 2, "no command was given"),
        (["run", ""], 2, "no command was given"),
        (["--shell", " "], 2, "no command was given"),
        (["rerun", "@last", "--set"], 2, "runyard rerun --help"),
        (["--gpu", "2", "true"], 2, "did you mean --gpus?"),
        (["-x", "true"], 2, "unknown option -x"),
        (["--gpus", "two", "true"], 2, "no whole number"),
        (["--mem", "lots", "true"], 2, "no size"),
        (["--cpus", "0", "true"], 2, "at least 1"),
        (["--message"], 2, "--message needs a value"),
        (["--follow=1", "true"], 2, "takes no value"),
        (["--env", "A", "true"], 2, "expected KEY=VALUE"),
        (["hlep"], 2, "did you mean: runyard help"),
        (["sttus"], 2, "did you mean: runyard status"),
        (["lss"], 2, "did you mean: runyard ls"),
        (["-m", "x", "sttus"], 2, "did you mean: runyard status"),
        (["python3.zz"], 2, "did you mean python3"),
        (["run", "sttus"], 2, "no such program on PATH"),
        (["-p", "digits", "ls"], 2, "put it first: runyard ls"),
        (["train.py"], 2, "runyard python train.py"),
        (["./notes.txt"], 2, "chmod +x"),
        (["run", "."], 2, "is a directory"),
        (["--link", "nowhere", "true"], 1, "nowhere cannot be linked"),
        (["--also", "nowhere", "true"], 1, "nowhere cannot be frozen"),
    ],
)
def test_mistakes_queue_nothing_and_say_what_to_do(
    cli: Cli, yard: FakeYard, repository: Path, words: list[str], status: int, said: str
) -> None:
    done = cli(*words, cwd=repository)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not yard.specs


def test_a_program_on_path_that_may_not_be_executed(cli: Cli, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "fit"
    program.write_text("#!/bin/sh\n")
    env = {"PATH": "%s:%s" % (tmp_path / "bin", os.environ["PATH"])}
    done = cli("fit", cwd=repository, env=env)
    assert done.returncode == 2
    assert "%s is not executable" % program in done.stderr
    assert "chmod +x %s" % program in done.stderr
    program.unlink()
    program.symlink_to(tmp_path / "removed")
    assert "%s is a link to nothing" % program in cli("fit", cwd=repository, env=env).stderr


def test_an_empty_need_asks_for_nothing(cli: Cli, yard: FakeYard, repository: Path) -> None:
    done = cli("--host", "", "--gpu-model", "", "--name", "", "--gpus", "0", "true", cwd=repository)
    assert done.returncode == 0, done.stderr
    (spec,) = yard.specs.values()
    assert spec["name"] is None
    assert spec["resources"] == {"gpus": 0, "cpus": None, "mem": None, "gpu_model": None, "host": None}


def test_an_agent_that_is_late_after_the_start_of_the_server_is_said(
    home: Path, yard: FakeYard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def connected(environ: object, started: Callable[[dict[str, str]], None]) -> Api:
        started({"url": yard.url})
        return Api("unix:" + paths.Home(str(home)).socket())

    monkeypatch.setattr(connect, "connect", connected)
    monkeypatch.setattr(submit, "AGENT_WAIT_S", 0.2)
    submit.server({}).close()
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("Started the server at " + yard.url)
    assert "agent of this host is not connected yet; runs start once it is" in second


def test_an_argument_that_is_a_file_of_the_live_tree_is_pointed_out(cli: Cli, yard: FakeYard, repository: Path) -> None:
    (repository / "data").mkdir()
    (repository / "data" / "x.csv").write_text("1")
    (repository / ".gitignore").write_text("data/\n")
    live, linked = str(repository / "train.py"), str(repository / "data" / "x.csv")
    done = cli("python", "train.py", linked, "/etc/hostname", str(repository), cwd=repository)
    assert "note:" not in done.stderr
    for word in (live, "--config=" + live):
        assert "%s is your file of now, not the frozen one" % live in cli("python", word, cwd=repository).stderr
