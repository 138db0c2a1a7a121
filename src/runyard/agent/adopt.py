"""Taking in what an earlier agent process left: live supervisors of any version, ends that nobody has reported yet."""

from __future__ import annotations

import os

from runyard.agent import launch
from runyard.agent.assignment import check
from runyard.agent.ends import END
from runyard.agent.state import HANDED_BACK, REPORTED, Attempt
from runyard.wire import files, states
from runyard.wire import tree as trees
from runyard.wire.errors import InvalidError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runyard.agent.context import Context

NEW, STARTED, DONE, OWN = "new", "started", "done", "own"
"""Never started; the program may have been executed; reported, only shipping may be left; begun by a program itself."""


def kind_of(attempt: Attempt) -> str:
    """Say how far an attempt of the journal has come. One that was never started never will be, after this."""
    if os.path.exists(attempt.path(REPORTED)):
        return DONE
    if attempt.record.get("own"):
        return OWN
    if os.path.exists(attempt.path(HANDED_BACK)):
        return NEW
    if launch.read_status(attempt.dir) is not None or os.path.exists(attempt.path(END)):
        return STARTED
    if launch.is_supervised(attempt.dir) or not launch.forbid_start(attempt.dir):
        return STARTED
    return NEW if launch.read_status(attempt.dir) is None else STARTED


def load(directory: str) -> Attempt | None:
    """Read an attempt from its directory; None when its assignment was never written whole."""
    record = files.read_json(os.path.join(directory, "assignment.json"))
    if not isinstance(record, dict):
        return None
    try:
        return Attempt(directory, check(dict(record, env={})))
    except InvalidError:
        return None


def find(context: Context) -> list[tuple[str, Attempt]]:
    """Return all attempts of the journal with their kind, oldest first, and put them into the state but for `DONE`.

    What was cut short before its assignment was written is removed.
    """
    top = os.path.dirname(context.home.attempt_dir("x"))
    try:
        names = os.listdir(top)
    except FileNotFoundError:
        return []
    found = []
    for directory in sorted((os.path.join(top, name) for name in names), key=_age):
        attempt = load(directory)
        if attempt is None:
            if not launch.is_supervised(directory):
                context.log("%s holds no whole assignment and is removed" % directory)
                trees.remove_tree(os.fsencode(directory))
            continue
        kind = kind_of(attempt)
        if kind == STARTED:
            attempt.launched = True
            attempt.phase = states.STOPPING if os.path.exists(attempt.path("stop.json")) else states.PHASE_RUNNING
        if kind != DONE:
            context.state.add(attempt)
        found.append((kind, attempt))
    return found


def _age(path: str) -> int:
    try:
        return os.stat(os.path.join(path, "assignment.json")).st_mtime_ns
    except OSError:
        return 0
