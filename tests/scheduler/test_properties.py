"""What holds of every plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from runyard.model.placement import HostState, Plan, Request, Slot, Start
from runyard.scheduler import blocked_keys, plan, resource_key
from tests.scheduler.yards import GIB, KNOWN, NOW, SECOND, applied, host, in_order, queues, refused_queues, yards

MODELS = {None: "", "a100": "A100", "rtx 3090": "RTX 3090"}


steady = settings(deadline=None)  # a busy machine is no failure


class Oracle:
    """Free slots and resources now, reckoned without the scheduler."""

    def __init__(self, hosts: Sequence[HostState]) -> None:
        self.hosts = {state.id: state for state in hosts}
        self.free = {
            state.id: [slot for slot in state.slots if slot.free and slot.holder_run is None] for state in hosts
        }
        self.cpus = {state.id: state.cpus - state.cpus_used for state in hosts}
        self.mem = {state.id: state.mem - state.mem_used for state in hosts}

    def need(self, request: Request, state: HostState) -> tuple[str, int]:
        """Kind and number of slots."""
        has_gpu = any(slot.kind == "gpu" for slot in state.slots)
        if request.gpus or (request.gpus is None and (has_gpu or request.gpu_model)):
            return "gpu", request.gpus or 1
        return "cpu", max(1, -(-(request.cpus or 0) // 4))

    def suits(self, request: Request, state: HostState, slot: Slot) -> bool:
        kind, _ = self.need(request, state)
        return slot.kind == kind and MODELS[request.gpu_model] in slot.model

    def cores(self, request: Request, state: HostState) -> int:
        kind, count = self.need(request, state)
        return request.cpus or 0 if kind == "gpu" else 4 * count

    def fits(self, request: Request, state: HostState) -> bool:
        _, count = self.need(request, state)
        return (
            state.accepts
            and request.host in (None, state.name)
            and not any(said.host_id == state.id and said.until_us > NOW for said in request.refusals)
            and sum(self.suits(request, state, slot) for slot in self.free[state.id]) >= count
            and (not self.cores(request, state) or self.cores(request, state) <= self.cpus[state.id])
            and (not request.mem or request.mem <= self.mem[state.id])
        )

    def take(self, request: Request, start: Start) -> None:
        """Check a start against what is left, and take it."""
        state = self.hosts[start.host_id]
        _, count = self.need(request, state)
        assert self.fits(request, state)
        assert start.agent_id == state.agent_id
        assert len(start.slot_ids) == len(set(start.slot_ids)) == count
        taken = [slot for slot in self.free[state.id] if slot.id in start.slot_ids]
        assert len(taken) == count
        assert all(self.suits(request, state, slot) for slot in taken)
        self.free[state.id] = [slot for slot in self.free[state.id] if slot.id not in start.slot_ids]
        self.cpus[state.id] -= self.cores(request, state)
        self.mem[state.id] -= request.mem or 0


def starts_of(answer: Plan) -> dict[str, Start]:
    return {start.run_id: start for start in answer.starts}


@steady
@given(yards(), st.one_of(queues(), refused_queues()))
def test_every_run_starts_on_what_it_asked_for_or_waits_with_a_reason(
    hosts: list[HostState], requests: list[Request]
) -> None:
    answer = plan(requests, hosts, NOW)
    by_id = {request.run_id: request for request in requests}
    assert sorted([start.run_id for start in answer.starts] + list(answer.waits)) == sorted(by_id)
    oracle = Oracle(hosts)
    for start in answer.starts:
        oracle.take(by_id[start.run_id], start)
    for wait in answer.waits.values():
        assert wait.reasons
        assert all(wait.reasons)
        assert wait.expected_start_us is None or wait.expected_start_us > NOW


@steady
@given(yards(), st.one_of(queues(), refused_queues()))
def test_nothing_is_idle_while_nothing_waits(hosts: list[HostState], requests: list[Request]) -> None:
    answer = plan(requests, hosts, NOW)
    oracle = Oracle(hosts)
    for request in in_order(requests):
        start = starts_of(answer).get(request.run_id)
        if start is None:
            assert not any(oracle.fits(request, state) for state in hosts)
            break
        oracle.take(request, start)


@steady
@given(yards(), queues())
def test_reasons_that_nobody_wants_change_nothing_else(hosts: list[HostState], requests: list[Request]) -> None:
    whole = plan(requests, hosts, NOW)
    wanted = set(sorted(whole.waits)[:1])
    answer = plan(requests, hosts, NOW, explained=wanted)
    assert answer.starts == whole.starts
    assert answer.waits == {
        run: wait if run in wanted else dataclasses.replace(wait, reasons=()) for run, wait in whole.waits.items()
    }


@steady
@given(yards(), queues())
def test_equal_runs_start_in_queue_order(hosts: list[HostState], requests: list[Request]) -> None:
    answer = plan(requests, hosts, NOW)
    waiting: set[str] = set()
    for request in in_order(requests):
        if request.run_id in answer.waits:
            waiting.add(resource_key(request))
        else:
            assert resource_key(request) not in waiting
    assert blocked_keys(requests, answer) == waiting


@steady
@given(yards(), st.one_of(queues(), refused_queues()), st.data())
def test_the_order_in_which_hosts_slots_and_runs_are_given_does_not_matter(
    hosts: list[HostState], requests: list[Request], data: st.DataObject
) -> None:
    shuffled = [
        dataclasses.replace(state, slots=tuple(data.draw(st.permutations(state.slots))))
        for state in data.draw(st.permutations(hosts))
    ]
    assert plan(data.draw(st.permutations(requests)), shuffled, NOW) == plan(requests, hosts, NOW)


@steady
@given(yards(), st.one_of(queues(), refused_queues()))
def test_starts_delay_nobody_before_them(hosts: list[HostState], requests: list[Request]) -> None:
    """The first run that waits gets the same start whether or not later ones were let past it."""
    answer = plan(requests, hosts, NOW)
    first = next((request for request in in_order(requests) if request.run_id in answer.waits), None)
    if first is None:
        return
    again = plan([first], applied(hosts, requests, answer), NOW)
    before, after = answer.waits[first.run_id].expected_start_us, again.waits[first.run_id].expected_start_us
    assert before is None or (after is not None and after <= before)


@steady
@given(yards(KNOWN, most=1), queues(KNOWN))
def test_on_one_host_every_promise_holds_when_runs_last_to_their_limit(
    hosts: list[HostState], requests: list[Request]
) -> None:
    promised: dict[str, int] = {}
    for now, answer in history(hosts, requests):
        for run, wait in answer.waits.items():
            if wait.expected_start_us is not None:
                assert wait.expected_start_us <= promised.setdefault(run, wait.expected_start_us)
        for start in answer.starts:
            assert now <= promised.get(start.run_id, now)


@steady
@given(yards(), queues(), st.integers(1, 100))
def test_every_run_that_a_host_could_hold_starts_in_the_end(
    hosts: list[HostState], requests: list[Request], unknown: int
) -> None:
    """Also when runs without a limit end at some time."""
    hosts = [
        dataclasses.replace(
            state,
            accepts=True,
            slots=tuple(dataclasses.replace(s, free=s.free or s.holder_run is None) for s in state.slots),
        )
        for state in hosts
    ]
    empty = Oracle([dataclasses.replace(s, cpus_used=0, mem_used=0, slots=tuple(map(freed, s.slots))) for s in hosts])
    started = {start.run_id for _, answer in history(hosts, requests, unknown) for start in answer.starts}
    for request in requests:
        assert (request.run_id in started) == any(empty.fits(request, state) for state in empty.hosts.values())


def freed(slot: Slot) -> Slot:
    return dataclasses.replace(slot, free=True, holder_run=None, busy_until_us=None, cpus_held=None, mem_held=None)


def history(hosts: list[HostState], requests: list[Request], unknown: int = 100) -> list[tuple[int, Plan]]:
    """Plan, start, let the next holder end, plan again until nothing is left to happen.

    Runs last to their limits, those without one `unknown` seconds longer than asked for at the time of an event.
    """
    now, answers, queued = NOW, [], list(requests)
    while True:
        answer = plan(queued, hosts, now)
        answers.append((now, answer))
        hosts = applied(hosts, queued, answer, now)
        queued = [request for request in queued if request.run_id in answer.waits]
        held = [slot for state in hosts for slot in state.slots if slot.holder_run is not None]
        if not held:
            return answers
        ends = [slot.busy_until_us for slot in held if slot.busy_until_us is not None]
        now = min(ends) if ends else now + unknown * SECOND
        over = {slot.holder_run for slot in held if slot.busy_until_us in ((now,) if ends else (None,))}
        over = over if ends else {min(run for run in over if run is not None)}
        hosts = [ended(state, over) for state in hosts]


def cores_of(slot: Slot) -> int:
    """Cores that come back when the slot's holder ends; of GPUs that do not say, unknown ones."""
    if slot.cpus_held is None:
        return slot.threads if slot.kind == "cpu" else 0
    return slot.cpus_held


