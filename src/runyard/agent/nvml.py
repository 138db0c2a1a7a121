"""The one gate to NVIDIA's management library, through pynvml (nvidia-ml-py) where it can be imported.

A call gives a value or raises `NvmlError`; nothing else leaves this module, whatever driver, card or binding does.
Reference: NVIDIA's NVML API guide; the names of the calls are those of the binding.
"""

from __future__ import annotations

import threading
import time

from runyard.wire.errors import RunyardError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIBRARY = "libnvidia-ml.so.1"
_PROCESS_LISTS = (
    "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses",
)  # fmt: skip
STUCK_AFTER_S = 5.0
STUCK_FOR_S = 30.0
"""A call that takes longer than the first hangs; others then fail at once, for the second."""


class NvmlError(RunyardError):
    """NVML cannot answer; ``details["code"]`` is its error number where it gave one."""

    code = "nvml"


class Nvml:
    """NVML, initialized when first needed and again after a driver restart. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._module: Any = None
        self._ready = False
        self._stuck_until = 0.0

    def present(self) -> bool:
        """Tell whether this machine has the library and this Python the binding. Costs little when there is none."""
        import ctypes

        try:
            ctypes.CDLL(LIBRARY)
        except OSError:
            return False
        try:
            import pynvml
        except ImportError:
            return False
        self._module = pynvml
        return True

    def binding(self) -> Any:
        """Return the module pynvml, None before `present` found it."""
        return self._module

    def close(self) -> None:
        """Let go of the driver."""
        with self._lock:
            if self._ready:
                self._ready = False
                try:
                    self._module.nvmlShutdown()
                except self._module.NVMLError:
                    pass

    def ask(self, name: str, *args: Any) -> Any:
        """Call one function of NVML; raises `NvmlError`, also while a call of another thread hangs in the driver."""
        patience = STUCK_AFTER_S if time.monotonic() >= self._stuck_until else 0.0
        if not self._lock.acquire(timeout=patience):
            self._stuck_until = time.monotonic() + STUCK_FOR_S
            raise NvmlError("the driver does not answer")
        try:
            if not self._ready:
                if self._module is None and not self.present():
                    raise NvmlError("there is no NVIDIA driver library on this machine")
                self._call("nvmlInit")
                self._ready = True
            return self._call(name, *args)
        finally:
            self._lock.release()

    def _call(self, name: str, *args: Any) -> Any:
        function = getattr(self._module, name, None)
        if function is None:
            raise NvmlError("this version of nvidia-ml-py has no %s" % name)
        try:
            return function(*args)
        except self._module.NVMLError as exc:
            number = getattr(exc, "value", None)
            if number == self._module.NVML_ERROR_UNINITIALIZED:
                self._ready = False
            raise NvmlError(str(exc), code=number) from exc
        except (TypeError, ValueError, AttributeError, OSError) as exc:  # the binding stumbled over an odd answer
            raise NvmlError("%s: %s" % (name, exc)) from exc

    def ask_or(self, default: Any, name: str, *args: Any) -> Any:
        """Call one function of NVML and return a default where it cannot answer."""
        try:
            return self.ask(name, *args)
        except NvmlError:
            return default

    def memory(self, handle: Any) -> tuple[int, int | None]:
        """Return total and used memory in bytes; (0, None) when unreadable. Version 2 leaves out the driver's share."""
        version = getattr(self.binding(), "nvmlMemory_v2", None)
        info = None if version is None else self.ask_or(None, "nvmlDeviceGetMemoryInfo", handle, version)
        if info is None:
            info = self.ask_or(None, "nvmlDeviceGetMemoryInfo", handle)
        return (0, None) if info is None else (int(info.total), int(info.used))

    def processes(self, handle: Any) -> tuple[dict[int, int | None], bool]:
        """Return ``{pid: bytes or None}`` and whether the list of compute processes could be read."""
        found: dict[int, int | None] = {}
        readable = True
        for name in _PROCESS_LISTS:
            listed = self.ask_or(None, name, handle)
            if listed is None:
                readable = readable and name != _PROCESS_LISTS[0]
                continue
            for process in listed:
                used = getattr(process, "usedGpuMemory", None)
                found[int(process.pid)] = used if found.get(int(process.pid)) is None else found[int(process.pid)]
        return found, readable
