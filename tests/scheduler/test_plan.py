"""Where runs go, who goes first, what is kept for whom."""

from __future__ import annotations

import time

import pytest

from runyard.model.placement import HostState, Plan, Refusal, Request, Slot
from runyard.scheduler import plan
from tests.scheduler.yards import A100, GIB, NOW, RTX, SECOND, cpu, gpu, host, queue


def placed(answer: Plan) -> dict[str, list[str]]:
    return {start.run_id: [slot.partition("/")[2] for slot in start.slot_ids] for start in answer.starts}


def hosts_of(answer: Plan) -> dict[str, str]:
    return {start.run_id: start.host_id for start in answer.starts}


def test_by_default_a_gpu_where_there_is_one_else_one_cpu_slot() -> None:
    box = host("a", gpu("a", 0), cpu("a", 0))
    assert placed(plan([Request(run_id="q")], [box], NOW)) == {"q": ["gpu0"]}
    assert placed(plan([Request(run_id="q")], [host("a", cpu("a", 0))], NOW)) == {"q": ["cpu0"]}
    assert placed(plan([Request(run_id="q", gpus=0)], [box], NOW)) == {"q": ["cpu0"]}


def test_a_default_run_waits_for_a_gpu_that_is_in_use() -> None:
    answer = plan([Request(run_id="q")], [host("a", gpu("a", 0, runs="r"), cpu("a", 0))], NOW)
    assert not answer.starts


