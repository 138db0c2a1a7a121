"""Runs that a program began by itself, outside of the queue: an agent finds them on its host and says what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runyard.model.spec import parse_specs
from runyard.services.api import Json
from runyard.services.context import Change
from runyard.services.encode import Encoder, rows
from runyard.store import attempts, events, hosts, records, runs
from runyard.store.database import Connection
from runyard.wire import states
from runyard.wire.errors import ConflictError, NotFoundError
from runyard.wire.ids import new_attempt_id

GRACE_S = 30.0


def begin(changes: Change, agent_id: str, bodies: Sequence[Json]) -> list[Json]:
    """Take in runs that run already, each ``{"run", "started_us"}``; return what their agent has to know of each.

    Repeating it changes nothing. All are taken in or none.

    Raises:
        NotFoundError: the agent is not known.
        InvalidError: a spec is malformed.
        ConflictError: another agent has one of the runs.
    """
    connection = changes.connection
    agent = hosts.find_agent(connection, agent_id)
    if agent is None:
        raise NotFoundError(f"there is no agent {agent_id}", "it says hello first")
    encoder = Encoder()
    specs = {spec.id: spec for spec in parse_specs([body["run"] for body in bodies])}
    started = {body["run"]["id"]: min(body["started_us"], changes.now_us) for body in bodies}
    known = runs.where_known(connection, specs)
    fresh = [encoder.encode(spec) for spec in specs.values() if spec.id not in known]
    if fresh:
        records.know_user(connection, agent.user_name, changes.now_us)
        records.save_environments(connection, encoder.environments, changes.now_us)
        runs.insert_many(connection, rows(fresh, changes.now_us, agent.user_name, None, ()))
        tags = [(item.spec.id, tag) for item in fresh for tag in dict.fromkeys(item.spec.shared["tags"])]
        runs.add_tags_and_dependencies(connection, tags, [])
        _start(changes, agent, {item.spec.id: started[item.spec.id] for item in fresh})
    return _assignments(connection, agent_id, list(specs))


def _assignments(connection: Connection, agent_id: str, ids: Sequence[str]) -> list[Json]:
    found = runs.find_many(connection, ids)
    current = attempts.find_many(connection, [run.attempt_id for run in found.values() if run.attempt_id])
    answers = []
    for run_id in ids:
        run = found.get(run_id)
        attempt = None if run is None else current.get(run.attempt_id)
        if run is None or attempt is None or attempt.agent_id != agent_id:
            raise ConflictError(f"run {run_id} is not one that this agent has")
        answers.append({"attempt": attempt.id, "run": run_id, "epoch": attempt.epoch, "number": attempt.number, "slots": [],
                        "dir": run.dir, "grace_s": GRACE_S})  # fmt: skip
    return answers


def _start(changes: Change, agent: Any, started: Mapping[str, int]) -> None:
    """Let new runs have started at these times."""
    made = [
        {
            "id": new_attempt_id(), "run_id": run_id, "number": 1, "epoch": 1, "agent_id": agent.id,
            "host_id": agent.host_id, "slots": [], "phase": states.PHASE_RUNNING, "active": 1,
            "lease_until": changes.lease_until, "assigned_at": changes.now_us, "started_at": started_us,
        }
        for run_id, started_us in started.items()
    ]  # fmt: skip
    runs.start_many(
        changes.connection,
        [
            {"id": row["run_id"], "attempt": row["id"], "host": row["host_id"], "started": row["started_at"]}
            for row in made
        ],
    )
    attempts.insert_many(changes.connection, made)
    changes.note(
        [
            events.row(changes.now_us, "began", row["run_id"], row["id"], None, states.RUNNING, agent.user_name)
            for row in made
        ]
    )
    changes.tell(*(f"run:{run_id}" for run_id in started))
