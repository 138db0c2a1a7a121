"""The life of one attempt: execute the program, record its output, stop it when asked, write down how it ended.

Files only, no network (docs/protocol.md, "Between agent and supervisor"). One thread, one loop over select(2). Everything
is imported here at the start: the files this runs from may be replaced while it lives.
"""

from __future__ import annotations

import os
import select
import sys
import time

from runyard.agent import cgroup, detach, pty, spawn
from runyard.agent.recorder import Recorder
from runyard.agent.signals import signal
from runyard.agent.status import NAME as STATUS
from runyard.agent.status import StatusFile
from runyard.agent.tree import Tree, named
from runyard.wire import files, procs, states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

DRAIN_S = 2.0
"""Longest time that output is still taken in after the program has ended."""
LEFTOVER_GRACE_S = 1.5
"""Time between SIGTERM and SIGKILL for processes that a program leaves behind when it ends by itself."""
_UNKILLABLE_S = 10.0
"""After this much waiting for killed processes to disappear the end is written, with `unkilled`; the agent goes on."""
_KILL_AGAIN_S = 0.1
_SELECT_MAX_S = 3600.0  # a time limit of a thousand years is more than select(2) takes
_READ = 64 * 1024
_BATCH = 256 * 1024
_LOCK_S = 1.5
_LEFTOVER_NAMES = 16

EXIT_BUSY = 3
"""Another process holds the lock of the attempt."""
EXIT_USED = 4
"""The attempt has been started before; nothing is executed twice."""
EXIT_NO_ROOM = 5
"""The status could not be written, so nothing was executed."""


def main(directory: str, keep: Sequence[int] = ()) -> int:
    """Run the attempt whose files are in a directory (absolute path); return the exit status of the supervisor.

    ``keep``: descriptors to hold open for life.
    """
    detach.leave_session(keep)
    signals = detach.Signals()
    files.hold(directory)
    lock = _lock(os.path.join(directory, "lock"))
    if lock is None:
        return EXIT_BUSY
    if os.path.exists(os.path.join(directory, STATUS)):
        return EXIT_USED
    return Supervisor(directory, signals, detach.become_subreaper()).run()


def _lock(path: str) -> int | None:
    """Take the lock for life. A reader may hold it for an instant."""
    deadline = time.monotonic() + _LOCK_S
    while True:
        fd = files.try_lock(path)
        if fd is not None or time.monotonic() > deadline:
            return fd
        time.sleep(0.02)


def _now_us() -> int:
    return time.time_ns() // 1000


class Stop:
    """A request to stop: who asks, why, and when the killing starts (monotonic seconds)."""

    def __init__(self, reason: str, origin: str, grace_s: float) -> None:
        self.reason = reason
        self.origin = origin
        self.kill_at = time.monotonic() + max(0.0, grace_s)


