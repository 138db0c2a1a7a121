"""Names of parameters, metrics and media: each is stored once, and rows refer to it by number."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from sqlalchemy import Connection, bindparam, select, text

from runyard.store.runs import chunks
from runyard.store.tables import names
from runyard.store.types import escape

MAX_LENGTH = 1000
"""Characters of a name."""
_INSERT = {
    "sqlite": text("INSERT INTO names (hash, name) VALUES (:hash, :name) ON CONFLICT (hash) DO NOTHING"),
    "postgresql": text("INSERT INTO names (hash, name) VALUES (:hash, :name) ON CONFLICT (hash) DO NOTHING"),
}
_FIND = select(names.c.id, names.c.name).where(names.c.hash.in_(bindparam("hashes", expanding=True)))
_OF = select(names.c.id, names.c.name).where(names.c.id.in_(bindparam("ids", expanding=True)))


def name_hash(name: str) -> str:
    """Return the key of a name: the SHA-256 of its bytes."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def find(connection: Connection, wanted: Iterable[str]) -> dict[str, int]:
    """Return the numbers of those of these names that are known."""
    found: dict[str, int] = {}
    for some in chunks(name_hash(name) for name in dict.fromkeys(wanted)):
        found.update((row.name, row.id) for row in connection.execute(_FIND, {"hashes": some}))
    return found


def add(connection: Connection, new: Collection[str]) -> dict[str, int]:
    """Return the numbers of these names, adding those that are not known. In order, so that no two wait for each other."""
    rows = [{"hash": name_hash(name), "name": escape(name)} for name in new]
    rows.sort(key=lambda row: row["hash"])
    if rows:
        connection.execute(_INSERT[connection.dialect.name], rows)
    return find(connection, new)


def of(connection: Connection, ids: Collection[int]) -> dict[int, str]:
    """Return names by number."""
    found: dict[int, str] = {}
    for start in range(0, len(listed := list(ids)), 500):
        found.update((row.id, row.name) for row in connection.execute(_OF, {"ids": listed[start : start + 500]}))
    return found
