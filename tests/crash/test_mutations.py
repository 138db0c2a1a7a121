"""The suite notices: each defect that is put into the code makes it fail, and for the right reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.crash import mutations, scenes
from tests.crash.invariants import verdict
from tests.crash.observer import Observer
from tests.crash.scenes import in_parallel
from tests.crash.yard import Yard

REST_S = 10.0
Scene = Callable[[Yard], list[str] | None]
BOTH = ("home", "far")
CASES: list[tuple[str, Scene, tuple[str, ...], str]] = [
    ("answered_before_commit", scenes.submitted_and_killed, ("home",), "run lost"),
    ("end_not_repeated", scenes.finish_dropped, ("home",), "is held by run"),
    ("ends_taken_again", scenes.finish_repeated, ("home",), " times: [("),
    ("no_fence_for_ends", scenes.returned_after_the_end, BOTH, " times: [("),
    ("no_fence_for_starts", scenes.stopped_before_the_leave, ("home",), "executed after it was given back"),
    ("leave_not_asked", scenes.one_run, ("home",), "executed without leave"),
    ("no_recheck", scenes.leave_grown_old, BOTH, "started after its successor"),
    ("journal_not_written", scenes.agent_restarted, ("home",), "runs without a journal"),
    ("slots_released_at_lost", scenes.host_full_and_cut_off, ("home",), "two live programs on slot"),
    ("data_fenced", scenes.returned_with_a_log, BOTH, "are not in its log"),
    ("log_not_repeated", scenes.log_dropped, ("far",), "are not in its log"),
    ("records_taken_twice", scenes.records_repeated, ("home",), "records twice"),
    ("records_not_repeated", scenes.records_dropped, ("home",), "are there"),
    ("lease_ignored", scenes.agent_gone, ("home",), "shown state false"),
]


def played(yard: Yard, scene: Scene, rest_s: float = REST_S) -> list[str]:
    """Play a scene under observation; return everything that is wrong."""
    observer = Observer(yard)
    try:
        found = scene(yard) or []
        found += verdict(yard, rest_s)
    finally:
        observer.close()
    return found + observer.violations


@pytest.mark.timeout(300)
def test_each_defect_is_noticed(make_yard: Callable[..., Any]) -> None:
    cases = {case[0]: case for case in CASES}

    def play(mutation: str) -> list[str]:
        _, scene, agents, complaint = cases[mutation]
        with make_yard(agents=agents, mutation=mutation) as yard:
            found = played(yard, scene)
        return [] if any(complaint in line for line in found) else ["not noticed; all there is: %s" % found]

    in_parallel(list(cases), play)


@pytest.mark.timeout(300)
def test_the_same_without_a_defect(make_yard: Callable[..., Any]) -> None:
    cases = {case[1].__name__: case for case in CASES}

    def play(name: str) -> list[str]:
        _, scene, agents, _ = cases[name]
        with make_yard(agents=agents) as yard:
            found = played(yard, scene, 45.0)
            return [*found, *yard.log] if found else []

    in_parallel(list(cases), play)


def test_every_defect_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(mutations.SERVER) | set(mutations.AGENT)
