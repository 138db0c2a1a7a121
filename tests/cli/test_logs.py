from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.cli import logtext
from tests.cli.conftest import Cli
from tests.cli.fake import FakeYard

log_bytes = st.lists(st.sampled_from([b"a", b"bc", b"\r", b"\n", b"\r\n", "é█".encode(), b"\xff", b" "])).map(b"".join)


@pytest.fixture
def run_id(cli: Cli, yard: FakeYard, repository: Path) -> str:
    """A run that has ended."""
    assert cli("true", cwd=repository).returncode == 0
    (run_id,) = yard.runs
    yard.end(run_id)
    return run_id


def terminal(data: bytes) -> list[str]:
    """What a terminal shows of a log, character by character."""
    lines: list[list[str]] = [[]]
    at = 0
    for char in data.decode("utf-8", "replace"):
        if char == "\n":
            lines.append([])
            at = 0
        elif char == "\r":
            at = 0
        else:
            lines[-1][at : at + 1] = [char]
            at += 1
    return ["".join(line) for line in lines]


@given(log_bytes, st.lists(st.integers(0, 40)))
def test_collapsing_shows_what_a_terminal_shows_however_the_log_is_cut(data: bytes, cuts: list[int]) -> None:
    marks = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(marks)]
    shown = b"".join(logtext.collapse(pieces)).decode("utf-8")
    assert shown.split("\n") == terminal(data)


def test_a_progress_bar_of_hours_takes_no_memory() -> None:
    pieces = (b"\r%3d%%" % (n % 100) for n in range(200_000))
    assert b"".join(logtext.collapse(pieces)) == b" 99%"


def test_logs_collapse_carriage_returns_and_raw_does_not(cli: Cli, yard: FakeYard, run_id: str) -> None:
    yard.logs[run_id] = b"  1%|\r 50%|##\r100%|####\ndone\n"
    assert cli("logs", run_id).stdout == "100%|####\ndone\n"
    assert cli("logs", "--raw", run_id).stdout == "  1%|\n 50%|##\n100%|####\ndone\n"  # text mode reads \r as \n


def test_logs_for_reading_cannot_steer_the_readers_terminal(cli: Cli, yard: FakeYard, run_id: str) -> None:
    yard.logs[run_id] = b"\x1b]0;new title\x07\x1b[31mred\x1b[0m \x1b[2J\x1b[H\x1b]52;c;ZXZpbA==\x07gone\n"
    assert cli("logs", run_id).stdout == "red gone\n"


def test_raw_is_byte_for_byte(yard: FakeYard, run_id: str, environment: dict[str, str]) -> None:
    yard.logs[run_id] = os.urandom(3_000_000)
    command = [sys.executable, "-m", "runyard.cli", "logs", "--raw", run_id]
    got = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    assert hashlib.sha256(got).hexdigest() == hashlib.sha256(yard.logs[run_id]).hexdigest()


@pytest.mark.parametrize("number", [1, 2, 500])
def test_last_lines(cli: Cli, yard: FakeYard, run_id: str, number: int) -> None:
    lines = ["%d %s" % (n, "x" * 300) for n in range(400)]
    yard.logs[run_id] = "\n".join(lines).encode() + b"\n"
    assert cli("logs", "-n", str(number), run_id).stdout.splitlines() == lines[-number:]


def test_outputs_and_get(cli: Cli, yard: FakeYard, run_id: str, tmp_path: Path) -> None:
    yard.runs[run_id]["outputs"] = [{"path": "out/model.json", "size": 5, "sha256": None, "type": "data"}]
    yard.files[run_id] = {"out/model.json": b"12345"}
    assert "out/model.json" in cli("outputs", run_id).stdout
    done = cli("get", run_id, "out/model.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model.json").read_bytes() == b"12345"
    again = cli("get", run_id, "out/model.json", cwd=tmp_path)
    assert again.returncode == 1
    assert "exists already" in again.stderr
    (tmp_path / "d").mkdir()
    assert cli("get", run_id, "out/model.json", "-o", "d", cwd=tmp_path).returncode == 0
    assert (tmp_path / "d" / "model.json").read_bytes() == b"12345"
    assert cli("get", run_id, "out/model.json", "-o", "-").stdout == "12345"


def test_what_was_logged_is_shown_and_fetched(cli: Cli, yard: FakeYard, run_id: str, tmp_path: Path) -> None:
    yard.media[run_id] = [
        {"name": "val/img", "step": step, "kind": "image", "format": "png", "sha256": "%064d" % step} for step in (1, 5)
    ]
    yard.files[run_id] = {"%064d" % 1: b"one", "%064d" % 5: b"five"}
    yard.runs[run_id]["media"] = [{"name": "val/img", "kind": "image", "count": 2, "min_step": 1, "max_step": 5}]
    assert "LOGGED   KIND   NUMBER  STEPS\nval/img  image  2       1 to 5" in cli("show", run_id).stdout
    assert cli("get", run_id, "val/img", cwd=tmp_path).stdout == "img.png (4 B)\n"
    assert (tmp_path / "img.png").read_bytes() == b"five"
    assert cli("get", run_id, "val/img", "--step", "1", "-o", "-").stdout == "one"
    done = cli("get", run_id, "val/img", "--step", "2", cwd=tmp_path)
    assert done.returncode == 1 and "logged no val/img at step 2\n  there are the steps 1, 5\n" in done.stderr
    yard.files[run_id]["val/img"] = b"a file of that name"
    assert cli("get", run_id, "val/img", "-o", "-").stdout == "a file of that name"


def test_get_into_a_directory_that_is_not_there(cli: Cli, yard: FakeYard, run_id: str, tmp_path: Path) -> None:
    yard.files[run_id] = {"model.json": b"12345"}
    done = cli("get", run_id, "model.json", "-o", "nowhere/model.json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "nowhere/model.json cannot be written: No such file or directory" in done.stderr
    assert not list(tmp_path.glob("nowhere*"))


def test_get_of_nothing_leaves_nothing(cli: Cli, yard: FakeYard, run_id: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    done = cli("get", run_id, "nothing", cwd=tmp_path)
    assert done.returncode == 1
    assert "no such output" in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_the_log_of_a_run_that_has_not_started_says_why(cli: Cli, yard: FakeYard, run_id: str) -> None:
    yard.runs[run_id].update(started_at=None, ended_at=None, state="queued", wait_reasons=["box: no GPU is free"])
    done = cli("logs", run_id)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "%s has not started: queued: box: no GPU is free\n" % run_id


def test_a_log_that_is_gone_is_said_with_what_brings_one_back(cli: Cli, yard: FakeYard, run_id: str) -> None:
    yard.runs[run_id]["files"] = "gone"
    for words in ([], ["-f"], ["--raw"], ["-n", "1"]):
        done = cli("logs", run_id, *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert "is gone" in done.stderr
        assert "runyard rerun %s" % run_id in done.stderr
