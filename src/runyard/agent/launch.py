"""What the agent does with supervisors: start one, see whether it lives, ask it to stop, read what it wrote."""

from __future__ import annotations

import os
import time

from runyard.agent.signals import signal
from runyard.agent.status import NAME as STATUS
from runyard.wire import files, procs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_LOCK_S = 1.0


def start_supervisor(python: str, lib_dir: str, attempt_dir: str, keep: Sequence[int] = ()) -> int:
    """Start the supervisor of an attempt and return its pid at once. Raise OSError when it cannot be started.

    ``python`` is the absolute path of the interpreter, ``lib_dir`` the directory that holds ``runyard/``. The
    supervisor leaves this process's session by itself and outlives it. It stays a child as long as both live: call
    `reap` now and then. Until it can take signals they are blocked, so a stop may be asked for at once
    (`request_stop`).
    ``keep``: descriptors that it shall hold open for life (locks of GPUs); the user's program does not get them.
    """
    script = os.path.join(lib_dir, "runyard", "agent", "supervisor.py")
    environment = {name: text for name, text in os.environ.items() if not name.startswith("RUNYARD_")}
    environment["RUNYARD_ATTEMPT"] = os.path.basename(attempt_dir)  # so that `tree.survivors` knows it from the start
    errors = os.path.join(attempt_dir, "supervisor.err")
    for fd in keep:
        os.set_inheritable(fd, True)  # a supervisor started meanwhile by another thread closes what is not for it
    try:
        return os.posix_spawn(
            python,
            [python, "-I", "-S", script, attempt_dir] + [str(fd) for fd in keep],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            ],
            setsigmask=(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1),
        )
    finally:
        for fd in keep:
            os.set_inheritable(fd, False)


def reap(pid: int) -> bool:
    """Take in the end of a supervisor that this process started; return whether it is gone. It never blocks."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def read_status(attempt_dir: str) -> dict[str, Any] | None:
    """Return the content of status.json; None when there is none (yet)."""
    value = files.read_json(os.path.join(attempt_dir, STATUS))
    return value if isinstance(value, dict) else None


def is_supervised(attempt_dir: str) -> bool:
    """Tell whether a live supervisor holds the lock of an attempt.

    False means that it has ended, or has not come so far yet: read the status after this, not before.
    """
    return files.is_locked(os.path.join(attempt_dir, "lock"))


def request_stop(attempt_dir: str, grace_s: float, reason: str, origin: str, pid: int | None = None) -> bool:
    """Ask the supervisor to stop its program; a second call with a shorter grace shortens it.

    ``grace_s`` is the time in seconds between SIGTERM and SIGKILL. ``pid`` is the supervisor's, as `start_supervisor`
    returned it, needed only until status.json is there. False when no supervisor was found to be told: it has ended, or
    is about to start and will find the request before it executes anything.
    """
    request = {"grace_s": grace_s, "reason": reason, "origin": origin}
    now = False
    try:
        files.write_json(os.path.join(attempt_dir, "stop.json"), request)
    except OSError:
        # The disk is full, maybe by this very run: signals alone mean a stop by a person, with no grace or the usual.
        now = grace_s <= 0
    status = read_status(attempt_dir) or {}
    if status.get("supervisor_pid"):
        if status.get("boot_id") != procs.boot_id():
            return False
        if not procs.is_alive(status["supervisor_pid"], status.get("supervisor_start")):
            return False
        pid = status["supervisor_pid"]
    if pid is None:
        return False
    try:
        if now:
            os.kill(pid, signal.SIGUSR1)
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    return True


def forbid_start(attempt_dir: str) -> bool:
    """Make sure that no supervisor will ever execute this attempt; False when one is at it already.

    For an agent that finds an attempt without a status: its supervisor may have died, never been started, or be about
    to take the lock. Whoever takes the lock first decides.
    """
    deadline = time.monotonic() + _LOCK_S
    path = os.path.join(attempt_dir, "lock")
    lock = files.try_lock(path)
    while lock is None and time.monotonic() < deadline:
        time.sleep(0.02)
        lock = files.try_lock(path)
    if lock is None:
        return False
    try:
        if read_status(attempt_dir) is None:
            try:
                os.unlink(os.path.join(attempt_dir, "launch.json"))
            except FileNotFoundError:
                pass
    finally:
        os.close(lock)
    return True
