"""Rows of outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, select, update

from runyard.store.bulk import insert_rows
from runyard.store.runs import chunks
from runyard.store.tables import output_steps, outputs
from runyard.store.types import escape


def path_hash(path: str) -> str:
    """Return the key of a path: the SHA-256 of its bytes."""
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()


def of_runs(connection: Connection, ids: Collection[str]) -> dict[str, list[Row[Any]]]:
    """Return outputs by run, in the order of their paths."""
    found: dict[str, list[Row[Any]]] = {}
    for some in chunks(ids):
        query = select(outputs).where(outputs.c.run_id.in_(some)).order_by(outputs.c.path)
        for row in connection.execute(query):
            found.setdefault(row.run_id, []).append(row)
    return found


def steps(connection: Connection, ids: Collection[str]) -> dict[str, dict[str, int]]:
    """Return the steps that runs have named themselves: by run, by the path of an output or of a directory of them."""
    found: dict[str, dict[str, int]] = {}
    for some in chunks(ids):
        query = select(output_steps.c.run_id, output_steps.c.path, output_steps.c.step)
        for run_id, path, step in connection.execute(query.where(output_steps.c.run_id.in_(some))):
            found.setdefault(run_id, {})[path] = step
    return found


def set_steps(connection: Connection, run_id: str, wanted: Mapping[str, int]) -> None:
    """Remember the steps of outputs, by path, which may not be known yet."""
    keys = [path_hash(path) for path in wanted]
    for some in chunks(keys):
        connection.execute(
            delete(output_steps).where(output_steps.c.run_id == run_id, output_steps.c.path_hash.in_(some))
        )
    rows = [(run_id, key, escape(path), step) for key, (path, step) in zip(keys, wanted.items(), strict=True)]
    insert_rows(connection, output_steps, ("run_id", "path_hash", "path", "step"), rows)


_INSERTED = ("run_id", "path_hash", "path", "attempt_id", "size", "mtime", "type", "place", "step", "series")
_OF_PATH = (outputs.c.run_id == bindparam("of"), outputs.c.path_hash == bindparam("key"))
_CHANGE = (
    update(outputs)
    .where(*_OF_PATH)
    .values(
        size=bindparam("size"), mtime=bindparam("mtime"), type=bindparam("type"), sha256=None,
        attempt_id=bindparam("attempt_id"), place=bindparam("place"),
    )
)  # fmt: skip
_REMOVE = delete(outputs).where(*_OF_PATH)


def save(
    connection: Connection, run_id: str, attempt_id: str, found: Sequence[dict[str, Any]], place: str
) -> list[str]:
    """Make the outputs of a run what was found (of `agent.outputs.scan`); return paths that are new or changed."""
    have = {row.path: row for row in of_runs(connection, [run_id]).get(run_id, [])}
    fresh, new, changed = [], [], []
    for path, item in {item["path"]: item for item in found}.items():
        old = have.pop(path, None)
        if old is None:
            fresh.append(path)
            new.append((run_id, path_hash(path), escape(path), attempt_id, item["size"], item["mtime_us"], item["type"],
                        place, item.get("step"), escape(item["series"]) if item.get("series") else None))  # fmt: skip
        elif (old.size, old.mtime) != (item["size"], item["mtime_us"]):
            changed.append((path, item))
    insert_rows(connection, outputs, _INSERTED, new)
    if changed:
        rows = [{"of": run_id, "key": path_hash(path), "size": item["size"], "mtime": item["mtime_us"],
                 "type": item["type"], "attempt_id": attempt_id, "place": place} for path, item in changed]  # fmt: skip
        connection.execute(_CHANGE, rows)
    remove(connection, run_id, list(have))
    return fresh + [path for path, _ in changed]


def find(connection: Connection, run_id: str, path: str) -> Row[Any] | None:
    """Return one output, or None."""
    query = select(outputs).where(outputs.c.run_id == run_id, outputs.c.path_hash == path_hash(path))
    return connection.execute(query).first()


def set_place(connection: Connection, run_id: str, path: str, place: str) -> None:
    """Say where the bytes of an output are."""
    where = (outputs.c.run_id == run_id, outputs.c.path_hash == path_hash(path))
    connection.execute(update(outputs).where(*where).values(place=place))


def where_unhashed(connection: Connection, limit: int) -> Sequence[Row[Any]]:
    """Return outputs below the home whose content has not been hashed yet."""
    query = select(outputs).where(outputs.c.sha256.is_(None), outputs.c.place == "home").limit(limit)
    return connection.execute(query).all()


def set_hash(connection: Connection, run_id: str, path: str, size: int, mtime: int, sha256: str) -> None:
    """Record the hash of an output, if it is still the file that was read."""
    where = (outputs.c.run_id == run_id, outputs.c.path_hash == path_hash(path), outputs.c.size == size,
             outputs.c.mtime == mtime)  # fmt: skip
    connection.execute(update(outputs).where(*where).values(sha256=sha256))


def remove(connection: Connection, run_id: str, paths: Sequence[str]) -> None:
    """Forget outputs of a run."""
    if paths:
        connection.execute(_REMOVE, [{"of": run_id, "key": path_hash(path)} for path in paths])
