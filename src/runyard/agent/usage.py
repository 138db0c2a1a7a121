"""What a run uses of the machine: CPU, memory, disk of its process tree, its GPUs, and the host's network.

Rows are named ``system/...``; their step is the number of whole seconds since the first look.
"""

from __future__ import annotations

import os
import time

from runyard.agent.nvml import Nvml, NvmlError
from runyard.agent.sources import Source, pids_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.client.spool import Message, Row

FIRST_S = 1.0
EVERY_S = 5.0
LATER_S = 15.0
LONG_S = 3600.0
"""Looked at every `EVERY_S` in the first hour, then every `LATER_S`."""
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage(Source):
    """Samples the tree. CPU is in percent of one core, memory and disk in bytes, GPU utilization in percent."""

    name = "hardware"

    def __init__(self, directory: str, gpu_uuids: list[str]) -> None:
        self._directory = directory
        self._uuids = gpu_uuids
        self._nvml: Nvml | None = Nvml() if gpu_uuids else None
        self._started = time.monotonic()  # the same for all processes, and no wall clock, which may jump
        self._next = self._started + FIRST_S
        self._cpu: dict[int, float] = {}
        self._disk: dict[int, tuple[int, int]] = {}
        self._at = time.monotonic()
        self._network = _network()

    def state(self) -> Any:
        """Return when the first look was."""
        return self._started

    def restore(self, value: Any) -> None:
        """Count seconds from the first look of the collector before."""
        if isinstance(value, (int, float)):
            self._started = float(value)

    def turn(self, over: bool) -> tuple[list[Row], list[Message]]:
        """Return a row, when one is due."""
        now = time.monotonic()
        if over or now < self._next:
            return [], []
        age = now - self._started
        self._next = now + (EVERY_S if age < LONG_S else LATER_S)
        values = self._tree(now)
        values.update(self._gpus())
        return [({"system/" + name: value for name, value in values.items()}, int(age), 0)], []

    def _tree(self, now: float) -> dict[str, float]:
        seconds = max(now - self._at, 1e-3)
        self._at = now
        cpu: dict[int, float] = {}
        disk: dict[int, tuple[int, int]] = {}
        memory = used = read = written = 0.0
        for pid in pids_of(self._directory):
            times, resident = _stat(pid)
            if times is None:
                continue
            cpu[pid] = times
            memory += resident
            used += max(0.0, times - self._cpu.get(pid, 0.0))
            disk[pid] = moved = _moved(pid)
            before = self._disk.get(pid, (0, 0))
            read += max(0, moved[0] - before[0])
            written += max(0, moved[1] - before[1])
        self._cpu, self._disk = cpu, disk
        network = _network()
        received, sent = (max(0, one - other) / seconds for one, other in zip(network, self._network))
        self._network = network
        return {
            "cpu": 100.0 * used / seconds, "memory": memory, "disk_read_per_s": read / seconds,
            "disk_written_per_s": written / seconds, "net_received_per_s": received, "net_sent_per_s": sent,
            "processes": float(len(cpu)),
        }  # fmt: skip

    def _gpus(self) -> dict[str, float]:
        found: dict[str, float] = {}
        nvml = self._nvml
        if nvml is None:
            return found
        for number, uuid in enumerate(self._uuids):
            try:
                handle = nvml.ask("nvmlDeviceGetHandleByUUID", uuid)
            except NvmlError:
                continue
            start = "gpu%d/" % number
            usage = nvml.ask_or(None, "nvmlDeviceGetUtilizationRates", handle)
            if usage is not None:
                found[start + "utilization"] = float(usage.gpu)
                found[start + "memory_utilization"] = float(usage.memory)
            memory = nvml.ask_or(None, "nvmlDeviceGetMemoryInfo", handle)
            if memory is not None:
                found[start + "memory"] = float(memory.used)
            power = nvml.ask_or(None, "nvmlDeviceGetPowerUsage", handle)
            if power is not None:
                found[start + "power_w"] = power / 1000.0
            heat = nvml.ask_or(None, "nvmlDeviceGetTemperature", handle, 0)
            if heat is not None:
                found[start + "temperature_c"] = float(heat)
        return found


def _stat(pid: int) -> tuple[float | None, float]:
    """Return CPU seconds and resident bytes. Source: proc(5), /proc/PID/stat, fields 14, 15 and 24."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None, 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS, float(int(fields[21]) * PAGE)


def _moved(pid: int) -> tuple[int, int]:
    """Return bytes read from and written to disks. Source: proc(5), /proc/PID/io."""
    found = {}
    try:
        with open("/proc/%d/io" % pid, "rb") as file:
            for line in file:
                name, _, value = line.partition(b":")
                found[name] = int(value)
    except (OSError, ValueError):
        return 0, 0
    return found.get(b"read_bytes", 0), found.get(b"write_bytes", 0)


def _network() -> tuple[int, int]:
    """Return bytes received and sent by all interfaces of this host but loopback. Source: proc(5), /proc/net/dev."""
    received = sent = 0
    try:
        with open("/proc/net/dev", encoding="ascii") as file:
            for line in file:
                name, colon, rest = line.partition(":")
                fields = rest.split()
                if colon and name.strip() != "lo" and len(fields) >= 9:
                    received += int(fields[0])
                    sent += int(fields[8])
    except (OSError, ValueError):
        pass
    return received, sent
