"""The processes that come from one attempt: finding them, asking them to end, killing them.

While the supervisor lives, all of them descend from it (it is a child subreaper, prctl(2)). Once it is dead they are
found by what they carry: the variable RUNYARD_ATTEMPT they were executed with, the supervisor's session, the recorded
pid with its start time, the control group where there is one, and descent from any of these.
"""

from __future__ import annotations

import os
import time

from runyard.agent.cgroup import Cgroup
from runyard.agent.signals import signal
from runyard.wire import procs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

MARKER = "RUNYARD_ATTEMPT"
_SWEEPS = 8
"""How often a kill looks again at once, for processes that were forked while it went round."""
_NAMED = 16


class Process:
    """One process; ``started`` is in clock ticks since boot, as in `runyard.wire.procs`."""

    __slots__ = ("group", "name", "over", "parent", "pid", "session", "started", "state")

    def __init__(self, pid: int, stat: bytes) -> None:
        """Parse /proc/PID/stat: ``pid (name) state ppid pgrp session ... starttime`` (proc(5), fields 1 to 6 and 22)."""
        head, _, tail = stat.rpartition(b")")
        fields = tail.split()
        self.pid = pid
        self.name = head.partition(b"(")[2].decode("utf-8", "replace")
        self.state = fields[0].decode("ascii")
        self.parent, self.group, self.session = int(fields[1]), int(fields[2]), int(fields[3])
        self.started = int(fields[19])
        self.over = procs.has_ended(fields)

    def __repr__(self) -> str:
        return "Process(%d, %r, %s)" % (self.pid, self.name, self.state)


def has_proc() -> bool:
    """Tell whether this system lists its processes in /proc."""
    return os.path.exists("/proc/self/stat")


def processes() -> dict[int, Process]:
    """Return all live processes that can be seen, by pid; zombies are not live. Empty where there is no /proc."""
    table: dict[int, Process] = {}
    if not has_proc():
        return table
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = _read("/proc/%s/stat" % name)
            if stat:
                table[int(name)] = Process(int(name), stat)
    return {pid: process for pid, process in table.items() if not process.over}


def descendants(table: dict[int, Process], roots: Iterable[int]) -> set[int]:
    """Return the pids of a table that descend from any of the roots; the roots are not among them unless they do."""
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    todo = list(roots)
    while todo:
        for pid in children.get(todo.pop(), ()):
            if pid not in found:
                found.add(pid)
                todo.append(pid)
    return found


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        parts: list[bytes] = []
        while True:
            part = os.read(fd, 65536)
            if not part:
                return b"".join(parts)
            parts.append(part)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _is_marked(pid: int, marker: bytes) -> bool:
    return marker in b"\0" + _read("/proc/%d/environ" % pid)


class Tree:
    """The tree of a live supervisor, as that supervisor sees it.

    ``attempt`` is the attempt's id, ``program`` the pid of the user's program, which leads its own process group;
    ``complete`` says that orphans come back to this process (child subreaper); ``cgroup`` may be set.
    """

    def __init__(self, attempt: str, program: int, complete: bool) -> None:
        self.program = program
        self.complete = complete
        self.cgroup: Cgroup | None = None
        self._marker = _marker(attempt)

    def live(self) -> list[Process]:
        """Return the live processes of the tree, this process left out."""
        table, found = self._look()
        return [table[pid] for pid in sorted(found)]

    def _look(self) -> tuple[dict[int, Process], set[int]]:
        if not has_proc():
            return _group_without_proc(self.program)
        me = os.getpid()
        table = processes()
        found = descendants(table, (me,))
        found.update(pid for pid, process in table.items() if process.session == me)
        if self.cgroup:
            found.update(pid for pid in self.cgroup.pids() if pid in table)
        if not self.complete:
            found.update(pid for pid in table if _is_marked(pid, self._marker))
        found.discard(me)
        return table, found

    def terminate(self) -> list[Process]:
        """Ask every process to end: SIGTERM, and SIGCONT to those that are stopped. Return the processes asked."""
        _send_group(self.program, signal.SIGTERM)  # first, because looking at all processes takes a while
        asked = self.live()
        for process in asked:
            if process.group != self.program:
                _send(process.pid, signal.SIGTERM)
            if process.state in ("T", "t"):
                _send(process.pid, signal.SIGCONT)
        if not has_proc():
            _send_group(self.program, signal.SIGCONT)
        return asked

    def kill(self) -> None:
        """Kill every process of the tree, those too that are forked meanwhile."""
        if self.cgroup:
            self.cgroup.kill()
        _sweep(self._look)


