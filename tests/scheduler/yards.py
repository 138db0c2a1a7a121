"""Yards and queues to plan with: made by hand or by hypothesis."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hypothesis import strategies as st

from runyard.model.placement import HostState, Plan, Refusal, Request, Slot
from runyard.scheduler import held_resources

NOW = 1_000_000_000
SECOND = 1_000_000
GIB = 1 << 30
A100, RTX = "NVIDIA A100-SXM4-80GB", "NVIDIA GeForce RTX 3090"


def gpu(
    host: str, index: int, *, model: str = A100, mem: int = 80 * GIB, runs: str | None = None, until: int | None = None
) -> Slot:
    """A GPU; free, or held by a run whose limit ends `until` seconds from now (None: no limit)."""
    return Slot(
        id=f"{host}/gpu{index}",
        host_id=host,
        name=f"gpu{index}",
        kind="gpu",
        index=index,
        model=model,
        mem=mem,
        free=runs is None,
        holder_run=runs,
        busy_until_us=None if until is None else NOW + until * SECOND,
    )


def cpu(host: str, index: int, *, threads: int = 4) -> Slot:
    """A free CPU slot."""
    return Slot(id=f"{host}/cpu{index}", host_id=host, name=f"cpu{index}", kind="cpu", index=index, threads=threads)


def host(name: str, *slots: Slot, cpus: int = 32, mem: int = 256 * GIB, **more: object) -> HostState:
    """A host that accepts runs, with an agent named after it."""
    state = HostState(id=name, name=name, agent_id=f"agent-{name}", cpus=cpus, mem=mem, slots=slots)
    return dataclasses.replace(state, **more)  # type: ignore[arg-type]


def queue(*requests: Request) -> list[Request]:
    """Give the requests their places in the queue."""
    return [dataclasses.replace(request, seq=i) for i, request in enumerate(requests)]


def in_order(requests: Sequence[Request]) -> list[Request]:
    """The queue as the contract orders it."""
    return sorted(requests, key=lambda r: (-r.priority, r.seq))


def applied(hosts: Sequence[HostState], requests: Sequence[Request], plan: Plan, now: int = NOW) -> list[HostState]:
    """The hosts once the plan's starts are running."""
    by_id = {request.run_id: request for request in requests}
    states = {state.id: state for state in hosts}
    for start in plan.starts:
        states[start.host_id] = _started(states[start.host_id], by_id[start.run_id], start.slot_ids, now)
    return list(states.values())


def _started(state: HostState, request: Request, taken: Sequence[str], now: int) -> HostState:
    limit = request.time_limit_s
    until = None if limit is None else now + round(limit * SECOND)
    slots = {slot.id: slot for slot in state.slots}
    cores, memory = held_resources(request, [slots[name] for name in taken])
    for i, name in enumerate(taken):
        slots[name] = dataclasses.replace(
            slots[name],
            free=False,
            holder_run=request.run_id,
            busy_until_us=until,
            cpus_held=cores if i == 0 else 0,
            mem_held=memory if i == 0 else 0,
        )
    return dataclasses.replace(
        state,
        slots=tuple(slots.values()),
        cpus_used=state.cpus_used + cores,
        mem_used=state.mem_used + memory,
    )


@st.composite
def slots(draw: st.DrawFn, name: str, kind: str, index: int, limits: st.SearchStrategy[int | None]) -> Slot:
    """A slot that is free, held by a run, held with a known end, or out of service."""
    model, mem = draw(st.sampled_from([(A100, 80 * GIB), (RTX, 24 * GIB)])) if kind == "gpu" else ("", 0)
    state = draw(st.sampled_from(["free", "free", "held", "held", "foreign"]))
    until = draw(limits) if state == "held" else None
    return Slot(
        id=f"{name}/{kind}{index}",
        host_id=name,
        name=f"{kind}{index}",
        kind="gpu" if kind == "gpu" else "cpu",
        index=index,
        model=model,
        mem=mem,
        threads=4 if kind == "cpu" else 1,
        free=state == "free" or (state == "held" and draw(st.booleans())),
        why="used by another program" if state == "foreign" else "",
        holder_run=f"run-{name}-{kind}{index}" if state == "held" else None,
        busy_until_us=None if until is None else NOW + until * SECOND,
    )


@st.composite
def host_states(draw: st.DrawFn, name: str, limits: st.SearchStrategy[int | None]) -> HostState:
    """A host with GPUs and CPU slots in any state."""
    gpus = [draw(slots(name, "gpu", i, limits)) for i in range(draw(st.integers(0, 4)))]
    cpus = [draw(slots(name, "cpu", i, limits)) for i in range(draw(st.integers(0, 3)))]
    accepts = draw(st.sampled_from([True, True, True, False]))
    used = any(slot.holder_run for slot in gpus)
    return host(
        name,
        *gpus,
        *cpus,
        cpus=16,
        mem=64 * GIB,
        cpus_used=(draw(st.sampled_from([0, 4, 12])) if used else 0) + sum(4 for s in cpus if s.holder_run),
        mem_used=draw(st.sampled_from([0, 16, 60])) * GIB if used else 0,
        accepts=accepts,
        why="" if accepts else "draining",
    )


LIMITS: st.SearchStrategy[int | None] = st.sampled_from([None, None, 10, 60, 61, 3600])
KNOWN: st.SearchStrategy[int | None] = st.sampled_from([10, 20, 60, 61, 3600])


def yards(limits: st.SearchStrategy[int | None] = LIMITS, most: int = 3) -> st.SearchStrategy[list[HostState]]:
    """Up to `most` hosts."""
    return (
        st.integers(0, most).flatmap(lambda n: st.tuples(*[host_states(f"h{i}", limits) for i in range(n)])).map(list)
    )


@st.composite
def queues(draw: st.DrawFn, limits: st.SearchStrategy[int | None] = LIMITS, most: int = 12) -> list[Request]:
    """Runs with few different shapes, so that equal ones meet; given in any order."""
    requests = [
        Request(
            run_id=f"q{i}",
            seq=i,
            priority=draw(st.sampled_from([0, 0, 0, 1])),
            gpus=draw(st.sampled_from([None, 0, 1, 1, 2, 3])),
            cpus=draw(st.sampled_from([None, None, 4, 8])),
            mem=draw(st.sampled_from([None, None, 8 * GIB, 48 * GIB])),
            gpu_model=None,
            host=draw(st.sampled_from([None, None, None, "h0"])),
            time_limit_s=draw(limits),
        )
        for i in range(draw(st.integers(0, most)))
    ]
    requests = [
        dataclasses.replace(request, gpu_model=draw(st.sampled_from([None, None, "a100", "rtx 3090"])))
        if request.gpus
        else request
        for request in requests
    ]
    return draw(st.permutations(requests))


@st.composite
def refused_queues(draw: st.DrawFn) -> list[Request]:
    """Runs of which some have just been given back by a host or two."""
    refusals = st.lists(
        st.builds(
            Refusal,
            host_id=st.sampled_from(["h0", "h1"]),
            until_us=st.integers(-1, 20).map(lambda seconds: NOW + seconds * SECOND),
            why=st.just("gpu0 is busy"),
        ),
        max_size=2,
        unique_by=lambda refusal: refusal.host_id,
    )
    return [dataclasses.replace(request, refusals=tuple(draw(refusals))) for request in draw(queues())]
