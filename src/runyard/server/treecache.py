"""Recently served code trees as tar files: a sweep's agents ask for the same tree again and again."""

from __future__ import annotations

import threading
from collections import OrderedDict

CACHE_BYTES = 64 << 20


class TreeCache:
    """Small tars, the least recently used dropped first. Thread-safe. A tree's id is the hash of its content."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit = limit
        """Bytes in all."""
        self.largest = limit // 4
        """Bytes of one tar that is held."""
        self.held = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, bytes] = OrderedDict()

    def get(self, tree: str) -> bytes | None:
        """Return a tar, None when it is not held."""
        with self._lock:
            data = self._entries.get(tree)
            if data is not None:
                self._entries.move_to_end(tree)
            return data

    def put(self, tree: str, data: bytes) -> None:
        """Hold a tar, unless it would take too much of the space."""
        if len(data) > self.largest:
            return
        with self._lock:
            self.held += len(data) - len(self._entries.pop(tree, b""))
            self._entries[tree] = data
            while self.held > self.limit:
                self.held -= len(self._entries.popitem(last=False)[1])
