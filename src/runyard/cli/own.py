"""Describing runs that a program began by itself: their code is frozen and environment recorded, as at a submit.

Usage: ``python -m runyard.cli.own DIRECTORY PROGRAM NAME PIPE``, started by `runyard.client.own` in the program's directory.
Runs of the program that begin soon after are described at once: a program that makes thousands has its code frozen twice a
second. Those that wait name this process as their describer; after the pipe is closed, no more of them do.
"""

from __future__ import annotations

import os
import sys
import time

from runyard.cli import environment, freeze, parse
from runyard.client import own
from runyard.wire import files, paths
from runyard.wire.errors import RunyardError

KEPT = ("cwd", "source", "repo_name", "snapshot")


PAUSE_S = 0.5
"""For so long runs are gathered that are then described together."""


def main(directory: str, program: str, name: str, pipe: int) -> int:
    """Describe a run, and those that follow it, until none has come for a moment."""
    waiting, known = [directory], {directory}
    while waiting:
        found = describe(program)
        for place in waiting:
            _keep(place, found)
        time.sleep(PAUSE_S)
        waiting = _new(os.path.dirname(directory), name, known)
        if not waiting and pipe >= 0:
            os.close(pipe)
            pipe = -1
            waiting = _new(os.path.dirname(directory), name, known)
    return 0


def describe(program: str) -> dict[str, object]:
    """Return what is found of code and environment; when the code cannot be frozen, why not."""
    environ = dict(os.environ)
    try:
        code = freeze.freeze(parse.defaults(), os.getcwd(), program, environ)
        spec = {name: code.spec[name] for name in KEPT}
        spec["tracking"] = {**code.tracking, "capture": []}
        spec["environment"] = environment.gather(program, environ, code.directory, code.source, paths.home(environ))
        return {"spec": spec, "project": code.project}
    except (RunyardError, OSError) as exc:
        return {"error": str(exc)}


def _new(top: str, name: str, known: set[str]) -> list[str]:
    """Return the directories of runs that have begun since the last look, and wait for this process."""
    found = []
    for place in {os.path.join(top, entry) for entry in os.listdir(top)} - known:
        facts = files.read_json(os.path.join(place, own.RECORD))
        if isinstance(facts, dict):
            known.add(place)
            if facts.get("describer") == name:
                found.append(place)
    return found


def _keep(place: str, found: dict[str, object]) -> None:
    try:
        files.write_json(os.path.join(place, own.CODE), found)
    except OSError:
        pass  # nobody waits any more: the run is taken in and over


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
