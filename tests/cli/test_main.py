"""What the last stop of every error does, and a disk that is full."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runyard.cli.main import main
from runyard.client.api import Api
from runyard.wire import paths
from runyard.wire.errors import InvalidError, NotFoundError, RunyardError
from tests.cli.conftest import SRC, Cli
from tests.cli.fake import FakeYard, serve, write_server_json


@pytest.fixture
def full_home(home: Path, require: Callable[[str], None]) -> Iterator[Path]:
    """A home on a disk of 2 MB."""
    require("root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", home], check=False).returncode:
        pytest.skip("may not mount")
    yield home
    subprocess.run(["umount", "-l", home], check=True)


def test_a_disk_that_fills_up_at_submit(full_home: Path, cli: Cli, repository: Path) -> None:
    fake = FakeYard()
    place = paths.Home(str(full_home))
    Path(place.socket()).parent.mkdir(parents=True)
    server = serve(fake, place.socket())
    write_server_json(full_home, os.getpid(), fake)
    (repository / "big.bin").write_bytes(os.urandom(6_000_000))
    try:
        done = cli("true", cwd=repository, env={"RUNYARD_HOME": str(full_home)})
        assert (done.returncode, done.stdout) == (1, "")
        assert "no space left" in done.stderr.lower()
        assert not fake.specs
        (repository / "big.bin").unlink()
        again = cli("true", cwd=repository, env={"RUNYARD_HOME": str(full_home)})
        assert again.returncode == 0, again.stderr
    finally:
        server.shutdown()
        server.server_close()


def test_an_error_that_nobody_expected_is_two_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> int:
        raise LookupError("first line\nsecond line")

    monkeypatch.setattr("runyard.cli.submit.run", broken)
    assert main(["true"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "runyard: LookupError: first line",
        "  This is not an error that Runyard expected; run again with -v to see where it comes from.",
    ]
    assert main(["-v", "true"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_traceback_does_not_take_the_place_of_the_hint(cli: Cli) -> None:
    done = cli("-v", "sttus")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("did you mean: runyard status\n")


def test_a_working_directory_that_is_gone(yard: FakeYard, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    line = 'rmdir "%s" && exec "$@"' % gone
    done = subprocess.run(
        ["sh", "-c", line, "sh", sys.executable, "-m", "runyard.cli", "true"], cwd=gone, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(SRC)}, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no longer exists" in done.stderr
    assert not yard.specs


@pytest.mark.parametrize(
    ("words", "said"), [(["token"], "what to do was not said"), (["completion"], "bash, zsh, fish")]
)
def test_a_mistake_in_the_words_is_one_line_and_where_to_read_on(cli: Cli, words: list[str], said: str) -> None:
    done = cli(*words)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert said in first
    assert "\\n" not in first
    assert second == "  see `runyard %s --help`" % words[0]


@pytest.mark.parametrize(
    ("error", "words", "said"),
    [
        (InvalidError("no", "see /openapi.json"), ["tag", "@last", "-t", "x"], "no (see `runyard tag --help`)"),
        (InvalidError("no", "see /openapi.json"), ["rename", "@last", "x"], "see `runyard rename --help`"),
        (InvalidError("no", "see the run spec in docs/protocol.md"), ["true"], "see `runyard run --help`"),
        (NotFoundError("there is nothing at /x", "see /openapi.json"), ["rename", "@last", "x"], "runyard restart"),
        (NotFoundError("no run", "runyard ls"), ["rename", "@last", "x"], "runyard ls"),
    ],
)
def test_what_the_server_tells_programs_is_said_for_people(
    cli: Cli, yard: FakeYard, monkeypatch: pytest.MonkeyPatch, error: RunyardError, words: list[str], said: str
) -> None:
    def refuse(*_: object) -> None:
        raise error

    assert cli("true").returncode == 0
    monkeypatch.setattr(Api, "edit", refuse)
    monkeypatch.setattr(Api, "submit", refuse)
    done = cli(*words)
    assert done.returncode == (2 if isinstance(error, InvalidError) else 1)
    assert done.stderr.endswith(said + "\n")


def test_a_size_that_is_none_is_said_as_it_was_written(cli: Cli, repository: Path) -> None:
    done = cli("--dry-run", "true", cwd=repository, env={"RUNYARD_MAX_FILE": "big"})
    assert done.returncode == 2
    assert "max_file is 'big', which is no size" in done.stderr
