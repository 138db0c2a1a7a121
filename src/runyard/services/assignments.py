"""What an agent is given to start an attempt (docs/protocol.md, "assignment")."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from runyard.services import tokens
from runyard.services.api import Json
from runyard.services.context import Context
from runyard.store import attempts, runs
from runyard.store.database import Connection
from runyard.wire.files import read_json


def assignments(context: Context, connection: Connection, rows: Sequence[Any]) -> list[Json]:
    """Return the assignments of attempts, given their rows; those whose run is gone are left out."""
    owners = runs.find_many(connection, {row.run_id for row in rows})
    earlier = attempts.of_runs(connection, [run.id for run in owners.values() if run.attempts > 1])
    launches: dict[str | None, Json | None] = {None: None}
    found = []
    for row in rows:
        run = owners.get(row.run_id)
        if run is None:
            continue
        if run.launch_id not in launches:
            launches[run.launch_id] = read_json(os.path.join(context.home.launch, f"{run.launch_id}.json"))
        resumed = any(other.started_at is not None and other.number < row.number for other in earlier.get(run.id, ()))
        found.append(_assignment(context, row, run, launches[run.launch_id], resumed))
    return found


def _assignment(context: Context, row: Any, run: Any, launch: Json | None, resumed: bool) -> Json:
    return {
        "attempt": row.id,
        "run": run.id,
        "epoch": row.epoch,
        "number": row.number,
        "resumed": resumed,
        "fresh": bool(run.spec.get("fresh")),
        "slots": row.slots,
        "token": tokens.attempt_token(context, row.id),
        "dir": run.dir,
        "spec": {**run.spec, "id": run.id, "project": run.project, "name": run.name, "resources": run.resources,
                 "time_limit_s": run.time_limit_s},
        "env": (launch or {}).get("env") or {},
        "env_lost": run.launch_id is not None and launch is None,
        "grace_s": float(context.settings["grace"]),
    }  # fmt: skip
