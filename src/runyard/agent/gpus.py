"""GPU slots: which GPUs this agent may use, and whether each one is free.

A GPU is free when no foreign process holds its memory. Programs of the allow-list (a desktop) may; where the processes
cannot be seen, the memory in use decides. One card that is lost or answers nonsense says so and disturbs no other.
"""

from __future__ import annotations

import threading

from runyard.agent import gpulock
from runyard.agent.nvml import Nvml, NvmlError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    T = TypeVar("T")

MIB = 1 << 20


class Gpu:
    """One schedulable GPU (or MIG instance): slot name, NVML index, UUID, model, memory in bytes."""

    def __init__(self, name: str, index: int, uuid: str, model: str, mem: int, mig: bool = False) -> None:
        self.name = name
        self.index = index
        self.uuid = uuid
        self.model = model
        self.mem = mem
        self.mig = mig


class Verdict:
    """Whether a GPU is free; `why` it is not; `by_memory`: only memory without a visible owner speaks against it."""

    def __init__(self, free: bool, why: str = "", by_memory: bool = False) -> None:
        self.free = free
        self.why = why
        self.by_memory = by_memory


def chosen(choice: str, gpu_index: int, uuid: str) -> bool:
    """Tell whether the setting ``gpus`` or a CUDA_VISIBLE_DEVICES names this GPU, by index or start of the UUID."""
    for word in choice.replace(" ", "").split(","):
        if word.isdigit():
            if int(word) == gpu_index:
                return True
        elif word.startswith(("GPU-", "MIG-")):
            if uuid.startswith(word):
                return True
        else:
            return False  # CUDA ignores everything from the first word on that names nothing
    return False


