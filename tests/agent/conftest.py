"""Fixtures: a scripted server, and real agent processes that end with the test, with all that they started."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runyard.agent import tree
from runyard.wire import files, library, paths
from tests.agent.fake_server import CPU_SLOTS, FakeServer, assignment, make_tree, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = {"train.py": "print('hello from the run')\n"}


class AgentBox:
    """A home, a scripted server and the agents of this test."""

    def __init__(self, home: Path, server: FakeServer) -> None:
        self.home = home
        self.paths = paths.Home(str(home))
        self.server = server
        self.yard = server.yard
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(home), "RUNYARD_CPU_SLOTS": str(CPU_SLOTS)}
        self.environ["RUNYARD_GPUS"] = "none"
        self.agents: list[subprocess.Popen[bytes]] = []
        self.attempts: list[str] = []
        self.lib = ""
        files.write_json(self.paths.server_json, {"yard": self.yard.yard})

    def tree(self, contents: dict[str, Any]) -> str:
        """Put a tree on the server."""
        name, tar = make_tree(contents)
        self.yard.trees[name] = tar
        return name

    def start(self, *options: str, python: str = sys.executable, lib: str = "") -> subprocess.Popen[bytes]:
        """Start an agent from the immutable copy."""
        self.lib = self.lib or library.install(str(self.home))
        with open(self.home / "agent.err", "ab") as log:
            agent = subprocess.Popen(
                [python, "-I", "-S", lib or self.lib, "--home", str(self.home), "--server", self.server.url, *options],
                env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.agents.append(agent)
        return agent

    def run(self, *command: str, contents: dict[str, Any] | None = None, **changes: Any) -> str:
        """Assign a run and return its attempt's id."""
        name = self.tree(SCRIPT if contents is None else contents)
        return self.submit(assignment(name, list(command) or [sys.executable, "train.py"], **changes))

    def submit(self, value: dict[str, Any]) -> str:
        self.attempts.append(value["attempt"])
        return self.yard.assign(value)

    def python(self, code: str, **changes: Any) -> str:
        """Assign a run of a Python program."""
        return self.run(sys.executable, "main.py", contents={"main.py": code}, **changes)

    def end(self, attempt: str, timeout: float = 15.0) -> dict[str, Any]:
        """Wait for the report of an end."""
        found: dict[str, Any] = wait_for(lambda: self.yard.end_of(attempt), timeout, "the end, %s" % self.log())
        return found

    def status(self, attempt: str) -> dict[str, Any]:
        """Wait until the supervisor has written its status."""
        path = os.path.join(self.paths.attempt_dir(attempt), "status.json")
        found: dict[str, Any] = wait_for(lambda: files.read_json(path), what="status.json, %s" % self.log())
        return found

    def run_dir(self, attempt: str) -> Path:
        """Return the directory of an attempt's run that is in the home."""
        value = files.read_json(os.path.join(self.paths.attempt_dir(attempt), "assignment.json"))
        return self.home / str(value["dir"])

    def log(self) -> str:
        path = self.home / "agent.err"
        return path.read_text() if path.exists() else ""

    def kill(self, agent: subprocess.Popen[bytes]) -> None:
        """End an agent as a crash would."""
        agent.send_signal(signal.SIGKILL)
        agent.wait()

    def close(self) -> None:
        for agent in self.agents:
            if agent.poll() is None:
                agent.kill()
                agent.wait()
        for attempt in self.attempts:
            status = files.read_json(os.path.join(self.paths.attempt_dir(attempt), "status.json"))
            pid = (status or {}).get("supervisor_pid")
            if pid and not (status or {}).get("end"):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            tree.end_tree(attempt, status)


@pytest.fixture(scope="session")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client half, copied and compiled once for all tests; `library.install` finds it whole."""
    home = tmp_path_factory.mktemp("copied")
    library.install(str(home))
    return home / "lib"


@pytest.fixture
def box(copied: Path) -> Iterator[AgentBox]:
    home = Path(tempfile.mkdtemp(prefix="ry-agent-"))
    shutil.copytree(copied, home / "lib")
    server = FakeServer()
    made = AgentBox(home, server)
    yield made
    made.close()
    server.down()
    shutil.rmtree(home, ignore_errors=True)
