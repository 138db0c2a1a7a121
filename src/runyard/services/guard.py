"""When a lease may be held to be over.

A lease that nobody could renew says nothing: after the server or the database was away, or while the database's clock and
the machine's monotonic clock disagree (a step of the clock, a suspended laptop), a full lease must pass first.
"""

from __future__ import annotations

from runyard.wire.timing import Timing


class ExpiryGuard:
    """Tells whether leases may expire now. Starts closed for one lease."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._since: float | None = None
        self._last: float | None = None
        self._offset_s: float | None = None
        self.step_us = 0
        """How far the database's clock was set since `applied`: times of losses must be moved by as much."""
        self.renew = True
        """Leases must be written anew: they were written before this process, or by a clock that was set since."""

    def look(self, database_us: int, monotonic_s: float) -> bool:
        """Compare the clocks; return True when leases may expire."""
        offset = database_us / 1e6 - monotonic_s
        step_s = 0.0 if self._offset_s is None else offset - self._offset_s
        stepped = abs(step_s) > self._timing.clock_tolerance_s
        if stepped:
            self.step_us += round(step_s * 1e6)
            self.renew = True
        stood_still = self._last is not None and monotonic_s - self._last > self._timing.gap_s
        if self._since is None or stepped or stood_still:
            self._since = monotonic_s
        self._offset_s, self._last = offset, monotonic_s
        return monotonic_s - self._since >= self._timing.lease_s

    def applied(self) -> None:
        """What `step_us` and `renew` ask for is committed."""
        self.step_us = 0
        self.renew = False

    def outage(self) -> None:
        """The database did not answer: a full lease must pass once it is back."""
        self._since = None
