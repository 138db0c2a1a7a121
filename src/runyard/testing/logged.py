"""Stores what runs log, as the tables describe it, for tests of what reads it."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from sqlalchemy import insert, select, update

from runyard.store.bulk import insert_rows
from runyard.store.database import Connection
from runyard.store.outputs import path_hash
from runyard.store.tables import data_files, metrics, names, params, runs, tracked
from runyard.store.types import dump_json, escape
from runyard.testing.stage import Stage

HEAD = 100
"""Characters of ``params.head``."""


def param_row(value: Any) -> dict[str, Any]:
    """Return how a parameter is stored, in the form of the database."""
    if isinstance(value, bool):
        return {"kind": "bool", "number": float(value), "head": "true" if value else "false", "value": dump_json(value)}
    if value is None:
        return {"kind": "null", "number": None, "head": "null", "value": "null"}
    if isinstance(value, float | int):
        plain = value if math.isfinite(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
        return {
            "kind": "number",
            "number": None if math.isnan(value) else float(value),
            "head": str(plain)[:HEAD],
            "value": dump_json(plain),
        }
    return {"kind": "text", "number": None, "head": escape(value[:HEAD]), "value": dump_json(value)}


def metric_row(values: list[float]) -> dict[str, Any]:
    """Return the summary of the points of a metric, logged at steps 0, 1, 2, ..."""
    numbers = [value for value in values if not math.isnan(value)]
    total = sum(numbers) if numbers else math.nan
    return {
        "attempt": 1, "source": 2, "count": len(values), "last": values[-1], "min": min(numbers, default=None),
        "max": max(numbers, default=None), "total": total, "nans": len(values) - len(numbers),
        "step": len(values) - 1, "first_at": 1, "last_at": 2,
    }  # fmt: skip


def name_id(connection: Connection, name: str) -> int:
    """Return the number of a name, which is added if it is new."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    find = select(names.c.id).where(names.c.hash == digest)
    found = connection.execute(find).scalar()
    if found is None:
        connection.execute(insert(names).values(hash=digest, name=name))
        found = connection.execute(find).scalar_one()
    return int(found)


def add(
    stage: Stage,
    run_id: str,
    *,
    params_: dict[str, Any] | None = None,
    metrics_: dict[str, list[float]] | None = None,
    data: dict[str, dict[str, Any]] | None = None,
    log_tail: str | None = None,
    **columns: Any,
) -> None:
    """Store what a run logged, and set columns of its row."""

    def work(connection: Connection) -> None:
        seq = connection.execute(select(runs.c.seq).where(runs.c.id == run_id)).scalar_one()
        for name, value in (params_ or {}).items():
            row = {
                "run_seq": seq,
                "name_id": name_id(connection, name),
                "rank": 1,
                "source": "test",
                **param_row(value),
            }
            insert_rows(connection, params, tuple(row), [tuple(row.values())])
        for name, values in (metrics_ or {}).items():
            row = {"run_seq": seq, "name_id": name_id(connection, name), **metric_row(values)}
            connection.execute(insert(metrics).values(**row))
        for path, facts in (data or {}).items():
            row = {"run_seq": seq, "path_hash": path_hash(path), "path": path, "size": 1, "mtime": 1, "via": "test",
                   "files": 1, **facts}  # fmt: skip
            connection.execute(insert(data_files).values(**row))
        if log_tail is not None:
            connection.execute(insert(tracked).values(run_seq=seq, log_tail=log_tail))
        if columns:
            connection.execute(update(runs).where(runs.c.id == run_id).values(**columns))

    stage.inner.context.db.write(work)
