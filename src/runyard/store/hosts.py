"""Rows of hosts, agents and slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Table, bindparam, insert, select, update

from runyard.store.tables import agents, attempts, hosts, runs, slot_use, slots


def upsert(connection: Connection, table: Table, key: str, values: Mapping[str, Any]) -> None:
    """Update the row with this key, or insert it: two statements that every database has."""
    others = {name: value for name, value in values.items() if name != key}
    done = connection.execute(update(table).where(table.c[key] == values[key]).values(**others)).rowcount
    if not done:
        connection.execute(insert(table).values(**values))


def save_host(connection: Connection, **values: Any) -> None:
    """Insert or update a host."""
    upsert(connection, hosts, "id", values)


def save_agent(connection: Connection, **values: Any) -> None:
    """Insert or update an agent."""
    upsert(connection, agents, "id", values)


def save_slots(connection: Connection, host_id: str, reported: Sequence[Mapping[str, Any]]) -> bool:
    """Make the slots of a host what its agent reports; tell if anything changed."""
    have = {row.id: row for row in connection.execute(select(slots).where(slots.c.host_id == host_id))}
    changed = False
    for values in reported:
        old = have.pop(values["id"], None)
        if old is None or any(old._mapping[name] != value for name, value in values.items()):
            upsert(connection, slots, "id", values)
            changed = True
    for row in have.values():
        if row.present:
            connection.execute(update(slots).where(slots.c.id == row.id).values(present=0))
            changed = True
    return changed


# Statements of the hot paths are built once: building one takes longer than running it.
_FIND_AGENT = select(agents).where(agents.c.id == bindparam("id"))
_ALL_AGENTS = (
    select(agents, hosts.c.name.label("host_name"), hosts.c.cpus, hosts.c.mem, hosts.c.boot_id, hosts.c.disk_free)
    .join(hosts, hosts.c.id == agents.c.host_id)
    .order_by(agents.c.id)
)


def all_agents(connection: Connection) -> Sequence[Row[Any]]:
    """Return every agent with its host's columns (``host_name, cpus, mem, boot_id, disk_free``)."""
    return connection.execute(_ALL_AGENTS).all()


def names(connection: Connection) -> dict[str, str]:
    """Return the names of hosts by id."""
    return {row.id: row.name for row in connection.execute(select(hosts.c.id, hosts.c.name))}


def whys(connection: Connection, host_id: str, slot_names: Sequence[str]) -> list[str]:
    """Return what a host says is in the way of these slots: ``name: why``; nothing of those that have no such words."""
    ids = [f"{host_id}:{name}" for name in slot_names]
    query = select(slots.c.name, slots.c.why).where(slots.c.id.in_(ids), slots.c.why != "").order_by(slots.c.id)
    return [f"{row.name}: {row.why}" for row in connection.execute(query)]


def find_agent(connection: Connection, agent_id: str) -> Row[Any] | None:
    """Return one agent, or None."""
    return connection.execute(_FIND_AGENT, {"id": agent_id}).first()


_SLOTS_IN_USE = (
    select(
        slots,
        slot_use.c.attempt_id,
        attempts.c.run_id,
        attempts.c.assigned_at,
        attempts.c.started_at,
        runs.c.time_limit_s,
        runs.c.resources,
    )
    .join(slot_use, slot_use.c.slot_id == slots.c.id, isouter=True)
    .join(attempts, attempts.c.id == slot_use.c.attempt_id, isouter=True)
    .join(runs, runs.c.id == attempts.c.run_id, isouter=True)
    .where(slots.c.present == 1)
    .order_by(slots.c.host_id, slots.c.kind.desc(), slots.c.position)
)


def slots_in_use(connection: Connection) -> Sequence[Row[Any]]:
    """Return every present slot; those in use with ``attempt_id, run_id, started_at, assigned_at, time_limit_s, resources``."""
    return connection.execute(_SLOTS_IN_USE).all()
