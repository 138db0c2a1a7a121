"""What people are told about runs that wait, and the keys that the queue is paged by."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from runyard.model.placement import HostState, Refusal, Request, Slot
from runyard.scheduler import blocked_keys, held_resources, plan, resource_key
from tests.scheduler.yards import GIB, NOW, RTX, SECOND, cpu, gpu, host, queue


def why(request: Request, *hosts: HostState) -> list[str]:
    return list(plan([request], hosts, NOW).waits[request.run_id].reasons)


def test_no_host() -> None:
    assert why(Request(run_id="q")) == ["no host is connected yet"]


def test_a_host_that_is_not_there() -> None:
    assert why(Request(run_id="q", host="c"), host("a", gpu("a", 0)), host("b")) == [
        "host c is not connected; connected: a, b"
    ]


def test_more_than_any_host_has() -> None:
    a, b = host("a", gpu("a", 0), gpu("a", 1), cpus=8, mem=16 * GIB), host("b", cpu("b", 0), cpus=4, mem=8 * GIB)
    assert why(Request(run_id="q", gpus=4), a, b) == [
        "no connected host can run this: it asks for 4 GPUs",
        "a has 2 GPUs",
        "b has no GPU",
    ]
    assert why(Request(run_id="q", gpus=1, gpu_model="h100"), host("a", gpu("a", 0, model=RTX))) == [
        "no connected host can run this: it asks for 1 GPU of model h100",
        f"a has no GPU of that model (others there: {RTX})",
    ]
    assert why(Request(run_id="q", gpus=1, cpus=12), a) == [
        "no connected host can run this: it asks for 1 GPU, 12 cores",
        "a has 8 cores",
    ]
    assert why(Request(run_id="q", gpus=0, cpus=9), b) == [
        "no connected host can run this: it asks for 9 cores",
        "b has 1 CPU slot of 4 cores each",
    ]
    assert why(Request(run_id="q", gpus=0, mem=3 << 39), b) == [
        "no connected host can run this: it asks for a CPU slot, 1.5 TiB of memory",
        "b has 8 GiB of memory",
    ]
    assert why(Request(run_id="q", gpus=0, gpu_model="a100"), b) == [
        "no connected host can run this: it asks for no GPU of model a100",
        "a GPU model was asked for together with no GPU",
    ]


def test_a_host_that_gave_the_run_back() -> None:
    said = Refusal(host_id="a", until_us=NOW + 7 * SECOND, why="gpu0 is busy")
    run = Request(run_id="q", refusals=(said,))
    assert why(run, host("a", gpu("a", 0))) == ["a gave it back: gpu0 is busy; asked again in 7 s"]
    assert why(run, host("a", gpu("a", 0, runs="r1"))) == [
        "a gave it back: gpu0 is busy; asked again in 7 s",
        "a: 1 of 1 GPU needed, 0 free; running: r1",
    ]


def test_slots_in_use_and_by_whom() -> None:
    foreign = Slot(id="f", host_id="a", name="gpu2", kind="gpu", index=2, free=False, why="used by python of ann")
    box = host("a", gpu("a", 0, runs="r1"), gpu("a", 1), foreign)
    assert why(Request(run_id="q", gpus=2), box) == [
        "a: 2 of 3 GPUs needed, 1 free; running: r1; gpu2: used by python of ann"
    ]
    assert why(Request(run_id="q", gpus=3), box) == [
        "a: 3 of 3 GPUs needed, 2 available; running: r1; gpu2: used by python of ann"
    ]


def test_cores_and_memory_in_use() -> None:
    box = host("a", gpu("a", 0), gpu("a", 1, runs="r"), cpus=16, mem=64 * GIB, cpus_used=12, mem_used=60 * GIB)
    assert why(Request(run_id="q", gpus=1, cpus=8, mem=8 * GIB), box) == [
        "a: 4 of 16 cores free, 8 needed",
        "a: 4 GiB of 64 GiB memory free, 8 GiB needed",
    ]


def test_hosts_that_take_nothing_say_why() -> None:
    closed = host("a", gpu("a", 0), accepts=False, why="less than 2 GiB of disk left")
    assert why(Request(run_id="q"), closed) == ["a takes no new runs: less than 2 GiB of disk left"]


def test_behind_earlier_runs() -> None:
    box = host("a", gpu("a", 0), gpu("a", 1, runs="r"))
    answer = plan(queue(Request(run_id="pair", gpus=2), Request(run_id="q", gpus=1)), [box], NOW)
    assert list(answer.waits["q"].reasons) == ["a: what it needs is free, but kept for runs before it (pair)"]


def test_a_run_started_in_this_plan_is_no_longer_free() -> None:
    answer = plan(queue(Request(run_id="first"), Request(run_id="q")), [host("a", gpu("a", 0))], NOW)
    assert list(answer.waits["q"].reasons) == ["a: 1 of 1 GPU needed, 0 free; running: first"]


def test_many_hosts_are_cut_short() -> None:
    reasons = why(Request(run_id="q", gpus=2), *[host(f"h{i}", gpu(f"h{i}", 0)) for i in range(9)])
    assert len(reasons) == 6
    assert reasons[-1] == "and 5 more"


def test_keys_are_equal_for_runs_that_place_alike_and_only_for_them() -> None:
    request = Request(run_id="q", gpus=1, cpus=2, mem=3, gpu_model="A100", host="a", time_limit_s=60)
    alike = dataclasses.replace(
        request, run_id="z", seq=5, priority=7, user="ann", gpu_model=" a100", time_limit_s=60.0
    )
    assert resource_key(request) == resource_key(alike)
    changes: list[dict[str, Any]] = [
        {name: value}
        for name in ("gpus", "cpus", "mem", "gpu_model", "host", "time_limit_s")
        for value in (None, "0" if name in {"gpu_model", "host"} else 0)
    ]
    others = [dataclasses.replace(request, **change) for change in changes]
    assert len({resource_key(request) for request in [request, *others]}) == 1 + len(others)


def test_a_plan_tells_which_keys_can_start_nothing_more() -> None:
    box = host("a", gpu("a", 0), cpu("a", 0))
    requests = queue(Request(run_id="x", gpus=1), Request(run_id="y", gpus=1), Request(run_id="z", gpus=0))
    assert blocked_keys(requests, plan(requests, [box], NOW)) == {resource_key(requests[0])}


@pytest.mark.parametrize(("slots", "cores"), [([gpu("a", 0), gpu("a", 1)], 6), ([cpu("a", 0), cpu("a", 1)], 8)])
def test_what_a_run_holds_of_its_host(slots: list[Slot], cores: int) -> None:
    request = Request(run_id="q", cpus=6, mem=5)
    assert held_resources(request, slots) == (cores, 5)
