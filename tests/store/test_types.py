"""Values come back as they went in, on every database, through the types and past them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, Table, insert, select

from runyard.store.bulk import FEW, insert_rows
from runyard.store.database import Database
from runyard.store.types import BigInt, Json, Name, dump_json, escape, unescape

TABLE = Table(
    "things",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", Name),
    Column("value", Json),
    Column("number", BigInt),
)
HOSTILE = "\x00\x1a\x1bu0faN\\\t\r\n'\"\udc80\ud800é"
TEXTS = st.text(st.characters(exclude_categories=()), max_size=60) | st.text(HOSTILE, max_size=30)
JSON_TEXTS = TEXTS.filter(lambda value: json.loads(json.dumps(value)) == value)
"""JSON makes one character of two surrogates that follow each other."""
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | JSON_TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(JSON_TEXTS, inner, max_size=4),
    max_leaves=8,
)
ROWS = st.lists(
    st.tuples(st.none() | TEXTS, JSON, st.none() | st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=2 * FEW
)
numbers = itertools.count(1)


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest) -> Iterator[Database]:
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    db = Database(url)
    db.write(TABLE.create)
    yield db
    db.close()


SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def numbered(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [(next(numbers), *row) for row in rows]


def stored(db: Database, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    with db.read() as connection:
        query = select(TABLE).where(TABLE.c.id.in_([row[0] for row in rows])).order_by(TABLE.c.id)
        return [tuple(row) for row in connection.execute(query)]


@given(rows=ROWS)
@SETTINGS
def test_round_trip_through_the_types(db: Database, rows: list[tuple[Any, ...]]) -> None:
    wanted = numbered(rows)
    values = [dict(zip(("id", "name", "value", "number"), row, strict=True)) for row in wanted]
    db.write(lambda c: c.execute(insert(TABLE), values))
    assert stored(db, wanted) == wanted


@given(rows=ROWS)
@SETTINGS
def test_round_trip_past_the_types(db: Database, rows: list[tuple[Any, ...]]) -> None:
    wanted = numbered(rows)
    values = [
        (number, None if name is None else escape(name), None if value is None else dump_json(value), count)
        for number, name, value, count in wanted
    ]
    db.write(lambda c: insert_rows(c, TABLE, ("id", "name", "value", "number"), values))
    assert stored(db, wanted) == wanted


@given(names=st.lists(TEXTS, min_size=2, max_size=8, unique=True))
@SETTINGS
def test_names_compare_by_their_bytes(db: Database, names: list[str]) -> None:
    rows = numbered([(name, None, None) for name in names])
    values = [{"id": row[0], "name": row[1]} for row in rows]
    db.write(lambda c: c.execute(insert(TABLE), values))
    with db.read() as connection:
        query = select(TABLE.c.name).where(TABLE.c.id.in_([row[0] for row in rows])).order_by(TABLE.c.name)
        found = list(connection.execute(query).scalars())
        assert found == sorted(names, key=lambda name: escape(name).encode())
        for number, name, *_ in rows:
            equal = select(TABLE.c.id).where(TABLE.c.id >= rows[0][0], TABLE.c.name == name)
            assert list(connection.execute(equal).scalars()) == [number]


@given(text=TEXTS)
def test_escaping_is_reversible_and_safe(text: str) -> None:
    safe = escape(text)
    assert unescape(safe) == text
    assert "\0" not in safe
    safe.encode("utf-8")


@given(value=JSON)
def test_json_is_canonical(value: Any) -> None:
    text = dump_json(value)
    assert text.isascii()
    assert json.loads(text) == value
    assert dump_json(json.loads(text)) == text
