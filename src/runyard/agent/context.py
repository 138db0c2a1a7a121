"""What the agent's threads share beside the attempts: paths, connections, slots, and ways to wake each other."""

from __future__ import annotations

import os
import threading

from runyard.agent import environment, slots
from runyard.agent.collectors import Collectors
from runyard.agent.gpus import Gpus
from runyard.agent.link import Links, Target
from runyard.agent.log import Log
from runyard.agent.nvml import Nvml
from runyard.agent.owners import owner
from runyard.agent.stage import TreeCache
from runyard.agent.state import State
from runyard.wire import states
from runyard.wire.paths import Home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from runyard.agent.state import Attempt


class Context:
    """Everything that is the same for all attempts of one agent process."""

    def __init__(
        self, home: Home, lib: str, python: str, target: Target, values: Mapping[str, Any], visible: str | None
    ) -> None:
        self.home = home
        self.lib = lib
        """Directory of the immutable copy that supervisors run from."""
        self.python = python
        self.collectors = Collectors(python, lib)
        self.log = Log()
        self.state = State()
        self.links = Links(target)
        self.timing = target.timing
        self.lock_place = ""
        self.cache = TreeCache(os.path.join(home.host_dir(), "trees"), self._download)
        self.cores = slots.cores()
        self._cpu_slots = slots.cpu_slots(values["cpu_slots"], self.cores)
        self.gpus = Gpus(
            Nvml(), values["gpus"], visible, values["gpu_allow"], values["gpu_free_mb"], self._owner, self.lock_place
        )
        self._gpu_slots: list[dict[str, Any]] = []
        self._ports: dict[str, int] = {}
        self._lock = threading.Lock()
        self.shared = True
        """The server's home is this one: no log and no output has to be sent."""
        self.introduced = threading.Event()
        """The server has answered hello."""
        self.ended: Callable[..., None] = _nothing
        """Takes attempts whose end is known (the reporter)."""
        self.launched: Callable[[Attempt], None] = _nothing
        """Hears of an attempt whose program has been launched (the shipper)."""
        self.beat_now: Callable[[], None] = _nothing
        """Sends a heartbeat with fresh slots before it returns, if the server answers."""
        self.look_whether_done: Callable[[], None] = _nothing
        """Ends a draining agent that has nothing left to do."""

    def _download(self, tree: str, fd: int) -> None:
        self.links.download("/api/v1/trees/%s.tar" % tree, fd)

    def _owner(self, pid: int) -> str | None:
        return owner(pid, {a.id: a.supervisor[0] if a.supervisor else 0 for a in self.state.all()})

    def look_at_gpus(self) -> bool:
        """Read the GPUs afresh; True when a slot has changed."""
        self.gpus.discover()
        by_name = {slot["name"]: slot["uuid"] for slot in self._gpu_slots}
        live = [a for a in self.state.all() if a.phase in (states.PHASE_RUNNING, states.STOPPING) or a.gpu_locks]
        found = self.gpus.slots(frozenset(by_name.get(name, "") for a in live for name in a.slots))
        with self._lock:
            changed = found != self._gpu_slots
            self._gpu_slots = found
        return changed

    def slots(self) -> list[dict[str, Any]]:
        """Return all slots as they were last seen; those of an attempt that cannot be killed are not free."""
        held = {name: a.unkilled for a in self.state.all() if a.unkilled for name in a.slots}
        with self._lock:
            known = self._gpu_slots + self._cpu_slots
        return [dict(slot, free=False, why=held[slot["name"]]) if slot["name"] in held else slot for slot in known]

    def slot(self, name: str) -> dict[str, Any] | None:
        """Return a slot by name."""
        for slot in self.slots():
            if slot["name"] == name:
                return slot
        return None

    def take_port(self, attempt_id: str) -> int:
        """Return a port for the attempt that no other attempt here was given."""
        with self._lock:
            self._ports[attempt_id] = environment.free_port(self._ports.values())
            return self._ports[attempt_id]

    def free_port(self, attempt_id: str) -> None:
        """Take a port back."""
        with self._lock:
            self._ports.pop(attempt_id, None)

    def wait_introduced(self) -> bool:
        """Wait until the server has answered hello; False when the agent is stopping before that."""
        while not self.introduced.wait(1.0):
            if self.state.stopping.is_set():
                return False
        return True

    def forget(self, attempt: Attempt) -> None:
        """Remove an attempt from journal and memory: there is nothing left to say about it."""
        try:
            attempt.remove()
        except OSError as exc:
            self.log("%s cannot be removed: %s" % (attempt.dir, exc))
        self.state.remove(attempt.id)
        self.look_whether_done()


def _nothing(*args: object) -> None:
    """The value of a hook that nobody has set yet."""
