"""Reading what was logged, and running programs that log."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from runyard.wire import spool
from tests.agent.fake_server import logged

SRC = str(Path(__file__).resolve().parents[2] / "src")


def read_all(directory: Path, stream: str, dead: bool = True) -> list[spool.Record]:
    """Return all records of a stream."""
    reader = spool.StreamReader(str(directory), stream, dead)
    return [record for part in iter(reader.read, []) for record in part]


def rows(directory: Path) -> list[tuple[int, dict[str, float]]]:
    """Return step and values of all rows in a spool directory."""
    return [row for stream in spool.streams(str(directory)) for row in logged(read_all(directory, stream))]


def messages(directory: Path, type_: str = "") -> list[dict[str, Any]]:
    """Return the messages in a spool directory, those of one type."""
    found = []
    for stream in spool.streams(str(directory)):
        for record in read_all(directory, stream):
            inner = list(spool.records(record.body)) if record.kind == spool.GROUP else [record]
            for part in inner:
                if part.kind == spool.MESSAGE:
                    message, content = spool.parse_message(part.body)
                    found.append({**message, "content": content} if content else message)
    return [message for message in found if not type_ or message["type"] == type_]


def environment(directory: Path, **more: str) -> dict[str, str]:
    """Return the environment of a program in a run whose spool is in a directory."""
    env = {name: text for name, text in os.environ.items() if not name.startswith(("RUNYARD_", "PYTHON"))}
    run = {"RUNYARD_SPOOL": str(directory / "spool"), "RUNYARD_RUN_ID": "a" * 12, "RUNYARD_RUN_DIR": str(directory)}
    return {**env, **run, "PYTHONPATH": SRC, **more}


def program(directory: Path, code: str, *args: str, python: str = sys.executable, **more: str) -> Any:
    """Run a program in a run and return what it printed and its exit status; its spool is in ``directory/spool``."""
    path = directory / "program.py"
    path.write_text(code)
    return subprocess.run(
        [python, str(path), *args], env=environment(directory, **more), cwd=directory, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
