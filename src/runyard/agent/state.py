"""What the agent knows: its attempts and whether it is draining, all in one object, behind one lock.

The durable half of it is the attempt directories (docs/protocol.md); this can be rebuilt from them at any time.
"""

from __future__ import annotations

import os
import threading
from collections import deque

from runyard.wire import files, states
from runyard.wire import tree as trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from runyard.agent.gpulock import GpuLock


REMEMBERED_ENDS = 1000
"""Attempts that are over and whose late, repeated assignment is ignored."""
HANDED_BACK = "handed-back"
"""Name of the file that says that this attempt is being handed back: nothing will be executed for it."""
REPORTED = "reported"
"""Name of the file that says that the server has answered this attempt's end (only shipping may be left)."""


class Attempt:
    """One attempt on this host, from its assignment to the server's answer to its end."""

    def __init__(self, directory: str, record: dict[str, Any], env: dict[str, str] | None = None) -> None:
        self.dir = directory
        self.record = record
        """The assignment without ``env``."""
        self.env = env
        """The submitter's environment, until the program is launched; None for an attempt found again."""
        self.id: str = record["attempt"]
        self.run: str = record["run"]
        self.epoch: int = record["epoch"]
        self.number: int = record["number"]
        self.slots: list[str] = list(record["slots"])
        self.phase = states.ASSIGNED
        self.lock = threading.Lock()
        """Guards `stop`, `launched` and `phase` against the thread that brings a stop, and the journal."""
        self.gone = False
        """Nothing is written into the journal any more."""
        self.stop: dict[str, Any] | None = None
        self.launched = False
        """A supervisor has been started: from then on a stop goes to it."""
        self.supervisor: tuple[int, int | None] | None = None
        """Pid and start time of the supervisor, once known."""
        self.flushed = False
        """After its end: what it logged has been sent, so that who sees the end sees all of it."""
        self.unkilled = ""
        """What of its tree lives on though it was killed; as long as it does, its slots are taken."""
        self.end: dict[str, Any] | None = None
        self.outputs: list[dict[str, Any]] | None = None
        """What the run wrote, once scanned; None when it has been reported or there is nothing to scan."""
        self.outputs_failed = 0
        """How often the server has failed over them."""
        self.gpu_locks: list[GpuLock] = []

    @property
    def spec(self) -> dict[str, Any]:
        """The run spec without its environment."""
        return self.record["spec"]  # type: ignore[no-any-return]

    def path(self, name: str) -> str:
        """Return the path of a file of the attempt directory."""
        return os.path.join(self.dir, name)

    def set_epoch(self, epoch: int) -> None:
        """Take over the epoch that a verdict names, in memory and in the journal."""
        with self.lock:
            if epoch == self.epoch or self.gone:
                return
            self.epoch = epoch
            self.record = dict(self.record, epoch=epoch)
            try:
                files.write_json(self.path("assignment.json"), self.record)
            except OSError:
                pass  # the disk is full: a later agent says the old epoch in its hello, and hears of this one

    def remove(self) -> None:
        """Take the attempt out of the journal; raises OSError when something of it stays."""
        with self.lock:
            self.gone = True
        try:
            os.unlink(self.path("assignment.json"))  # first: half removed, it would look like one never started
        except FileNotFoundError:
            pass
        trees.remove_tree(os.fsencode(self.dir))
        if self.record.get("own"):
            trees.remove_tree(os.fsencode(self.record["own"]))


class State:
    """All attempts by id, and the events that wake the agent's threads. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attempts: dict[str, Attempt] = {}
        self._over: deque[str] = deque(maxlen=REMEMBERED_ENDS)
        self._changed = threading.Condition(self._lock)
        self.stopping = threading.Event()
        """The agent process is to end; runs go on."""
        self.draining = False

    def add(self, attempt: Attempt) -> bool:
        """Take an attempt in; False when it is known or already over (a repeated assignment)."""
        with self._lock:
            if attempt.id in self._attempts or attempt.id in self._over:
                return False
            self._attempts[attempt.id] = attempt
            return True

    def is_known(self, attempt_id: str) -> bool:
        """Tell whether this attempt is here or was here and is over."""
        with self._lock:
            return attempt_id in self._attempts or attempt_id in self._over

    def get(self, attempt_id: object) -> Attempt | None:
        """Return the attempt, or None."""
        with self._lock:
            return self._attempts.get(attempt_id) if isinstance(attempt_id, str) else None

    def all(self) -> list[Attempt]:
        """Return all attempts, oldest first."""
        with self._lock:
            return list(self._attempts.values())

    def remove(self, attempt_id: str) -> None:
        """Forget an attempt whose end the server has answered, or that was handed back."""
        with self._changed:
            if self._attempts.pop(attempt_id, None) is not None:
                self._over.append(attempt_id)
            self._changed.notify_all()

    def notify(self) -> None:
        """Wake whoever waits in `wait_for_turn`."""
        with self._changed:
            self._changed.notify_all()

    def _before(self, attempt: Attempt) -> list[Attempt]:
        found = []
        for other in self._attempts.values():
            if other is attempt:
                break
            if other.phase != states.ENDED and (other.run == attempt.run or set(other.slots) & set(attempt.slots)):
                found.append(other)
        return found

    def wait_for_turn(self, attempt: Attempt, timeout_s: float) -> bool:
        """Wait until no earlier attempt of the same run, or on the same slots, lives here, or this one is to stop.

        The server may have given up an attempt whose process still has to be stopped.
        """
        with self._changed:
            return bool(self._changed.wait_for(lambda: attempt.stop or not self._before(attempt), timeout_s))

    def idle(self) -> bool:
        """Tell whether nothing is left to do or to report."""
        with self._lock:
            return not self._attempts


def phases(attempts: Iterable[Attempt]) -> dict[str, dict[str, Any]]:
    """Return what heartbeat and hello say about attempts: ``{id: {"epoch", "run", "phase", "number", "slots"}}``."""
    return {
        a.id: {"epoch": a.epoch, "run": a.run, "phase": a.phase, "number": a.number, "slots": a.slots} for a in attempts
    }
