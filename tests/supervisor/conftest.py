"""Fixtures of the tests of the supervisor."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.supervisor.supervised import SOURCE, Attempt, lacking, lib_without


@pytest.fixture(scope="session")
def lib(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the client half and nothing else, as it lies in ``lib/<version>/``."""
    target = tmp_path_factory.mktemp("lib")
    for name in ("wire", "agent"):
        shutil.copytree(SOURCE / name, target / "runyard" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(SOURCE / "__init__.py", target / "runyard")
    return target


@pytest.fixture
def attempt(tmp_path: Path, lib: Path) -> Iterator[Callable[..., Attempt]]:
    """Make attempts: ``attempt(argv, **launch fields)``. What they leave is ended after the test."""
    made: list[Attempt] = []

    def make(argv: list[str], lacks: tuple[str, ...] = (), **options: Any) -> Attempt:
        made.append(Attempt(tmp_path, lib_without(lib, lacks), argv, **options))
        return made[-1]

    yield make
    for one in made:
        one.clean()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount small file systems: ``small_disk(bytes)`` returns the directory."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        point = tmp_path / ("disk%d" % len(mounted))
        point.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=%d" % size, "tmpfs", str(point)]
        done = subprocess.run(command, capture_output=True, text=True, check=False) if os.getuid() == 0 else None
        if done is None or done.returncode:
            reason = "mounting a tmpfs needs root: " + (done.stderr.strip() if done else "not root")
            lacking(reason)
        mounted.append(point)
        return point

    yield mount
    for point in mounted:
        subprocess.run(["umount", str(point)], check=True)
