"""Control groups, where this process may use them: an exact list of a tree's processes, and whether memory ran out.

Sources: cgroups(7); Linux Documentation/admin-guide/cgroup-v2.rst (cgroup.procs, cgroup.kill, memory.events) and
cgroup-v1/memory.rst (memory.oom_control).
"""

from __future__ import annotations

import os
import time


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _mounts() -> dict[str, tuple[str, str]]:
    """Return ``{"cgroup2" or "memory": (mount point, root of the mount)}``."""
    found: dict[str, tuple[str, str]] = {}
    for line in _read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if kind[0] == "cgroup2":
            found.setdefault("cgroup2", (fields[4], fields[3]))
        elif kind[0] == "cgroup" and "memory" in kind[-1].split(","):
            found.setdefault("memory", (fields[4], fields[3]))
    return found


def _own(kind: str) -> str:
    """Return the directory of this process's control group of version 2 (``cgroup2``) or 1 (``memory``); "" if none."""
    mounts = _mounts()
    if kind not in mounts:
        return ""
    point, root = mounts[kind]
    for line in _read("/proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (kind == "cgroup2" and controllers == "") or kind in controllers.split(","):
            below = os.path.relpath(path, root) if path.startswith(root) else "."
            return os.path.normpath(os.path.join(point, below))
    return ""


class Cgroup:
    """A control group (version 2) that holds one attempt's program and all that comes from it."""

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def plan(cls, name: str) -> Cgroup | None:
        """Return the group of that name below this process's own, not made yet; None where that is not allowed."""
        own = _own("cgroup2")
        return cls(os.path.join(own, name)) if own and os.access(own, os.W_OK) else None

    def adopt(self, pid: int) -> bool:
        """Make the group and move a process there; False where that turns out not to be allowed."""
        try:
            os.mkdir(self.path)
        except OSError:
            return False
        try:
            self._write("cgroup.procs", str(pid))
        except OSError:
            self.remove()
            return False
        return True

    def pids(self) -> list[int]:
        """Return the processes in the group and in groups below it (a program may make its own)."""
        found: list[int] = []
        for directory, _, _ in os.walk(self.path):
            found += [int(word) for word in _read(os.path.join(directory, "cgroup.procs")).split()]
        return [pid for pid in found if pid]  # 0: a process of another pid namespace

    def kill(self) -> bool:
        """Kill every process in the group at once (Linux 5.14); False where the kernel cannot."""
        try:
            self._write("cgroup.kill", "1")
        except OSError:
            return False
        return True

    def remove(self) -> None:
        """Remove the group, if it is empty. A process that was just reaped may count for some milliseconds more."""
        for _ in range(100):
            try:
                for directory, _, _ in os.walk(self.path, topdown=False):
                    os.rmdir(directory)
                return
            except OSError:
                if self.pids() or not os.path.isdir(self.path):
                    return
                time.sleep(0.005)

    def _write(self, name: str, text: str) -> None:
        fd = os.open(os.path.join(self.path, name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def oom_kills() -> int | None:
    """Return how many processes of this process's control group the kernel has killed for memory; None if unknown."""
    for kind, name in (("cgroup2", "memory.events"), ("memory", "memory.oom_control")):
        directory = _own(kind)
        for line in _read(os.path.join(directory, name)).splitlines() if directory else ():
            words = line.split()
            if len(words) == 2 and words[0] == "oom_kill":
                return int(words[1])
    return None
