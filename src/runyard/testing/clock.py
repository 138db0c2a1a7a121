"""A clock that tests move."""

from __future__ import annotations

import threading

from runyard.services.context import Clock
from runyard.store.database import Connection

START_US = 1_800_000_000_000_000


class ManualClock(Clock):
    """Stands still until it is moved. Database time and monotonic time move together, unless `step` is called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.database_us = START_US
        self.monotonic_s = 1000.0

    def now_us(self, connection: Connection) -> int:
        """Return what the database's clock shows, in microseconds since 1970."""
        return self.database_us

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        return self.monotonic_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self.database_us += round(seconds * 1e6)
            self.monotonic_s += seconds

    def step(self, seconds: float) -> None:
        """Set the database's clock forward or back, as an administrator or NTP does."""
        with self._lock:
            self.database_us += round(seconds * 1e6)
