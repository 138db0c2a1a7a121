"""Which attempt of this agent a process belongs to: by descent from a supervisor, else by the variable it carries."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MARKER = b"RUNYARD_ATTEMPT="
_MAX_DEPTH = 200


def _parent(pid: int) -> int:
    """Return the parent of a process, 0 when it cannot be told (proc(5), /proc/PID/stat field 4)."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _marked(pid: int) -> str | None:
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:
        return None
    for variable in variables:
        if variable.startswith(MARKER):
            return variable[len(MARKER) :].decode("ascii", "replace")
    return None


def owner(pid: int, attempts: Mapping[str, int]) -> str | None:
    """Return the attempt that a process belongs to, None for a foreign one.

    ``attempts``: pid of the supervisor (0 when it is gone) by attempt id.
    """
    by_supervisor = {supervisor: attempt for attempt, supervisor in attempts.items() if supervisor}
    above = pid
    for _ in range(_MAX_DEPTH):
        if above in by_supervisor:
            return by_supervisor[above]
        if above <= 1:
            break
        above = _parent(above)
    marked = _marked(pid)
    return marked if marked in attempts else None
