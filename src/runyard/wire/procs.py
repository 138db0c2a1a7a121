"""Which process is which: a pid counts only together with its start time and the host's boot id."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


def boot_id() -> str:
    """Return an id that changes at every boot (Linux: /proc/sys/kernel/random/boot_id; elsewhere ``""``)."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def start_time(pid: int) -> int | None:
    """Return the start time of a process in clock ticks since boot, or None when it is gone or a zombie.

    Source: proc(5), /proc/PID/stat fields 3 and following. Where there is no /proc, 0 for a live process.
    """
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        if os.path.isdir("/proc/self"):
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return 0
    return None if has_ended(fields) else int(fields[19])


def has_ended(fields: Sequence[bytes]) -> bool:
    """Tell from the fields of /proc/PID/stat, from the third (state) on, whether the process is a zombie.

    One whose first thread alone has ended looks like a zombie and lives: field 20 is the number of threads.
    """
    return fields[0] in (b"Z", b"X") and int(fields[17]) <= 1


def uptime_s() -> float:
    """Return the seconds since boot, the same for all processes; a sleep of the machine counts where that is known."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def is_alive(pid: int, started: int | None) -> bool:
    """Tell whether the process that had this pid and start time still lives."""
    return started is not None and start_time(pid) == started


def lives_here(boot: Any, pid: Any, started: Any) -> bool:
    """Tell whether a process that a file names lives on this boot of this machine, whatever the host's name is now.

    In a container, which shares the boot but sees other processes, it does not.
    """
    return bool(boot) and boot == boot_id() and isinstance(pid, int) and is_alive(pid, started)


def is_served(info: Mapping[str, Any]) -> bool:
    """Tell whether the server of a ``server.json`` lives on this machine."""
    return lives_here(info.get("boot_id"), info.get("pid"), info.get("pid_start"))
