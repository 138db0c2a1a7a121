"""What an agent does between being assigned an attempt and reporting its end."""

from __future__ import annotations

from typing import Any

from runyard.services.api import Json
from runyard.services.context import Change
from runyard.services.finish import UNSTARTED, end_attempt
from runyard.store import attempts, runs
from runyard.wire import states
from runyard.wire.errors import InvalidError, StaleError

_ALLOWED = {
    states.STAGING: (states.ASSIGNED, states.STAGING),
    states.PHASE_RUNNING: (states.ASSIGNED, states.STAGING, states.PHASE_RUNNING),
    states.STOPPING: (states.PHASE_RUNNING, states.STOPPING),
}


def enter(changes: Change, attempt_id: str, epoch: int, phase: str) -> Json:
    """Let an attempt enter a phase; `running` is the permission to execute the user's program.

    Raises:
        StaleError: the attempt is no longer the run's current one, somebody asked to stop the run, or the phase is over.
        InvalidError: there is no such phase.
    """
    if phase not in _ALLOWED:
        raise InvalidError(f"no phase {phase!r}", f"one of {', '.join(_ALLOWED)}")
    row = attempts.find(changes.connection, attempt_id)
    run = None if row is None else runs.lock(changes.connection, row.run_id)
    row = None if run is None else attempts.find(changes.connection, attempt_id)
    if row is None or run is None or not _may_enter(run, row, epoch, phase):
        raise StaleError(
            f"attempt {attempt_id} may not enter {phase}", "stop it and report its end", attempt=attempt_id
        )
    if row.phase != phase:
        _enter(changes, run, row, phase)
    attempts.set_fields(changes.connection, attempt_id, phase=phase, lease_until=changes.lease_until)
    return {"ok": True, "epoch": row.epoch}


def _may_enter(run: Any, row: Any, epoch: int, phase: str) -> bool:
    current = run.attempt_id == row.id and run.state == states.RUNNING and row.active == 1 and row.epoch == epoch
    unwanted = run.kill_at is not None and phase in (states.STAGING, states.PHASE_RUNNING)
    return current and not unwanted and row.phase in _ALLOWED[phase]


def _enter(changes: Change, run: Any, row: Any, phase: str) -> None:
    if phase == states.PHASE_RUNNING:
        attempts.set_fields(changes.connection, row.id, started_at=changes.now_us)
        if run.started_at is None:
            runs.set_fields(changes.connection, run.id, started_at=changes.now_us)
    changes.event(phase, run, attempt_id=row.id)


def hand_back(changes: Change, attempt_id: str, epoch: int, why: str) -> Json:
    """Take back an attempt whose slot proved busy; the run is queued again and no budget is touched.

    Raises:
        StaleError: the attempt is not one that has not started yet.
    """
    row = attempts.find(changes.connection, attempt_id)
    run = None if row is None else runs.lock(changes.connection, row.run_id)
    row = None if run is None else attempts.find(changes.connection, attempt_id)
    if row is None or row.epoch != epoch or (row.active and row.phase not in UNSTARTED):
        raise StaleError(f"attempt {attempt_id} cannot be handed back", "it has started, or is not known")
    if row.active:
        changes.event("handed_back", run, attempt_id=attempt_id, detail={"why": why})
        end_attempt(changes, attempt_id, {"reason": states.HANDED_BACK, "origin": states.SCHEDULER})
    return {"ok": True}