@pytest.mark.parametrize(("cpus", "slots"), [(None, 1), (0, 1), (1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_cores_without_gpu_are_rounded_up_to_cpu_slots(cpus: int | None, slots: int) -> None:
    box = host("a", *[cpu("a", i) for i in range(3)])
    assert len(placed(plan([Request(run_id="q", gpus=0, cpus=cpus)], [box], NOW))["q"]) == slots


def test_higher_priority_first_then_first_come_first_served() -> None:
    requests = [
        Request(run_id="late", seq=3),
        Request(run_id="early", seq=1),
        Request(run_id="urgent", seq=2, priority=5),
        Request(run_id="whenever", seq=0, priority=-1),
    ]
    answer = plan(requests, [host("a", gpu("a", 0), gpu("a", 1))], NOW)
    assert placed(answer) == {"urgent": ["gpu0"], "early": ["gpu1"]}


def test_all_slots_of_a_run_are_on_one_host() -> None:
    pair = [host("a", gpu("a", 0)), host("b", gpu("b", 0))]
    answer = plan([Request(run_id="q", gpus=2)], pair, NOW)
    assert not answer.starts
    assert answer.waits["q"].expected_start_us is None


def test_a_run_that_a_host_gave_back_keeps_its_place_there_until_it_may_be_asked_again() -> None:
    said = Refusal(host_id="a", until_us=NOW + 10 * SECOND, why="busy")
    refused = Request(run_id="q", refusals=(said,))
    waiting = queue(refused, Request(run_id="endless"), Request(run_id="short", time_limit_s=10))
    answer = plan(waiting, [host("a", gpu("a", 0))], NOW)
    assert hosts_of(answer) == {"short": "a"}
    assert answer.waits["q"].expected_start_us == NOW + 10 * SECOND
    assert hosts_of(plan(waiting[:2], [host("a", gpu("a", 0))], NOW + 10 * SECOND)) == {"q": "a"}
    two = [host("a", gpu("a", 0)), host("b", gpu("b", 0))]
    assert hosts_of(plan(waiting[:2], two, NOW)) == {"q": "b", "endless": "a"}


def test_smallest_sufficient_gpu_memory_then_fullest_host() -> None:
    big = host("a", gpu("a", 0))
    small = host("b", gpu("b", 0, model=RTX, mem=24 * GIB), gpu("b", 1, model=RTX, mem=24 * GIB))
    assert hosts_of(plan([Request(run_id="q")], [big, small], NOW)) == {"q": "b"}
    full = host("b", gpu("b", 0, runs="r"), gpu("b", 1))
    empty = host("a", gpu("a", 0), gpu("a", 1))
    assert hosts_of(plan([Request(run_id="q")], [empty, full], NOW)) == {"q": "b"}
    both = queue(Request(run_id="one", gpus=1), Request(run_id="two", gpus=2))
    assert hosts_of(plan(both, [empty, full], NOW)) == {"one": "b", "two": "a"}


@pytest.mark.parametrize(
    ("asked", "model", "fits"),
    [
        ("a100", A100, True),
        ("A100-80GB", A100, True),
        ("NVIDIA A100-SXM4-80GB", A100, True),
        ("a10", A100, False),
        ("A100 40GB", A100, False),
        ("rtx3090", RTX, True),
        ("3090", RTX, True),
        ("RTX 3080", RTX, False),
        ("t4", "NVIDIA T400 4GB", False),
        ("L4", "NVIDIA L40S", False),
    ],
)
def test_gpu_models_are_named_by_their_words(asked: str, model: str, fits: bool) -> None:
    answer = plan([Request(run_id="q", gpus=1, gpu_model=asked)], [host("a", gpu("a", 0, model=model))], NOW)
    assert bool(answer.starts) == fits


def test_a_named_host_is_the_only_one_that_will_do() -> None:
    pair = [host("a.lab.example", gpu("a", 0)), host("b.lab.example", gpu("b", 0, runs="r"))]
    answer = plan(queue(Request(run_id="x", host="B"), Request(run_id="y", host="a.lab.example")), pair, NOW)
    assert hosts_of(answer) == {"y": "a.lab.example"}
    assert answer.waits["x"].reasons[0].startswith("b.lab.example: ")


def test_cores_and_memory_add_up_per_host() -> None:
    box = host("a", *[gpu("a", i) for i in range(4)], cpus=16, mem=64 * GIB, cpus_used=4, mem_used=0)
    requests = queue(*[Request(run_id=f"q{i}", gpus=1, cpus=6) for i in range(3)], Request(run_id="m", mem=64 * GIB))
    answer = plan(requests, [box], NOW)
    assert set(placed(answer)) == {"q0", "q1", "m"}
    answer = plan([requests[3], Request(run_id="n", seq=9, mem=1)], [box], NOW)
    assert set(placed(answer)) == {"m"}


def test_expected_start_is_the_end_of_the_time_limit_in_the_way() -> None:
    box = host("a", gpu("a", 0, runs="r", until=100), gpu("a", 1, runs="s", until=50))
    answer = plan(
        queue(
            Request(run_id="one", time_limit_s=10),
            Request(run_id="two", gpus=2, time_limit_s=10),
            Request(run_id="then"),
        ),
        [box],
        NOW,
    )
    expected = {run: wait.expected_start_us for run, wait in answer.waits.items()}
    assert expected == {"one": NOW + 50 * SECOND, "two": NOW + 100 * SECOND, "then": NOW + 110 * SECOND}


def test_a_holder_past_its_limit_is_expected_to_end_next() -> None:
    answer = plan([Request(run_id="q")], [host("a", gpu("a", 0, runs="r", until=-5))], NOW)
    assert answer.waits["q"].expected_start_us == NOW + 1


def test_backfill_lets_only_those_pass_that_end_in_time() -> None:
    box = host("a", gpu("a", 0), gpu("a", 1, runs="r", until=100))
    requests = queue(
        Request(run_id="pair", gpus=2, time_limit_s=10),
        Request(run_id="long", gpus=1, time_limit_s=101),
        Request(run_id="endless", gpus=1),
        Request(run_id="short", gpus=1, time_limit_s=100),
    )
    answer = plan(requests, [box], NOW)
    assert set(placed(answer)) == {"short"}
    assert answer.waits["pair"].expected_start_us == NOW + 100 * SECOND


def test_a_run_that_waits_for_the_unknown_keeps_what_is_free_there() -> None:
    """One of two GPUs is free, the other has a run without a time limit."""
    box = host("a", gpu("a", 0), gpu("a", 1, runs="r"), cpu("a", 0))
    requests = queue(
        Request(run_id="pair", gpus=2), Request(run_id="short", gpus=1, time_limit_s=1), Request(run_id="cpu", gpus=0)
    )
    answer = plan(requests, [box], NOW)
    assert placed(answer) == {"cpu": ["cpu0"]}
    assert answer.waits["pair"].expected_start_us is None


def test_a_run_that_waits_for_the_unknown_leaves_what_it_does_not_need() -> None:
    box = host("a", *[gpu("a", i) for i in range(3)], *[gpu("a", i, runs="r") for i in (3, 4)])
    requests = queue(Request(run_id="four", gpus=4), Request(run_id="q", gpus=1), Request(run_id="elsewhere", gpus=1))
    assert not plan(requests, [box], NOW).starts
    other = host("b", gpu("b", 0))
    assert set(placed(plan(requests, [box, other], NOW))) == {"q"}


def test_what_is_kept_for_the_unknown_is_used_until_a_known_end_that_it_also_waits_for() -> None:
    box = host("a", gpu("a", 0), gpu("a", 1, runs="r", until=100), gpu("a", 2, runs="s"))
    requests = queue(
        Request(run_id="three", gpus=3),
        Request(run_id="long", gpus=1, time_limit_s=101),
        Request(run_id="short", gpus=1, time_limit_s=100),
    )
    assert set(placed(plan(requests, [box], NOW))) == {"short"}


def test_a_blocked_run_keeps_the_host_that_starts_it_first() -> None:
    later = host("a", gpu("a", 0), gpu("a", 1, runs="r", until=200))
    sooner = host("b", gpu("b", 0), gpu("b", 1, runs="s", until=100))
    requests = queue(Request(run_id="pair", gpus=2), Request(run_id="q", gpus=1))
    answer = plan(requests, [later, sooner], NOW)
    assert hosts_of(answer) == {"q": "a"}
    assert answer.waits["pair"].expected_start_us == NOW + 100 * SECOND


def test_with_equal_prospects_a_blocked_run_keeps_the_host_where_least_is_idle() -> None:
    idle = host("a", gpu("a", 0), gpu("a", 1, runs="r"))
    busy = host("b", gpu("b", 0, runs="s"), gpu("b", 1, runs="t"))
    requests = queue(Request(run_id="pair", gpus=2), Request(run_id="q", gpus=1))
    assert hosts_of(plan(requests, [idle, busy], NOW)) == {"q": "a"}


def test_memory_promised_to_a_blocked_run_is_kept_and_the_rest_is_not() -> None:
    """32 of 64 GiB are in use without a known end."""
    box = host("a", gpu("a", 0, runs="r"), *[gpu("a", i) for i in range(1, 4)], mem=64 * GIB, mem_used=32 * GIB)
    requests = queue(
        Request(run_id="big", gpus=1, mem=48 * GIB),
        Request(run_id="too much", gpus=1, mem=24 * GIB),
        Request(run_id="enough", gpus=1, mem=16 * GIB),
    )
    assert set(placed(plan(requests, [box], NOW))) == {"enough"}


@pytest.mark.parametrize("request_", [Request(run_id="big", gpus=3), Request(run_id="big", gpus=1, mem=1 << 50)])
def test_a_run_that_no_host_could_ever_start_keeps_nothing(request_: Request) -> None:
    box = host("a", gpu("a", 0), gpu("a", 1))
    answer = plan([request_, Request(run_id="q", seq=1, gpus=2)], [box], NOW)
    assert set(placed(answer)) == {"q"}


def test_nothing_is_kept_for_a_run_that_needs_a_slot_outside_the_yards_hands() -> None:
    broken = Slot(id="a/gpu1", host_id="a", name="gpu1", kind="gpu", index=1, free=False, why="fell off the bus")
    answer = plan(queue(Request(run_id="pair", gpus=2), Request(run_id="q")), [host("a", gpu("a", 0), broken)], NOW)
    assert set(placed(answer)) == {"q"}


def test_hosts_that_take_nothing_get_nothing_and_keep_nothing() -> None:
    closed = host("a", gpu("a", 0), gpu("a", 1), accepts=False, why="less than 2 GiB of disk left")
    answer = plan(queue(Request(run_id="pair", gpus=2), Request(run_id="q")), [closed, host("b", gpu("b", 0))], NOW)
    assert hosts_of(answer) == {"q": "b"}


def test_nothing_to_do() -> None:
    assert plan([], [], NOW) == Plan()
    assert plan([], [host("a", gpu("a", 0))], NOW) == Plan()


@pytest.mark.parametrize("limits", [[None], [None, 3600.0, 7200.0]])
def test_a_long_queue_on_many_gpus_is_planned_at_once(limits: list[float | None]) -> None:
    hosts: list[HostState] = [host(f"h{i}", *[gpu(f"h{i}", j) for j in range(8)]) for i in range(8)]
    requests = [
        Request(run_id=f"q{i}", seq=i, gpus=1 + i % 3, time_limit_s=limits[i % len(limits)]) for i in range(500)
    ]
    took = []
    for _ in range(3):
        started = time.process_time()
        answer = plan(requests, hosts, NOW)
        took.append(time.process_time() - started)
    assert sum(len(start.slot_ids) for start in answer.starts) >= 60
    assert min(took) < 0.25  # about 0.01 on a quiet machine


def test_cores_of_cpu_slots_and_those_beside_gpus_add_up() -> None:
    box = host("a", gpu("a", 0), *[cpu("a", i) for i in range(4)], cpus=16)
    requests = queue(Request(run_id="g", gpus=1, cpus=9), *[Request(run_id=f"c{i}", gpus=0) for i in range(4)])
    assert set(placed(plan(requests, [box], NOW))) == {"g", "c0"}
    assert set(placed(plan(requests[1:] + requests[:1], [box], NOW))) == {"g", "c0"}
    assert set(placed(plan(requests[1:], [box], NOW))) == {"c0", "c1", "c2", "c3"}


def test_more_cpu_slots_than_cores_are_all_used() -> None:
    box = host("a", *[cpu("a", i, threads=1) for i in range(8)], cpus=2)
    answer = plan([Request(run_id=f"q{i}", seq=i) for i in range(9)], [box], NOW)
    assert len(answer.starts) == 8


def test_a_slot_with_a_holder_is_taken_though_its_host_sees_nothing_on_it_yet() -> None:
    slot = Slot(id="s", host_id="a", name="gpu0", kind="gpu", index=0, free=True, holder_run="r")
    answer = plan([Request(run_id="q")], [host("a", slot)], NOW)
    assert list(answer.waits["q"].reasons) == ["a: 1 of 1 GPU needed, 0 free; running: r"]
