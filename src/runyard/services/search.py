"""Searches for runs: from the parameters of a request to a page (docs/search.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from runyard.model.fields import METRICS, PARAMS, Field, meant, near
from runyard.model.query import NEWEST, Key, parse, parse_order
from runyard.model.recorded import holds
from runyard.model.tree import Query, fields_of
from runyard.services.context import Context
from runyard.store import known, names, records, search
from runyard.store.conditions import Conditions
from runyard.store.database import Connection
from runyard.store.dialects import DIALECTS
from runyard.wire import states
from runyard.wire.errors import InvalidError

HINTS_MAX = 5


class Prepared(NamedTuple):
    """A search that has been read: its statement can be made."""

    made: Conditions
    wanted: search.Search
    cursor: search.Cursor | None
    asked: list[Field]
    """What the query speaks of."""

    def page(self, connection: Connection, limit: int, fields: Sequence[Field] | None = None) -> search.Page:
        """Return a page of whole rows, or of the number of each run and these fields of it."""
        wanted = self.wanted if fields is None else search.of_fields(self.wanted, self.made, fields)
        return search.page(connection, wanted, self.made, self.cursor, limit)

    def hints(self, connection: Connection, page: search.Page) -> list[str]:
        """Return what to say of parameters and metrics that no run has: of an order always, else where nothing fits."""
        keys = [key.field for key in self.wanted.keys]
        return _hints(connection, [*(() if page.rows else self.asked), *keys], self.made)


def limit_of(filters: Mapping[str, Any], default: int, most: int) -> int:
    """Return how many runs are asked for; raises InvalidError."""
    limit = int(filters.get("limit") or default)
    if not 0 < limit <= most:
        raise InvalidError(f"limit is {limit}", f"1 to {most}")
    return limit


def prepare(context: Context, connection: Connection, filters: Mapping[str, Any]) -> Prepared:
    """Return a search for the runs that fit all filters, in their ``order``.

    Raises:
        InvalidError: the query, the order, a state or the cursor is none; see `runyard.model.query`.
    """
    wrong = [state for state in filters.get("state") or () if state not in states.RUN_STATES]
    if wrong:
        raise InvalidError(f"no state {wrong[0]!r}", f"one of {', '.join(states.RUN_STATES)}")
    keys = parse_order(filters.get("order") or "")
    order = "" if keys == (NEWEST,) else str(filters["order"]).strip()
    before = filters.get("before")
    cursor = search.read_cursor(None if before is None else str(before), order)
    now_us = (cursor.now_us if cursor else 0) or context.clock.now_us(connection)
    query = parse(str(filters.get("q") or ""), now_us)
    asked = fields_of(query)
    ids = names.find(connection, [field.name for field in (*asked, *(key.field for key in keys)) if _is_named(field)])
    keys = tuple(Key(resolve(connection, key.field, ids), key.descending) for key in keys)
    dialect = DIALECTS[context.db.dialect]()
    made = Conditions(
        dialect,
        ids,
        now_us,
        lambda part: _environments(connection, part),
        lambda like: known.like(connection, dialect, like),
    )
    about_archived = any(field.space == "run" and field.name == "archived" for field in asked)
    wanted = search.Search(query=query, fixed=search.fixed(made, filters, about_archived), keys=keys, order=order)
    return Prepared(made, wanted, cursor, asked)


def _is_named(field: Field) -> bool:
    return field.space in (PARAMS, METRICS, "")


def resolve(connection: Connection, field: Field, ids: Mapping[str, int]) -> Field:
    """Return what a bare name means: see `meanings`."""
    return meanings(connection, field, ids)[0]


def meanings(connection: Connection, field: Field, ids: Mapping[str, int]) -> list[Field]:
    """Return the metric or the parameter that a bare name means; of both, first the one that more runs have.

    Raises InvalidError when no run has either.
    """
    if field.space:
        return [field]
    name_id = ids.get(field.name)
    metric, param = Field(METRICS, field.name, "last", "number"), Field(PARAMS, field.name, kind="any")
    if not known.is_metric(connection, name_id):
        if known.is_param(connection, name_id):
            return [param]
        found = near(field.name, [*known.all_metrics(connection), *known.all_params(connection)])
        raise InvalidError(
            f"no run has a metric or parameter {field.name}", meant(found, "a field of the run itself: run.state")
        )
    if not known.is_param(connection, name_id):
        return [metric]
    return [param, metric] if known.is_mostly_param(connection, name_id) else [metric, param]


def _environments(connection: Connection, query: Query) -> list[str]:
    return [digest for digest, content in records.all_environments(connection) if holds(query, content)]


def _hints(connection: Connection, asked: Sequence[Field], made: Conditions) -> list[str]:
    """Return what to say of parameters and metrics that no run has."""
    found: dict[str, None] = {}
    for field in asked:
        if field.space not in (PARAMS, METRICS) or len(found) >= HINTS_MAX:
            continue
        name_id, metric = made.name_id(field.name), field.space == METRICS
        if (known.is_metric if metric else known.is_param)(connection, name_id):
            continue
        if (known.is_param if metric else known.is_metric)(connection, name_id):
            other = Field(PARAMS if metric else METRICS, field.name)
            found[f"no run has {Field(field.space, field.name)}, but some have {other}"] = None
            continue
        alike = near(field.name, (known.all_metrics if metric else known.all_params)(connection))
        likely = meant([str(Field(field.space, name)) for name in alike])
        found[f"no run has {Field(field.space, field.name)}{'; ' + likely if likely else ''}"] = None
    return list(found)
