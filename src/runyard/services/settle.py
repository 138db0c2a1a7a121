"""What follows when runs end: dependents become ready or fail, environment files are forgotten."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from runyard.services.api import Json
from runyard.services.context import Change
from runyard.store import runs
from runyard.wire import states


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The final state of a run, and why."""

    run: Any
    """Its row, locked."""
    state: str
    reason: str
    origin: str
    exit_code: int | None = None
    signal: int | None = None
    text: str | None = None
    """What was said of it, for people."""
    failures: int | None = None
    """Failures of the user's program, if they change."""
    losses: int | None = None
    """Losses of infrastructure, if they change."""
    ended_at: int | None = None
    """When its program ended; None: now."""
    actor: str = "yard"
    detail: Json | None = None


def end_runs(changes: Change, endings: Sequence[Ending]) -> None:
    """Give runs their final states, and settle those that wait for them, and so on."""
    while endings:
        _write(changes, endings)
        finished = [ending.run.id for ending in endings if ending.state == states.FINISHED]
        others = [ending.run.id for ending in endings if ending.state != states.FINISHED]
        make_ready(changes, {run_id for run_id, _ in runs.dependents(changes.connection, finished)})
        endings = _failing(changes, dict(runs.dependents(changes.connection, others)))


def _write(changes: Change, endings: Sequence[Ending]) -> None:
    runs.end_many(changes.connection, [_row(ending, changes.now_us) for ending in endings])
    for ending in endings:
        run = ending.run
        detail = {"reason": ending.reason, "origin": ending.origin, "exit_code": ending.exit_code,
                  "signal": ending.signal, **(ending.detail or {})}  # fmt: skip
        # Given up, not ended: should its attempt be heard of again, the run goes on and ends as that one does.
        kind = "given_up" if ending.state == states.LOST else "ended"
        changes.event(kind, run, ending.state, attempt_id=run.attempt_id, actor=ending.actor, detail=detail)
        changes.tell("ended:" + run.id)
        if run.launch_id is not None:
            changes.ended_launches.add(run.launch_id)
    changes.tell("queue")


def _row(ending: Ending, now_us: int) -> Json:
    run = ending.run
    return {
        "id": run.id,
        "state": ending.state,
        "ended_at": now_us if ending.ended_at is None else ending.ended_at,
        "exit_code": ending.exit_code,
        "signal": ending.signal,
        "reason": ending.reason,
        "origin": ending.origin,
        "end_detail": ending.text,
        "failures": run.failures if ending.failures is None else ending.failures,
        "losses": run.losses if ending.losses is None else ending.losses,
    }


def requeue(changes: Change, run: Any, *, reason: str, **fields: int) -> None:
    """Put a run back in the queue, one that nobody wants stopped; ``fields`` are the budgets to set (failures, losses).

    One that was held in the meantime stays held.
    """
    state = states.HELD if run.state == states.HELD else states.QUEUED
    runs.set_fields(
        changes.connection,
        run.id,
        state=state,
        ready=int(state == states.QUEUED),
        ended_at=None,
        **fields,
    )
    changes.event("requeued", run, state, attempt_id=run.attempt_id, detail={"reason": reason, **fields})
    changes.tell("queue")


def make_ready(changes: Change, ids: Collection[str]) -> None:
    """Let those of these queued runs compete for slots that wait for nothing any more."""
    if not ids:
        return
    # Locked first: of two dependencies that finish at once, the second must see that the first has.
    locked = runs.lock_many(changes.connection, ids)
    met = runs.where_met(changes.connection, sorted(locked))
    ready = [run_id for run_id in met if locked[run_id].state == states.QUEUED]
    runs.make_ready(changes.connection, ready)
    if ready:
        changes.tell("queue", *("run:" + run_id for run_id in ready))


def fail_dependents(changes: Change, failed: dict[str, str]) -> None:
    """End runs that wait for one that did not finish (run: the one it waits for)."""
    end_runs(changes, _failing(changes, failed))


def _failing(changes: Change, failed: dict[str, str]) -> list[Ending]:
    if not failed:
        return []
    locked = runs.lock_many(changes.connection, failed)
    return [
        Ending(
            run=run,
            state=states.FAILED,
            reason=states.DEPENDENCY_FAILED,
            origin=states.SCHEDULER,
            detail={"dependency": failed[run.id]},
        )
        for run in locked.values()
        if run.state in (states.QUEUED, states.HELD)
    ]
