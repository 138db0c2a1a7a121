"""The collectors' script: ``python -I -S LIB/runyard/agent/collector.py``, one per agent, which forks one per attempt.

The work is in `runyard.agent.collect`, which, unlike a script, Python keeps compiled.
"""

import os
import sys


def main() -> int:
    """Start collectors until standard input ends (see `collect.serve`)."""
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from runyard.agent import collect

    return collect.serve()


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # everything is written; taking the interpreter down tidily takes milliseconds
