"""Rows of attempts and of the slots they hold."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, delete, exists, select, text, update

from runyard.store.bulk import Update, insert_rows
from runyard.store.runs import chunks
from runyard.store.tables import attempts, runs, slot_use
from runyard.store.types import dump_json, escape

AttemptRow = Any
Record: Any = namedtuple("Record", list(attempts.columns.keys()))  # type: ignore[misc]
"""An attempt as a plain tuple, as `runyard.store.runs.Record`."""
# Statements of the hot paths are built once: building one takes longer than running it.
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_FIND = select(attempts).where(attempts.c.id == bindparam("id"))
_FIND_MANY = select(attempts).where(attempts.c.id.in_(_IDS))
_OF_RUNS = select(attempts).where(attempts.c.run_id.in_(_IDS)).order_by(attempts.c.number)
_RUNS_OF = select(attempts.c.id, attempts.c.run_id).where(attempts.c.id.in_(_IDS))


def find(connection: Connection, attempt_id: str) -> AttemptRow | None:
    """Return one attempt, or None."""
    return connection.execute(_FIND, {"id": attempt_id}).first()


def find_many(connection: Connection, ids: Collection[str]) -> dict[str, AttemptRow]:
    """Return attempts by id."""
    found: dict[str, AttemptRow] = {}
    for some in chunks(ids):
        found.update((row.id, row) for row in connection.execute(_FIND_MANY, {"ids": some}))
    return found


def of_runs(connection: Connection, ids: Collection[str]) -> dict[str, list[AttemptRow]]:
    """Return the attempts of runs, by run, first attempt first."""
    found: dict[str, list[AttemptRow]] = {}
    for some in chunks(ids):
        row: Any
        for row in map(Record._make, connection.execute(_OF_RUNS, {"ids": some})):
            found.setdefault(row.run_id, []).append(row)
    return found


_LATER = attempts.alias()
_ACTIVE_OF_AGENT = (
    select(
        attempts,
        runs.c.state.label("run_state"),
        runs.c.attempt_id.label("run_attempt"),
        runs.c.epoch.label("run_epoch"),
        runs.c.kill_at,
        runs.c.kill_grace_s,
        runs.c.ended_at.label("run_ended"),
        exists(
            select(_LATER.c.id).where(
                _LATER.c.run_id == attempts.c.run_id,
                _LATER.c.number > attempts.c.number,
                _LATER.c.started_at.is_not(None),
            )
        ).label("superseded"),
    )
    .join(runs, runs.c.id == attempts.c.run_id)
    .where(attempts.c.agent_id == bindparam("agent"), attempts.c.active == 1)
    .order_by(attempts.c.assigned_at, attempts.c.id)
)


def active_of_agent(connection: Connection, agent_id: str) -> Sequence[AttemptRow]:
    """Return the attempts of an agent whose processes may live, each with what its run says.

    Besides the attempt's columns: ``run_state, run_attempt, run_epoch, kill_at, kill_grace_s, run_ended``, and
    ``superseded``: a later attempt of the run was allowed to start its process.
    """
    return connection.execute(_ACTIVE_OF_AGENT, {"agent": agent_id}).all()


def all_active(connection: Connection) -> Sequence[AttemptRow]:
    """Return every attempt whose process may live."""
    return connection.execute(select(attempts).where(attempts.c.active == 1)).all()


def insert_many(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert attempts; all rows have the same columns."""
    if rows:
        names = tuple(rows[0])
        values = [tuple(dump_json(v) if name == "slots" else v for name, v in row.items()) for row in rows]
        insert_rows(connection, attempts, names, values)