class Supervisor:
    """One attempt, from the launch file to the end record. ``run`` is called once."""

    def __init__(self, directory: str, signals: detach.Signals, subreaper: bool) -> None:
        self._directory = directory
        self._attempt = os.path.basename(directory)
        self._signals = signals
        self._subreaper = subreaper
        self._status = StatusFile(directory)
        self._stop: Stop | None = None
        self._grace_s = states.GRACE_S
        self._exit: int | None = None
        self._childless = False
        self._started_at: int | None = None
        self._ended_at = 0
        self._leftover: list[str] = []
        self._unkilled: list[list[Any]] = []
        self._reader = self._writer = -1
        self._oom_kills: int | None = None
        self._kill_next = 0.0

    def run(self) -> int:
        """Do all of it. Whatever goes wrong here, no process is left without somebody who watches it."""
        try:
            launch = spawn.Launch.read(os.path.join(self._directory, "launch.json"), self._attempt)
            self._recorder = Recorder(launch.log, launch.times)
            self._grace_s = launch.grace_s
            self._reader, self._writer, terminal = pty.open_output(launch.terminal)
            self._child = spawn.Child(launch, self._writer)
        except (spawn.LaunchError, OSError) as exc:
            return self._never_started(str(exc))
        self._tree = Tree(self._attempt, self._child.pid, self._subreaper)
        done = False
        try:
            done = self._supervise(launch, terminal)
        finally:
            if not done:
                self._tree.kill()
            if self._tree.cgroup:
                self._tree.cgroup.remove()
        return 0 if done else EXIT_NO_ROOM

    def _never_started(self, detail: str) -> int:
        self._ended_at = _now_us()
        try:
            self._status.begin(self._identity())
        except OSError as exc:
            sys.stderr.write("status.json cannot be written: %s\n" % exc)
            return EXIT_NO_ROOM
        end = self._end(states.NOT_STARTED, states.INFRA, detail)
        return 0 if self._finish(end) else EXIT_NO_ROOM

    def _identity(self) -> dict[str, Any]:
        me = os.getpid()
        return {
            "supervisor_pid": me,
            "supervisor_start": procs.start_time(me),
            "boot_id": procs.boot_id(),
            "pid": None,
            "pid_start": None,
            "started_at": None,
        }

    def _supervise(self, launch: spawn.Launch, terminal: bool) -> bool:
        """Execute, watch, wind down, write the end; False when the status could not be written."""
        pid = self._child.pid
        started_at = _now_us()
        status = dict(self._identity(), pid=pid, pid_start=procs.start_time(pid), started_at=started_at, pty=terminal)
        group = cgroup.Cgroup.plan("runyard-" + self._attempt)
        status["cgroup"] = group.path if group else None  # before it is made: made and not written down, it would stay
        try:
            self._status.begin(status)
        except OSError as exc:
            sys.stderr.write("status.json cannot be written: %s\n" % exc)
            self._child.abandon()
            return False
        if self._signals.take_stop() or os.path.exists(os.path.join(self._directory, "stop.json")):
            self._stop = self._requested_stop()
            return self._abandon(self._stop.reason, self._stop.origin, "stopped before the start")
        if group and group.adopt(pid):
            self._tree.cgroup = group
        if procs.uptime_s() > launch.start_by:
            return self._abandon(states.HANDED_BACK, states.SCHEDULER, "the leave to start had grown old")
        self._oom_kills = cgroup.oom_kills()
        self._started_at = started_at
        self._child.release()
        self._watch(None if launch.time_limit_s is None else time.monotonic() + launch.time_limit_s)
        self._wind_down()
        return self._finish(self._verdict())

    def _abandon(self, reason: str, origin: str, detail: str) -> bool:
        self._child.abandon()
        self._ended_at = _now_us()
        return self._finish(self._end(reason, origin, detail))

    def _watch(self, limit_at: float | None) -> None:
        """Serve the program until it has exited."""
        while self._exit is None:
            due = self._stop.kill_at if self._stop else limit_at
            if self._stop and due is not None:
                due = max(due, self._kill_next)
            self._step(None if due is None else max(0.0, due - time.monotonic()))
            if self._exit is not None:
                return
            if self._signals.take_stop():
                self._take_request()
            now = time.monotonic()
            if limit_at is not None and now >= limit_at and self._stop is None:
                self._begin_stop(Stop(states.TIME_LIMIT, states.SCHEDULER, self._grace_s))
            if self._stop and now >= self._stop.kill_at and now >= self._kill_next:
                self._kill()

    def _step(self, timeout: float | None) -> None:
        """Wait for output, a signal or the time, and take in what there is."""
        watched = [fd for fd in (self._signals.fd, self._reader, self._child.result) if fd >= 0]
        ready = select.select(watched, (), (), None if timeout is None else min(timeout, _SELECT_MAX_S))[0]
        if self._reader in ready:
            self._pump()
        if self._child.result in ready:
            self._settle()
        if self._signals.fd in ready:
            self._signals.clear()
            self._reap()

    def _pump(self) -> bool:
        """Record one batch of output; False when there was none to read just now."""
        parts: list[bytes] = []
        size = 0
        while size < _BATCH and self._reader >= 0:
            try:
                part = os.read(self._reader, _READ)
            except BlockingIOError:
                break
            except OSError:
                part = b""  # EIO: nobody has the terminal open any more (pty(7)); not before this process closes it
            if not part:
                os.close(self._reader)
                self._reader = -1
                break
            parts.append(part)
            size += len(part)
        if parts:
            self._recorder.write(b"".join(parts))
        return size > 0

    def _settle(self) -> None:
        """The program has been executed, or could not be: its environment is needed no more."""
        self._child.settle()
        self._unlink_launch()

    def _unlink_launch(self) -> None:
        try:
            os.unlink(os.path.join(self._directory, "launch.json"))
        except OSError:
            pass

    def _reap(self) -> None:
        """Take in every child that has ended: the program, and orphans that came back to this process."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._childless = True
                return
            if pid == 0:
                return
            if pid == self._child.pid:
                self._exit = status
                self._ended_at = _now_us()

    def _requested_stop(self) -> Stop:
        """Return what stop.json says; without one: somebody sent SIGTERM."""
        try:
            request = files.read_json(os.path.join(self._directory, "stop.json"))
        except OSError:
            request = None
        request = request if isinstance(request, dict) else {}
        reason, origin, grace = request.get("reason"), request.get("origin"), request.get("grace_s")
        return Stop(
            reason if reason in states.END_REASONS else states.STOPPED,
            origin if origin in states.ORIGINS else states.HUMAN,
            0.0 if self._signals.now else float(grace) if isinstance(grace, (int, float)) else self._grace_s,
        )

    def _take_request(self) -> None:
        request = self._requested_stop()
        if self._stop is None:
            self._begin_stop(request)
        else:
            self._stop.kill_at = min(self._stop.kill_at, request.kill_at)

    def _begin_stop(self, stop: Stop) -> None:
        self._stop = stop
        if time.monotonic() < stop.kill_at:
            self._tree.terminate()

    def _kill(self) -> None:
        self._kill_next = time.monotonic() + _KILL_AGAIN_S
        self._tree.kill()

    def _wind_down(self) -> None:
        """After the exit: end what is left of the tree, take in the rest of the output."""
        drain_until = time.monotonic() + DRAIN_S
        os.close(self._writer)
        if self._child.result >= 0:
            self._settle()
        self._reap()
        if not self._is_alone():
            self._end_leftovers()
        while self._reader >= 0 and self._pump() and time.monotonic() < drain_until:
            pass
        self._recorder.close()

    def _is_alone(self) -> bool:
        return self._childless if self._subreaper else not self._tree.live()

    def _end_leftovers(self) -> None:
        """Processes that outlive the program: within a stop they have the rest of its grace, else a short one."""
        drain_until = time.monotonic() + DRAIN_S
        if self._stop is None:
            self._leftover = [process.name for process in self._tree.live()][:_LEFTOVER_NAMES]
            self._tree.terminate()
        kill_at = self._stop.kill_at if self._stop else time.monotonic() + LEFTOVER_GRACE_S
        while not self._is_alone():
            now = time.monotonic()
            if now >= kill_at + _UNKILLABLE_S:
                self._unkilled = named(self._tree.live())
                return
            if now >= max(kill_at, self._kill_next):
                self._kill()
            if self._stop is None and now >= drain_until and self._reader >= 0:
                os.close(self._reader)
                self._reader = -1
            self._step(0.05)
            if self._signals.take_stop():
                kill_at = min(kill_at, self._requested_stop().kill_at)

    def _verdict(self) -> dict[str, Any]:
        """Say why the program ended."""
        if self._child.errno:
            self._started_at = None
            self._exit = None
            text, origin = self._child.failure()
            return self._end(states.NOT_STARTED, origin, text)
        if self._stop:
            return self._end(self._stop.reason, self._stop.origin)
        if self._was_killed() and self._oom_kills is not None and (cgroup.oom_kills() or 0) > self._oom_kills:
            return self._end(states.OUT_OF_MEMORY, states.USER, "the kernel killed it because memory ran out")
        signaled = self._exit is not None and os.WIFSIGNALED(self._exit)
        return self._end(states.SIGNALED if signaled else states.EXITED, states.USER)

    def _was_killed(self) -> bool:
        """Tell whether SIGKILL ended the program, or, as shells report it, the program's own child."""
        status = self._exit or 0
        if os.WIFSIGNALED(status):
            return os.WTERMSIG(status) == signal.SIGKILL
        return os.WEXITSTATUS(status) == 128 + signal.SIGKILL

    def _end(self, reason: str, origin: str, detail: str = "") -> dict[str, Any]:
        status = self._exit
        signaled = status is not None and os.WIFSIGNALED(status)
        recorder = getattr(self, "_recorder", None)
        return {
            "exit_code": None if status is None or signaled else os.WEXITSTATUS(status),
            "signal": os.WTERMSIG(status) if status is not None and signaled else None,
            "reason": reason,
            "origin": origin,
            "detail": detail,
            "started_at": self._started_at,
            "ended_at": self._ended_at,
            "log_bytes": recorder.size if recorder else 0,
            "log_dropped": recorder.dropped if recorder else 0,
            "leftover": self._leftover,
            "unkilled": self._unkilled,
        }

    def _finish(self, end: dict[str, Any]) -> bool:
        self._unlink_launch()
        return self._status.finish(end)
