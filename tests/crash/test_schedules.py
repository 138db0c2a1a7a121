"""Random schedules. ``--schedules 300`` runs that many, ``--seed N --schedules 1`` replays one."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.crash import schedule
from tests.crash.conftest import database_of
from tests.crash.nursery import Nursery
from tests.crash.schedule import Result
from tests.crash.yard import Template
from tests.store.backends import Postgres

BATCH = 5
"""Yards that are broken at the same time: most of a schedule is waiting."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    first, number = metafunc.config.getoption("seed"), metafunc.config.getoption("schedules")
    seeds = list(range(first or 1, (first or 1) + number))
    batches = [seeds[start : start + BATCH] for start in range(0, len(seeds), BATCH)]
    metafunc.parametrize("seeds", batches, ids=["seeds-%d-to-%d" % (batch[0], batch[-1]) for batch in batches])


@pytest.mark.timeout(400)
def test_random_schedules(seeds: list[int], nursery: Nursery, template: Template, postgres: Postgres | None) -> None:
    def play(seed: int) -> Result:
        made = schedule.generate(seed, postgres=postgres is not None, root=os.getuid() == 0)
        with database_of(postgres if made.postgres else None) as url:
            return schedule.run(made, nursery, template, url)

    with ThreadPoolExecutor(BATCH) as pool:
        results = list(pool.map(play, seeds))
    for result in results:
        print("seed %d: %d runs, %.1f s" % (result.schedule.seed, result.runs, result.seconds))
    failed = [result for result in results if result.violations]
    assert not failed, "\n\n".join(result.report() for result in failed)
