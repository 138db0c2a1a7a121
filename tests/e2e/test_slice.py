"""From a repository to a finished run, with the real processes."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.harness import Cli, git


def test_a_run_is_frozen_queued_executed_and_recorded(cli: Cli) -> None:
    run_id = cli.submit("-m", "first try", "-t", "base", "python", "train.py", "--lr", "0.2")
    run = cli.until(run_id, "finished")
    assert run["end"]["exit_code"] == 0
    assert run["end"]["origin"] == "user"
    assert run["project"] == "digits"
    assert run["message"] == "first try"
    assert run["tags"] == ["base"]
    assert run["command"] == ["python", "train.py", "--lr", "0.2"]
    assert run["snapshot"]["commit"] == git(cli.cwd, "rev-parse", "HEAD").strip()
    assert run["snapshot"]["branch"] == "main"
    assert run["snapshot"]["dirty"] is False
    assert [output["path"] for output in run["outputs"]] == ["model.txt"]
    assert cli.out("logs", run_id) == "lr 0.2 version 1\n"
    assert (Path(run["run_dir"]) / "train.py").read_text() == (cli.cwd / "train.py").read_text()
    assert git(Path(run["run_dir"]), "rev-parse", "HEAD").strip() == run["snapshot"]["commit"]


def test_code_edited_while_queued_is_not_what_runs(cli: Cli) -> None:
    first = cli.submit("--hold", "python", "train.py")
    script = cli.cwd / "train.py"
    script.write_text(script.read_text().replace("version 1", "version 2"))
    second = cli.submit("python", "train.py")
    cli.call("release", first)
    cli.until(first, "finished")
    cli.until(second, "finished")
    assert "version 1" in cli.out("logs", first)
    assert "version 2" in cli.out("logs", second)
    assert cli.show(second)["snapshot"]["dirty"] is True


def test_the_end_of_a_run_is_the_end_of_its_program(cli: Cli) -> None:
    failed = cli.submit("python", "train.py", "--exit", "3")
    signaled = cli.submit("python", "-c", "import os; os.kill(os.getpid(), 11)")
    missing = cli.submit("python", "no-such-file.py")
    assert cli.until(failed, "failed")["end"]["exit_code"] == 3
    assert cli.until(signaled, "failed")["end"]["signal"] == 11
    assert cli.until(missing, "failed")["end"]["exit_code"] == 2


def test_killing_a_run_and_following_one(cli: Cli) -> None:
    run_id = cli.submit("python", "train.py", "--sleep", "60")
    cli.until(run_id, "running")
    cli.call("kill", run_id)
    run = cli.until(run_id, "killed")
    assert run["end"]["origin"] == "human"
    assert cli.call("run", "-f", "python", "train.py", "--exit", "4", code=4).stdout.startswith("lr 0.1")


def test_runs_go_on_while_the_server_and_the_agent_are_away(cli: Cli) -> None:
    run_id = cli.submit("python", "train.py", "--sleep", "1.5")
    cli.until(run_id, "running")
    cli.call("stop")
    cli.call("start")
    assert cli.until(run_id, "finished")["end"]["exit_code"] == 0
    assert cli.out("logs", run_id) == "lr 0.1 version 1\n"


def test_a_run_that_submits_another_asks_its_own_yard(cli: Cli) -> None:
    outer = cli.submit("sh", "-c", "runyard run python train.py && runyard ls -q && runyard stop")
    assert cli.until(outer, "finished", "failed")["state"] == "finished"
    cli.call("start")
    inner, other = cli.out("ls", "-q").split()
    assert other == outer
    assert inner in cli.out("logs", outer)
    assert cli.until(inner, "finished")["end"]["exit_code"] == 0