def _sweep(look: Callable[[], tuple[dict[int, Process], set[int]]]) -> None:
    """Send SIGKILL to the processes that ``look()`` finds in its table, until it finds none that was not sent one."""
    sent: set[tuple[int, int]] = set()
    for _ in range(_SWEEPS):
        table, found = look()
        fresh = [pid for pid in found if (pid, table[pid].started) not in sent]
        if not fresh:
            return
        # A whole group at once where it holds nobody else: a process cannot slip away from that by forking (kill(2)).
        shared = {process.group for process in table.values() if process.pid not in found}
        for group in {table[pid].group for pid in fresh} - shared:
            _send_group(group, signal.SIGKILL)
        for pid in fresh:
            _send(pid, signal.SIGKILL)
            sent.add((pid, table[pid].started))


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # gone, or of another user (sudo): the caller looks again at who is left


def _send_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass


def named(left: Iterable[Process]) -> list[list[Any]]:
    """Return processes that could not be killed as an end names them (``unkilled``)."""
    return [[process.pid, process.started, process.name] for process in left][:_NAMED]


def _marker(attempt: str) -> bytes:
    return ("\0%s=%s\0" % (MARKER, attempt)).encode("utf-8", "surrogateescape")


def survivors(attempt: str, status: dict[str, Any] | None) -> list[Process]:
    """Return what still lives of an attempt's tree, its supervisor (if alive) and this process left out.

    ``status`` is the content of its status.json, or None when there is none; one from an earlier boot names nothing
    that lives.
    """
    table, found = _look_for(attempt, status or {})
    return [table[pid] for pid in sorted(found)]


def _look_for(attempt: str, status: dict[str, Any]) -> tuple[dict[int, Process], set[int]]:
    if status.get("boot_id", procs.boot_id()) != procs.boot_id():
        return {}, set()
    if not has_proc():
        return _look_without_proc(status)
    table = processes()
    supervisor, program = status.get("supervisor_pid"), status.get("pid")
    marker = _marker(attempt)
    found = {pid for pid in table if _is_marked(pid, marker)}
    if program in table and table[program].started == status.get("pid_start"):
        found.add(program)
    for pid, started, _ in (status.get("end") or {}).get("unkilled") or ():
        if pid in table and table[pid].started == started:
            found.add(pid)  # it may be of another user, and show nothing
    if status.get("cgroup"):
        found.update(pid for pid in Cgroup(status["cgroup"]).pids() if pid in table)
    supervised = supervisor in table and table[supervisor].started == status.get("supervisor_start")
    if supervised and isinstance(supervisor, int):
        found.add(supervisor)
    # A pid is not given away while a session has its number, so one known member proves that the session is the same.
    if any(table[pid].session == supervisor for pid in found):
        found.update(pid for pid, process in table.items() if process.session == supervisor)
    found -= _ancestors(table, os.getpid())
    found |= descendants(table, found)
    return table, found - ({supervisor} if supervised else set())


def _ancestors(table: dict[int, Process], pid: int) -> set[int]:
    """Return a pid and those it descends from: nobody ends itself or the process it was started by."""
    found: set[int] = set()
    while pid in table and pid not in found:
        found.add(pid)
        pid = table[pid].parent
    return found


def _look_without_proc(status: dict[str, Any]) -> tuple[dict[int, Process], set[int]]:
    pid = status.get("pid")
    if not isinstance(pid, int) or not procs.is_alive(pid, status.get("pid_start")):
        return {}, set()
    return _group_without_proc(pid)


def _group_without_proc(pid: int) -> tuple[dict[int, Process], set[int]]:
    """Where processes cannot be listed, the program stands for its process group."""
    try:
        os.killpg(pid, 0)
    except (ProcessLookupError, PermissionError):  # on macOS a group of zombies answers EPERM
        return {}, set()
    return {pid: Process(pid, b"%d (?) R 0 %d %d%b" % (pid, pid, pid, b" 0" * 17))}, {pid}


def end_tree(attempt: str, status: dict[str, Any] | None, timeout_s: float = 10.0) -> list[Process]:
    """Kill what a dead supervisor left behind, and return what still lives after ``timeout_s`` seconds.

    Finding nothing is no error. Arguments as for `survivors`. A process that escaped on purpose (cleared environment,
    own session, no parent left in the tree) is found only where a control group could be used.
    """
    deadline = time.monotonic() + timeout_s
    cgroup = Cgroup(status["cgroup"]) if status and status.get("cgroup") else None
    left = survivors(attempt, status)
    while left:
        if cgroup and status and status.get("boot_id") == procs.boot_id():
            cgroup.kill()
        _sweep(lambda: _look_for(attempt, status or {}))
        # A dying process has lost its environment before it has let go of its files and its GPU.
        dying = [process for process in left if has_proc() and procs.is_alive(process.pid, process.started)]
        new = survivors(attempt, status)
        pids = {process.pid for process in new}
        left = new + [process for process in dying if process.pid not in pids]
        if not left or time.monotonic() >= deadline:
            break
        time.sleep(0.02)
    if cgroup and not left:
        cgroup.remove()
    return left
