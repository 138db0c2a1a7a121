"""Runs as a table: one list of values for each column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from runyard.model.fields import ANY, CODE, METRICS, NUMBER, PARAMS, RUN, SWITCH, TEXT, TIME, Field
from runyard.model.query import parse_field
from runyard.services.api import Json
from runyard.services.context import Context
from runyard.services.search import meanings, prepare
from runyard.services.tracking import SYSTEM
from runyard.services.views import iso
from runyard.store import columns, names
from runyard.store.conditions import Conditions
from runyard.store.database import Connection
from runyard.store.types import unescape
from runyard.wire.errors import InvalidError

LIMIT_MAX = 100_000
COLUMNS_MAX = 2000
DEFAULT = ("id", "project", "name", "state", "created_at", "params.*", "metrics.*")
EVERY = {"params.*": Field(PARAMS, "", kind=ANY), "metrics.*": Field(METRICS, "", "last", NUMBER)}
Values = list[Any]


class _Wanted(NamedTuple):
    """A column: its name as it was asked for, and its field; that of ``params.*`` and ``metrics.*`` has no name.

    ``other``: of a bare name that some runs have as a parameter and others as a metric, where those without the first are.
    """

    label: str
    field: Field
    other: Field | None = None


def make(context: Context, connection: Connection, filters: Mapping[str, Any], limit: int) -> Json:
    """Return a page of runs as ``{"columns", "data", "next", "hints"}``; values as in the JSON of runs.

    Raises:
        InvalidError: as `services.search.prepare`, or a column is none.
    """
    prepared = prepare(context, connection, filters)
    wanted = _wanted(connection, list(filters.get("columns") or DEFAULT))
    own = list(dict.fromkeys(item.field for item in wanted if item.field.space in (RUN, CODE)))
    page = prepared.page(connection, limit, own)
    seqs = [int(row[0]) for row in page.rows]
    told = {field: _told(field, [row[place] for row in page.rows]) for place, field in enumerate(own, 1)}
    fields = [field for item in wanted for field in (item.field, item.other) if field is not None and field not in told]
    told.update(_logged(connection, prepared.made, seqs, fields))
    filled: dict[str, Values] = {}
    for label, field, other in wanted:
        if field.name:
            values = told.get(field) or [None] * len(seqs)
            rest = told.get(other) if other is not None else None
            filled[label] = (
                values if rest is None else [b if a is None else a for a, b in zip(values, rest, strict=True)]
            )
            continue
        every = sorted((other.name, values) for other, values in told.items() if _is_of(other, field))
        filled.update((f"{field.space}.{name}", values) for name, values in every)
    hints = prepared.hints(connection, page)
    return {"columns": list(filled), "data": list(filled.values()), "next": page.next, "hints": hints}


def _is_of(field: Field, every: Field) -> bool:
    """Tell whether a field is one of ``params.*`` or ``metrics.*``; what the host measured is not."""
    there = bool(field.name) and (field.space, field.part) == (every.space, every.part)
    return there and not (field.space == METRICS and field.name.startswith(SYSTEM))


def _wanted(connection: Connection, labels: Sequence[str]) -> list[_Wanted]:
    if len(labels) > COLUMNS_MAX:
        raise InvalidError(
            f"{len(labels)} columns were asked for", f"at most {COLUMNS_MAX}; params.* are all parameters"
        )
    found = []
    for label in labels:
        if label in EVERY:
            found.append(_Wanted(label, EVERY[label]))
            continue
        try:
            field = parse_field(label)
        except InvalidError as exc:
            raise InvalidError(f"column {label}: {exc.details.get('problem', exc.message)}", exc.hint) from None
        if field.space not in (RUN, CODE, PARAMS, METRICS, ""):
            raise InvalidError(f"{label} cannot be a column", "run.*, params.*, metrics.* and code.* can")
        found.append(
            _Wanted(label, *meanings(connection, field, {} if field.space else names.find(connection, [field.name])))
        )
    return found


def _told(field: Field, values: Values) -> Values:
    """Return values of the runs themselves as they stand in the JSON of a run."""
    if field.kind == TIME:
        return list(map(iso, values))
    if field.kind == SWITCH:
        return [None if value is None else bool(value) for value in values]
    return [None if value is None else unescape(value) for value in values] if field.kind == TEXT else values


def _logged(
    connection: Connection, made: Conditions, seqs: Sequence[int], fields: Sequence[Field]
) -> dict[Field, Values]:
    """Return the columns of parameters and metrics; all of them where a field has no name."""
    ids = names.find(connection, [field.name for field in fields if field.name])
    found: dict[Field, Values] = {}
    groups: dict[tuple[str, ...], list[Field]] = {}
    for field in fields:
        # The best of a metric depends on its name, so each is asked for by itself.
        groups.setdefault((field.space, field.part, field.name if field.part == "best" else ""), []).append(field)
    for members in groups.values():
        one = members[0]
        some = None if any(not field.name for field in members) else [ids[f.name] for f in members if f.name in ids]
        if some == [] or not seqs:
            continue
        if one.space == PARAMS:
            values = columns.params(connection, made, seqs, some)
        else:
            values = columns.metrics(connection, made, seqs, some, one)
        named = names.of(connection, values)
        found.update((Field(one.space, named[key], one.part, one.kind), column) for key, column in values.items())
    return found
