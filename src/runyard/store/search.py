"""Pages of runs that fit a query, in any order: one statement for each page.

A page goes on where the last one ended: its cursor holds the values that its last run is sorted by, so runs that are
added meanwhile shift nothing, and no page costs more than the first. Runs without the value that is asked for come last.

Two plans. *By index*: runs are taken in order from the index of a metric or parameter (or newest first) until the page is
full, and each is looked at for whether it fits. *By condition*: when few runs fit one of the conditions, which its index
tells at once, only those are looked at, and then sorted. No planner is asked, as none knows better here: SQLite has no
statistics unless somebody gathers them.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn

from sqlalchemy import Connection, text

from runyard.model.fields import METRICS, PARAMS, RUN, Field
from runyard.model.query import Key
from runyard.model.tree import All, Compare, Holds, OneOf, Query
from runyard.store.conditions import INDEXED, Conditions
from runyard.store.tables import runs
from runyard.store.types import converter, dump_json, escape
from runyard.wire.errors import InvalidError

FEW = 2000
"""Runs that fit a condition up to which they are all looked at, rather than runs in order until the page is full."""
Convert = Callable[[str], Any]
WHOLE: tuple[tuple[str, Convert | None], ...] = tuple((f"r.{item.name}", converter(item.type)) for item in runs.columns)
"""Expressions of all columns of runs, and what makes values of what the database has. By hand, for speed: SQLAlchemy takes
several times as long for a page."""
_STALE = "this is no cursor of a page in this order"


class Page(NamedTuple):
    """Rows of runs in order (`Search.columns`), and the cursor of the next page, None on the last one."""

    rows: list[list[Any]]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched for. ``conditions``: SQL about ``r`` that holds of every run, besides the query."""

    query: Query
    fixed: Sequence[str]
    keys: tuple[Key, ...]
    order: str
    """The keys as they were given: a cursor belongs to one order."""
    columns: Sequence[tuple[str, Convert | None]] = WHOLE
    """What is told of the runs; the first is their ``seq``."""


class _Phase(NamedTuple):
    """A part of the order: runs whose value is of one kind. Phases follow each other."""

    source: str
    """Table of the rows ``o`` that give the order; ``""``: the runs themselves."""
    where: str
    value: str
    """What runs are sorted by before their number; ``""``: only by that."""
    descending: bool


class Cursor(NamedTuple):
    """Where a page ended: phase, values of its last run, and the time that ``now`` is for all pages."""

    phase: int
    values: tuple[Any, ...]
    seq: int
    now_us: int


def read_cursor(given: str | None, order: str) -> Cursor | None:
    """Return what a cursor says; raises InvalidError for one that is none, or of another order."""
    if given is None:
        return None
    if given.isascii() and given.isdecimal() and len(given) < 19:
        if order:
            _refuse(given)
        return Cursor(0, (), int(given), 0)
    try:
        found = json.loads(base64.urlsafe_b64decode(given + "=" * (-len(given) % 4)))
        of, phase, values, seq, now_us = found
        decoded = tuple(map(_decoded, values))
    except (binascii.Error, ValueError, TypeError, KeyError, RecursionError):
        _refuse(given)
    whole = all(type(number) is int and 0 <= number < 1 << 62 for number in (phase, seq, now_us))
    if of != order or not whole or phase > 2:
        _refuse(given)
    return Cursor(phase, decoded, seq, now_us)


def _refuse(given: str) -> NoReturn:
    raise InvalidError(f"{given[:40]!r}: {_STALE}", "give `next` of the page before, and the same order")


def _write_cursor(cursor: Cursor, order: str) -> str:
    if not order:
        return str(cursor.seq)
    value = [order, cursor.phase, [_encoded(item) for item in cursor.values], cursor.seq, cursor.now_us]
    return base64.urlsafe_b64encode(dump_json(value).encode()).decode().rstrip("=")


def _encoded(value: Any) -> Any:
    return ["f", value.hex()] if isinstance(value, float) else value


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        kind, form = value
        return float.fromhex({"f": form}[kind])
    if value is not None and not isinstance(value, str) and (type(value) is not int or abs(value) >= 1 << 63):
        raise ValueError(value)
    return value


def page(connection: Connection, search: Search, made: Conditions, cursor: Cursor | None, limit: int) -> Page:
    """Return the runs that fit, at most ``limit``, from a cursor on."""
    return _Pager(connection, search, made, cursor, limit).page()