def ended(state: HostState, over: set[str | None]) -> HostState:
    slots = [freed(slot) if slot.holder_run in over else slot for slot in state.slots]
    gone = [slot for slot in state.slots if slot.holder_run in over]
    unknown = any(slot.holder_run is not None and slot.cpus_held is None for slot in slots)
    said = [slot for slot in slots if slot.holder_run is not None]
    cpus = state.cpus_used - sum(map(cores_of, gone))
    mem = state.mem_used - sum(slot.mem_held or 0 for slot in gone)
    if not unknown:
        cpus, mem = sum(map(cores_of, said)), sum(slot.mem_held or 0 for slot in said)
    return dataclasses.replace(state, slots=tuple(slots), cpus_used=cpus, mem_used=mem)


@steady
@given(st.integers(1, 8), st.integers(1, 8))
def test_gpu_zero_is_a_gpu(total: int, asked: int) -> None:
    slots = [Slot(id=f"s{i}", host_id="a", name=f"gpu{i}", kind="gpu", index=i, mem=GIB) for i in range(total)]
    answer = plan([Request(run_id="q", gpus=asked)], [host("a", *slots)], NOW)
    if asked <= total:
        assert answer.starts[0].slot_ids == tuple(f"s{i}" for i in range(asked))
    else:
        assert answer.waits["q"].expected_start_us is None
