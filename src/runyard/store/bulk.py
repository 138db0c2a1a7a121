"""Inserting and updating many rows as the database stores them: text escaped, JSON as text.

The types of columns are bypassed, for speed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Table, TextClause, text
from sqlalchemy.exc import DBAPIError

from runyard.store.types import dump_json

FEW = 16
"""Up to so many rows go in one INSERT on servers, more by COPY where there is one."""
Values = tuple[Any, ...]


def insert_rows(connection: Connection, table: Table, names: Sequence[str], rows: Sequence[Values]) -> None:
    """Insert rows: values of the columns ``names``."""
    if not rows:
        return
    dialect = connection.dialect.name
    if dialect == "sqlite":
        connection.exec_driver_sql(_insert(table.name, tuple(names), "?", 1), list(rows))
    elif len(rows) <= FEW or dialect != "postgresql":
        for start in range(0, len(rows), FEW):
            some = rows[start : start + FEW]
            values = tuple(value for row in some for value in row)
            connection.exec_driver_sql(_insert(table.name, tuple(names), "%s", len(some)), values)
    else:
        _copy(connection, f"COPY {table.name} ({', '.join(names)}) FROM STDIN", rows)


@cache
def _insert(table: str, names: tuple[str, ...], sign: str, count: int) -> str:
    one = f"({', '.join([sign] * len(names))})"
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES {', '.join([one] * count)}"  # noqa: S608 - names of columns


PARAMETER = re.compile(r":(\w+)")


class Update:
    """A statement ``UPDATE ... WHERE id = :id AND ...`` for many rows, each with its own parameters.

    ``numbers``: the parameters that are whole numbers; the others are text. PostgreSQL gets all rows in one statement,
    as JSON: a statement for each takes three times as long.
    """

    def __init__(self, statement: str, numbers: Sequence[str]) -> None:
        names = dict.fromkeys(PARAMETER.findall(statement))
        columns = ", ".join(f"p_{name} {'bigint' if name in numbers else 'text'}" for name in names)
        head, _, condition = PARAMETER.sub(r"new.p_\1", statement).partition(" WHERE ")
        source = f"json_to_recordset(CAST(:rows AS json)) AS new({columns})"
        self._each = text(statement)
        self._together: TextClause = text(f"{head} FROM {source} WHERE {condition}")

    def run(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
        """Update rows; each has all parameters."""
        if not rows:
            return
        if connection.dialect.name == "postgresql":
            values = [{f"p_{name}": value for name, value in row.items()} for row in rows]
            connection.execute(self._together, {"rows": dump_json(values)})
        else:
            connection.execute(self._each, list(rows))


def _copy(connection: Connection, statement: str, rows: Sequence[Values]) -> None:
    """Send rows in PostgreSQL's text format of COPY."""
    dialect = connection.dialect
    error = dialect.loaded_dbapi.Error
    try:
        cursor: Any = connection.connection.cursor()
        with cursor, cursor.copy(statement) as copy:
            for start in range(0, len(rows), 1000):
                copy.write("".join(map(_line, rows[start : start + 1000])).encode())
    except error as exc:
        raise DBAPIError.instance(statement, None, exc, error, dialect=dialect) from exc


def _line(row: Values) -> str:
    # Stored text has neither U+0000 nor U+001A followed by N (see `types.escape`), so these can stand for what the
    # format writes with characters that must be escaped in the text first.
    text = "\0".join(["\x1aN" if value is None else value if type(value) is str else str(value) for value in row])
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return text.replace("\x1aN", "\\N").replace("\0", "\t") + "\n"
