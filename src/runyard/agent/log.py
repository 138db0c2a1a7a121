"""What the agent says about itself: one line per event on standard error, repeated lines at most once a minute."""

from __future__ import annotations

import sys
import threading
import time

REPEAT_S = 60.0


class Log:
    """Writes lines with a UTC time in front; the same line is not written twice within `REPEAT_S` seconds."""

    def __init__(self) -> None:
        self._last = ("", 0.0)
        self._lock = threading.Lock()

    def __call__(self, text: str) -> None:
        """Write one line; a closed or full standard error is no reason to stop."""
        now = time.monotonic()
        with self._lock:
            if text == self._last[0] and now - self._last[1] < REPEAT_S:
                return
            self._last = (text, now)
            line = "%s %s\n" % (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), text)
            try:
                sys.stderr.write(line.encode("utf-8", "backslashreplace").decode("utf-8"))
                sys.stderr.flush()
            except (OSError, ValueError):
                pass
