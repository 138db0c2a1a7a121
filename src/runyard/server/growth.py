"""Tells those who follow a file that it has grown.

One look at all followed files every 50 ms, in one thread for an instant, and only while somebody follows: it works on
every file system, and its cost does not depend on who writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator

INTERVAL_S = 0.05


def _sizes(paths: list[str]) -> dict[str, int]:
    found = {}
    for path in paths:
        try:
            found[path] = os.stat(path).st_size
        except OSError:
            found[path] = -1
    return found


class Growth:
    """Sizes of followed files. All methods belong to the event loop."""

    def __init__(self) -> None:
        self._bells: dict[str, list[asyncio.Event]] = {}
        self._known: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def watched(self) -> int:
        """How many files are followed."""
        return len(self._bells)

    @property
    def looking(self) -> bool:
        """Whether anybody looks at files."""
        return self._task is not None and not self._task.done()

    @contextlib.contextmanager
    def watch(self, path: str, bell: asyncio.Event) -> Iterator[None]:
        """Set ``bell`` soon after the size of a file has changed. A file that is not there yet is waited for."""
        self._bells.setdefault(path, []).append(bell)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            bells = self._bells[path]
            bells.remove(bell)
            if not bells:
                del self._bells[path]
                self._known.pop(path, None)

    async def _run(self) -> None:
        while self._bells:
            sizes = await asyncio.to_thread(_sizes, list(self._bells))
            for path, size in sizes.items():
                if self._known.get(path) != size and path in self._bells:
                    self._known[path] = size
                    for bell in self._bells[path]:
                        bell.set()
            await asyncio.sleep(INTERVAL_S)
