"""Counters of the server, and everything it says in the text format of Prometheus.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from typing import Any

Sample = tuple[Mapping[str, str], float]


class Counters:
    """Requests by method, route and status, with the seconds spent on them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, str, int], list[float]] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        with self._lock:
            entry = self._requests.setdefault((method, route, status), [0, 0.0])
            entry[0] += 1
            entry[1] += seconds

    def samples(self) -> tuple[list[Sample], list[Sample]]:
        """Return counts and seconds, labelled ``method``, ``route``, ``status``."""
        with self._lock:
            entries = sorted((key, tuple(entry)) for key, entry in self._requests.items())
        labels = [{"method": key[0], "route": key[1], "status": str(key[2])} for key, _ in entries]
        counts: list[Sample] = [(label, entry[0]) for label, (_, entry) in zip(labels, entries, strict=True)]
        seconds: list[Sample] = [(label, entry[1]) for label, (_, entry) in zip(labels, entries, strict=True)]
        return counts, seconds


def _escape(text: str) -> str:
    clean = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return clean.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def family(name: str, kind: str, help: str, samples: Iterable[Sample]) -> str:
    """Return one metric with its samples."""
    lines = [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        text = ",".join(f'{key}="{_escape(label)}"' for key, label in labels.items())
        lines.append("{}{} {:.16g}".format(name, f"{{{text}}}" if text else "", value))
    return "\n".join(lines) + "\n"


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes (proc(5), /proc/PID/statm field 2); 0 where unknown."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _slot_samples(slots: Iterable[Mapping[str, Any]]) -> list[Sample]:
    counts: dict[tuple[str, str], int] = {}
    for slot in slots:
        key = (str(slot.get("kind", "")), str(bool(slot.get("free"))).lower())
        counts[key] = counts.get(key, 0) + 1
    return [({"kind": kind, "free": free}, count) for (kind, free), count in sorted(counts.items())]


def render(status: Mapping[str, Any], counters: Counters, waiting: int) -> str:
    """Return the page for ``GET /metrics`` from the yard's status."""
    counts, seconds = counters.samples()
    states = [({"state": state}, float(count)) for state, count in sorted(status.get("counts", {}).items())]
    parts = [
        family("runyard_runs", "gauge", "Runs by state.", states),
        family("runyard_agents", "gauge", "Agents that are connected.", [({}, len(status.get("agents", ())))]),
        family("runyard_slots", "gauge", "Slots by kind, and whether they are free.",
               _slot_samples(status.get("slots", ()))),
        family("runyard_requests_total", "counter", "HTTP requests.", counts),
        family("runyard_request_seconds_total", "counter", "Seconds spent on HTTP requests.", seconds),
        family("runyard_waiting_requests", "gauge", "Requests that wait for something to happen.", [({}, waiting)]),
        family("runyard_resident_bytes", "gauge", "Resident memory of the server.", [({}, resident_bytes())]),
    ]  # fmt: skip
    if status.get("queue_age_s") is not None:  # none is queued
        parts.insert(1, family("runyard_queue_age_seconds", "gauge", "Age of the oldest queued run.",
                               [({}, float(status["queue_age_s"]))]))  # fmt: skip
    return "".join(parts)