class _Pager:
    """Makes one page."""

    def __init__(
        self, connection: Connection, search: Search, made: Conditions, cursor: Cursor | None, limit: int
    ) -> None:
        self.connection, self.search, self.made, self.cursor = connection, search, made, cursor
        self.limit = limit + 1
        self.parts = search.query.of if isinstance(search.query, All) else (search.query,)
        self._start = len(made.values)

    def page(self) -> Page:
        driver = self._driver()
        if not self._by_index():
            found = self._sorted(driver)
        else:
            found = []
            phases = self._phases()
            for number in range(self.cursor.phase if self.cursor else 0, len(phases)):
                if len(found) < self.limit:
                    found += self._of_phase(number, phases[number], driver, self.limit - len(found))
        kept = found[: self.limit - 1]
        more = len(found) == self.limit
        return Page([row for row, _ in kept], _write_cursor(kept[-1][1], self.search.order) if more else None)

    def _by_index(self) -> bool:
        """Tell whether the order is that of an index."""
        field = self.search.keys[0].field
        if len(self.search.keys) > 1:
            return False
        if field.space == METRICS:
            return field.part in INDEXED
        return field.space == PARAMS or _is_newest(field)

    # Few runs fit a condition

    def _driver(self) -> str | None:
        """Return a statement of the few runs among which are all that fit; None when no condition is so narrow."""
        best: tuple[int, str] | None = None
        for part in self.parts:
            rows = self.made.rows_of(part)
            if rows is not None:
                most = best[0] if best else FEW
                count = f"SELECT COUNT(*) FROM (SELECT 1 FROM ({rows}) x LIMIT {most}) y"
                number = int(self._execute(count).scalar_one())
                if number < most:
                    best = number, rows
        return best[1] if best else None

    # By index

    def _phases(self) -> list[_Phase]:
        field, descending = self.search.keys[0]
        if field.space == RUN:
            return [_Phase("", "", "", descending)]
        name_id = self.made.name_id(field.name)
        missing = _Phase("", "", "", descending)
        if name_id is None:
            return [missing]
        own = f"o.name_id = {self.made.bind(name_id)}"
        if field.space == METRICS:
            value = self.made.statistic(field, "o")
            there = [_Phase("metrics", f"{own} AND {value} IS NOT NULL", value, descending)]
        else:
            there = [
                _Phase("params", f"{own} AND o.number IS NOT NULL", "o.number", descending),
                _Phase("params", f"{own} AND o.kind = 'text'", "o.head", descending),
            ]
            there = there[::-1] if descending else there
        rows = " OR ".join(f"({phase.where})" for phase in there)
        absent = f"NOT EXISTS (SELECT 1 FROM {there[0].source} o WHERE o.run_seq = r.seq AND ({rows}))"
        return [*there, missing._replace(where=absent)]

    def _of_phase(self, number: int, phase: _Phase, driver: str | None, limit: int) -> list[tuple[list[Any], Cursor]]:
        last = number > 0 and not phase.source
        if last and any(_needs(part, self.search.keys[0].field) for part in self.parts):
            return []
        self.made.seq = "o.run_seq" if phase.source and not driver else "r.seq"
        conditions = [*self.search.fixed, *(self._condition(part, phase) for part in self.parts)]
        way = "DESC" if phase.descending else "ASC"
        seq = "o.run_seq" if phase.source else "r.seq"
        at = self.cursor if self.cursor is not None and self.cursor.phase == number else None
        if at is not None:
            conditions.append(self._after(at, phase, seq))
        tables = "runs r"
        if phase.source:
            conditions.append("r.seq = o.run_seq")
            # SQLite takes the tables of a CROSS JOIN in this order.
            tables = f"runs r CROSS JOIN {phase.source} o" if driver else f"{phase.source} o CROSS JOIN runs r"
        if phase.where:
            conditions.append(phase.where)
        if driver:
            conditions.append(f"r.seq IN ({driver})")
        value = phase.value or "NULL"
        order = f"{phase.value} {way}, {seq} {way}" if phase.value else f"{seq} {way}"
        inner = (
            f"SELECT {seq} AS seq, {value} AS k0 FROM {tables} WHERE {' AND '.join(conditions)} "
            f"ORDER BY {order} LIMIT {limit}"
        )
        outer = f"k.k0 {way}, k.seq {way}" if phase.value else f"k.seq {way}"
        rows = self._rows(inner, 1, outer)
        return [(row, Cursor(number, (row[-1],) if phase.value else (), row[0], self.made.now_us)) for row in rows]

    def _condition(self, part: Query, phase: _Phase) -> str:
        """Return the condition; one on what the order is by is put to its row, where the index sees it."""
        field = self.search.keys[0].field
        if phase.source and isinstance(part, Compare) and part.field == field:
            return self.made.compared(part, "o", phase.value if field.space == METRICS else "o.number")
        return self.made.sql(part)

    def _after(self, at: Cursor, phase: _Phase, seq: str) -> str:
        sign = "<" if phase.descending else ">"
        if not phase.value:
            return f"{seq} {sign} {self.made.bind(at.seq)}"
        if len(at.values) != 1 or at.values[0] is None:
            _refuse("cursor")
        return f"({phase.value}, {seq}) {sign} ({self.made.bind(at.values[0])}, {self.made.bind(at.seq)})"

    # Sorted

    def _sorted(self, driver: str | None) -> list[tuple[list[Any], Cursor]]:
        keys = [item for key in self.search.keys for item in self._expressions(key)]
        way = "DESC" if self.search.keys[0].descending else "ASC"
        conditions = [*self.search.fixed, *map(self.made.sql, self.parts)]
        if driver:
            conditions.append(f"r.seq IN ({driver})")
        columns = ", ".join(f"{value} AS k{number}" for number, (value, _) in enumerate(keys))
        fitting = f"SELECT r.seq AS seq, {columns} FROM runs r WHERE {' AND '.join(conditions)}"
        after = f"WHERE {self._after_all(self.cursor, keys, way)} " if self.cursor is not None else ""

        def order(of: str) -> str:
            listed = [
                f"{of}.k{number} IS NULL, {of}.k{number} {'DESC' if down else 'ASC'}"
                for number, (_, down) in enumerate(keys)
            ]
            return ", ".join([*listed, f"{of}.seq {way}"])

        inner = f"SELECT t.* FROM ({fitting}) t {after}ORDER BY {order('t')} LIMIT {self.limit}"
        rows = self._rows(inner, len(keys), order("k"))
        taken = len(keys)
        return [(row, Cursor(0, tuple(row[-taken:]), row[0], self.made.now_us)) for row in rows]

    def _expressions(self, key: Key) -> list[tuple[str, bool]]:
        """Return what a key is sorted by: ``(expression, whether descending)``; NULL comes last."""
        field, down = key
        if _is_newest(field):
            return [("r.seq", down)]
        source = self.made.source(field, "o")
        if source is None:
            return [("NULL", down)]
        if not source.table:
            return [(source.value, down)]
        values = [source.value]
        if field.space == PARAMS:
            values.append("CASE WHEN o.kind = 'text' THEN o.head END")
        found = [
            f"(SELECT {value} FROM {source.table} o WHERE o.run_seq = r.seq AND {source.where})" for value in values
        ]
        return [(value, down) for value in (found[::-1] if down else found)]

    def _after_all(self, cursor: Cursor, keys: Sequence[tuple[str, bool]], way: str) -> str:
        if len(cursor.values) != len(keys):
            _refuse("cursor")
        found = f"t.seq {'<' if way == 'DESC' else '>'} {self.made.bind(cursor.seq)}"
        for number in reversed(range(len(keys))):
            name, value = f"t.k{number}", cursor.values[number]
            if value is None:
                found = f"({name} IS NULL AND {found})"
            else:
                bound = self.made.bind(value)
                found = f"({name} {'<' if keys[number][1] else '>'} {bound} OR {name} IS NULL OR ({name} = {bound} AND {found}))"
        return found

    # Statements

    def _rows(self, inner: str, keys: int, order: str) -> list[list[Any]]:
        columns = "".join(f", k.k{number} AS k{number}" for number in range(keys))
        told = ", ".join(expression for expression, _ in self.search.columns)
        statement = f"SELECT {told}{columns} FROM ({inner}) k JOIN runs r ON r.seq = k.seq ORDER BY {order}"
        converts = [(place, convert) for place, (_, convert) in enumerate(self.search.columns) if convert is not None]
        found = []
        for row in self._execute(statement).cursor.fetchall():
            values = list(row)
            for place, convert in converts:
                if values[place] is not None:
                    values[place] = convert(values[place])
            found.append(values)
        return found

    def _execute(self, statement: str) -> Any:
        return self.connection.execute(text(statement), self.made.values_of(statement))


