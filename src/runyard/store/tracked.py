"""What else runs say: how far their streams are taken in, parameters, media, data, progress."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Text, bindparam, case, delete, func, insert, select, text, type_coerce, update

from runyard.store.bulk import insert_rows
from runyard.store.metrics import MANY
from runyard.store.outputs import path_hash
from runyard.store.tables import data_files, media, params, runs, spool_streams, tracked
from runyard.store.types import dump_json, escape

SEEN = ("open", "fd", "map")
"""How data is known to have been read that nobody declared."""

_LOCK = select(tracked).where(tracked.c.run_seq == text(":seq")).with_for_update()
_MAKE = text("INSERT INTO tracked (run_seq) VALUES (:seq) ON CONFLICT (run_seq) DO NOTHING")


def lock(connection: Connection, run_seq: int) -> Row[Any]:
    """Return the row of a run that whoever takes in what it says holds until the end of the transaction."""
    row = connection.execute(_LOCK, {"seq": run_seq}).first()
    if row is None:
        connection.execute(_MAKE, {"seq": run_seq})
        row = connection.execute(_LOCK, {"seq": run_seq}).one()
    return row


def change(connection: Connection, run_seq: int, **values: Any) -> None:
    """Set columns of the row of a run."""
    connection.execute(update(tracked).where(tracked.c.run_seq == run_seq).values(**values))


def of_runs(connection: Connection, seqs: Collection[int]) -> dict[int, Any]:
    """Return those rows, by run."""
    found: dict[int, Any] = {}
    listed = list(seqs)
    for start in range(0, len(listed), MANY):
        query = select(tracked.c.run_seq, tracked.c.progress, tracked.c.capture)
        query = query.where(tracked.c.run_seq.in_(listed[start : start + MANY]))
        found.update((row.run_seq, row) for row in connection.execute(query))
    return found


_FIND_STREAM = select(spool_streams).where(
    spool_streams.c.attempt_id == bindparam("attempt"), spool_streams.c.stream == bindparam("stream")
)
_ADD_STREAM = insert(spool_streams)


def find_stream(connection: Connection, attempt_id: str, stream: str) -> Row[Any] | None:
    """Return how far a stream is taken in; None when nothing of it is here."""
    return connection.execute(_FIND_STREAM, {"attempt": attempt_id, "stream": stream}).first()


def save_stream(connection: Connection, row: Row[Any] | None, attempt_id: str, stream: str, **values: Any) -> None:
    """Store how far a stream is taken in; ``row``: as it was found."""
    if row is None:
        connection.execute(_ADD_STREAM, {"attempt_id": attempt_id, "stream": stream, **values})
        return
    where = (spool_streams.c.attempt_id == attempt_id, spool_streams.c.stream == stream)
    connection.execute(update(spool_streams).where(*where).values(**values))


# -- parameters

_PARAM_COLUMNS = ("run_seq", "name_id", "kind", "number", "head", "value", "rank", "source")


_PARAM_RANKS = select(params.c.name_id, params.c.rank).where(params.c.run_seq == bindparam("seq"))


def param_ranks(connection: Connection, run_seq: int) -> dict[int, int]:
    """Return the rank of the origin of each parameter that a run has."""
    return {row.name_id: row.rank for row in connection.execute(_PARAM_RANKS, {"seq": run_seq})}


def save_params(connection: Connection, run_seq: int, rows: dict[int, dict[str, Any]], known: Collection[int]) -> None:
    """Store parameters, each ``kind, number, head, value, rank, source`` by name; ``known``: those that are replaced."""
    remove_params(connection, run_seq, [name_id for name_id in rows if name_id in known])
    values = [
        (run_seq, name_id, row["kind"], row["number"], escape(row["head"]), dump_json(row["value"]), row["rank"],
         escape(row["source"]))
        for name_id, row in sorted(rows.items())
    ]  # fmt: skip
    insert_rows(connection, params, _PARAM_COLUMNS, values)


def remove_params(connection: Connection, run_seq: int, name_ids: Sequence[int]) -> None:
    """Delete parameters of a run."""
    for start in range(0, len(name_ids), MANY):
        some = name_ids[start : start + MANY]
        connection.execute(delete(params).where(params.c.run_seq == run_seq, params.c.name_id.in_(some)))


def params_of(connection: Connection, seqs: Collection[int]) -> dict[int, list[tuple[int, Any]]]:
    """Return the number of the name and the value of all parameters of runs, by run."""
    found: dict[int, list[tuple[int, Any]]] = {}
    listed = list(seqs)
    columns = params.c
    for start in range(0, len(listed), MANY):
        query = select(columns.run_seq, columns.name_id, type_coerce(columns.value, Text))
        rows = connection.execute(query.where(columns.run_seq.in_(listed[start : start + MANY]))).all()
        # To read all values as one text is several times as fast as each for itself.
        values = json.loads(f"[{','.join([row[2] for row in rows])}]")
        for (run_seq, name_id, _), value in zip(rows, values, strict=True):
            found.setdefault(run_seq, []).append((name_id, value))
    return found


def param_sources(connection: Connection, run_seq: int) -> dict[int, tuple[int, str]]:
    """Return the rank of the origin and the source of the parameters of a run, by the number of their names."""
    query = select(params.c.name_id, params.c.rank, params.c.source).where(params.c.run_seq == run_seq)
    return {name_id: (rank, source) for name_id, rank, source in connection.execute(query)}


# -- media and data


def add_media(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert media: the columns of the table but ``id``."""
    if rows:
        connection.execute(insert(media), list(rows))


