"""Who has a slot, and how much of a host's cores and memory is taken, from now on. Times in microseconds."""

from __future__ import annotations

from bisect import bisect_right

from runyard.model.placement import HostState, Slot
from runyard.scheduler.needs import Supply

NEVER = 1 << 62
"""End of what lasts for ever, and duration of a run without a time limit."""


class Lane:
    """One slot's time: sorted intervals ``[starts[i], ends[i])`` in which it is taken or promised."""

    __slots__ = ("depth", "ends", "holder", "kept_for", "slot", "starts", "taken")

    def __init__(self, slot: Slot, now: int) -> None:
        self.slot = slot
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.depth = 0  # how many things of unknown end follow each other on it
        self.taken = slot.taken  # now, by a process
        self.holder = slot.holder_run  # run of this yard that has it now
        self.kept_for: str | None = None  # first queued run that it is kept for
        if slot.taken:
            # A holder past its limit is being stopped: the slot is expected next, not now.
            self.reserve(now, NEVER if slot.busy_until_us is None else max(slot.busy_until_us, now + 1))

    def earliest(self, start: int, duration: int) -> int:
        """Return the first time from ``start`` on when the slot is free for ``duration``, or NEVER."""
        starts, ends = self.starts, self.ends
        i, n = bisect_right(ends, start), len(ends)
        while i < n and starts[i] - start < duration:
            start = ends[i]
            i += 1
        return start

    def reserve(self, start: int, end: int) -> None:
        """Take the slot for a time in which it is free."""
        starts, ends = self.starts, self.ends
        i = bisect_right(starts, start)
        if end == NEVER:  # its start is kept apart, see `soonest`
            self.depth += 1
        else:
            if i < len(starts) and starts[i] == end and ends[i] < NEVER:
                end = ends[i]
                del starts[i], ends[i]
            if i > 0 and ends[i - 1] == start:
                ends[i - 1] = end
                return
        starts.insert(i, start)
        ends.insert(i, end)

    def hold(self, start: int) -> None:
        """Take all of the slot's time from ``start`` on."""
        i = bisect_right(self.ends, start)
        first = min(start, self.starts[i]) if i < len(self.starts) else start
        self.starts[i:] = [first]
        self.ends[i:] = [NEVER]
        self.depth += 1

    def soonest(self, now: int, duration: int) -> tuple[int, int]:
        """Return (depth, time) of a first start, were everything of unknown end to end at once."""
        start = self.earliest(now, duration)
        return (0, start) if start < NEVER else (self.depth, self.starts[-1])

    def is_gone(self, now: int) -> bool:
        """Tell whether nothing of the slot's known time is left."""
        return self.earliest(now, 1) == NEVER


class Floors:
    """Times before which no start of a duration is possible, known from earlier searches: a profile only fills."""

    __slots__ = ("_durations", "_times")

    def __init__(self, now: int) -> None:
        self._durations, self._times = [0], [now]  # both rise

    def get(self, duration: int) -> int:
        """Return a time before which nothing of this duration can start."""
        return self._times[bisect_right(self._durations, duration) - 1]

    def set(self, duration: int, time: int) -> None:
        """Note that nothing of this duration, nor of a longer one, can start before this time."""
        i = bisect_right(self._durations, duration)
        if self._times[i - 1] >= time:
            return
        if self._durations[i - 1] == duration:
            i -= 1
        j = bisect_right(self._times, time, lo=i)
        self._durations[i:j], self._times[i:j] = [duration], [time]


