"""What the yard does besides: log tails and notices of ended runs, and upkeep (trash, thinning, hashes, compaction)."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import queue
import threading

from runyard.services.api import YardService
from runyard.services.ingest import COMPACT
from runyard.wire.errors import RunyardError

logger = logging.getLogger("runyard.server.chores")
UPKEEP_EVERY_S = 600.0
UPKEEP_AFTER_END_S = 10.0
UPKEEP_BUSY = 50
"""A pass that did this much has probably left something."""
NICE = 10
NOTICES_MAX = 1000
ENDED = "ended:"


def give_memory_back() -> None:
    """Return freed memory to the system: after a large request the C library would keep it (malloc_trim(3), glibc)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


class Chores:
    """Starts with the server and ends with it. Nothing here can hold up a run."""

    def __init__(self, yard: YardService, url: str) -> None:
        self._yard = yard
        self._url = url
        self._ended: queue.Queue[str] = queue.Queue(NOTICES_MAX)
        self._stop = threading.Event()
        self._due = threading.Event()
        self._threads = [
            threading.Thread(target=self._notices, name="notices", daemon=True),
            threading.Thread(target=self._upkeep, name="upkeep", daemon=True),
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def notify(self, topic: str) -> None:
        """Take a topic of the yard. From any thread; never blocks."""
        if topic == COMPACT:
            self._due.set()
        if not topic.startswith(ENDED):
            return
        self._due.set()
        try:
            self._ended.put_nowait(topic[len(ENDED) :])
        except queue.Full:
            logger.warning("too many runs end at once: no notice about %s", topic[len(ENDED) :])

    def stop(self) -> None:
        """End the threads; a notice on its way may be left behind."""
        self._stop.set()
        self._due.set()
        with contextlib.suppress(queue.Full):
            self._ended.put_nowait("")
        for thread in self._threads:
            thread.join(2.0)

    def _notices(self) -> None:
        while not self._stop.is_set():
            run_id = self._ended.get()
            if not run_id:
                continue
            try:
                self._yard.keep_log_tail(run_id)
                self._yard.notify(run_id, self._url)
            except RunyardError as exc:
                logger.warning("no notice about run %s: %s", run_id, exc.message)
            except Exception:  # a notice is never worth a thread
                logger.exception("no notice about run %s", run_id)

    def _upkeep(self) -> None:
        # On Linux priorities belong to threads; elsewhere there is none to set for one.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while not self._stop.wait(UPKEEP_AFTER_END_S):
            done = 0
            try:
                done = self._yard.upkeep(self._stop.is_set)
            except RunyardError as exc:
                logger.warning("upkeep was left off: %s", exc.message)
            except Exception:  # upkeep of tomorrow must not fail for that of today
                logger.exception("upkeep was left off")
            give_memory_back()
            if done < UPKEEP_BUSY:
                self._due.wait(UPKEEP_EVERY_S)
                self._due.clear()
