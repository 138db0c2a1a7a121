"""Describing a run that a program began by itself: its code is frozen and its environment recorded, as at a submit.

Usage: ``python -m runyard.cli.own DIRECTORY PROGRAM``, started by `runyard.client.own` in the program's directory.
"""

from __future__ import annotations

import os
import sys

from runyard.cli import environment, freeze, parse
from runyard.client import own
from runyard.wire import files, paths
from runyard.wire.errors import RunyardError

KEPT = ("cwd", "source", "repo_name", "snapshot")


def main(directory: str, program: str) -> int:
    """Write what is found beside the run's record; when the code cannot be frozen, why not."""
    environ = dict(os.environ)
    found: dict[str, object]
    try:
        code = freeze.freeze(parse.defaults(), os.getcwd(), program, environ)
        spec = {name: code.spec[name] for name in KEPT}
        spec["tracking"] = {**code.tracking, "capture": []}
        spec["environment"] = environment.gather(program, environ, code.directory, code.source, paths.home(environ))
        found = {"spec": spec, "project": code.project}
    except (RunyardError, OSError) as exc:
        found = {"error": str(exc)}
    files.write_json(os.path.join(directory, own.CODE), found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
