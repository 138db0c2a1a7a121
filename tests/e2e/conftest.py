"""Fixtures: a whole yard in a home of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import TRAIN, Cli, end_all, write_repository


@pytest.fixture
def repository(home: Path, tmp_path: Path) -> Path:
    """A user's repository with one script."""
    return write_repository(tmp_path / "digits", {"train.py": TRAIN, ".gitignore": "data/\n"})


@pytest.fixture
def cli(home: Path, repository: Path) -> Iterator[Cli]:
    """The command line in a fresh home, in the user's repository. Two CPU slots. Everything ends with the test."""
    yield Cli(home, repository, RUNYARD_CPU_SLOTS="2")
    end_all(home)
