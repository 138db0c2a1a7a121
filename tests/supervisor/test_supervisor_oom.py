"""A program that the kernel kills for memory says so. Needs a memory control group that may be made."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runyard.wire import states
from tests.supervisor.supervised import Attempt, lacking, python

Make = Callable[..., Attempt]
EATER = "import time; time.sleep(0.3); x = bytearray(400 << 20)"


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A control group with 64 MB, of version 1 or 2."""
    for parent, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(parent) / ("runyard-test-%d" % os.getpid())
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(64 << 20))
        except OSError:
            group.rmdir()
            continue
        yield group
        for _ in range(200):
            try:
                group.rmdir()
                return
            except OSError:
                time.sleep(0.02)
        return
    lacking("no memory control group may be made here")


def _run_in(group: Path, one: Attempt) -> dict[str, object]:
    """Start the supervisor within the group, as a service manager would start the agent."""
    own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    version1 = "memory" in str(group)[:22]
    mine = next(path for _, kind, path in own if kind == ("memory" if version1 else ""))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        one.start()
    finally:
        top = group.parent / mine.lstrip("/")
        ((top if top.is_dir() else group.parent) / "cgroup.procs").write_text(str(os.getpid()))
    return one.end()


def test_out_of_memory_is_told_from_a_kill(attempt: Make, small_memory: Path) -> None:
    end = _run_in(small_memory, attempt(python(EATER)))
    assert (end["reason"], end["origin"], end["signal"]) == (states.OUT_OF_MEMORY, states.USER, 9)
    end = _run_in(small_memory, attempt(["sh", "-c", "kill -9 $$"]))
    assert (end["reason"], end["signal"]) == (states.SIGNALED, 9)


def test_out_of_memory_below_a_shell(attempt: Make, small_memory: Path) -> None:
    end = _run_in(small_memory, attempt(["sh", "-c", '"$0" -I -S -c "$1"; exit $?', python("")[0], EATER]))
    assert (end["reason"], end["exit_code"]) == (states.OUT_OF_MEMORY, 137)
