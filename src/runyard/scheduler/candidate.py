"""A host on which a run could be placed, with the time of its slots, cores and memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from runyard.model.placement import HostState
from runyard.scheduler.needs import Need
from runyard.scheduler.profile import NEVER, Floors, Lane, Pool


@dataclass(frozen=True, slots=True)
class Hold:
    """What a run would keep on a host while it waits for something of unknown end."""

    option: Candidate
    lanes: list[Lane]
    at: int  # from when on
    rank: tuple[int, int]  # unknown ends to wait for, time; the smallest is the best

    def keep(self) -> None:
        """Keep it: nothing later gets it."""
        for lane in self.lanes:
            lane.hold(self.at)
        self.option.pool.hold(self.at, self.option.need.cpus, self.option.need.mem)


@dataclass(frozen=True, slots=True)
class Place:
    """A time at which a run could start on a host, and all slots there that are free for as long as it needs."""

    option: Candidate
    at: int
    free: list[Lane]  # the most suitable first

    @property
    def lanes(self) -> list[Lane]:
        """The slots to take."""
        return self.free[: self.option.need.count]

    @property
    def rank(self) -> tuple[bool, int, int, tuple[str, str]]:
        """What decides between hosts that can start a run at the same time; the smallest fits best.

        A GPU where the run leaves the choice; the smallest GPU memory that will do; then the fullest host, so that
        large requests still fit elsewhere.
        """
        mem = max(lane.slot.mem for lane in self.lanes)
        return self.option.need.kind != "gpu", mem, len(self.free), self.option.name

    def reserve(self, duration: int) -> None:
        """Take what the run needs for as long as it needs it."""
        end = min(NEVER, self.at + duration)
        for lane in self.lanes:
            lane.reserve(self.at, end)
        self.option.pool.reserve(self.at, end, self.option.need.cpus, self.option.need.mem)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host that could run requests of one shape, and what they need there."""

    host: HostState
    need: Need
    lanes: list[Lane]  # of slots that would do and that the yard can plan with, the most suitable first
    pool: Pool
    floors: Floors
    refused: str = ""  # that the host gave it back, and when it is asked again, for people; nothing: it did not
    holds: dict[int, tuple[int, Hold]] = field(default_factory=dict)  # by duration: state of the pool, what was found

    @property
    def name(self) -> tuple[str, str]:
        """What decides between hosts that are equal in all else."""
        return self.host.name, self.host.id

    def find(self, duration: int) -> Place | None:
        """Return the first time when all that is needed is free for ``duration``, or None if it never is."""
        at, free = self._find(self.floors.get(duration), duration)
        self.floors.set(duration, at)
        return None if at == NEVER else Place(self, at, free)

    def _find(self, start: int, duration: int) -> tuple[int, list[Lane]]:
        count, lanes = self.need.count, self.lanes
        times = [-1] * len(lanes)  # when each slot is free at the earliest
        while start < NEVER:
            times = [
                time if time >= start else lane.earliest(start, duration)
                for time, lane in zip(times, lanes, strict=True)
            ]
            bound = sorted(times)[count - 1] if count > 1 else min(times)  # enough slots are free then at the earliest
            if bound < NEVER and min(times) == bound:
                bound = self.pool.earliest(bound, duration, self.need.cpus, self.need.mem)
                if bound == min(times):
                    return bound, [lane for time, lane in zip(times, lanes, strict=True) if time == bound]
            start = bound
        return NEVER, []

    def soonest(self, now: int, duration: int) -> Hold:
        """Return what to keep here for a run that has no known start: the fewest unknown ends first, then time."""
        known = self.holds.get(duration)
        if known is not None and known[0] == self.pool.changes:
            return known[1]
        ranked = sorted((*lane.soonest(now, duration), i) for i, lane in enumerate(self.lanes))[: self.need.count]
        lanes = [self.lanes[i] for _, _, i in ranked]
        at = self.pool.soonest(max(start for _, start, _ in ranked), self.need.cpus, self.need.mem)
        hold = Hold(option=self, lanes=lanes, at=at, rank=(max(1, ranked[-1][0]), at))
        self.holds[duration] = self.pool.changes, hold
        return hold
