"""The table of events: every change of state, who, when, from, to, why."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from runyard.store.bulk import insert_rows
from runyard.store.runs import chunks
from runyard.store.tables import attempts, events
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


def handed_back(connection: Connection, run_ids: Collection[str], since_us: int, now_us: int) -> Sequence[Row[Any]]:
    """Return ``run_id, host_id, at, detail`` of each time since then that a host gave one of these runs back; in order."""
    found: list[Row[Any]] = []
    for some in chunks(run_ids):
        query = (
            select(events.c.run_id, attempts.c.host_id, events.c.at, events.c.detail)
            .join(attempts, attempts.c.id == events.c.attempt_id)
            .where(events.c.run_id.in_(some), events.c.kind == "handed_back")
            .where(events.c.at > since_us, events.c.at <= now_us)
            .order_by(events.c.id)
        )
        found += connection.execute(query)
    return found
