"""What programs print, and how they refuse to end, through the whole yard."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runyard.wire import procs
from tests.e2e.harness import Cli, end_all, wait_for

LARGE = """\
import hashlib, random, sys
block = random.Random(1).randbytes(1 << 20)
digest = hashlib.sha256()
for number in range(100):
    piece = b"%d\\n" % number + block
    digest.update(piece)
    sys.stdout.buffer.write(piece)
sys.stdout.buffer.flush()
open("sum.txt", "w").write(digest.hexdigest())
"""
GRANDCHILD = """\
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open("pid.partial", "w").write(str(os.getpid()))
        os.rename("pid.partial", "pid.txt")
        time.sleep(600)
    os._exit(0)
while not os.path.exists("pid.txt"):
    time.sleep(0.01)
print("the program is done", flush=True)
"""
DEAF = """\
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def hasty(home: Path, repository: Path) -> Iterator[Cli]:
    """A yard that gives a program half a second between SIGTERM and SIGKILL."""
    yield Cli(home, repository, RUNYARD_CPU_SLOTS="1", RUNYARD_GRACE="0.5")
    end_all(home)


def raw(cli: Cli, run: str) -> bytes:
    """Return the exact log of a run, as the command line gives it."""
    done = subprocess.run(
        [sys.executable, "-m", "runyard.cli", "logs", "--raw", run],
        cwd=cli.cwd, env=cli.env, capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


def write(cli: Cli, name: str, code: str) -> None:
    """Put a script into the user's repository."""
    (cli.cwd / name).write_text(code)


def test_a_hundred_megabytes_come_back_to_the_byte(cli: Cli) -> None:
    write(cli, "large.py", LARGE)
    run = cli.until(cli.submit("python", "large.py"), "finished", deadline_s=120.0)
    data = raw(cli, run["id"])
    assert len(data) > 100 << 20
    assert hashlib.sha256(data).hexdigest() == (Path(run["run_dir"]) / "sum.txt").read_text()
    attempt = run["attempts"][0]
    assert (attempt["log_bytes"], attempt["log_dropped"]) == (len(data), 0)


def test_a_progress_bar_is_collapsed_for_reading_and_kept_raw(cli: Cli) -> None:
    write(cli, "bar.py", "for n in range(101): print(f'\\r{n:3d}%', end='', flush=True)\nprint('\\ndone')\n")
    run = cli.until(cli.submit("python", "bar.py"), "finished")
    assert cli.out("logs", run["id"]) == "100%\ndone\n"
    assert raw(cli, run["id"]) == b"".join(b"\r%3d%%" % n for n in range(101)) + b"\ndone\n"


def test_bytes_that_are_no_text_and_an_end_without_a_newline(cli: Cli) -> None:
    every = "bytes(range(256))"
    run = cli.until(cli.submit("python", "-c", f"import os; os.write(1, {every} + b'no newline')"), "finished")
    assert raw(cli, run["id"]) == bytes(range(256)) + b"no newline"
    assert cli.out("logs", run["id"]).endswith("no newline")


def test_a_program_that_reads_its_input_finds_the_end_of_it(cli: Cli) -> None:
    run = cli.until(
        cli.submit("python", "-c", "import sys; print(repr(sys.stdin.read()), sys.stdin.isatty())"), "finished"
    )
    assert cli.out("logs", run["id"]) == "'' False\n"


def test_a_grandchild_that_left_the_session_is_ended_with_the_program(cli: Cli) -> None:
    write(cli, "grandchild.py", GRANDCHILD)
    run = cli.until(cli.submit("python", "grandchild.py"), "finished")
    pid = int((Path(run["run_dir"]) / "pid.txt").read_text())
    assert not os.path.exists(f"/proc/{pid}") or not procs.is_alive(pid, None)
    assert cli.out("logs", run["id"]) == "the program is done\n"
    assert run["end"]["exit_code"] == 0
    assert "left running: python" in cli.out("show", run["id"])


def test_a_program_that_ignores_sigterm_is_killed_after_the_grace(hasty: Cli) -> None:
    write(hasty, "deaf.py", DEAF)
    run_id = hasty.submit("python", "deaf.py")
    wait_for(lambda: hasty.show(run_id)["state"] == "running" and b"ready" in raw(hasty, run_id), "its first line")
    hasty.call("kill", run_id)
    run = hasty.until(run_id, "killed")
    assert (run["end"]["signal"], run["end"]["origin"]) == (9, "human")
    after = hasty.until(hasty.submit("python", "train.py"), "finished")  # its slot is free again
    assert after["slots"] == run["slots"]
