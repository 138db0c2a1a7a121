"""Rows of all tables as JSON, the same on every database: the content of backups."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sqlalchemy import Connection, LargeBinary, delete, func, insert, inspect, select, text

from runyard.store.tables import metadata, runs
from runyard.store.types import Number, dump_json

BATCH = 500
SERIALS = (("runs", "seq"), ("events", "id"), ("names", "id"), ("metric_blocks", "id"), ("media", "id"))
"""Columns whose values the database hands out."""


def table_names() -> list[str]:
    """Return the tables in an order in which rows may be inserted."""
    return [table.name for table in metadata.sorted_tables]


def rows(connection: Connection, table: str) -> Iterator[str]:
    """Yield each row of a table as one line of JSON."""
    columns = metadata.tables[table]
    for row in connection.execute(select(columns).execution_options(yield_per=BATCH)):
        yield dump_json({name: _out(value) for name, value in row._mapping.items()})


def _out(value: Any) -> Any:
    """Return a value as JSON can carry it: bytes in base 64, infinities as text."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return repr(value) if isinstance(value, float) and math.isinf(value) else value


def _readers(table: str) -> dict[str, Callable[[Any], Any]]:
    """Return what undoes `_out`, by column."""
    found: dict[str, Callable[[Any], Any]] = {}
    for column in metadata.tables[table].columns:
        if isinstance(column.type, LargeBinary):
            found[column.name] = base64.b64decode
        elif isinstance(column.type, Number):
            found[column.name] = float
    return found


def load(connection: Connection, table: str, lines: Iterable[str]) -> int:
    """Insert rows that `rows` wrote; return how many."""
    count = 0
    batch: list[dict[str, Any]] = []
    known = set(metadata.tables[table].columns.keys())
    readers = _readers(table)
    for line in lines:
        row = {name: value for name, value in json.loads(line).items() if name in known}
        for name, read in readers.items():
            if row.get(name) is not None:
                row[name] = read(row[name])
        batch.append(row)
        count += 1
        if len(batch) == BATCH:
            connection.execute(insert(metadata.tables[table]), batch)
            batch = []
    if batch:
        connection.execute(insert(metadata.tables[table]), batch)
    return count


def reset_sequences(connection: Connection) -> None:
    """Let the database hand out numbers above those that were loaded."""
    if connection.dialect.name != "postgresql":
        return  # SQLite and MariaDB go on above the largest number by themselves
    have = set(inspect(connection).get_table_names())  # of an older schema some are missing
    for table, column in SERIALS:
        if table not in have:
            continue
        query = f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), COALESCE(MAX({column}), 0) + 1, false) FROM {table}"  # noqa: S608, E501 - names from the line above
        connection.execute(text(query))


def clear(connection: Connection) -> None:
    """Delete what a new yard holds (its id), so that the rows of a backup can take its place."""
    for table in reversed(metadata.sorted_tables):
        connection.execute(delete(table))


def is_empty(connection: Connection) -> bool:
    """Tell whether the yard has no runs."""
    return connection.execute(select(func.count()).select_from(runs)).scalar_one() == 0
