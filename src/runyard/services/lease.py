"""Agents: hello, heartbeat, poll; leases and what happens when they run out.

Lost is two steps. When a lease ends the run is shown as ``lost`` but keeps its slots: the host may only be unreachable.
It is queued again when the host says that the process is gone, or after ten minutes. An attempt that reports before a
newer one has started its process keeps the run; otherwise it is told to stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runyard.services import settle
from runyard.services.api import Json
from runyard.services.assignments import assignments
from runyard.services.context import Change, Context
from runyard.services.finish import UNSTARTED, end_attempt, may_keep, take_over
from runyard.services.settle import Ending
from runyard.store import attempts, events, hosts, runs
from runyard.wire import states
from runyard.wire.errors import InvalidError, NotFoundError

KEEP = "keep"
STOP = "stop"


def hello(changes: Change, agent_id: str, body: Json) -> Json:
    """Register an agent, its host and slots; settle what it has and what it has no longer."""
    try:
        host = body["host"]
        _register(changes, agent_id, host, body)
        reported: Mapping[str, Json] = body["attempts"]
    except (KeyError, TypeError) as exc:
        raise InvalidError(f"the agent's hello is malformed: {exc!r}") from exc
    verdicts = judge(changes, agent_id, reported)
    for row in attempts.active_of_agent(changes.connection, agent_id):
        if row.id not in reported:
            _gone(changes, row)
    changes.tell("queue", f"agent:{agent_id}")
    return {"attempts": verdicts, "server_time": changes.now_us}


def _register(changes: Change, agent_id: str, host: Json, body: Json) -> None:
    connection, now = changes.connection, changes.now_us
    hosts.save_host(
        connection,
        id=host["id"],
        name=host["name"],
        boot_id=host["boot_id"],
        cpus=host["cpus"],
        mem=host["mem"],
        info=host,
        seen_at=now,
    )
    hosts.save_agent(
        connection,
        id=agent_id,
        host_id=host["id"],
        user_name=body["user"],
        pid=body["pid"],
        version=body["version"],
        shared_home=int(bool(body.get("shared_home"))),
        draining=0,
        seen_at=now,
    )
    hosts.save_slots(connection, host["id"], [slot_row(host["id"], slot) for slot in body["slots"]])


def slot_row(host_id: str, slot: Json) -> Json:
    """Return the row of a slot as an agent reports it."""
    return {
        "id": f"{host_id}:{slot['name']}",
        "host_id": host_id,
        "name": slot["name"],
        "kind": slot["kind"],
        "position": slot["index"],
        "uuid": slot.get("uuid"),
        "model": slot.get("model"),
        "mem": slot.get("mem"),
        "threads": slot.get("threads") or 1,
        "free": int(bool(slot.get("free", True))),
        "why": slot.get("why") or "",
        "present": 1,
    }


def heartbeat(changes: Change, agent_id: str, body: Json) -> Json:
    """Renew the leases of an agent's attempts; tell it which to keep and which to stop."""
    agent = hosts.find_agent(changes.connection, agent_id)
    if agent is None:
        raise InvalidError(f"agent {agent_id} is unknown", "it says hello first")
    hosts.save_agent(changes.connection, id=agent_id, seen_at=changes.now_us)
    fields = {name: body[name] for name in ("disk_free",) if body.get(name) is not None}
    hosts.save_host(changes.connection, id=agent.host_id, seen_at=changes.now_us, **fields)
    if body.get("slots") is not None:
        rows = [slot_row(agent.host_id, slot) for slot in body["slots"]]
        if hosts.save_slots(changes.connection, agent.host_id, rows):
            changes.tell("queue")
    return {
        "attempts": judge(changes, agent_id, body.get("attempts") or {}),
        "drain": bool(agent.draining),
    }


def drain(changes: Change, agent_id: str, on: bool) -> Json:
    """Let an agent take nothing new, and end once all that it has is reported; until it says hello again."""
    if hosts.find_agent(changes.connection, agent_id) is None:
        raise NotFoundError(f"there is no agent {agent_id}", "GET /api/v1/status lists them")
    hosts.save_agent(changes.connection, id=agent_id, draining=int(on))
    changes.tell("queue", f"agent:{agent_id}")
    return {"draining": on}


