"""Ends of attempts, and what they mean for their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runyard.services import settle
from runyard.services.context import Change
from runyard.services.settle import Ending
from runyard.store import attempts, events, runs
from runyard.wire import states
from runyard.wire.errors import InvalidError

ACCEPTED = "accepted"
"""The end became the run's."""
RECORDED = "recorded"
"""The attempt was no longer the run's current one: its end is kept with the attempt and changes nothing else."""
DUPLICATE = "duplicate"
"""The end had been reported before."""
UNKNOWN = "unknown"
UNSTARTED = (states.ASSIGNED, states.STAGING)
"""Phases in which there is no process: the server has not allowed to start one."""
OPEN = (states.RUNNING, states.LOST, states.QUEUED, states.HELD)
"""States of a run that an attempt of it may still keep. ``lost`` even for good: a lost network never stops a run."""
_RETRIED = frozenset({states.EXITED, states.SIGNALED, states.OUT_OF_MEMORY})

End = Mapping[str, Any]


def check(ends: Sequence[End]) -> None:
    """Refuse ends that make no sense; raises InvalidError naming the first."""
    for end in ends:
        if not isinstance(end.get("attempt"), str):
            raise InvalidError("an end names no attempt")
        if end.get("reason") not in states.END_REASONS or end.get("origin") not in states.ORIGINS:
            raise InvalidError(
                f"the end of attempt {end['attempt']} has no known reason and origin",
                f"reasons: {', '.join(states.END_REASONS)}; origins: {', '.join(states.ORIGINS)}",
            )


def finish(changes: Change, ends: Sequence[End]) -> dict[str, str]:
    """Take in ends as docs/protocol.md gives them; each is answered by itself, the first of several of one attempt."""
    left: dict[str, End] = {}
    for end in ends:
        left.setdefault(str(end["attempt"]), end)
    owners = attempts.runs_of(changes.connection, left)
    results = {attempt: UNKNOWN for attempt in left if attempt not in owners}
    while pending := {attempt: end for attempt, end in left.items() if attempt not in results}:
        one_per_run = {owners[attempt]: attempt for attempt in reversed(pending)}
        results.update(_round(changes, {attempt: pending[attempt] for attempt in one_per_run.values()}, owners))
    return {attempt: results[attempt] for attempt in left}


def end_attempt(changes: Change, attempt_id: str, end: End) -> str:
    """Record the end of an attempt, give back its slots, and let its run go on to whatever follows."""
    return finish(changes, [{**end, "attempt": attempt_id}])[attempt_id]


def _round(changes: Change, ends: Mapping[str, End], owners: Mapping[str, str]) -> dict[str, str]:
    """Take in ends of different runs."""
    locked = runs.lock_many(changes.connection, [owners[attempt] for attempt in ends])
    rows = attempts.find_many(changes.connection, ends)  # read after the lock: nobody changes them any more
    results = dict.fromkeys(ends, DUPLICATE)
    fresh = [rows[attempt] for attempt in ends if attempt in rows and rows[attempt].ended_at is None]
    attempts.end_many(changes.connection, [_row(row, ends[row.id], changes.now_us) for row in fresh])
    endings = []
    for row in fresh:
        run, end = locked[row.run_id], ends[row.id]
        changes.tell("queue", f"agent:{row.agent_id}")
        if not _counts(changes, run, row, end):
            results[row.id] = RECORDED
            changes.event("recorded", run, attempt_id=row.id, detail=_detail(end))
            continue
        results[row.id] = ACCEPTED
        if run.attempt_id != row.id:  # it is now: what follows is told of this attempt
            run = runs.lock_many(changes.connection, [run.id])[run.id]
        ending = _apply(changes, run, row, end)
        if ending is not None:
            endings.append(ending)
    settle.end_runs(changes, endings)
    return results


def _row(row: Any, end: End, now_us: int) -> dict[str, Any]:
    return {
        "id": row.id,
        "ended_at": end.get("ended_at") or now_us,
        "started_at": end.get("started_at") or row.started_at,
        "exit_code": end.get("exit_code"),
        "signal": end.get("signal"),
        "reason": end["reason"],
        "origin": end["origin"],
        "end_detail": _text(end),
        "log_bytes": end.get("log_bytes"),
        "log_dropped": end.get("log_dropped"),
    }


