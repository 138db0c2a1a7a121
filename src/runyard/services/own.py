"""Runs that a program began by itself, outside of the queue: an agent finds them on its host and says what they are."""

from __future__ import annotations

from typing import Any

from runyard.model.spec import parse_specs
from runyard.services.api import Json
from runyard.services.context import Change
from runyard.services.encode import Encoder, rows
from runyard.store import attempts, events, hosts, records, runs
from runyard.wire import states
from runyard.wire.errors import ConflictError, NotFoundError
from runyard.wire.ids import new_attempt_id

GRACE_S = 30.0


def begin(changes: Change, agent_id: str, body: Json, started_us: int) -> Json:
    """Take in a run that runs already; return what its agent has to know of it. Repeating it changes nothing.

    Raises:
        NotFoundError: the agent is not known.
        InvalidError: the spec is malformed.
        ConflictError: another agent has that run.
    """
    connection = changes.connection
    agent = hosts.find_agent(connection, agent_id)
    if agent is None:
        raise NotFoundError(f"there is no agent {agent_id}", "it says hello first")
    encoder = Encoder()
    encoded = [encoder.encode(spec) for spec in parse_specs([body])]
    run = runs.find(connection, body["id"])
    if run is None:
        records.know_user(connection, agent.user_name, changes.now_us)
        records.save_environments(connection, encoder.environments, changes.now_us)
        values = rows(encoded, changes.now_us, agent.user_name, None, ())
        runs.insert_many(connection, values)
        runs.add_tags_and_dependencies(connection, [(body["id"], tag) for tag in dict.fromkeys(body["tags"])], [])
        _start(changes, body["id"], agent, agent_id, min(started_us, changes.now_us))
        run = runs.find(connection, body["id"])
    attempt: Any = attempts.find(connection, run.attempt_id) if run is not None and run.attempt_id else None
    if run is None or attempt is None or attempt.agent_id != agent_id:
        raise ConflictError(f"run {body['id']} is not one that this agent has")
    return {
        "attempt": attempt.id, "run": run.id, "epoch": attempt.epoch, "number": attempt.number, "slots": [],
        "dir": run.dir, "spec": body, "grace_s": GRACE_S,
    }  # fmt: skip


def _start(changes: Change, run_id: str, agent: Any, agent_id: str, started_us: int) -> None:
    connection = changes.connection
    attempt = {
        "id": new_attempt_id(), "run_id": run_id, "number": 1, "epoch": 1, "agent_id": agent_id,
        "host_id": agent.host_id, "slots": [], "phase": states.PHASE_RUNNING, "active": 1,
        "lease_until": changes.lease_until, "assigned_at": changes.now_us, "started_at": started_us,
    }  # fmt: skip
    runs.set_fields(
        connection, run_id, state=states.RUNNING, ready=0, epoch=1, attempts=1, attempt_id=attempt["id"],
        started_at=started_us, host_id=agent.host_id,
    )  # fmt: skip
    attempts.insert_many(connection, [attempt])
    changes.note([events.row(changes.now_us, "began", run_id, attempt["id"], None, states.RUNNING, agent.user_name)])
    changes.tell(f"run:{run_id}", f"agent:{agent_id}")