def of_fields(wanted: Search, made: Conditions, fields: Sequence[Field]) -> Search:
    """Return the same search for rows of the number of each run, and of these fields of ``run`` and ``code``, as stored."""
    found: list[tuple[str, Convert | None]] = [("r.seq", None)]
    for field in fields:
        source = made.source(field, "r")
        found.append((source.value if source else "NULL", None))
    return replace(wanted, columns=found)


def fixed(made: Conditions, filters: Mapping[str, Any], archived: bool) -> list[str]:
    """Return the conditions of what is asked for beside the query.

    Filters: ``project``, ``state`` (list), ``tag`` (list: all of them), ``user``, ``name``, ``trashed``, ``archived``.
    ``archived``: the query itself says what it wants of archived runs.
    """
    found = ["r.trashed_at IS NOT NULL" if filters.get("trashed") else "r.trashed_at IS NULL"]
    if filters.get("archived"):
        found.append("r.archived_at IS NOT NULL")
    elif not archived and not filters.get("trashed"):
        found.append("r.archived_at IS NULL")
    for key, name in (("project", "r.project"), ("user", "r.user_name"), ("name", "r.name")):
        if filters.get(key):
            found.append(f"{name} = {made.bind(escape(filters[key]))}")
    if filters.get("state"):
        found.append(f"r.state IN ({', '.join(map(made.bind, filters['state']))})")
    for tag in filters.get("tag") or ():
        has = f"t.run_id = r.id AND t.tag = {made.bind(escape(tag))}"
        found.append(f"EXISTS (SELECT 1 FROM run_tags t WHERE {has})")
    return found


def _is_newest(field: Field) -> bool:
    """Tell whether an order is that of submission: the numbers of runs have it, and no two are equal."""
    return field.space == RUN and field.name == "created"


def _needs(part: Query, field: Field) -> bool:
    """Tell whether a condition holds only of runs that have a value to sort by."""
    if not isinstance(part, Compare | OneOf | Holds) or part.field != field:
        return False
    return not (isinstance(part, Compare) and part.op == "!=") and not (isinstance(part, OneOf) and part.none)