class Gpus:
    """The GPUs of this host that the agent may use. Thread-safe as far as `Nvml` is."""

    def __init__(
        self,
        nvml: Nvml,
        choice: str = "all",
        visible: str | None = None,
        allow: Sequence[str] = (),
        free_mb: int = 300,
        owner: Callable[[int], str | None] = lambda pid: None,
        lock_place: str = "",
    ) -> None:
        self.nvml = nvml
        self.choice = choice
        self.visible = visible
        self.allow = frozenset(allow)
        self.free_mb = free_mb
        self.owner = owner
        """Says which attempt of this agent a process belongs to."""
        self.lock_place = lock_place
        self.known: list[Gpu] = []

    def _wanted(self, index: int, uuid: str) -> bool:
        if self.choice == "none" or (self.choice != "all" and not chosen(self.choice, index, uuid)):
            return False
        return self.visible is None or chosen(self.visible, index, uuid)

    def discover(self) -> list[Gpu]:
        """Look for GPUs and return all ever seen: one that was lost keeps its slot and is not free."""
        if self.choice == "none":
            return self.known
        by_uuid = {gpu.uuid: gpu for gpu in self.known}
        for index in range(int(self.nvml.ask_or(0, "nvmlDeviceGetCount"))):
            try:
                for gpu in self._at(index):
                    by_uuid[gpu.uuid] = gpu
            except NvmlError:
                continue  # lost before it was ever seen: there is no UUID to name it by
        self.known = sorted(by_uuid.values(), key=lambda gpu: (gpu.index, gpu.name))
        return self.known

    def _at(self, index: int) -> list[Gpu]:
        handle = self.nvml.ask("nvmlDeviceGetHandleByIndex", index)
        uuid = str(self.nvml.ask("nvmlDeviceGetUUID", handle))
        model = str(self.nvml.ask_or("NVIDIA GPU", "nvmlDeviceGetName", handle))
        mode = self.nvml.ask_or([0, 0], "nvmlDeviceGetMigMode", handle)
        if mode and mode[0] == 1:
            return self._instances(handle, index, uuid)
        if not self._wanted(index, uuid):
            return []
        return [Gpu("gpu%d" % index, index, uuid, model, self.nvml.memory(handle)[0])]

    def _instances(self, handle: Any, index: int, parent: str) -> list[Gpu]:
        found = []
        for number in range(int(self.nvml.ask_or(0, "nvmlDeviceGetMaxMigDeviceCount", handle))):
            try:
                instance = self.nvml.ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, number)
                uuid = str(self.nvml.ask("nvmlDeviceGetUUID", instance))
            except NvmlError:
                continue  # places of a MIG layout that are not in use
            if not self._wanted(index, uuid) and not self._wanted(index, parent):
                continue
            model = str(self.nvml.ask_or("MIG", "nvmlDeviceGetName", instance))
            total = self.nvml.memory(instance)[0]
            found.append(Gpu("gpu%d.%d" % (index, number), index, uuid, model, total, mig=True))
        return found

    def pids_of(self, uuid: str, attempt_id: str) -> list[int]:
        """Return the processes of an attempt that hold this GPU."""
        try:
            found, _ = self.nvml.processes(self.nvml.ask("nvmlDeviceGetHandleByUUID", uuid))
        except NvmlError:
            return []
        return [pid for pid in found if self.owner(pid) == attempt_id]

    def check(self, uuid: str, ours: bool, look_at_lock: bool = True) -> Verdict:
        """Say whether a GPU is free of everything but this agent's own attempts.

        ``ours``: an attempt of this agent is on it, so memory in use and unknown processes are taken as its own.
        """
        try:
            if look_at_lock and gpulock.is_held(uuid, self.lock_place) and not ours:
                return Verdict(False, "another yard on this host is using it")
        except OSError as exc:
            return Verdict(False, "its lock cannot be opened: %s" % exc)
        try:
            handle = self.nvml.ask("nvmlDeviceGetHandleByUUID", uuid)
            found, readable = self.nvml.processes(handle)
            used = self.nvml.memory(handle)[1]
        except NvmlError as exc:
            return Verdict(False, "it cannot be read: %s" % exc.message)
        if used is None and not readable:
            return Verdict(False, "neither its processes nor its memory can be read")
        unseen = not readable
        for pid, held in found.items():
            kind = self._kind(pid)
            if kind == "allowed":
                used = None if used is None or held is None else max(0, used - held)
            elif kind == "unknown":
                unseen = True
            elif kind != "own":
                return Verdict(False, "process %d (%s) is using it" % (pid, kind))
        return Verdict(True) if ours else self._by_memory(used, unseen or not found)

    def _by_memory(self, used: int | None, unseen: bool) -> Verdict:
        if used is not None and unseen and used > self.free_mb * MIB:
            return Verdict(
                False, "%d MiB of its memory are in use by processes that cannot be seen" % (used // MIB), True
            )
        return Verdict(True)

    def _kind(self, pid: int) -> str:
        """Return ``own``, ``allowed``, ``unknown`` (not visible from here), or the name of a foreign program."""
        if self.owner(pid) is not None:
            return "own"
        try:
            with open("/proc/%d/comm" % pid, encoding="utf-8", errors="replace") as file:
                name = file.read().strip()
        except OSError:
            return "unknown"
        return "allowed" if name in self.allow else name or "unknown"

    def slots(self, ours: frozenset[str]) -> list[dict[str, Any]]:
        """Return the GPU slots with their state; ``ours``: UUIDs on which attempts of this agent are."""
        slots = []
        for gpu in self.known:
            verdict = self.check(gpu.uuid, gpu.uuid in ours)
            slots.append(
                {"name": gpu.name, "kind": "gpu", "index": gpu.index, "uuid": gpu.uuid, "model": gpu.model,
                 "mem": gpu.mem, "threads": 0, "free": verdict.free, "why": verdict.why}
            )  # fmt: skip
        return slots

    def check_soon(self, uuid: str, within_s: float) -> Verdict:
        """`check` by whoever holds the GPU's lock, which comes back even where the driver does not."""
        found = within(within_s, lambda: self.check(uuid, ours=False, look_at_lock=False))
        return Verdict(False, "the driver does not answer") if found is None else found


def within(seconds: float, call: Callable[[], T]) -> T | None:
    """Return what a call returns, None when that takes too long (it is left to itself, in a thread)."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None
