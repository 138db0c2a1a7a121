"""Assigning queued runs to free slots.

The plan is a pure function (`runyard.scheduler.plan`); carrying it out is one transaction that takes only runs that are
still ready and slots that are still free: the primary key of ``slot_use`` refuses a second holder.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, cast

from runyard.model.placement import HostState, Plan, Refusal, Request, Slot, Start
from runyard.scheduler import blocked_keys, held_resources, plan
from runyard.services.api import Json
from runyard.services.context import Change, Context, change
from runyard.services.encode import request_of
from runyard.store import attempts, events, hosts, runs
from runyard.store.database import Connection, TakenError
from runyard.wire import states
from runyard.wire.ids import new_attempt_id
from runyard.wire.settings import parse_size

PAGE = 16
PAGES_MAX = 50
"""Bound on the pages of one round: each page ends with resource keys that cannot start now, which the next leaves out."""


def assign(context: Context, accepting: Collection[str], pause: str) -> int:
    """Start what can start now on the slots of these agents; return how many runs were assigned.

    ``pause`` is a reason why nothing may start at all (disk full, waiting for agents after a restore), or empty.
    """
    if pause or not accepting:
        return 0
    try:
        return cast("int", change(context, lambda changes: _assign(context, changes, accepting)))
    except TakenError:
        return 0  # another process took one of the slots; the next tick looks again


def _assign(context: Context, changes: Change, accepting: Collection[str]) -> int:
    connection = changes.connection
    started, skip = 0, set[str]()
    waiting: list[Request] = []  # from the pages before: they keep what they wait for
    rows: dict[str, Any] = {}
    for _ in range(PAGES_MAX):
        state = host_states(connection, accepting, min_free(context))
        free = sum(slot.free for host in state if host.accepts for slot in host.slots)
        if not free:
            break
        limit = max(PAGE, free)  # every start takes a slot at least
        page = runs.queue_page(connection, skip, limit)
        if not page:
            break
        rows |= {row.id: row for row in page}
        requests = waiting + _requests(context, connection, page, changes.now_us)
        planned = plan(requests, state, changes.now_us, explained=())
        started += _carry_out(changes, planned, rows)
        waiting = [request for request in requests if request.run_id in planned.waits]
        blocked = blocked_keys(waiting, planned)
        taken = sum(len(start.slot_ids) for start in planned.starts)
        if taken == free or len(page) < limit or not blocked - skip:
            break
        skip |= blocked
    return started


def _requests(context: Context, connection: Connection, rows: Sequence[Any], now_us: int) -> list[Request]:
    wait_us = round(context.timing.refusal_s * 1e6)
    tried = [row.id for row in rows if row.attempts]
    refusals: dict[str, dict[str, Refusal]] = {}
    for event in events.handed_back(connection, tried, now_us - wait_us, now_us):
        said = Refusal(host_id=event.host_id, until_us=event.at + wait_us, why=str(event.detail["why"]))
        refusals.setdefault(event.run_id, {})[event.host_id] = said
    found = []
    for row in rows:
        request = request_of(row.id, -row.priority_rank, row.seq, row.resources, row.time_limit_s, row.user_name)
        said_of = refusals.get(row.id)
        found.append(replace(request, refusals=tuple(said_of.values())) if said_of else request)
    return found


def min_free(context: Context) -> int:
    """Return the free disk space (bytes) below which nothing new starts (setting ``min_free``)."""
    return parse_size(str(context.settings["min_free"]))


def host_states(connection: Connection, accepting: Collection[str], least_free: int) -> list[HostState]:
    """Return what the scheduler may use: one `HostState` per host, with its slots and their holders."""
    by_host: dict[str, list[Any]] = {}
    for row in hosts.slots_in_use(connection):
        by_host.setdefault(row.host_id, []).append(row)
    found = []
    claimed = set[str]()
    for agent in sorted(hosts.all_agents(connection), key=lambda row: (row.id not in accepting, -row.seen_at)):
        if agent.host_id in claimed:
            continue  # slots belong to the host; the agent heard of last speaks for it
        claimed.add(agent.host_id)
        rows = by_host.get(agent.host_id, [])
        held = _held(rows)
        why = _unwilling(agent, accepting, least_free)
        found.append(
            HostState(
                id=agent.host_id,
                name=agent.host_name,
                agent_id=agent.id,
                cpus=agent.cpus,
                mem=agent.mem,
                cpus_used=sum(cpus for cpus, _ in held.values()),
                mem_used=sum(mem for _, mem in held.values()),
                accepts=not why,
                why=why,
                slots=tuple(_slot(row, held.pop(row.attempt_id, (0, 0))) for row in rows),
            )
        )
    return sorted(found, key=lambda host: host.id)


def _unwilling(agent: Any, accepting: Collection[str], least_free: int) -> str:
    """Return why a host takes nothing new, in words, or nothing."""
    if agent.id not in accepting:
        return "its agent is not connected"
    if agent.draining:
        return "it is being drained"
    if agent.disk_free is not None and agent.disk_free < least_free:
        return f"its disk has {agent.disk_free >> 20} MiB free, less than min_free"
    return ""


def _held(rows: Sequence[Any]) -> dict[str, tuple[int, int]]:
    """Return what each attempt on a host has of its cores and memory."""
    by_attempt: dict[str, list[Any]] = {}
    for row in rows:
        if row.attempt_id is not None:
            by_attempt.setdefault(row.attempt_id, []).append(row)
    return {
        attempt: held_resources(request_of(slots[0].run_id, 0, 0, slots[0].resources or {}, None, ""), slots)
        for attempt, slots in by_attempt.items()
    }


def _slot(row: Any, held: tuple[int, int]) -> Slot:
    """``held``: cores and memory that end with its holder, to be said of one of the holder's slots."""
    until = None
    if row.attempt_id is not None and row.time_limit_s is not None:
        until = (row.started_at or row.assigned_at) + int(row.time_limit_s * 1e6)
    return Slot(
        id=row.id,
        host_id=row.host_id,
        name=row.name,
        kind=row.kind,
        index=row.position,
        model=row.model or "",
        mem=row.mem or 0,
        threads=row.threads,
        free=bool(row.free) and row.attempt_id is None,
        why=row.why if row.attempt_id is None else "",
        busy_until_us=until,
        holder_run=row.run_id,
        cpus_held=held[0],
        mem_held=held[1],
    )


