"""The collector's script: ``python -I -S LIB/runyard/agent/collector.py ATTEMPT_DIR``, one per attempt.

The work is in `runyard.agent.collect`, which, unlike a script, Python keeps compiled.
"""

import os
import sys


def main() -> int:
    """Collect for the attempt whose directory is the argument; return the exit status (see `collect`)."""
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from runyard.agent import collect

    if len(sys.argv) != 2:
        sys.stderr.write("usage: collector.py ATTEMPT_DIR\n")
        return 2
    return collect.main(os.path.abspath(sys.argv[1]))


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # everything is written; taking the interpreter down tidily takes milliseconds
