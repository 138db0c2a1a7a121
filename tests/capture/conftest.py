"""Programs that run with the hooks in place, as in a run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from runyard.wire import spool

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "runyard"
PARTS = ("wire", "client", "capture")


@pytest.fixture(scope="session")
def lib(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the client half, as runs have it."""
    top = tmp_path_factory.mktemp("lib")
    (top / "runyard").mkdir()
    shutil.copy(PACKAGE / "__init__.py", top / "runyard")
    for part in PARTS:
        shutil.copytree(PACKAGE / part, top / "runyard" / part, ignore=shutil.ignore_patterns("__pycache__"))
    return top


class Run:
    """A run's directory ``tree`` with its spool, and what its processes wrote there."""

    def __init__(self, top: Path, lib: Path) -> None:
        self.tree = top / "tree"
        self.tree.mkdir()
        self.spool = top / "spool"
        self.lib = lib

    def write(self, name: str, text: str) -> Path:
        """Write a file of the tree, a second ago: what is there when the run starts."""
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def environ(self, kinds: str = "params,data", **more: str) -> dict[str, str]:
        """Return the environment of a run."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RUNYARD_"))}
        inject = self.lib / "runyard" / "capture" / "inject"
        return environ | {
            "PYTHONPATH": str(inject), "RUNYARD_SPOOL": str(self.spool), "RUNYARD_CAPTURE": kinds,
            "RUNYARD_RUN_DIR": str(self.tree), "RUNYARD_ATTEMPT": "0" * 32, **more,
        }  # fmt: skip

    def execute(self, *command: str, kinds: str = "params,data", **more: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; ``more``: variables."""
        settle()
        return self.plain(*command, environ=self.environ(kinds, **more))

    def plain(self, *command: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program with an environment, by default without anything of ours."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RUNYARD_"))}
        return subprocess.run(
            command,
            cwd=self.tree,
            env=clean if environ is None else environ,
            capture_output=True,
            text=True,
            timeout=100,
        )

    def python(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a program with the Python of the tests, which must succeed and say nothing on stderr."""
        done = self.execute(sys.executable, *arguments, **more)
        assert (done.returncode, done.stderr) == (0, "")
        return done

    def messages(self, kind: str = "") -> list[dict[str, Any]]:
        """Return the messages of all streams, one stream after the other; of one type, if said."""
        found = []
        for stream in spool.streams(str(self.spool)):
            reader = spool.StreamReader(str(self.spool), stream, dead=True)
            while records := reader.read():
                found += [spool.parse_message(record.body)[0] for record in records]
            assert (reader.damage.bytes, reader.damage.records) == (0, 0)
        return [message for message in found if kind in ("", message["type"])]

    def params(self, origin: str) -> dict[str, Any]:
        """Return the parameters of one origin."""
        found: dict[str, Any] = {}
        for message in self.messages("params"):
            if message["origin"] == origin:
                found |= message["values"]
        return found

    def files(self) -> dict[str, dict[str, Any]]:
        """Return what was said of data files, by path."""
        return {file["path"]: file for message in self.messages("data") for file in message["files"]}

    def notes(self) -> list[str]:
        """Return what the capture had to remark, errors of its own among it."""
        return [note for message in self.messages("capture") for note in message["notes"]]


def settle() -> None:
    """Wait until files written so far are older than a process that starts now: clocks of file systems tick in steps."""
    time.sleep(0.02)


@pytest.fixture
def run(tmp_path: Path, lib: Path) -> Run:
    """A run whose tree is empty."""
    return Run(tmp_path, lib)
