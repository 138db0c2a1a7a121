"""The supervisor with fault points; laid over ``runyard/agent/supervisor.py`` in a copy of the library."""

import importlib
import os
import sys


def main():
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from runyard.agent import spawn, status, supervise

    points = importlib.import_module("points")

    def around(owner, name, before="", after=""):
        function = getattr(owner, name)

        def call(*args, **kwargs):
            if before:
                points.hit("supervisor." + before)
            result = function(*args, **kwargs)
            if after:
                points.hit("supervisor." + after)
            return result

        setattr(owner, name, call)

    around(status.StatusFile, "begin", before="forked")
    around(spawn.Child, "release", before="before_exec", after="after_exec")
    around(supervise.Supervisor, "_wind_down", before="exited")
    around(status.StatusFile, "finish", before="before_end", after="after_end")
    points.hit("supervisor.started")
    return supervise.main(os.path.abspath(sys.argv[1]), [int(word) for word in sys.argv[2:]])


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
