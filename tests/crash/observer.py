"""Somebody who looks at the yard all the time: is what it shows true, or has it been false for too long?"""

from __future__ import annotations

import threading
import time
from typing import Any

from runyard.wire.errors import RunyardError
from tests.crash.children import SCALE
from tests.crash.yard import Yard

LIMIT_S = 90.0 * SCALE + 3.0
"""The 90 s that a shown state may be false, in the suite's time, and what starting processes takes on a busy machine."""
LOOK_S = 0.15
BLIND_S = 0.6
"""After a look that took longer nothing is held against the yard: the machine was too busy to tell."""


class Observer:
    """A thread that compares the runs as the server shows them with the processes that there are."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._since: dict[tuple[str, str], float] = {}
        self._stop = threading.Event()
        self.violations: list[str] = []
        self.looks = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(LOOK_S):
            try:
                shown = self._yard.runs()
            except (RunyardError, OSError, ValueError):
                self._since.clear()
                last = time.monotonic()
                continue
            now = time.monotonic()
            if now - last > BLIND_S or self._yard.disk_is_full:
                self._since.clear()
            last = now
            self.looks += 1
            self._compare(shown, now)

    def _compare(self, shown: list[dict[str, Any]], now: float) -> None:
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        for run in shown:
            live = self._yard.ledger(run["id"]).alive()
            for what, minded in self._falsehoods(run, live):
                found[run["id"], what] = minded
        for key in [key for key in self._since if key not in found]:
            del self._since[key]
        for key, minded in found.items():
            if any(not self._is_reachable(name) for name in minded if name != "server"):
                self._since.pop(key, None)
                continue
            since = max([self._since.setdefault(key, now), *(self._yard.disturbed_at.get(name, 0) for name in minded)])
            if now - since > LIMIT_S and self._since[key] < float("inf"):
                text = "shown state false for %.1f s: run %s %s" % (now - since, *key)
                self.violations.append(text)
                self._yard.note(text)
                self._since[key] = float("inf")

    def _is_reachable(self, name: str) -> bool:
        yard = self._yard
        return yard.is_alive(name) and name not in yard.paused and not yard.proxies[name].cut

    def _falsehoods(self, run: dict[str, Any], live: set[str]) -> list[tuple[str, tuple[str, ...]]]:
        """Return what is shown and not true, and whose absence excuses it."""
        tries = {attempt["id"]: attempt for attempt in run["attempts"]}
        hosts = {key: "far" if value["host"] == "far" else "home" for key, value in tries.items()}
        current = run["attempts"][-1]["id"] if run["attempts"] else ""
        lost = run["state"] == "lost" and run["ended_at"] is None
        found: list[tuple[str, tuple[str, ...]]] = []
        if run["state"] == "running" and run["phase"] in ("running", "stopping") and not live:
            found.append(("shown as running, and no program lives", ("server",)))
        if run["state"] == "running" and run["phase"] in ("assigned", "staging") and not live:
            found.append(("shown as %s, and nothing comes of it" % run["phase"], ("server",)))
        if lost:
            current_host = hosts.get(current, "home")
            found.append(("shown as lost, and its host is there", ("server", current_host)))
        shown = {
            key for key, value in tries.items() if value["ended_at"] is None and (run["state"] == "running" or lost)
        }
        for attempt in live - shown:
            host = hosts.get(attempt, "home")
            found.append(("lives as %s though shown as %s" % (attempt, run["state"]), ("server", host)))
        return found