def judge(changes: Change, agent_id: str, reported: Mapping[str, Json]) -> dict[str, Json]:
    """Decide for each attempt that an agent has whether it goes on, and renew the leases of those that do."""
    rows = {row.id: row for row in attempts.active_of_agent(changes.connection, agent_id)}
    verdicts: dict[str, Json] = {}
    renewed: dict[str, int] = {}
    for attempt_id, said in reported.items():
        row = rows.get(attempt_id) or _adopt(changes, agent_id, attempt_id, said)
        if row is None:
            verdicts[attempt_id] = {"verdict": STOP}
            continue
        epoch = _epoch_if_kept(changes, row)
        if epoch is None:
            verdicts[attempt_id] = {"verdict": STOP}
            continue
        verdicts[attempt_id] = {"verdict": KEEP, "epoch": epoch}
        renewed[attempt_id] = epoch
        if said.get("phase") == states.STOPPING and row.phase == states.PHASE_RUNNING:
            attempts.set_fields(changes.connection, attempt_id, phase=states.STOPPING)
            state = states.RUNNING
            changes.note([events.row(changes.now_us, states.STOPPING, row.run_id, attempt_id, state, state, "yard")])
            changes.tell(f"run:{row.run_id}")
    attempts.renew(changes.connection, changes.lease_until, renewed)
    return verdicts


def _adopt(changes: Change, agent_id: str, attempt_id: str, said: Json) -> Any:
    """Take in an attempt that the yard forgot (it was restored from a backup) if its run waits to be started again."""
    if "slots" not in said or attempts.find(changes.connection, attempt_id) is not None:
        return None
    run = runs.lock(changes.connection, str(said.get("run")))
    agent = hosts.find_agent(changes.connection, agent_id)
    if run is None or agent is None or run.state not in (states.QUEUED, states.HELD):
        return None
    slots = [f"{agent.host_id}:{slot}" for slot in said["slots"]]
    if attempts.holders(changes.connection, slots):
        return None
    number = max(int(said.get("number") or 1), run.attempts + 1)
    epoch = int(run.epoch) + 1
    row = {
        "id": attempt_id, "run_id": run.id, "number": number, "epoch": epoch, "agent_id": agent_id,
        "host_id": agent.host_id, "slots": list(said["slots"]), "phase": said.get("phase") or states.PHASE_RUNNING,
        "active": 1, "lease_until": changes.now_us, "assigned_at": changes.now_us, "started_at": changes.now_us,
    }  # fmt: skip
    attempts.insert_many(changes.connection, [row])
    attempts.take_slots(changes.connection, [{"slot_id": slot, "attempt_id": attempt_id} for slot in slots])
    runs.set_fields(
        changes.connection,
        run.id,
        state=states.RUNNING,
        ready=0,
        epoch=epoch,
        attempt_id=attempt_id,
        attempts=number,
        host_id=agent.host_id,
        started_at=run.started_at or changes.now_us,
    )
    changes.event("adopted", run, states.RUNNING, attempt_id=attempt_id)
    return next(row for row in attempts.active_of_agent(changes.connection, agent_id) if row.id == attempt_id)


def _epoch_if_kept(changes: Change, row: Any) -> int | None:
    """Return the epoch under which a living attempt goes on, or None when it must stop."""
    if row.run_attempt == row.id and row.run_state == states.RUNNING:
        return int(row.epoch)
    run = runs.lock(changes.connection, row.run_id)
    row = attempts.find(changes.connection, row.id)
    if run is None or row is None or not row.active:
        return None
    if run.attempt_id == row.id and run.state == states.RUNNING:
        return int(row.epoch)
    return take_back(changes, run, row) if may_keep(changes, run, row) else None