def _text(end: End) -> str | None:
    text = end.get("detail")
    return str(text)[:2000] if text else None


def _detail(end: End) -> dict[str, Any]:
    return {name: end.get(name) for name in ("reason", "origin", "exit_code", "signal")}


def _counts(changes: Change, run: Any, row: Any, end: End) -> bool:
    """Tell whether an end counts for the run, and if so make the attempt its current one.

    A result counts as long as no newer attempt has a process. That an attempt was lost is no news to a run that has been
    queued again, or been given to another attempt, because of it.
    """
    if run.attempt_id == row.id and run.state == states.RUNNING:
        return True
    if run.attempt_id == row.id and run.state == states.LOST and run.ended_at is None:
        return True
    if end["origin"] == states.INFRA or end["reason"] == states.HANDED_BACK:
        return False
    if not may_keep(changes, run, row):
        return False
    take_over(changes, run, row)
    return True


def may_keep(changes: Change, run: Any, row: Any) -> bool:
    """Tell whether an attempt that was lost, and now is heard of again, keeps its run (whose row is locked)."""
    if run.state not in OPEN or row.phase in UNSTARTED:
        return False
    return not attempts.newer_started(changes.connection, run.id, row.number)


def take_over(changes: Change, run: Any, row: Any) -> None:
    """Make an attempt the current one of its run; the one that is, and has no process, never will have one."""
    if run.attempt_id == row.id:
        return
    current = attempts.find(changes.connection, run.attempt_id)
    if current is not None and current.ended_at is None:
        end = {"reason": states.SUPERSEDED, "origin": states.INFRA}
        attempts.end_many(changes.connection, [_row(current, end, changes.now_us)])
        changes.tell("queue", f"agent:{current.agent_id}")
        changes.note(
            [events.row(changes.now_us, "superseded", run.id, current.id, run.state, run.state, "yard", _detail(end))]
        )
    runs.set_fields(changes.connection, run.id, attempt_id=row.id, host_id=row.host_id, epoch=run.epoch + 1)


def _apply(changes: Change, run: Any, row: Any, end: End) -> Ending | None:
    """Queue the run again, or return how it ends."""
    reason, origin = str(end["reason"]), str(end["origin"])
    killed = run.kill_at is not None
    failures = losses = None
    if not killed and reason == states.HANDED_BACK:
        settle.requeue(changes, run, reason=reason)
        return None
    if not killed and origin == states.USER and reason in _RETRIED and end.get("exit_code") != 0:
        failures = run.failures + 1
        if failures <= run.retries and not _was_given_up(run):
            settle.requeue(changes, run, reason=reason, failures=failures)
            return None
    if not killed and origin == states.INFRA:
        losses = run.losses + 1
        if run.requeue and losses <= states.INFRA_LOSS_BUDGET:
            settle.requeue(changes, run, reason=reason, losses=losses)
            return None
    return Ending(
        run=run,
        state=_final_state(killed, reason, origin, end.get("exit_code")),
        reason=states.STOPPED if killed else reason,
        origin=states.HUMAN if killed else origin,
        exit_code=end.get("exit_code"),
        signal=end.get("signal"),
        text=_text(end),
        failures=failures,
        losses=losses,
        ended_at=_ended_at(row, end, changes.now_us),
        detail={"attempt": row.number},
    )


def _was_given_up(run: Any) -> bool:
    """Tell whether a run was ended as lost before this attempt was heard of again: its environment is gone since."""
    return bool(run.losses > (states.INFRA_LOSS_BUDGET if run.requeue else 0))


def _ended_at(row: Any, end: End, now_us: int) -> int:
    """Return when the program ended, which may be long before it could be reported.

    Start and end of the report are of the host's clock, which may be wrong; the time between them is not.
    """
    started, ended = end.get("started_at"), end.get("ended_at")
    if row.started_at is None or started is None or ended is None:
        return now_us
    return int(min(row.started_at + max(ended - started, 0), now_us))


def _final_state(killed: bool, reason: str, origin: str, exit_code: int | None) -> str:
    if killed or origin == states.HUMAN:
        return states.KILLED
    if reason == states.EXITED and exit_code == 0:
        return states.FINISHED
    if reason in (states.HOST_LOST, states.HOST_REBOOTED):
        return states.LOST
    return states.FAILED
