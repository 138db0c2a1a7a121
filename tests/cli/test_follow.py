from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.fake import FakeYard, until

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(environment: dict[str, str], repository: Path) -> Iterator[Start]:
    """Start the command line without waiting for it."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "runyard.cli", *words], cwd=repository, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def submitted(yard: FakeYard) -> str:
    return str(until(lambda: list(yard.runs))[0])


def requested(yard: FakeYard, what: str) -> bool:
    return any(what in path for _, path in yard.requests)


def test_follow_prints_the_log_as_it_comes_and_takes_over_the_exit_status(start: Start, yard: FakeYard) -> None:
    process = start("-f", "true")
    run_id = submitted(yard)
    yard.write(run_id, b"one\n")
    assert process.stdout is not None
    assert process.stdout.readline() == "one\n"
    yard.write(run_id, b" 10%\r 20%\rdone\n")
    yard.runs[run_id]["outputs"] = [{"path": "model.json", "size": 3}]
    yard.runs[run_id]["capture"] = {"refused": [{"name": "x%d" % n, "count": n, "why": "odd"} for n in range(1, 6)]}
    yard.end(run_id, 3)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (3, "done\n")
    assert "note      x3 was not taken (3 times): odd\n          and 2 more: runyard show %s\n" % run_id[:6] in err
    assert "failed after 0.0s: exit code 3" in err
    assert "captured  its log, 1 output" in err and "outputs   model.json" in err
    assert "runyard rerun" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ({"exit_code": 0}, 0),
        ({"exit_code": 7}, 7),
        ({"exit_code": None, "signal": 9, "reason": "signaled"}, 137),
        ({"exit_code": None, "reason": "dependency_failed"}, 1),
        ({"exit_code": None, "signal": 15, "reason": "stopped"}, 143),
    ],
)
def test_wait_ends_with_the_status_of_the_run(
    start: Start, yard: FakeYard, end: dict[str, object], status: int
) -> None:
    process = start("--wait", "true")
    yard.end(submitted(yard), **end)  # type: ignore[arg-type]
    process.communicate(timeout=20)
    assert process.returncode == status


def test_the_first_interrupt_detaches_and_says_so(start: Start, yard: FakeYard) -> None:
    process = start("-f", "true")
    run_id = submitted(yard)
    until(lambda: requested(yard, "follow=true"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Detached: %s goes on" % run_id in err
    assert yard.runs[run_id]["state"] == "queued"


def test_a_second_interrupt_kills(start: Start, yard: FakeYard) -> None:
    process = start("-f", "true")
    run_id = submitted(yard)
    until(lambda: requested(yard, "follow=true"))
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "Detached" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert "Killed %s" % run_id in err
    assert yard.runs[run_id]["state"] == "killed"


def test_follow_survives_a_restart_of_the_server(
    start: Start, yard: FakeYard, home: Path, restart: Callable[[], None]
) -> None:
    process = start("-f", "true")
    run_id = submitted(yard)
    until(lambda: requested(yard, "follow=true"))
    yard.write(run_id, b"before\n")
    assert process.stdout is not None
    assert process.stdout.readline() == "before\n"
    restart()
    yard.write(run_id, b"after\n")
    yard.end(run_id, 0)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "after\n")


def test_logs_follow_ends_with_the_run(cli: Cli, yard: FakeYard, repository: Path) -> None:
    cli("true", cwd=repository)
    (run_id,) = yard.runs
    yard.write(run_id, b"a\n")

    def end() -> None:
        until(lambda: requested(yard, "follow=true"))
        yard.write(run_id, b"b\n")
        yard.end(run_id)

    ending = threading.Thread(target=end)
    ending.start()
    done = cli("logs", "-f", "@last")
    ending.join()
    assert (done.returncode, done.stdout) == (0, "a\nb\n")


def test_follow_json_ends_with_the_run(start: Start, yard: FakeYard) -> None:
    process = start("--wait", "--json", "true")
    yard.end(submitted(yard), 0)
    out, _ = process.communicate(timeout=20)
    assert json.loads(out)["state"] == "finished"


def test_with_json_the_output_of_the_run_is_not_on_stdout(start: Start, yard: FakeYard) -> None:
    process = start("--follow", "--json", "true")
    run_id = submitted(yard)
    yard.write(run_id, b"epoch 1\n")
    yard.end(run_id, 0)
    out, err = process.communicate(timeout=20)
    assert json.loads(out)["id"] == run_id
    assert "epoch 1\n" in err


def test_an_interrupt_while_it_is_submitted_says_that_it_may_go_on(start: Start, yard: FakeYard) -> None:
    with yard.changed:  # the server does not answer yet
        process = start("true")
        path = until(lambda: [path for method, path in yard.requests if method == "PUT"])[0]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "goes on: runyard show %s" % path.rpartition("/")[2] in err
    assert "Traceback" not in err


def test_an_interrupt_of_a_followed_log_says_that_the_run_goes_on(start: Start, yard: FakeYard, cli: Cli) -> None:
    assert cli("true").returncode == 0
    process = start("logs", "-f", "@last")
    until(lambda: requested(yard, "follow=true"))
    process.send_signal(signal.SIGINT)
    assert "this does not stop the run" in process.communicate(timeout=60)[1]
    assert process.returncode == 130
