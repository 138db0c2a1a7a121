"""Runs as JSON (docs/protocol.md; fields are added, never renamed)."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping, Sequence
from typing import Any

from runyard.services.api import Json
from runyard.services.context import Context
from runyard.services.control import trash_path
from runyard.store import attempts, hosts, outputs, runs
from runyard.store.database import Connection
from runyard.wire import states
from runyard.wire.paths import manifest_path

SNAPSHOT_FIELDS = ("tree", "commit", "branch", "dirty", "changed", "files", "bytes")


_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - UTC is written behind it


def iso(time_us: int | None) -> str | None:
    """Return a time as ISO 8601 in UTC with microseconds; None for none, and for one that has no such form."""
    if time_us is None or not states.TIMES_US[0] <= time_us <= states.TIMES_US[1]:
        return None
    return (_EPOCH + dt.timedelta(microseconds=time_us)).isoformat(timespec="microseconds") + "Z"


def runs_json(context: Context, connection: Connection, rows: Sequence[Any], with_outputs: bool) -> list[Json]:
    """Return several runs, by a few queries, whatever their number; their outputs, which may be very many, if asked to."""
    found = runs.records(rows)
    ids = [row.id for row in found]
    tags = runs.tags(connection, ids)
    tries = attempts.of_runs(connection, ids)
    names = hosts.names(connection)
    values = [run_json(context, row, tags.get(row.id, []), tries.get(row.id, []), names) for row in found]
    if with_outputs:
        files, steps = outputs.of_runs(connection, ids), outputs.steps(connection, ids)
        for value in values:
            value["outputs"] = outputs_json(files.get(value["id"], []), steps.get(value["id"], {}))
    return values


def run_json(context: Context, row: Any, tags: list[str], tries: Sequence[Any], names: dict[str, str]) -> Json:
    """Return one run, without its outputs."""
    spec = row.spec
    current = next((attempt for attempt in tries if attempt.id == row.attempt_id), None)
    running = row.state in (states.RUNNING, states.LOST) and row.ended_at is None
    snapshot = spec.get("snapshot") or {}
    return {
        "id": row.id,
        "project": row.project,
        "name": row.name,
        "message": row.message,
        "tags": tags,
        "user": row.user_name,
        "state": row.state,
        "phase": current.phase if running and current is not None else None,
        "wait_reasons": [],
        "expected_start": None,
        "command": spec["command"],
        "program": spec.get("program"),
        "cwd": spec["cwd"],
        "source": spec["source"],
        "repo_name": spec["repo_name"],
        "priority": -row.priority_rank,
        "resources": {name: row.resources.get(name) for name in ("gpus", "cpus", "mem", "gpu_model", "host")},
        "time_limit_s": row.time_limit_s,
        "retries": row.retries,
        "created_at": iso(row.created_at),
        "started_at": iso(row.started_at),
        "ended_at": iso(row.ended_at),
        "end": _end(row) if row.ended_at is not None else None,
        "stop_requested": {"at": iso(row.kill_at), "by": row.kill_by} if row.kill_at is not None else None,
        "attempts": [attempt_json(attempt, names) for attempt in tries],
        "host": names.get(row.host_id, row.host_id) if row.host_id else None,
        "slots": list(current.slots) if current is not None else [],
        "snapshot": {name: snapshot.get(name) for name in SNAPSHOT_FIELDS},
        "code_frozen": bool(snapshot.get("tree")),
        "links": spec.get("links") or [],
        # What it takes to run it again:
        **{name: spec.get(name) for name in ("also", "adopt", "pythonpath", "shell", "pty", "fresh", "tracking")},
        "requeue": bool(row.requeue),
        "env_hash": row.env_hash,
        "sweep": row.sweep,
        "rerun_of": spec.get("rerun_of"),
        "params": {},
        "metrics": {},
        "data": [],
        "files": files_state(context, row),
        "trashed_at": iso(row.trashed_at),
        "archived_at": iso(row.archived_at),
        "run_dir": run_dir(context, row),
    }


def _end(row: Any) -> Json:
    return {
        "exit_code": row.exit_code,
        "signal": row.signal,
        "reason": row.reason,
        "origin": row.origin,
        "detail": row.end_detail,
    }


def attempt_json(row: Any, names: dict[str, str]) -> Json:
    """Return one attempt."""
    return {
        "id": row.id,
        "number": row.number,
        "phase": row.phase,
        "host": names.get(row.host_id, row.host_id),
        "slots": list(row.slots),
        "assigned_at": iso(row.assigned_at),
        "started_at": iso(row.started_at),
        "ended_at": iso(row.ended_at),
        "end": _end(row) if row.ended_at is not None else None,
        "log_bytes": row.log_bytes,
        "log_dropped": row.log_dropped,
    }


def outputs_json(rows: Sequence[Any], steps: Mapping[str, int]) -> list[Json]:
    """Return the outputs of a run; ``steps``: those that it has named itself, by path of a file or directory."""
    found = [output_json(row) for row in rows]
    for value in found if steps else ():
        path = value["path"]
        while path and path not in steps:
            path = path.rpartition("/")[0]
        if path:
            value["step"] = steps[path]
    return found


def output_json(row: Any) -> Json:
    """Return one output."""
    return {
        "path": row.path,
        "size": row.size,
        "sha256": row.sha256 or None,
        "type": row.type,
        "modified_at": iso(row.mtime),
        "attempt": row.attempt_id,
        "step": row.step,
        "series": row.series,
    }


def event_json(row: Any) -> Json:
    """Return one event of a run."""
    return {
        "id": row.id, "at": iso(row.at), "kind": row.kind, "from": row.from_state, "to": row.to_state,
        "actor": row.actor, "attempt": row.attempt_id, "detail": row.detail,
    }  # fmt: skip


def agent_json(row: Any, connected: bool) -> Json:
    """Return one agent."""
    return {
        "id": row.id, "host": row.host_name, "host_id": row.host_id, "user": row.user_name, "version": row.version,
        "connected": connected, "draining": bool(row.draining), "seen_at": iso(row.seen_at),
        "shared_home": bool(row.shared_home), "cpus": row.cpus, "mem": row.mem, "disk_free": row.disk_free,
    }  # fmt: skip


def slot_json(row: Any) -> Json:
    """Return one slot, and the run that has it."""
    return {
        "id": row.id, "host_id": row.host_id, "name": row.name, "kind": row.kind, "model": row.model, "mem": row.mem,
        "threads": row.threads, "free": bool(row.free) and row.attempt_id is None, "why": row.why, "run": row.run_id,
    }  # fmt: skip


def base_dir(context: Context, row: Any) -> str:
    """Return the absolute path of a run's directory, wherever it is now."""
    return trash_path(context, row.dir) if row.trashed_at is not None else context.run_path(row.dir)


def run_dir(context: Context, row: Any) -> str:
    """Return the absolute path of a run's working tree; of a run in place, of what it writes to RUNYARD_RUN_DIR."""
    return os.path.join(base_dir(context, row), row.spec["repo_name"])


def files_state(context: Context, row: Any) -> str:
    """Return ``none yet``, ``here``, ``thinned`` (unchanged code was removed; `checkout` has it), ``trashed`` or ``gone``."""
    if row.trashed_at is not None:
        return "trashed"
    # Of a run on a host that shares nothing no tree was filled here: there may be a log, and no output.
    base = base_dir(context, row)
    if os.path.isdir(run_dir(context, row)) or (os.path.isdir(base) and not os.path.exists(manifest_path(base))):
        return "thinned" if row.thinned_at is not None else "here"
    return "none yet" if row.started_at is None or row.ended_at is None else "gone"
