"""The process that collectors are forked from: what outlives what."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runyard.agent.collect import LOCK, Collector
from runyard.agent.collectors import Collectors
from runyard.agent.sources import Source
from runyard.client.spool import SpoolWriter
from runyard.wire import files, procs
from tests.agent.fake_server import wait_for
from tests.client.streams import messages, rows

if TYPE_CHECKING:
    from runyard.client.spool import Message, Row

SOURCE = str(Path(files.__file__).parents[2])
STARTER = (
    """
import sys
from runyard.agent.collectors import Collectors
print(Collectors(sys.executable, %r).start(sys.argv[1]), flush=True)
print(open("/proc/thread-self/children").read(), flush=True)
sys.stdin.read()
"""
    % SOURCE
)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where attempts are; their collectors end when they are gone."""
    place = tmp_path / "attempts"
    place.mkdir()
    yield place
    found = [str(path / LOCK) for path in place.iterdir()]
    shutil.rmtree(place)
    wait_for(lambda: not any(files.is_locked(path) for path in found))


def attempt(place: Path, name: str) -> str:
    """Make an attempt that is just starting, of which nothing is collected."""
    (place / name).mkdir()
    facts = {"kinds": [], "off": [], "resumed": False, "spool": str(place / name / "spool"), "kept": ""}
    files.write_json(str(place / name / "collect.json"), facts)
    return str(place / name)


def collected(directory: str) -> bool:
    return files.is_locked(os.path.join(directory, LOCK))


def mother() -> int:
    lists = Path("/proc/self/task").glob("*/children")
    pids = [int(pid) for path in lists for pid in path.read_text().split()]
    return next(pid for pid in pids if b"collector.py" in Path("/proc/%d/cmdline" % pid).read_bytes())


def test_a_collector_has_its_lock_when_start_returns_and_is_the_only_one(place: Path) -> None:
    collectors = Collectors(sys.executable, SOURCE)
    first, second = attempt(place, "1"), attempt(place, "2")
    assert collectors.start(first)
    assert collected(first)
    assert not collectors.start(first)
    assert collectors.start(second)
    assert not collectors.start(str(place / "3"))  # which is not there


def test_collectors_outlive_the_process_that_they_are_forked_from_and_more_can_be_started(place: Path) -> None:
    collectors = Collectors(sys.executable, SOURCE)
    first, second = attempt(place, "1"), attempt(place, "2")
    assert collectors.start(first)
    os.kill(mother(), signal.SIGKILL)
    assert collectors.start(second)
    assert collected(first)
    assert collected(second)


def test_a_collector_outlives_the_agent_and_what_it_was_forked_from_does_not(place: Path) -> None:
    directory = attempt(place, "1")
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={"PYTHONPATH": SOURCE},
    ) as starter:  # fmt: skip
        assert starter.stdin is not None
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"True\n"
        pid = int(starter.stdout.readline())
        started = procs.start_time(pid)
        assert started is not None
        starter.kill()
    wait_for(lambda: not procs.is_alive(pid, started))
    assert collected(directory)


class Pictures(Source):
    """Finds more at once than one record can hold, and something that none can."""

    name = "files"

    def turn(self, over: bool) -> tuple[list[Row], list[Message]]:
        images: list[Message] = [({"type": "media", "name": "image%d" % n}, bytes(5 << 20)) for n in range(14)]
        return [({"loss": 1.0}, 0, 0)], [*images, ({"type": "media", "name": "film"}, bytes(65 << 20))]

    def state(self) -> str:
        return "there"


def test_a_turn_that_finds_more_than_a_record_holds_is_taken_all_the_same(tmp_path: Path) -> None:
    source = Pictures()
    writer = SpoolWriter(str(tmp_path / "spool"), {"type": "process"}, print)
    Collector(str(tmp_path), {}, writer, [source], 1).turn(source, False)
    writer.close()
    assert len(messages(tmp_path / "spool", "media")) == 14
    assert rows(tmp_path / "spool") == [(0, {"loss": 1.0})]
    assert [message["value"] for message in messages(tmp_path / "spool", "position")] == ["there"]
    (note,) = messages(tmp_path / "spool", "capture")
    assert "film was left out" in note["notes"][0]