def media_of(connection: Connection, run_seq: int) -> Sequence[Row[Any]]:
    """Return all media of a run, by name, step and time."""
    columns = media.c
    query = select(media).where(columns.run_seq == run_seq)
    return connection.execute(query.order_by(columns.name_id, columns.step, columns.at, columns.id)).all()


def media_counts(connection: Connection, run_seq: int) -> Sequence[Row[Any]]:
    """Return how many media of each name and kind a run has, and their least and last step."""
    columns = media.c
    counts = (func.count().label("items"), func.min(columns.step).label("least"), func.max(columns.step).label("last"))
    query = select(columns.name_id, columns.kind, *counts).where(columns.run_seq == run_seq)
    return connection.execute(query.group_by(columns.name_id, columns.kind)).all()


def save_data(connection: Connection, run_seq: int, files: Sequence[dict[str, Any]]) -> None:
    """Store what is known of data that a run read: ``path, size, mtime, sha256, via, files``; later knowledge replaces it.

    A directory that is said to have been opened file by file (``via`` open, and ``files``) stands for all that was seen in it,
    in whatever order and by whichever process it is said.
    """
    if not files:
        return
    columns = data_files.c
    query = select(columns.path).where(columns.run_seq == run_seq, columns.via == "open", columns.files > 1)
    folders = {row.path for row in connection.execute(query)}
    for item in files:
        path = item["path"]
        if item["via"] in (*SEEN, None) and not folders.isdisjoint(_above(path)):
            continue
        where = (columns.run_seq == run_seq, columns.path_hash == path_hash(path))
        changed = {name: value for name, value in item.items() if name != "path" and value is not None}
        for name in ("files", "size") if item["via"] == "open" and item["files"] else ():
            # Several processes read from one directory: the one that read most of it is heard.
            changed[name] = case((columns[name] > item[name], columns[name]), else_=item[name])
        if not connection.execute(update(data_files).where(*where).values(**changed)).rowcount:
            least = {"size": 0, "mtime": 0, "via": "", "files": 1}
            row = {"run_seq": run_seq, "path_hash": path_hash(path), **item}
            row.update({name: value for name, value in least.items() if row[name] is None})
            connection.execute(insert(data_files).values(**row))
        if item["via"] == "open" and (item["files"] or 1) > 1 and path not in folders:
            folders.add(path)
            _gather(connection, run_seq, path)


def _gather(connection: Connection, run_seq: int, folder: str) -> None:
    """Remove what was seen in a directory that stands for it from now on."""
    columns = data_files.c
    query = select(columns.path, columns.path_hash).where(columns.run_seq == run_seq, columns.via.in_(SEEN))
    hashes = [row.path_hash for row in connection.execute(query) if folder in _above(row.path)]
    for start in range(0, len(hashes), MANY):
        some = hashes[start : start + MANY]
        connection.execute(delete(data_files).where(columns.run_seq == run_seq, columns.path_hash.in_(some)))


def _above(path: str) -> Iterator[str]:
    """Return the directories that a path lies in; of relative ones the last is ``.``."""
    above = path
    while above not in ("", "/", "."):
        above = os.path.dirname(above)
        yield above or "."


def data_of(connection: Connection, seqs: Collection[int]) -> dict[int, list[Any]]:
    """Return the data that runs read, by run, in the order of paths."""
    found: dict[int, list[Any]] = {}
    listed = list(seqs)
    for start in range(0, len(listed), MANY):
        query = select(data_files).where(data_files.c.run_seq.in_(listed[start : start + MANY]))
        for row in connection.execute(query.order_by(data_files.c.path)):
            found.setdefault(row.run_seq, []).append(row)
    return found


def earlier_data(connection: Connection, project: str, run_seq: int, paths: Collection[str]) -> dict[str, Any]:
    """Return what the newest earlier run of a project that read a path, and has its hash, read there: ``id, sha256``."""
    found: dict[str, Any] = {}
    for path in paths:
        query = (
            select(runs.c.id, data_files.c.sha256)
            .join(runs, runs.c.seq == data_files.c.run_seq)
            .where(
                data_files.c.path_hash == path_hash(path),
                data_files.c.run_seq < run_seq,
                data_files.c.sha256.is_not(None),
                runs.c.project == project,
            )
            .order_by(data_files.c.run_seq.desc())
            .limit(1)
        )
        row = connection.execute(query).first()
        if row is not None:
            found[path] = row
    return found
