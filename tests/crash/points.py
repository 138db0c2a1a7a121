"""Fault points: places in the code at which a test has a real process killed or stopped, exactly once.

A test arms a point by making the file ``points/<name>`` in the yard's control directory; the process that gets there first
takes the file and sends itself the signal that it names. Standard library only: supervisors use it too.
"""

from __future__ import annotations

import os
import signal
import threading

VARIABLE = "CRASH_CONTROL"
"""Names the control directory in the environment of servers, agents and supervisors."""
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}

SERVER_OPERATIONS = (
    "submit", "hello", "heartbeat", "assign", "phase", "hand_back", "report_outputs", "finish", "kill", "append_spool",
    "upkeep",
)  # fmt: skip
SERVER = tuple(
    "server.%s.%s" % (operation, when)
    for operation in (*SERVER_OPERATIONS, "expire")
    for when in ("before_commit", "after_commit")
)
AGENT = tuple(
    "agent." + name
    for name in (
        "assigned", "journaled", "staging", "staged", "before_grant", "granted", "before_launch", "launched", "ended",
        "outputs_sent", "before_report", "reported",
    )
)  # fmt: skip
SHIPPING = ("agent.log_sent", "agent.shipping")
LOGGING = ("agent.spool_read", "agent.spool_sent", "agent.segment_sent")
SUPERVISOR = tuple(
    "supervisor." + name
    for name in ("started", "forked", "before_exec", "after_exec", "exited", "before_end", "after_end")
)


def hit(name: str) -> None:
    """Say that this process is at a point; it does not return if the point is armed with ``kill``."""
    control = os.environ.get(VARIABLE)
    if not control:
        return
    path = os.path.join(control, "points", name)
    if not os.path.exists(path):
        return
    mine = os.path.join(control, "fired", "%s@%d@%s" % (name, os.getpid(), os.environ.get("RUNYARD_ATTEMPT", "")))
    try:
        os.rename(path, mine)
    except OSError:
        return  # somebody else was first
    with open(mine, encoding="ascii") as file:
        number = SIGNALS[file.read()]
    signal.pthread_kill(threading.get_ident(), number)  # with kill(2) this thread could go on until another takes it


def arm(control: str, name: str, action: str = "kill") -> None:
    """Let the next process that gets to a point be killed or stopped there."""
    temporary = os.path.join(control, name)
    with open(temporary, "w", encoding="ascii") as file:
        file.write(action)
    os.rename(temporary, os.path.join(control, "points", name))


def disarm(control: str) -> None:
    """Forget all armed points."""
    for name in os.listdir(os.path.join(control, "points")):
        try:
            os.unlink(os.path.join(control, "points", name))
        except FileNotFoundError:
            pass


def fired(control: str) -> list[tuple[str, int, str]]:
    """Return point, pid and, of a supervisor, attempt of the processes that were caught since this was last asked."""
    found = []
    for name in os.listdir(os.path.join(control, "fired")):
        os.unlink(os.path.join(control, "fired", name))
        point, pid, attempt = name.split("@")
        found.append((point, int(pid), attempt))
    return found
