"""``python -m runyard.server``: see `lifecycle.main`."""

from __future__ import annotations

import os
import sys

from runyard.wire.serverenv import server_environment


def _main() -> int:
    # A variable that is only deleted can still be read in /proc/PID/environ, so a process with others starts over,
    # before anything slow is imported. The process keeps its id.
    clean = server_environment(os.environ)
    if any(name not in clean for name in os.environ):
        os.execve(sys.executable, [sys.executable, "-P", "-m", "runyard.server", *sys.argv[1:]], clean)
    from runyard.server.lifecycle import main  # noqa: PLC0415  after the environment is clean

    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(_main())
