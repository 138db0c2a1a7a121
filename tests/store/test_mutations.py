"""Each of the named faults makes the contract fail, and some break what random lives look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runyard.testing.machine import YardMachine
from runyard.testing.mutations import MUTATIONS, fails, mutated
from runyard.testing.stage import Stage
from runyard.testing.yard_contract import YardContract
from tests.store.backends import make_stage
from tests.store.test_concurrency import killed_while_planned
from tests.store.test_machine import machine

CAUGHT_BY = {
    "no fence": "test_back_before_the_replacement_has_a_process",
    "leases end at once": "test_heartbeats_keep_a_run",
    "leases never end": "test_lost_after_one_lease_and_its_slot_stays_taken",
    "superseded ends count": "test_back_after_the_replacement_has_a_process",
    "ends count twice": "test_an_end_reported_twice_counts_once",
    "nobody keeps a lost run": "test_an_end_before_the_replacement_has_a_process_keeps_the_run",
    "slots are free when lost": "test_lost_after_one_lease_and_its_slot_stays_taken",
    "no guard": "test_a_server_that_was_stopped_ends_no_lease_when_it_wakes",
    "dependents wait for ever": "test_a_run_starts_after_those_it_waits_for",
    "dependents of failures start": "test_a_failed_dependency_fails_all_that_wait_for_it",
    "environments are kept": "test_the_environment_file_goes_with_the_last_run_that_needs_it",
}
CAUGHT_BY_LIVES = ["leases never end", "slots are free when lost", "superseded ends count"]


def test_every_mutation_is_tried() -> None:
    assert {*CAUGHT_BY, "no re-check"} == set(MUTATIONS)


@pytest.mark.parametrize("name", CAUGHT_BY)
def test_the_contract_catches(name: str, home: Path, sqlite_url: str) -> None:
    stage = make_stage(home, sqlite_url)
    test: Callable[[Stage], None] = getattr(YardContract(), CAUGHT_BY[name])
    try:
        with mutated(name):
            assert fails(lambda: test(stage))
    finally:
        stage.close()


def test_the_contract_catches_a_missing_recheck(home: Path, postgres_url: str) -> None:
    stage = make_stage(home, postgres_url)
    try:
        with mutated("no re-check"):
            assert fails(lambda: killed_while_planned(stage))
    finally:
        stage.close()


def cut_off_until_replaced(life: YardMachine) -> None:
    """A host is cut off until its run is with another; its own program ends meanwhile, it comes back and reports that."""
    life.start(retries=[0, 0, 0], requeue=True)
    cut, other = life.hosts[0], life.hosts[1]
    assert all(process.alive for host in (cut, other) for process in host.processes.values())
    life.program_ends(1, 0, 0)
    life.live(15)
    life.goes_away(which=0, how="network", seconds=75, back=False)
    look(life)
    life.goes_away(which=0, how="network", seconds=700, back=False)
    look(life)
    (old,), (new,) = cut.processes.values(), other.processes.values()
    assert (old.run, old.alive, new.alive) == (new.run, True, True)
    cut.exits(old, exit_code=1)
    cut.cut = False
    life.agent_acts(0, "report")
    look(life)
    life.heal()


def look(life: YardMachine) -> None:
    """Check the invariants, as hypothesis does after each step."""
    life.no_run_is_lost_and_every_end_is_whole()
    life.none_ends_twice()
    life.no_slot_has_two_programs()


@pytest.mark.parametrize("name", ["", *CAUGHT_BY_LIVES])
def test_a_life_catches(name: str, template: Path, tmp_path: Path) -> None:
    """The invariants of the random lives, in one that leads to each of these faults; without one they hold."""
    life = machine(template, str(tmp_path))()
    try:
        if name:
            with mutated(name):
                assert fails(lambda: cut_off_until_replaced(life))
        else:
            cut_off_until_replaced(life)
    finally:
        life.stage.close()
