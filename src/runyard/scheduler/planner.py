"""Conservative backfill: every run in queue order gets the first time at which it fits beside all runs before it.

The runs whose time is now start. The others keep their place in the profile of the slots, so nothing later takes it.
A run without a time limit lasts for ever. A host that gave a run back a moment ago has a place for it a little later at
the earliest. A run that waits for something of unknown end has no time; it keeps, on one host, the slots that it is
waiting for, from the first moment at which it could start were the unknown to end at once.

The method is Slurm's backfill scheduler (sched/backfill, bf_* in slurm.conf(5)), per slot instead of per node.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from runyard.model.placement import HostState, Plan, Refusal, Request, Start, Wait
from runyard.scheduler.candidate import Candidate, Place
from runyard.scheduler.needs import Need, Shortfall, Supply, limit_us, need_on
from runyard.scheduler.profile import NEVER, Floors, Lane, Pool
from runyard.scheduler.reasons import impossible, waiting

_MAX_HOLDS = 100
"""Runs that keep slots while they wait for something of unknown end; those after them keep only their place."""

Shape = tuple[int | None, int | None, int | None, str | None, str | None, tuple[Refusal, ...]]


def plan(
    requests: Iterable[Request], hosts: Iterable[HostState], now_us: int, explained: Container[str] | None = None
) -> Plan:
    """Decide which runs start now, on which slots, and why and until when the others wait.

    ``hosts`` are the connected ones, each once. The answer depends on neither the order of the requests (priority
    descending, then ``seq`` ascending, decide) nor that of hosts and slots. An expected start holds as long as nothing
    is submitted with a higher priority and runs last no longer than their limits; it is reckoned anew every time, and
    where several hosts would do equally well it may move a little.

    ``explained``: the runs whose reasons are wanted, None for all; for the others there are none.
    """
    planner = _Planner(hosts, now_us, explained)
    for request in sorted(requests, key=lambda r: (-r.priority, r.seq, r.run_id)):
        planner.place(request)
    return planner.plan


@dataclass(slots=True)
class _Shape:
    """What all requests that ask for the same share."""

    options: list[Candidate]  # where such a run can be planned, best tie-break first
    closed: list[Candidate]  # where it fits but nothing can be planned now
    shortfalls: list[Shortfall]
    saturated: bool = False  # nothing is left that a waiting run could keep


class _Planner:
    def __init__(self, hosts: Iterable[HostState], now: int, explained: Container[str] | None) -> None:
        self.now = now
        self._explained = explained
        self.plan = Plan()
        self._hosts = sorted(hosts, key=lambda h: (h.name, h.id))
        self._lanes = {slot.id: Lane(slot, now) for host in self._hosts for slot in host.slots}
        self._supplies = [Supply(host) for host in self._hosts]
        self._pools = {supply.host.id: Pool(supply, now) for supply in self._supplies}
        self._shapes: dict[Shape, _Shape] = {}
        self._holds = 0
        self._reasons: dict[Shape, tuple[str, ...]] = {}

    def place(self, request: Request) -> None:
        """Start the run, or give it its place and its reasons."""
        key = (request.gpus, request.cpus, request.mem, request.gpu_model, request.host, request.refusals)
        shape = self._shapes.get(key) or self._shapes.setdefault(key, self._survey(request))
        duration = limit_us(request) or NEVER
        place = None if shape.saturated else _first(shape.options, duration)
        if place is not None and place.at == self.now:
            self._start(request, place, duration)
            return
        reasons: tuple[str, ...] = ()
        if self._explained is None or request.run_id in self._explained:
            reasons = self._reasons.get(key) or self._reasons.setdefault(key, self._explain(request, shape))
        if place is not None:
            place.reserve(duration)
            self._keep(request, place.lanes)
        elif shape.options and not shape.saturated and self._holds < _MAX_HOLDS:
            self._hold(request, shape, duration)
        self.plan.waits[request.run_id] = Wait(reasons=reasons, expected_start_us=None if place is None else place.at)

    def _survey(self, request: Request) -> _Shape:
        shape = _Shape(options=[], closed=[], shortfalls=[])
        for supply in self._supplies:
            host, need = supply.host, need_on(request, supply)
            if isinstance(need, Shortfall):
                shape.shortfalls.append(need)
                continue
            candidate = self._candidate(host, need, request)
            usable = host.accepts and len(candidate.lanes) >= need.count
            (shape.options if usable else shape.closed).append(candidate)
        return shape

    def _candidate(self, host: HostState, need: Need, request: Request) -> Candidate:
        # A slot that somebody outside the yard has, or that is out of order, may never come back: nothing is planned
        # on it, and nothing else is kept idle for a run that would need it too.
        lanes = [
            self._lanes[s.id] for s in need.slots if s.free or s.holder_run is not None or s.busy_until_us is not None
        ]
        since, refused = self.now, ""
        for refusal in request.refusals:
            if refusal.host_id == host.id and refusal.until_us > self.now:
                since = refusal.until_us
                refused = f"gave it back: {refusal.why}; asked again in {-(-(since - self.now) // 1_000_000)} s"
        pool = self._pools[host.id]
        return Candidate(host=host, need=need, lanes=lanes, pool=pool, floors=Floors(since), refused=refused)

    def _explain(self, request: Request, shape: _Shape) -> tuple[str, ...]:
        if shape.options or shape.closed:
            return waiting(shape.options, shape.closed)
        return impossible(request, shape.shortfalls, self._hosts)

    def _start(self, request: Request, place: Place, duration: int) -> None:
        place.reserve(duration)
        option = place.option
        option.pool.taken_cpus += option.need.cpus
        option.pool.taken_mem += option.need.mem
        for lane in place.lanes:
            lane.taken, lane.holder = True, request.run_id
        self._reasons.clear()
        self.plan.starts.append(
            Start(
                run_id=request.run_id,
                agent_id=option.host.agent_id,
                host_id=option.host.id,
                slot_ids=tuple(lane.slot.id for lane in place.lanes),
            )
        )

    def _hold(self, request: Request, shape: _Shape, duration: int) -> None:
        """Keep what the run waits for on the host that starts it first, as far as that can be told."""
        self._holds += 1
        holds = [option.soonest(self.now, duration) for option in shape.options]
        first = min(hold.rank for hold in holds)
        best = min(
            (hold for hold in holds if hold.rank == first),
            key=lambda hold: (sum(not lane.is_gone(self.now) for lane in hold.lanes), hold.option.name),
        )
        best.keep()
        self._keep(request, best.lanes)
        shape.saturated = all(lane.is_gone(self.now) for option in shape.options for lane in option.lanes)

    def _keep(self, request: Request, lanes: Sequence[Lane]) -> None:
        for lane in lanes:
            if lane.kept_for is None and not lane.taken:
                lane.kept_for = request.run_id
                self._reasons.clear()


def _first(options: Sequence[Candidate], duration: int) -> Place | None:
    """Return the earliest place for a run, the best of those at the same time; None if there is none."""
    at, places = NEVER, list[Place]()
    for option in sorted(options, key=lambda option: option.floors.get(duration)):
        if option.floors.get(duration) > at:
            break
        place = option.find(duration)
        if place is not None and place.at <= at:
            places = [place] if place.at < at else [*places, place]
            at = place.at
    return min(places, key=lambda place: place.rank, default=None)
