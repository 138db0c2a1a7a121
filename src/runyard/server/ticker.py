"""The yard's own clock: one thread that lets it assign and expire when something happened, and from time to time."""

from __future__ import annotations

import logging
import threading

from runyard.services.api import YardService
from runyard.wire.errors import UnavailableError

logger = logging.getLogger("runyard.server.ticker")
LEAST_S = 0.005
MOST_S = 60.0
AFTER_ERROR_S = 1.0


class Ticker:
    """Calls ``yard.tick()`` on the topic ``queue``, else after the seconds that the last call returned."""

    def __init__(self, yard: YardService) -> None:
        self._yard = yard
        self._due = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._due.set()
        self._thread.start()

    def notify(self, topic: str) -> None:
        """Take a topic of the yard. From any thread; never blocks."""
        if topic == "queue":
            self._due.set()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stop.set()
        self._due.set()
        self._thread.join(10.0)

    def _run(self) -> None:
        wait = 0.0
        while not self._stop.is_set():
            self._due.wait(min(max(wait, LEAST_S), MOST_S))
            self._due.clear()
            if self._stop.is_set():
                return
            try:
                wait = self._yard.tick()
            except UnavailableError as exc:
                logger.warning("the queue stands still: %s", exc.message)
                wait = AFTER_ERROR_S
            except Exception:  # without this thread nothing would ever start again
                logger.exception("the queue stands still")
                wait = AFTER_ERROR_S
