"""Reading a run's log: raw bytes.

The log is the raw output; ``times`` beside it holds records of 16 bytes, ``<QQ``: offset in the log, microseconds since
1970 UTC (docs/protocol.md). Text for people is made by `runyard.wire.render`.
"""

from __future__ import annotations

import os
import struct

TIME_RECORD = struct.Struct("<QQ")
"""Offset in the log (bytes), time at which the bytes from there on came (microseconds since 1970 UTC)."""


def size(path: str) -> int:
    """Return the length of a log in bytes; 0 when there is none yet."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def read(path: str, offset: int, limit: int) -> bytes:
    """Return up to ``limit`` bytes from ``offset`` on; a negative offset counts from the end. ``b""`` past the end."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        if offset < 0:
            offset = max(0, os.fstat(fd).st_size + offset)
        parts = []
        while limit > 0:
            part = os.pread(fd, limit, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            limit -= len(part)
        return b"".join(parts)
    finally:
        os.close(fd)
