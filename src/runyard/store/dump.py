"""Rows of all tables as JSON, the same on every database: the content of backups."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, text

from runyard.store.tables import metadata, runs
from runyard.store.types import dump_json

BATCH = 500


def table_names() -> list[str]:
    """Return the tables in an order in which rows may be inserted."""
    return [table.name for table in metadata.sorted_tables]


def rows(connection: Connection, table: str) -> Iterator[str]:
    """Yield each row of a table as one line of JSON."""
    columns = metadata.tables[table]
    for row in connection.execute(select(columns).execution_options(yield_per=BATCH)):
        yield dump_json(dict(row._mapping))


def load(connection: Connection, table: str, lines: Iterable[str]) -> int:
    """Insert rows that `rows` wrote; return how many."""
    count = 0
    batch: list[dict[str, Any]] = []
    known = set(metadata.tables[table].columns.keys())
    for line in lines:
        batch.append({name: value for name, value in json.loads(line).items() if name in known})
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
    for table, column in (("runs", "seq"), ("events", "id")):
        query = f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), COALESCE(MAX({column}), 0) + 1, false) FROM {table}"  # noqa: S608, E501 - names from the line above
        connection.execute(text(query))


def clear(connection: Connection) -> None:
    """Delete what a new yard holds (its id), so that the rows of a backup can take its place."""
    for table in reversed(metadata.sorted_tables):
        connection.execute(delete(table))


def is_empty(connection: Connection) -> bool:
    """Tell whether the yard has no runs."""
    return connection.execute(select(func.count()).select_from(runs)).scalar_one() == 0
