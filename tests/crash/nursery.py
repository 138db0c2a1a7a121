"""Starting servers and agents by the hundred: a process that has imported everything forks one for each.

Importing the server takes two seconds; what is forked is a process of its own in every other respect. It is not a child
of the test, so it is looked at by pid and start time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Nursery:
    """The client side. Thread-safe."""

    def __init__(self) -> None:
        environment = {name: text for name, text in os.environ.items() if not name.startswith(("RUNYARD_", "CRASH_"))}
        environment["PYTHONPATH"] = os.path.join(TOP, "src") + ":" + TOP
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.nursery"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=environment, cwd=TOP, start_new_session=True,
        )  # fmt: skip

    def start(self, kind: str, words: list[str], environment: dict[str, str], log: str, mutation: str = "") -> int:
        """Fork a ``server`` or an ``agent``; return its pid. ``environment`` is all that it gets."""
        order = {"kind": kind, "words": words, "environment": environment, "log": log, "mutation": mutation}
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the nursery; what it has started goes on."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def main() -> None:
    """Serve until the end of the input."""
    import gc

    from tests.crash import children

    children.warm_up()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        line = sys.stdin.buffer.readline()
        if not line:
            return
        order: dict[str, Any] = json.loads(line)
        pid = os.fork()
        if pid == 0:
            children.begin(order)
        sys.stdout.buffer.write(b"%d\n" % pid)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
