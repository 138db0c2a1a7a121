"""What a run uses of the machine: CPU, memory, disk of its process tree, its GPUs, and the host's network.

Rows are named ``system/...``; their step is the number of whole seconds since the first look.
"""

from __future__ import annotations

import os
import threading
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
DRIVER_WITHIN_S = 1.0
"""A driver that takes longer is left alone until it has answered: what else is captured must not wait for it."""
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage(Source):
    """Samples the tree. CPU is in percent of one core, memory and disk in bytes, GPU utilization in percent."""

    name = "hardware"

    def __init__(self, directory: str, gpu_uuids: list[str]) -> None:
        self._directory = directory
        self._gpus = GpuUsage(gpu_uuids)
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
        pids = pids_of(self._directory)
        values = self._tree(now, pids)
        found, notes = self._gpus.read(frozenset(pids))
        values.update(found)
        messages: list[Message] = [({"type": "capture", "notes": notes}, b"")] if notes else []
        return [({"system/" + name: value for name, value in values.items()}, int(age), 0)], messages

    def _tree(self, now: float, pids: list[int]) -> dict[str, float]:
        seconds = max(now - self._at, 1e-3)
        self._at = now
        cpu: dict[int, float] = {}
        disk: dict[int, tuple[int, int]] = {}
        memory = used = read = written = 0.0
        for pid in pids:
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


class GpuUsage:
    """Readings of the GPUs of a run, named by their place among them, as CUDA counts them in the run."""

    def __init__(self, uuids: list[str]) -> None:
        self._uuids = uuids
        self._nvml = Nvml()
        self._asking: threading.Thread | None = None
        self._trouble: set[str] = set()

    def read(self, pids: frozenset[int]) -> tuple[dict[str, float], list[str]]:
        """Return readings, and in words what cannot be read that could be so far. ``pids``: the run's processes."""
        if not self._uuids or (self._asking is not None and self._asking.is_alive()):
            return {}, []
        found: list[tuple[dict[str, float], list[str]]] = []
        self._asking = threading.Thread(target=lambda: found.append(self._read(pids)), daemon=True)
        self._asking.start()
        self._asking.join(DRIVER_WITHIN_S)
        return found[0] if found else ({}, self._new("the driver of the GPUs does not answer"))

    def _new(self, trouble: str) -> list[str]:
        new = trouble not in self._trouble
        self._trouble.add(trouble)
        return [trouble] if new else []

    def _read(self, pids: frozenset[int]) -> tuple[dict[str, float], list[str]]:
        found: dict[str, float] = {}
        notes: list[str] = []
        for number, uuid in enumerate(self._uuids):
            try:
                handle = self._nvml.ask("nvmlDeviceGetHandleByUUID", uuid)
            except NvmlError as exc:
                notes += self._new("gpu%d (%s) cannot be read: %s" % (number, uuid, exc.message))
                continue
            for name, value in self._readings(handle, pids).items():
                found["gpu%d/%s" % (number, name)] = value
        return found, notes

    def _readings(self, handle: Any, pids: frozenset[int]) -> dict[str, float]:
        """Return what this GPU offers; ``run_memory``: of processes of the run, where the driver tells them apart."""
        nvml, found = self._nvml, {}
        usage = nvml.ask_or(None, "nvmlDeviceGetUtilizationRates", handle)
        if usage is not None:
            found["utilization"], found["memory_utilization"] = float(usage.gpu), float(usage.memory)
        used = nvml.memory(handle)[1]
        if used is not None:
            found["memory"] = float(used)
        own = [held for pid, held in nvml.processes(handle)[0].items() if pid in pids and held is not None]
        if own:
            found["run_memory"] = float(sum(own))
        power = nvml.ask_or(None, "nvmlDeviceGetPowerUsage", handle)
        if power is not None:
            found["power_w"] = power / 1000.0
        heat = nvml.ask_or(None, "nvmlDeviceGetTemperature", handle, 0)
        if heat is not None:
            found["temperature_c"] = float(heat)
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