class Usage:
    """A step function of time: cores and bytes in use, constant on ``[times[i], times[i + 1])``."""

    __slots__ = ("cpus", "mem", "times")

    def __init__(self, now: int) -> None:
        self.times, self.cpus, self.mem = [now], [0], [0]

    def add(self, start: int, end: int, cpus: int, mem: int) -> None:
        """Add to what is in use during ``[start, end)``."""
        first = self._split(start)
        last = self._split(end) if end < NEVER else len(self.times)
        for i in range(first, last):
            self.cpus[i] += cpus
            self.mem[i] += mem

    def earliest(self, start: int, duration: int, cpus: int, mem: int) -> int:
        """Return the first time from ``start`` on when no more than these are in use for ``duration``, or NEVER."""
        times, n = self.times, len(self.times)
        i = bisect_right(times, start) - 1
        while i < n and times[i] - start < duration:
            i += 1
            if self.cpus[i - 1] > cpus or self.mem[i - 1] > mem:
                start = times[i] if i < n else NEVER
        return start

    def _split(self, time: int) -> int:
        i = bisect_right(self.times, time) - 1
        if self.times[i] == time:
            return i
        self.times.insert(i + 1, time)
        self.cpus.insert(i + 1, self.cpus[i])
        self.mem.insert(i + 1, self.mem[i])
        return i + 1


class Pool:
    """Cores and memory of one host over time.

    ``real`` is what will be in use if everything lasts to its limit. ``promised`` is what a run waiting for something
    of unknown end was promised: it leaves out what that run waits for, and counts what came after it.
    """

    def __init__(self, supply: Supply, now: int) -> None:
        host = supply.host
        self.cpus, self.mem = supply.cpus, supply.mem
        self.real, self.promised = Usage(now), Usage(now)
        self.has_promises = False
        self.changes = 0  # of the host's plan so far
        self.taken_cpus, self.taken_mem = host.cpus_used, host.mem_used  # now, by processes
        self._add_running(host, now)

    def _add_running(self, host: HostState, now: int) -> None:
        cpus, mem, ends = host.cpus_used, host.mem_used, []
        for slot in host.slots:
            if slot.holder_run is None:
                continue
            end = NEVER if slot.busy_until_us is None else max(slot.busy_until_us, now + 1)
            cores, memory = slot.cpus_held, slot.mem_held
            if cores is None and slot.kind == "cpu":
                cores = slot.threads
            if cores is None or memory is None:
                ends.append(end)
            self._add(now, end, cores or 0, memory or 0)
            cpus, mem = cpus - (cores or 0), mem - (memory or 0)
        # What no slot accounts for ends with the last of those that do not say what they hold.
        self._add(now, max(ends, default=NEVER), max(0, cpus), max(0, mem))

    def _add(self, start: int, end: int, cpus: int, mem: int) -> None:
        if cpus or mem:
            self.real.add(start, end, cpus, mem)
            if end < NEVER or self.has_promises:
                self.promised.add(start, end, cpus, mem)

    def earliest(self, start: int, duration: int, cpus: int, mem: int) -> int:
        """Return the first time from ``start`` on when this much is free for ``duration``, or NEVER."""
        if not cpus and not mem:
            return start
        free_cpus, free_mem = self._limits(cpus, mem)
        while True:
            first = self.real.earliest(start, duration, free_cpus, free_mem)
            if not self.has_promises or first == NEVER:
                return first
            start = self.promised.earliest(first, duration, free_cpus, free_mem)
            if start in (first, NEVER):
                return start

    def reserve(self, start: int, end: int, cpus: int, mem: int) -> None:
        """Take this much for a time in which it is free."""
        self.changes += 1
        self._add(start, end, cpus, mem)

    def hold(self, start: int, cpus: int, mem: int) -> None:
        """Promise this much from ``start`` on, if earlier promises leave it."""
        self.changes += 1
        if (cpus or mem) and self.promised.earliest(start, NEVER, *self._limits(cpus, mem)) == start:
            self.has_promises = True
            self.promised.add(start, NEVER, cpus, mem)

    def soonest(self, start: int, cpus: int, mem: int) -> int:
        """Return the first time when this much is free for good, were everything of unknown end to end at once."""
        if not cpus and not mem:
            return start
        found = self.promised.earliest(start, NEVER, *self._limits(cpus, mem))
        return start if found == NEVER else found

    def _limits(self, cpus: int, mem: int) -> tuple[int, int]:
        """Return how much may be in use beside; a resource that is not asked for does not matter."""
        return (self.cpus - cpus if cpus else NEVER), (self.mem - mem if mem else NEVER)
