"""CPU slots, and what of the machine this agent may use: affinity and cgroup limits count, not what is built in.

Sources: cgroups(7); the kernel's documentation of cgroup-v2 (cpu.max, memory.max) and cgroup-v1 (cpu.cfs_*,
memory.limit_in_bytes).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CORES_PER_SLOT = 4


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _groups(root: str, controller: str, membership: str) -> list[str]:
    """Return the directories of this process's cgroup and all above it, for cgroup v2 and v1."""
    found = []
    for line in membership.splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        base = root if number == "0" and not names else os.path.join(root, controller)
        if base != root and controller not in names.split(","):
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        found += [os.path.join(base, *parts[:count]) for count in range(len(parts), -1, -1)]
    return found


def cgroup_cpus(root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> float | None:
    """Return how many CPUs' worth of time the cgroups grant, None for no limit."""
    limits = []
    for directory in _groups(root, "cpu", _read(membership)):
        quota, _, period = _read(os.path.join(directory, "cpu.max")).partition(" ")
        if not quota:
            quota = _read(os.path.join(directory, "cpu.cfs_quota_us"))
            period = _read(os.path.join(directory, "cpu.cfs_period_us"))
        if quota.isdigit() and period.isdigit() and int(period):
            limits.append(int(quota) / int(period))
    return min(limits) if limits else None


def cgroup_memory(root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> int | None:
    """Return the memory limit of the cgroups in bytes, None for no limit."""
    limits = []
    for directory in _groups(root, "memory", _read(membership)):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(os.path.join(directory, name))
            if text.isdigit() and int(text) < 1 << 60:
                limits.append(int(text))
    return min(limits) if limits else None


def cores() -> int:
    """Return the CPU cores that this process may use: affinity and cgroup quota respected; at least 1."""
    try:
        count = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        count = os.cpu_count() or 1
    quota = cgroup_cpus()
    return max(1, count if quota is None else min(count, int(quota)))


def memory() -> int:
    """Return the memory that this process may use, in bytes; 0 when unknown."""
    total = 0
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) * 1024
    limit = cgroup_memory()
    return total if limit is None else min(total or limit, limit)


def cpu_slots(setting: int, available: int) -> list[dict[str, Any]]:
    """Return the CPU slots of a host: ``setting`` of them, or one per 4 cores and at least one when it is -1."""
    count = setting if setting >= 0 else max(1, available // CORES_PER_SLOT)
    threads = max(1, available // count) if count else 1
    return [
        {"name": "cpu%d" % index, "kind": "cpu", "index": index, "uuid": "", "model": "", "mem": 0, "threads": threads,
         "free": True, "why": ""}
        for index in range(count)
    ]  # fmt: skip
