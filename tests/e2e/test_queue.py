"""The queue as its user sees it."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.harness import Cli, wait_for

RECORD = "import sys, time; open(sys.argv[1], 'a').write(sys.argv[2] + '\\n'); time.sleep(0.2)"


def test_order_priority_and_dependencies(cli: Cli, tmp_path: Path) -> None:
    cli.env["RUNYARD_CPU_SLOTS"] = "1"
    order = tmp_path / "order"

    def queue(*options: str, word: str) -> str:
        return cli.submit(*options, "python", "-c", RECORD, str(order), word)

    blocker = cli.submit("python", "train.py", "--sleep", "600")
    cli.until(blocker, "running")
    first = queue(word="first")
    queue(word="second")
    urgent = queue("--priority", "5", word="urgent")
    last = queue("--after", first, "--priority", "9", word="after first")
    assert any(blocker in reason or "busy" in reason or "slot" in reason for reason in cli.show(first)["wait_reasons"])
    assert any(first in reason for reason in cli.show(last)["wait_reasons"])
    cli.call("kill", "--now", blocker)
    for run in (urgent, first, last):
        cli.until(run, "finished")
    wait_for(lambda: len(order.read_text().splitlines()) == 4, "all four")
    assert order.read_text().splitlines() == ["urgent", "first", "after first", "second"]


def test_a_dependent_of_a_failed_run_fails_too(cli: Cli) -> None:
    first = cli.submit("python", "train.py", "--exit", "1")
    second = cli.submit("--after", first, "python", "train.py")
    run = cli.until(second, "failed")
    assert (run["end"]["reason"], run["end"]["origin"]) == ("dependency_failed", "scheduler")
    assert run["attempts"] == []


def test_retries_run_in_the_same_directory_and_say_so(cli: Cli) -> None:
    script = (
        "import os, sys; open('state', 'a').write(os.environ.get('RUNYARD_RESUMED', '0')); "
        "sys.exit(len(open('state').read()) < 3)"
    )
    run_id = cli.submit("--retries", "5", "python", "-c", script)
    run = cli.until(run_id, "finished")
    assert len(run["attempts"]) == 3
    assert (Path(run["run_dir"]) / "state").read_text() == "011"
    assert [attempt["end"]["exit_code"] for attempt in run["attempts"]] == [1, 1, 0]


def test_a_time_limit_ends_a_run(cli: Cli) -> None:
    run_id = cli.submit("--time-limit", "1", "python", "train.py", "--sleep", "600")
    run = cli.until(run_id, "failed")
    assert (run["end"]["reason"], run["end"]["origin"], run["end"]["signal"]) == ("time_limit", "scheduler", 15)


def test_what_no_host_has_is_said(cli: Cli) -> None:
    cli.until(cli.submit("python", "train.py"), "finished")
    run_id = cli.submit("--gpus", "64", "python", "train.py")
    reasons = wait_for(lambda: cli.show(run_id)["wait_reasons"], "a reason")
    assert any("64" in reason for reason in reasons)
    cli.call("kill", run_id)
    assert cli.show(run_id)["state"] == "killed"