def take_slots(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Let attempts hold slots (``slot_id, attempt_id``); raises IntegrityError when somebody holds one already."""
    insert_rows(connection, slot_use, ("slot_id", "attempt_id"), [(r["slot_id"], r["attempt_id"]) for r in rows])


def holders(connection: Connection, slot_ids: Collection[str]) -> dict[str, str]:
    """Return which attempts hold these slots, by slot."""
    query = select(slot_use).where(slot_use.c.slot_id.in_(list(slot_ids)))
    return {row.slot_id: row.attempt_id for row in connection.execute(query)}


def set_fields(connection: Connection, attempt_id: str, **values: Any) -> None:
    """Set columns of one attempt."""
    connection.execute(update(attempts).where(attempts.c.id == attempt_id).values(**values))


_END = Update(
    "UPDATE attempts SET phase = 'ended', active = 0, started_at = :started_at, ended_at = :ended_at, "
    "exit_code = :exit_code, signal = :signal, reason = :reason, origin = :origin, end_detail = :end_detail, "
    "log_bytes = :log_bytes, log_dropped = :log_dropped WHERE id = :id AND ended_at IS NULL",
    numbers=("started_at", "ended_at", "exit_code", "signal", "log_bytes", "log_dropped"),
)
_RELEASE = delete(slot_use).where(slot_use.c.attempt_id.in_(_IDS))


def end_many(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Record the ends of attempts that have none yet, and give back the slots that they hold.

    ``id, started_at, ended_at, exit_code, signal, reason, origin, end_detail, log_bytes, log_dropped``. The caller has
    locked their runs.
    """
    if rows:
        values = [{**row, "end_detail": None if (t := row["end_detail"]) is None else escape(t)} for row in rows]
        _END.run(connection, values)
        release(connection, [row["id"] for row in rows])


def release(connection: Connection, ids: Collection[str]) -> None:
    """Give back the slots that attempts hold."""
    for some in chunks(ids):
        connection.execute(_RELEASE, {"ids": some})


def runs_of(connection: Connection, ids: Collection[str]) -> dict[str, str]:
    """Return the runs of attempts, by attempt."""
    found: dict[str, str] = {}
    for some in chunks(ids):
        found.update((row.id, row.run_id) for row in connection.execute(_RUNS_OF, {"ids": some}))
    return found


def newer_started(connection: Connection, run_id: str, number: int) -> bool:
    """Tell whether a later attempt of a run was allowed to start its process."""
    query = select(attempts.c.id).where(
        attempts.c.run_id == run_id, attempts.c.number > number, attempts.c.started_at.is_not(None)
    )
    return connection.execute(query.limit(1)).first() is not None


_RENEW = text("UPDATE attempts SET lease_until = :until WHERE id = :id AND active = 1 AND epoch = :epoch")


def renew(connection: Connection, until_us: int, epochs: dict[str, int]) -> None:
    """Renew the leases of attempts (id: epoch)."""
    if epochs:
        rows = [{"until": until_us, "id": attempt, "epoch": epoch} for attempt, epoch in epochs.items()]
        connection.execute(_RENEW, rows)


def shift_lost(connection: Connection, step_us: int) -> None:
    """The clock was set by this much: move the times since when attempts are lost with it."""
    statement = update(attempts).where(attempts.c.active == 1, attempts.c.lost_at.is_not(None))
    connection.execute(statement.values(lost_at=attempts.c.lost_at + step_us))


def renew_all(connection: Connection, until_us: int) -> None:
    """Give every attempt that may live a fresh lease."""
    connection.execute(update(attempts).where(attempts.c.active == 1).values(lease_until=until_us))


_EXPIRED = text(
    "SELECT a.id, a.run_id, a.phase, a.epoch, a.host_id, r.state AS run_state FROM attempts a "
    "JOIN runs r ON r.id = a.run_id AND r.attempt_id = a.id "
    "WHERE a.active = 1 AND a.lease_until < :now AND r.state = 'running'"
)
_LONG_LOST = text(
    "SELECT a.id, a.run_id FROM attempts a JOIN runs r ON r.id = a.run_id AND r.attempt_id = a.id "
    "WHERE r.state = 'lost' AND r.ended_at IS NULL AND a.lost_at < :before"
)


def where_expired(connection: Connection, now_us: int) -> Sequence[AttemptRow]:
    """Return current attempts of running runs whose lease is over."""
    return connection.execute(_EXPIRED, {"now": now_us}).all()


def where_long_lost(connection: Connection, before_us: int) -> Sequence[AttemptRow]:
    """Return current attempts of lost runs that were lost before a time."""
    return connection.execute(_LONG_LOST, {"before": before_us}).all()
