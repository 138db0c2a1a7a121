"""The table of events: every change of state, who, when, from, to, why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from runyard.store.bulk import insert_rows
from runyard.store.tables import events
from runyard.store.types import dump_json

_NAMES = ("at", "run_id", "attempt_id", "kind", "from_state", "to_state", "actor", "detail")
EventRow = tuple[int, str | None, str | None, str, str | None, str | None, str, str | None]


def row(
    now_us: int,
    kind: str,
    run_id: str | None,
    attempt_id: str | None,
    from_state: str | None,
    to_state: str | None,
    actor: str,
    detail: Any = None,
) -> EventRow:
    """Return one event as it is stored, for `add_many`."""
    text = None if detail is None else dump_json(detail)
    return now_us, run_id, attempt_id, kind, from_state, to_state, actor, text


def add_many(connection: Connection, rows: Sequence[EventRow]) -> None:
    """Record events."""
    insert_rows(connection, events, _NAMES, rows)


def of_run(connection: Connection, run_id: str, after: int = 0) -> Sequence[Row[Any]]:
    """Return the events of a run whose number is greater than ``after``, in order."""
    query = select(events).where(events.c.run_id == run_id, events.c.id > after).order_by(events.c.id)
    return connection.execute(query).all()
