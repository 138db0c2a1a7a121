"""Waiting for the end of a process that may be nobody's child here, without using the CPU."""

from __future__ import annotations

import os
import select
import time

from runyard.wire import procs

POLL_S = 0.2
"""Longest wait where the kernel has no pidfds (Linux before 5.3, Python before 3.9): the caller looks, and waits again."""


def wait_gone(pid: int, started: int | None, timeout_s: float | None = None) -> None:
    """Return when a process has ended, or after ``timeout_s`` seconds (None: however long it takes), or `POLL_S`.

    ``started``: its start time (`procs.start_time`).
    """
    try:
        fd = os.pidfd_open(pid)  # novermin
    except (AttributeError, OSError):
        if procs.is_alive(pid, started):
            time.sleep(POLL_S if timeout_s is None else min(timeout_s, POLL_S))
        return
    try:
        if procs.is_alive(pid, started):  # after opening, so that it cannot be another process of that number
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            poller.poll(None if timeout_s is None else timeout_s * 1000.0)
    finally:
        os.close(fd)
