"""Keeping this host's files from being taken for forgotten: with a home on a network disk they lie in /var/tmp.

Source: tmpfiles.d(5), "Age" and its notes on locks: systemd-tmpfiles removes what no time of a file says was used lately
(30 days in /var/tmp), and leaves a directory alone, with all below it, on which somebody holds a BSD lock.
"""

from __future__ import annotations

import os
import time

from runyard.wire import procs

EVERY_S = 86400.0


class Keeper:
    """Marks all files below a directory as used, once a day."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._next = 0.0

    def keep(self) -> None:
        """Do it if a day has passed. Only the time of the last access changes: by the others files are put in order."""
        now = procs.uptime_s()
        if now < self._next:
            return
        self._next = now + EVERY_S
        for top, _, names in os.walk(self._directory):
            for name in ["", *names]:
                path = os.path.join(top, name)
                try:
                    os.utime(path, ns=(time.time_ns(), os.lstat(path).st_mtime_ns), follow_symlinks=False)
                except OSError:
                    continue  # gone meanwhile
