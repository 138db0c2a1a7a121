"""What people do to runs: kill, hold, release, edit, remove, restore."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from runyard.model.spec import PRIORITY_LIMIT, TEXT_LIMIT, is_file_name, is_name, is_tag
from runyard.services import settle
from runyard.services.api import Actor
from runyard.services.context import Change, Context
from runyard.services.find import find_run
from runyard.services.settle import Ending
from runyard.store import attempts, runs
from runyard.store.types import dump_json
from runyard.wire import states
from runyard.wire.errors import ConflictError, InvalidError, NotFoundError

_WAITING = (states.QUEUED, states.HELD)


def kill(changes: Change, ref: str, now: bool, actor: Actor) -> str:
    """Stop a run: a waiting one ends at once, a running one gets SIGTERM, and SIGKILL after the grace time.

    Raises:
        ConflictError: the run has ended already.
    """
    run = _locked(changes, ref, actor)
    # Given up and never heard of again, it may still go on somewhere: then a kill has something to stop.
    lost = run.state == states.LOST and bool(_living(changes, run))
    if run.state in _WAITING or lost:
        ending = Ending(run=run, state=states.KILLED, reason=states.STOPPED, origin=states.HUMAN, actor=actor.user)
        settle.end_runs(changes, [ending])
        _tell_agents(changes, run)
        return str(run.id)
    if run.state != states.RUNNING:
        raise ConflictError(f"run {run.id} has ended already ({run.state})", "to repeat it: runyard rerun " + run.id)
    fields: dict[str, Any] = {"kill_grace_s": 0.0 if now else run.kill_grace_s}
    if run.kill_at is None:
        fields.update(kill_at=changes.now_us, kill_by=actor.user)
        changes.event("kill", run, attempt_id=run.attempt_id, actor=actor.user, detail={"now": now})
    runs.set_fields(changes.connection, run.id, **fields)
    _tell_agents(changes, run)
    changes.tell(f"run:{run.id}")
    return str(run.id)


def _living(changes: Change, run: Any) -> list[Any]:
    """Return the attempts of a run whose processes may live."""
    return [row for row in attempts.of_runs(changes.connection, [run.id]).get(run.id, ()) if row.active]


def _tell_agents(changes: Change, run: Any) -> None:
    changes.tell(*(f"agent:{row.agent_id}" for row in _living(changes, run)))


def hold(changes: Change, ref: str, actor: Actor) -> str:
    """Keep a queued run from starting."""
    run = _locked(changes, ref, actor)
    if run.state == states.HELD:
        return str(run.id)
    if run.state != states.QUEUED:
        raise ConflictError(
            f"run {run.id} is {run.state}; only a queued run can be held", "see: runyard show " + run.id
        )
    runs.set_fields(changes.connection, run.id, state=states.HELD, ready=0)
    _event(changes, run, "held", states.HELD, actor)
    return str(run.id)


def release(changes: Change, ref: str, actor: Actor) -> str:
    """Let a held run compete for slots again; it keeps its place by time of submission."""
    run = _locked(changes, ref, actor)
    if run.state == states.QUEUED:
        return str(run.id)
    if run.state != states.HELD:
        raise ConflictError(f"run {run.id} is {run.state}; only a held run can be released")
    runs.set_fields(changes.connection, run.id, state=states.QUEUED)
    _event(changes, run, "released", states.QUEUED, actor)
    settle.make_ready(changes, [run.id])
    return str(run.id)


def edit(changes: Change, ref: str, body: Mapping[str, Any], actor: Actor) -> str:
    """Change message, name, project, priority, tags, and whether a run is archived.

    Raises:
        InvalidError: naming every field that cannot be changed or has a wrong value.
    """
    run = _locked(changes, ref, actor)
    for name, value in body.items():
        if name not in _EDITABLE:
            raise InvalidError(f"{name} cannot be changed", f"what can be: {', '.join(_EDITABLE)}")
        fits, must = _EDITABLE[name]
        if not fits(value):
            raise InvalidError(f"{str(value)[:100]!r} cannot be the {name} of a run", f"it must be {must}")
    values = {name: body[name] for name in ("message", "name", "project") if name in body}
    if "priority" in body:
        values["priority_rank"] = -body["priority"]
    if "archived" in body:
        values["archived_at"] = changes.now_us if body["archived"] else None
    if values:
        runs.set_fields(changes.connection, run.id, **values)
    runs.set_tags(changes.connection, run.id, body.get("add_tags") or (), body.get("remove_tags") or ())
    _event(changes, run, "edited", run.state, actor, {name: body[name] for name in body if name != "message"})
    if "priority" in body:
        changes.tell("queue")
    return str(run.id)


def _are_tags(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_tag, value))


_EDITABLE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "message": (lambda v: isinstance(v, str) and len(v) <= TEXT_LIMIT, f"text of at most {TEXT_LIMIT} characters"),
    "name": (
        lambda v: v is None or is_name(v),
        "text without a slash that is no run's id and does not start with @ or -",
    ),
    "project": (is_file_name, "what can be a directory's name, of at most 200 bytes"),
    "priority": (
        lambda v: isinstance(v, int) and not isinstance(v, bool) and abs(v) <= PRIORITY_LIMIT,
        f"a whole number of at most {PRIORITY_LIMIT}, or its negative",
    ),
    "archived": (lambda v: isinstance(v, bool), "true or false"),
    "add_tags": (_are_tags, "a list of printable texts of 1 to 200 characters"),
    "remove_tags": (_are_tags, "a list of printable texts of 1 to 200 characters"),
}
"""What may be changed of a run: whether a value fits, and what it must be."""


def remove(changes: Change, ref: str, actor: Actor) -> str:
    """Move an ended run to the trash.

    Raises:
        ConflictError: the run has not ended, or its process may still live.
    """
    run = _locked(changes, ref, actor)
    if run.ended_at is None:
        raise ConflictError(f"run {run.id} is {run.state} and cannot be removed", "first: runyard kill " + run.id)
    if _living(changes, run):
        raise ConflictError(
            f"run {run.id} cannot be removed: its host has not confirmed that its process is gone",
            "try again when the host is back",
        )
    if run.trashed_at is None:
        runs.set_fields(changes.connection, run.id, trashed_at=changes.now_us)
        _event(changes, run, "trashed", run.state, actor)
    changes.tell(f"run:{run.id}")
    return str(run.id)


def discard(changes: Change, run_id: str, before_us: int | None, actor: Actor) -> None:
    """Forget a run that is in the trash, if it was so before a time."""
    run = runs.lock(changes.connection, run_id)
    if run is None or run.trashed_at is None or (before_us is not None and run.trashed_at >= before_us):
        return
    runs.remove(changes.connection, run.id)
    changes.event("removed", run, actor=actor.user)


def restore(changes: Change, ref: str, actor: Actor) -> str:
    """Bring a removed run back from the trash."""
    run = _locked(changes, ref, actor)
    if run.trashed_at is not None:
        runs.set_fields(changes.connection, run.id, trashed_at=None)
        _event(changes, run, "restored", run.state, actor)
    return str(run.id)


def trash_path(context: Context, run_dir: str) -> str:
    """Return where the directory of a removed run waits: its own path below ``trash/``."""
    return os.path.join(context.home.trash, os.path.relpath(run_dir, "runs"))


def move_directory(source: str, target: str) -> None:
    """Rename a directory if it is there; the target's parents are made."""
    if os.path.isdir(source):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(source, target)


def delete_directory(path: str) -> None:
    """Delete a directory and what is in it, if it is there, read-only directories too; links in it are not followed."""
    if os.path.islink(path):
        os.unlink(path)
    places = [path] if os.path.isdir(path) else []
    for place in places:  # those below are added on the way
        with contextlib.suppress(OSError):
            os.chmod(place, 0o700)
            places.extend(entry.path for entry in os.scandir(place) if entry.is_dir(follow_symlinks=False))
    if places:
        shutil.rmtree(path)


def _locked(changes: Change, ref: str, actor: Actor) -> Any:
    found = find_run(changes.connection, ref, actor)
    run = runs.lock(changes.connection, found.id)
    if run is None:
        raise NotFoundError(f"run {found.id} has just been removed", "see the runs with: runyard ls")
    return run


def _event(changes: Change, run: Any, kind: str, to: str, actor: Actor, detail: Any = None) -> None:
    if detail is not None and len(dump_json(detail)) > 4096:
        detail = None
    changes.event(kind, run, to, actor=actor.user, detail=detail)
