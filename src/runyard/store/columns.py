"""Parameters and metrics of many runs as columns, by a few statements and without an object for each cell."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, text

from runyard.model.fields import Field
from runyard.store.conditions import Conditions

Column = list[Any]
_NULL = "null"
_ODD = {math.inf: "Infinity", -math.inf: "-Infinity"}


def params(
    connection: Connection, made: Conditions, seqs: Sequence[int], ids: Sequence[int] | None
) -> dict[int, Column]:
    """Return the values of parameters, by name; None where a run has none. ``ids``: which; all of them when None."""
    statement = f"SELECT p.run_seq, p.name_id, p.value FROM params p WHERE {_of(made, 'p', seqs, ids)}"
    found = _spread(_raw(connection, made, statement), seqs, ids, _NULL)
    # The values are JSON already: to read each column as one text is several times as fast as each value.
    return {name_id: json.loads(f"[{','.join(values)}]") for name_id, values in found.items()}


def metrics(
    connection: Connection, made: Conditions, seqs: Sequence[int], ids: Sequence[int] | None, field: Field
) -> dict[int, Column]:
    """Return a statistic of metrics, by name: numbers, ``NaN`` and the like as text, None where a run has none.

    ``field``: says which statistic, and of ``best`` of which metric.
    """
    value = made.statistic(field, "m")
    statement = (
        f"SELECT m.run_seq, m.name_id, {value} FROM metrics m JOIN runs r ON r.seq = m.run_seq "
        f"WHERE {_of(made, 'm', seqs, ids)}"
    )
    missing = None if field.part == "step" else "NaN"
    rows = (
        (seq, name_id, missing if number is None else number)
        for seq, name_id, number in _raw(connection, made, statement)
    )
    found = _spread(rows, seqs, ids, None)
    for values in found.values():
        if not math.isfinite(sum(value for value in values if type(value) is float)):
            values[:] = [_ODD.get(value, value) if type(value) is float else value for value in values]
    return found


def _of(made: Conditions, alias: str, seqs: Sequence[int], ids: Sequence[int] | None) -> str:
    listed = made.dialect.numbers(made.bind(json.dumps(list(seqs))))
    condition = f"{alias}.run_seq IN ({listed})"
    if ids is not None:
        condition += f" AND {alias}.name_id IN ({made.dialect.numbers(made.bind(json.dumps(list(ids))))})"
    return condition


def _raw(connection: Connection, made: Conditions, statement: str) -> Iterable[tuple[Any, ...]]:
    """Return rows as the driver gives them."""
    result = connection.execute(text(statement), made.values_of(statement))
    fetch: Callable[[], Iterable[tuple[Any, ...]]] = result.cursor.fetchall
    return fetch()


def _spread(
    rows: Iterable[tuple[Any, ...]], seqs: Sequence[int], ids: Sequence[int] | None, missing: Any
) -> dict[int, Column]:
    place = {seq: number for number, seq in enumerate(seqs)}
    found: dict[int, Column] = {name_id: [missing] * len(seqs) for name_id in ids or ()}
    for seq, name_id, value in rows:
        values = found.get(name_id)
        if values is None:
            values = found[name_id] = [missing] * len(seqs)
        values[place[seq]] = value
    return found
