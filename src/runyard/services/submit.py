"""Submitting runs: one transaction, whatever their number."""

from __future__ import annotations

import graphlib
import os
from collections.abc import Mapping, Sequence

from runyard.model.spec import Spec, parse_specs
from runyard.services import settle
from runyard.services.api import Actor, Json
from runyard.services.context import Change, Context, change, doubt_launches
from runyard.services.encode import Encoded, Encoder, rows
from runyard.store import events, records, runs
from runyard.store.database import Connection
from runyard.wire import states
from runyard.wire.errors import ConflictError, InvalidError, UnavailableError
from runyard.wire.files import write_json
from runyard.wire.ids import new_attempt_id

TOPICS_MAX = 100
"""Runs of one submit that are announced by name; nobody can follow more before they know the ids."""
_STATE = runs.INSERTED.index("state")


def submit(context: Context, bodies: Sequence[Json], env: Mapping[str, str] | None, actor: Actor) -> list[str]:
    """Queue runs and return their ids.

    Submitting the same spec under the same id again changes nothing.

    Raises:
        InvalidError: a spec is malformed, names a run to wait for that does not exist, or waits for itself.
        ConflictError: the id belongs to another run.
    """
    specs = parse_specs(bodies)
    encoder = Encoder()
    encoded = _distinct([encoder.encode(spec) for spec in specs])
    _refuse_cycles(specs)
    launch_id = _save_launch(context, env) if env is not None else None
    try:
        new: int = change(context, lambda changes: _insert(changes, encoder, encoded, launch_id, actor))
    except UnavailableError:
        if launch_id is not None:
            doubt_launches(context, [launch_id])  # it may be committed all the same
        raise
    except BaseException:
        _drop_launch(context, launch_id)
        raise
    if not new:
        _drop_launch(context, launch_id)
    return [spec.id for spec in specs]


def _distinct(encoded: Sequence[Encoded]) -> list[Encoded]:
    """Leave out specs that are there twice; raises ConflictError when they differ."""
    found: dict[str, Encoded] = {}
    for item in encoded:
        if found.setdefault(item.spec.id, item).digest != item.digest:
            raise _conflict(item.spec.id)
    return list(found.values())


def _conflict(run_id: str) -> ConflictError:
    return ConflictError(f"run {run_id} exists already, with another spec", "submit under a new id")


def _refuse_cycles(specs: Sequence[Spec]) -> None:
    """Runs can wait for older ones, or for others of the same submit: only there can there be a cycle."""
    graph = {spec.id: spec.shared["after"] for spec in specs if spec.shared["after"]}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as exc:
        raise InvalidError(
            f"these runs wait for each other: {' after '.join(exc.args[1][:10])}", "leave one of the --after away"
        ) from exc


def _save_launch(context: Context, env: Mapping[str, str]) -> str:
    launch_id = new_attempt_id()
    os.makedirs(context.home.launch, 0o700, exist_ok=True)
    path = os.path.join(context.home.launch, launch_id + ".json")
    write_json(path, {"env": dict(env)}, sync=True)  # as durable as the rows that need it
    return launch_id


def _drop_launch(context: Context, launch_id: str | None) -> None:
    if launch_id is not None:
        os.unlink(os.path.join(context.home.launch, launch_id + ".json"))


def _insert(changes: Change, encoder: Encoder, encoded: Sequence[Encoded], launch_id: str | None, actor: Actor) -> int:
    """Insert what is new; return how many runs that were."""
    connection, now = changes.connection, changes.now_us
    known = runs.where_known(connection, [item.spec.id for item in encoded])
    for item in encoded:
        if known.get(item.spec.id, item.digest) != item.digest:
            raise _conflict(item.spec.id)
    new = [item for item in encoded if item.spec.id not in known]
    if not new:
        return 0
    specs = [item.spec for item in new]
    records.know_user(connection, actor.user, now)
    waiting = _waiting(connection, specs)
    records.save_environments(connection, encoder.environments, now)
    values = rows(new, now, actor.user, launch_id, waiting)
    runs.insert_many(connection, values)
    kind, user = "submitted", actor.user
    changes.note([events.row(now, kind, row[0], None, None, row[_STATE], user) for row in values])
    _insert_tags_and_dependencies(connection, specs)
    settle.fail_dependents(changes, {run_id: failed for run_id, failed in waiting.items() if failed})
    changes.tell("queue", *(f"run:{spec.id}" for spec in specs[:TOPICS_MAX]))
    return len(new)


def _waiting(connection: Connection, specs: Sequence[Spec]) -> dict[str, str]:
    """Return the runs that must wait for others; the value names a dependency that has failed already, or is empty."""
    wanted = {after for spec in specs for after in spec.shared["after"]}
    if not wanted:
        return {}
    own = {spec.id for spec in specs}
    # Locked: one that ends meanwhile must either be seen to have ended here, or see who waits for it there.
    older = runs.lock_many(connection, wanted - own)
    missing = sorted(wanted - own - set(older))
    if missing:
        raise InvalidError(f"there is no run {', '.join(missing)} to wait for", "see the ids with: runyard ls")
    waiting: dict[str, str] = {}
    for spec in specs:
        open_ones = [after for after in spec.shared["after"] if after in own or older[after].state != states.FINISHED]
        failed = [after for after in open_ones if after not in own and older[after].ended_at is not None]
        if open_ones:
            waiting[spec.id] = failed[0] if failed else ""
    return waiting


def _insert_tags_and_dependencies(connection: Connection, specs: Sequence[Spec]) -> None:
    tags = [(spec.id, tag) for spec in specs for tag in dict.fromkeys(spec.shared["tags"])]
    after = [(spec.id, other) for spec in specs for other in dict.fromkeys(spec.shared["after"])]
    runs.add_tags_and_dependencies(connection, tags, after)
