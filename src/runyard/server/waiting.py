"""Requests that wait: they hold neither a thread nor a database connection.

The yard calls `Hub.notify` from any thread after each commit; waiters are plain asyncio events.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator

from starlette.requests import Request


class Waiter:
    """One request that waits for topics. ``rang`` tells that a topic did, which the reader of it resets."""

    def __init__(self) -> None:
        self.bell = asyncio.Event()
        self.rang = False
        self.gone = False
        """The client has closed the connection."""

    def ring(self) -> None:
        """Wake the waiter because of a topic."""
        self.rang = True
        self.bell.set()

    async def next(self, deadline: float) -> bool:
        """Wait for the bell, at most until ``deadline`` (seconds of `time.monotonic`); False when that is over."""
        left = deadline - time.monotonic()
        if left <= 0 and not self.bell.is_set():
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(left, 0)):
                await self.bell.wait()
        rung = self.bell.is_set()
        self.bell.clear()
        return rung and not self.gone


class Hub:
    """Carries topics from the threads of the yard to the waiters of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._waiters: dict[str, set[Waiter]] = {}
        self._pending: set[str] = set()
        self.stopping = False

    def notify(self, topic: str) -> None:
        """Wake all who wait for a topic. From any thread; never blocks."""
        with self._lock:
            if topic not in self._waiters or topic in self._pending:
                return
            self._pending.add(topic)
            if len(self._pending) > 1:
                return  # a delivery is on its way
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            topics, self._pending = self._pending, set()
            waiters = {waiter for topic in topics for waiter in self._waiters.get(topic, ())}
        for waiter in waiters:
            waiter.ring()

    def stop(self) -> None:
        """Wake everybody for good: the server stops. Call it in the event loop."""
        with self._lock:
            self.stopping = True
            waiters = {waiter for group in self._waiters.values() for waiter in group}
        for waiter in waiters:
            waiter.ring()

    @property
    def waiting(self) -> int:
        """How many requests wait now."""
        with self._lock:
            return len({waiter for group in self._waiters.values() for waiter in group})

    @contextlib.asynccontextmanager
    async def listen(self, request: Request, *topics: str) -> AsyncIterator[Waiter]:
        """Give a waiter for topics; it also wakes when the client goes away.

        The request's body must have been read: what the server receives next can only be the end of the connection.
        """
        waiter = Waiter()
        with self._lock:
            for topic in topics:
                self._waiters.setdefault(topic, set()).add(waiter)
        watch = asyncio.create_task(_watch(request, waiter))
        try:
            yield waiter
        finally:
            watch.cancel()
            with self._lock:
                for topic in topics:
                    group = self._waiters[topic]
                    group.discard(waiter)
                    if not group:
                        del self._waiters[topic]


async def _watch(request: Request, waiter: Waiter) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    waiter.gone = True
    waiter.bell.set()