def take_back(changes: Change, run: Any, row: Any) -> int:
    """Make a lost attempt the current one again, under a new epoch."""
    take_over(changes, run, row)
    epoch = int(run.epoch) + 1
    runs.set_fields(
        changes.connection,
        run.id,
        state=states.RUNNING,
        ready=0,
        epoch=epoch,
        ended_at=None,
        reason=None,
        origin=None,
        end_detail=None,
    )
    attempts.set_fields(changes.connection, row.id, epoch=epoch, lost_at=None)
    changes.event("returned", run, states.RUNNING, attempt_id=row.id)
    return epoch


def _gone(changes: Change, row: Any) -> None:
    """An attempt that its own host no longer knows: its process does not exist."""
    started = row.phase not in UNSTARTED
    reason = states.HOST_LOST if started else states.HANDED_BACK
    end_attempt(changes, row.id, {"reason": reason, "origin": states.INFRA if started else states.SCHEDULER})


def poll(context: Context, agent_id: str, known: Sequence[str]) -> Json:
    """Return what an agent must do now: assignments it has not heard of, and attempts to stop.

    A stop is in every answer until its attempt has ended: any answer may be lost, and heeding it twice changes nothing.
    """
    heard = set(known)
    with context.db.glance() as connection:
        rows = attempts.active_of_agent(connection, agent_id)
        agent = hosts.find_agent(connection, agent_id)
        fresh = [r for r in rows if r.id not in heard and r.phase == states.ASSIGNED and r.run_attempt == r.id]
        new = assignments(context, connection, fresh)
    stops = [stop for row in rows if row.id in heard and (stop := _stop(context, row)) is not None]
    return {"assign": new, "stop": stops, "drain": bool(agent is not None and agent.draining)}


def _stop(context: Context, row: Any) -> Json | None:
    grace = float(context.settings["grace"])
    if row.superseded or row.run_state in states.ENDED_STATES:
        return {"attempt": row.id, "grace_s": grace, "reason": states.SUPERSEDED, "origin": states.INFRA}
    if row.kill_at is not None and row.run_attempt == row.id:
        wanted = grace if row.kill_grace_s is None else row.kill_grace_s
        return {"attempt": row.id, "grace_s": wanted, "reason": states.STOPPED, "origin": states.HUMAN}
    return None


def expire(changes: Change) -> None:
    """Mark runs whose lease is over as lost; give up those that have been lost for long."""
    now = changes.now_us
    for found in attempts.where_expired(changes.connection, now):
        run, row = _locked(changes, found)
        if run.attempt_id != row.id or run.state != states.RUNNING or not row.active or row.lease_until >= now:
            continue  # it was heard of since we looked
        if row.phase in UNSTARTED:
            # The server never granted `running`, so no process exists and none will: the grant would be refused.
            end_attempt(changes, row.id, {"reason": states.HANDED_BACK, "origin": states.SCHEDULER})
            continue
        runs.set_fields(changes.connection, run.id, state=states.LOST)
        attempts.set_fields(changes.connection, row.id, lost_at=now)
        changes.event("lost", run, states.LOST, attempt_id=row.id)
    before = now - round(changes.timing.lost_requeue_s * 1e6)
    for found in attempts.where_long_lost(changes.connection, before):
        run, row = _locked(changes, found)
        lost = run.state == states.LOST and run.ended_at is None and run.attempt_id == row.id
        if lost and row.lost_at is not None and row.lost_at < before:
            _give_up(changes, run)


def _locked(changes: Change, found: Any) -> tuple[Any, Any]:
    """Lock the run of an attempt; return both as they are now."""
    run = runs.lock(changes.connection, found.run_id)
    return run, attempts.find(changes.connection, found.id)


def _give_up(changes: Change, run: Any) -> None:
    if run.kill_at is not None:
        ending = Ending(run=run, state=states.KILLED, reason=states.STOPPED, origin=states.HUMAN)
    else:
        losses = run.losses + 1
        if run.requeue and losses <= states.INFRA_LOSS_BUDGET:
            settle.requeue(changes, run, reason=states.HOST_LOST, losses=losses)
            return
        ending = Ending(run=run, state=states.LOST, reason=states.HOST_LOST, origin=states.INFRA, losses=losses)
    settle.end_runs(changes, [ending])
