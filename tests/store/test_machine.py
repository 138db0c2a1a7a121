"""A random life of a yard; RUNYARD_TEST_LIVES sets how many are lived (default 15)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from runyard.testing.machine import YardMachine
from runyard.testing.stage import Stage
from tests.store.backends import copy_sqlite, make_stage

LIVES = int(os.environ.get("RUNYARD_TEST_LIVES", "15"))
SETTINGS = settings(
    max_examples=LIVES,
    stateful_step_count=30,
    deadline=None,
    derandomize=LIVES == 15,  # the same lives every time, unless more are asked for
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


def machine(template: Path, directory: str) -> type[YardMachine]:
    """Return the machine on yards on SQLite below a directory."""

    class Machine(YardMachine):
        def open_stage(self) -> Stage:
            home = Path(tempfile.mkdtemp(dir=directory))
            return make_stage(home, copy_sqlite(template, home / "yard.db"))

    return Machine


@pytest.mark.timeout(0)
def test_a_yard_keeps_its_promises_whatever_happens(template: Path, tmp_path: Any) -> None:
    run_state_machine_as_test(machine(template, str(tmp_path)), settings=SETTINGS)
