"""What the agent does with the collector of an attempt (`runyard.agent.collect`): start it, see whether it is done."""

from __future__ import annotations

import os
import time

from runyard.agent.collect import CAUGHT_UP, LOCK
from runyard.agent.environment import kinds
from runyard.wire import files, paths
from runyard.wire.settings import CAPTURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.agent.context import Context
    from runyard.agent.stage import Staged
    from runyard.agent.state import Attempt

FACTS = "collect.json"
CATCH_UP_S = 5.0
"""How long the report of an end waits for what was printed last to be looked at."""
STEP_S = 0.01


def prepare(context: Context, attempt: Attempt, staged: Staged, slots: list[dict[str, Any]]) -> None:
    """Write down what the collector needs to know. Raises OSError when the disk is full."""
    spec = attempt.spec
    chosen = kinds(spec)
    facts = {
        "kinds": chosen,
        "off": [kind for kind in CAPTURE if kind not in chosen],
        "pattern": (spec.get("tracking") or {}).get("pattern") or [],
        "spool": attempt.path("spool"),
        "log": paths.log_path(staged.run_dir, attempt.number),
        "tree": staged.tree,
        "cwd": staged.cwd,
        "manifest": staged.manifest,
        "kept": os.path.join(staged.run_dir, paths.RECORDS, "collected.json"),
        "resumed": staged.resumed,
        "command": spec["command"],
        "program": spec.get("program"),
        "in_place": bool(spec.get("in_place")),
        "links": [{name: link.get(name) for name in ("path", "target", "why")} for link in spec.get("links") or []],
        "hashes": os.path.join(context.home.host_dir(), "hashes.db"),
        "gpu_uuids": [slot["uuid"] for slot in slots if slot["kind"] == "gpu"],
        "started_us": time.time_ns() // 1000,
    }
    files.write_json(attempt.path(FACTS), facts)


def start(context: Context, attempt: Attempt) -> None:
    """Start the collector of an attempt, if it is to have one and has none. What goes wrong is only said."""
    if is_collected(attempt) or has_caught_up(attempt):
        return
    facts = files.read_json(attempt.path(FACTS))
    if not isinstance(facts, dict) or not facts.get("kinds"):
        return
    if not context.collectors.start(attempt.dir) and not is_collected(attempt):
        context.log("attempt %s: nothing is captured: its collector cannot be started" % attempt.id)


def has_caught_up(attempt: Attempt) -> bool:
    """Tell whether everything but hashes of data has been looked at."""
    return os.path.exists(attempt.path(CAUGHT_UP))


def is_collected(attempt: Attempt) -> bool:
    """Tell whether a collector is at work on an attempt."""
    return files.is_locked(attempt.path(LOCK))


def catch_up(context: Context, attempt: Attempt) -> None:
    """After the end: wait a moment for the collector to have seen everything; one that died is started again."""
    if not is_collected(attempt):
        start(context, attempt)
    deadline = time.monotonic() + CATCH_UP_S
    while time.monotonic() < deadline and is_collected(attempt) and not has_caught_up(attempt):
        time.sleep(STEP_S)
