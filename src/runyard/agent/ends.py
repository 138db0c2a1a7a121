"""How an attempt ended, when the agent and not its supervisor has to say so."""

from __future__ import annotations

import os
import time

from runyard.agent import launch, tree
from runyard.wire import files, procs, states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.agent.state import Attempt

END = "end.json"
"""The end as the agent found it; written so that an agent started later says the same."""
_ERR_TAIL = 500
KILL_WITHIN_S = 10.0
"""How long a killed tree may take to disappear."""


def now_us() -> int:
    """Return the wall clock in microseconds since 1970; for records only, never for deadlines."""
    return time.time_ns() // 1000


def make(reason: str, origin: str, detail: str = "", started_at: int | None = None) -> dict[str, Any]:
    """Return an end with no exit code, now."""
    return {
        "exit_code": None,
        "signal": None,
        "reason": reason,
        "origin": origin,
        "detail": detail,
        "started_at": started_at,
        "ended_at": now_us(),
        "log_bytes": 0,
        "log_dropped": 0,
    }


def keep(attempt: Attempt, end: dict[str, Any]) -> dict[str, Any]:
    """Write an end to the journal and return it."""
    try:
        files.write_json(attempt.path(END), end, sync=True)
    except OSError:
        pass  # the disk is full: a later agent finds the end anew
    return end


def found(attempt: Attempt, log: str) -> dict[str, Any]:
    """Return the end of an attempt whose supervisor does not live; what is left of its tree is killed first.

    ``log`` is the path of its raw log, whose size is reported where the supervisor could not.
    """
    status = launch.read_status(attempt.dir)
    if status and isinstance(status.get("end"), dict):
        return dict(status["end"])
    earlier = files.read_json(attempt.path(END))
    if isinstance(earlier, dict):
        return earlier
    left = tree.end_tree(attempt.id, status, KILL_WITHIN_S)
    if status is None:
        return keep(attempt, make(states.NOT_STARTED, states.INFRA, _complaint(attempt)))
    rebooted = status.get("boot_id") != procs.boot_id()
    reason = states.HOST_REBOOTED if rebooted else states.SUPERVISOR_DIED
    end = make(reason, states.INFRA, started_at=status.get("started_at"))
    end["unkilled"] = tree.named(left)
    try:
        end["log_bytes"] = os.stat(log).st_size
    except OSError:
        pass
    return keep(attempt, end)


def kill_again(attempt: Attempt, end: dict[str, Any]) -> list[tree.Process]:
    """Kill what was alive when this end was written down; return what lives."""
    return tree.end_tree(attempt.id, dict(launch.read_status(attempt.dir) or {}, end=end), 0.0)


def _complaint(attempt: Attempt) -> str:
    """Return the last words of a supervisor that wrote no status."""
    try:
        with open(attempt.path("supervisor.err"), "rb") as file:
            return file.read()[-_ERR_TAIL:].decode("utf-8", "replace").strip()
    except OSError:
        return "the supervisor could not be started"
