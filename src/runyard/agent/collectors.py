"""The process that the collectors of this agent are forked from (`collect.serve`): started when first needed, and again.

So starting a collector costs neither an interpreter nor its imports, and all of them share the memory for those.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading

from runyard.agent.collect import STARTED
from runyard.wire import jsonlite

ANSWER_S = 10.0
"""A process that has not answered by then is taken for dead."""


class Collectors:
    """Starts collectors; may be used by all threads."""

    def __init__(self, python: str, lib: str) -> None:
        self._python = python
        self._lib = lib
        self._lock = threading.Lock()
        self._pid = 0
        self._ask = self._answer = -1

    def start(self, directory: str) -> bool:
        """Start the collector of the attempt in a directory, which has its lock when this returns; False when not."""
        line = jsonlite.dumps(directory).encode("ascii") + b"\n"
        with self._lock:
            for _ in range(2):  # the process may have been killed since
                try:
                    if not self._pid:
                        self._begin()
                    os.write(self._ask, line)
                    poll = select.poll()
                    poll.register(self._answer, select.POLLIN)
                    answer = os.read(self._answer, 1) if poll.poll(ANSWER_S * 1000.0) else b""
                except OSError:
                    answer = b""
                if answer:
                    return answer == STARTED
                self._end()
        return False

    def _begin(self) -> None:
        environ = {name: text for name, text in os.environ.items() if not name.startswith(("RUNYARD_", "PYTHON"))}
        script = os.path.join(self._lib, "runyard", "agent", "collector.py")
        asked, self._ask = os.pipe()
        self._answer, answered = os.pipe()
        try:
            self._pid = os.posix_spawn(
                self._python,
                [self._python, "-I", "-S", script],
                environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, asked, 0), (os.POSIX_SPAWN_DUP2, answered, 1)],
            )
        finally:
            os.close(asked)
            os.close(answered)

    def _end(self) -> None:
        for fd in (self._ask, self._answer):
            if fd >= 0:
                os.close(fd)
        self._ask = self._answer = -1
        if self._pid:
            with contextlib.suppress(OSError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
        self._pid = 0
