"""Fixtures of the command line's tests: a server in memory, the program as a real process, a small repository."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runyard.cli.main import main
from runyard.wire import paths
from tests.cli.fake import FakeYard, serve, write_server_json

SRC = Path(__file__).resolve().parents[2] / "src"
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


class Running:
    """A fake server on the Unix socket of a home; `restart` breaks its connections off and starts it again."""

    def __init__(self, home: Path) -> None:
        self.yard = FakeYard()
        self.socket = Path(paths.Home(str(home)).socket())
        self.socket.parent.mkdir(parents=True, mode=0o700)
        self.server = serve(self.yard, str(self.socket))
        write_server_json(home, os.getpid(), self.yard)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.server.break_off()
        self.socket.unlink()

    def restart(self) -> None:
        self.stop()
        self.server = serve(self.yard, str(self.socket))


@pytest.fixture
def running(home: Path) -> Iterator[Running]:
    """A server for the home, on its Unix socket."""
    server = Running(home)
    yield server
    server.stop()


@pytest.fixture
def yard(running: Running) -> FakeYard:
    """The state of the home's server."""
    return running.yard


@pytest.fixture
def restart(running: Running) -> Callable[[], None]:
    """Restart the home's server."""
    return running.restart


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with one commit and one uncommitted change."""
    top = tmp_path / "digits"
    top.mkdir()
    (top / "train.py").write_text("print('old')\n")
    (top / "notes.txt").write_text("hello\n")
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "start"]):
        subprocess.run(["git", *words], cwd=top, check=True)
    (top / "train.py").write_text("print('new')\n")
    return top


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """The environment in which the program runs."""
    return dict(os.environ, PYTHONPATH=str(SRC), RUNYARD_AUTOSTART="0", COLUMNS="200")


@pytest.fixture
def process_cli(environment: dict[str, str], tmp_path: Path) -> Cli:
    """Run the command line as a process of its own: ``cli("ls", "-q", cwd=..., env=...)``."""

    def run(*words: str, cwd: Path = tmp_path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "runyard.cli", *words], cwd=cwd, env={**environment, **(env or {})},
            capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return run


@pytest.fixture
def cli(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The same in this process, several times faster; tests of processes, signals and streams use the other."""

    def run(*words: str, cwd: Path = tmp_path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        with monkeypatch.context() as patch:
            for name in set(os.environ) - set(environment):
                patch.delenv(name)
            for name, value in {**environment, **(env or {})}.items():
                patch.setenv(name, value)
            patch.chdir(cwd)
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            status = main(words)
        texts = [stream.buffer.getvalue().decode().replace("\r\n", "\n").replace("\r", "\n") for stream in (out, err)]
        return subprocess.CompletedProcess(words, status, *texts)

    return run