def _carry_out(changes: Change, planned: Plan, rows: dict[str, Any]) -> int:
    if not planned.starts:
        return 0
    locked = runs.lock_ready(changes.connection, [start.run_id for start in planned.starts])
    starts = [start for start in planned.starts if start.run_id in locked]
    if not starts:
        return 0
    ids = [new_attempt_id() for _ in starts]
    runs.assign(
        changes.connection,
        [
            {"id": s.run_id, "epoch": locked[s.run_id] + 1, "attempt": attempt, "number": rows[s.run_id].attempts + 1,
             "host": s.host_id}
            for s, attempt in zip(starts, ids, strict=True)
        ],
    )  # fmt: skip
    attempts.insert_many(
        changes.connection,
        [
            _attempt(start, attempt, rows[start.run_id], locked[start.run_id] + 1, changes)
            for start, attempt in zip(starts, ids, strict=True)
        ],
    )
    attempts.take_slots(
        changes.connection,
        [{"slot_id": slot, "attempt_id": a} for s, a in zip(starts, ids, strict=True) for slot in s.slot_ids],
    )
    changes.note(
        [
            events.row(changes.now_us, "assigned", s.run_id, a, states.QUEUED, states.RUNNING, "yard",
                       {"host": s.host_id, "slots": list(s.slot_ids)})
            for s, a in zip(starts, ids, strict=True)
        ],
    )  # fmt: skip
    changes.tell(*(f"agent:{start.agent_id}" for start in starts), *(f"run:{start.run_id}" for start in starts))
    return len(starts)


def _attempt(start: Start, attempt: str, row: Any, epoch: int, changes: Change) -> Json:
    return {
        "id": attempt,
        "run_id": start.run_id,
        "number": row.attempts + 1,
        "epoch": epoch,
        "agent_id": start.agent_id,
        "host_id": start.host_id,
        "slots": [slot.partition(":")[2] for slot in start.slot_ids],
        "phase": states.ASSIGNED,
        "active": 1,
        "lease_until": changes.lease_until,
        "assigned_at": changes.now_us,
    }


def explain(context: Context, run: Any, accepting: Collection[str], pause: str) -> tuple[list[str], int | None]:
    """Return why a queued run waits, in words, and when it is expected to start (microseconds, None: unknown)."""
    with context.db.read() as connection:
        now = context.clock.now_us(connection)
        reasons = _missing(connection, run)
        if pause:
            reasons.append(pause)
        if reasons:
            return reasons, None
        rows, ahead = list(runs.queue_page(connection, (), 500)), ""
        if not any(row.id == run.id for row in rows):
            if len(rows) < 500:
                return ["it starts in a moment"], now
            ahead = "more than 500 runs are before it in the queue"
            rows.append(run)
        page = _requests(context, connection, rows, now)
        state = host_states(connection, accepting, min_free(context))
        waits = plan(page, state, now, explained=(run.id,)).waits.get(run.id)
    if waits is None:
        return [ahead] if ahead else ["it starts in a moment"], None
    return ([ahead] if ahead else []) + list(waits.reasons), waits.expected_start_us


def _missing(connection: Connection, run: Any) -> list[str]:
    if run.state == states.HELD:
        return ["held: runyard release " + run.id]
    return [f"waits for run {row.id}, which is {row.state}" for row in runs.open_dependencies(connection, run.id)]
