"""The supervisor's script: ``python -I -S LIB/runyard/agent/supervisor.py ATTEMPT_DIR [FD...]``, one per attempt.

Isolated mode puts nothing of ours on the path, so the script adds the directory it was copied to. The work is in
`runyard.agent.supervise`, which, unlike a script, Python keeps compiled.
"""

import os
import sys


def main() -> int:
    """Run the attempt whose directory is the first argument; return the exit status (see `supervise`).

    The other arguments are descriptors to hold open for life.
    """
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from runyard.agent import supervise

    if len(sys.argv) < 2 or not all(word.isdigit() for word in sys.argv[2:]):
        sys.stderr.write("usage: supervisor.py ATTEMPT_DIR [FD...]\n")
        return 2
    return supervise.main(os.path.abspath(sys.argv[1]), [int(word) for word in sys.argv[2:]])


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # everything is written; taking the interpreter down tidily takes milliseconds
