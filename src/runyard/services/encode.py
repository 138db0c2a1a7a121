"""Specs of runs as rows. What many specs of one submit share is encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from runyard.model.placement import Request
from runyard.model.spec import COLUMNS, FIELDS, Spec, command_text
from runyard.scheduler import resource_key
from runyard.services.api import Json
from runyard.store.types import dump_json, escape
from runyard.wire import states
from runyard.wire.errors import InvalidError
from runyard.wire.paths import run_dir_name
from runyard.wire.settings import parse_goal


def request_of(run_id: str, priority: int, seq: int, resources: Json, limit: float | None, user: str) -> Request:
    """Return what the scheduler needs to know of a run."""
    return Request(
        run_id=run_id,
        priority=priority,
        seq=seq,
        gpus=resources.get("gpus"),
        cpus=resources.get("cpus"),
        mem=resources.get("mem"),
        gpu_model=resources.get("gpu_model"),
        host=resources.get("host"),
        time_limit_s=limit,
        user=user,
    )


class Encoded(NamedTuple):
    """A spec as it is stored."""

    spec: Spec
    rest: str
    """JSON object of the fields that have no column of their own."""
    digest: str
    """Hash of all fields, by which a repeated submit is known."""
    common: Common


@dataclass(frozen=True, slots=True)
class Common:
    """What specs have in common that share all but their own fields."""

    before: str
    """Their JSON up to the command."""
    after: str
    """Their JSON from the command on."""
    hashed: bytes
    env_hash: str | None
    resource_key: str
    resources: str
    goal: tuple[int, str] | None
    code: tuple[str | None, str | None, int | None]
    """Commit, branch, and whether the tree differed from it; None where it is not known."""


class Encoder:
    """Encodes the specs of one submit. What they share is known by its identity, so it must not change meanwhile."""

    def __init__(self) -> None:
        self._common: dict[int, tuple[Json, Common]] = {}
        self._texts: dict[int, tuple[Any, str]] = {}
        self.environments: dict[str, Json] = {}
        """What was recorded of environments, by hash."""

    def encode(self, spec: Spec) -> Encoded:
        """Return a spec as it is stored; raises InvalidError for a value that JSON cannot carry (NaN)."""
        known = self._common.get(id(spec.shared))
        if known is None:
            known = self._common[id(spec.shared)] = spec.shared, self._encode_shared(spec.shared)
        common = known[1]
        rest = common.before + _dump(spec.command) + common.after
        own = (_dump(spec.name) + _dump(spec.message) + rest).encode()
        return Encoded(spec, rest, hashlib.sha256(common.hashed + own).hexdigest(), common)

    def _encode_shared(self, shared: Json) -> Common:
        before = ",".join(f'"{name}":{self._text(shared[name])}' for name in _REST if name < _COMMAND)
        after = ",".join(f'"{name}":{self._text(shared[name])}' for name in _REST if name > _COMMAND)
        env_hash = None
        if shared["environment"]:
            env_hash = hashlib.sha256(self._text(shared["environment"]).encode()).hexdigest()
            self.environments[env_hash] = shared["environment"]
        hashed = [self._text(shared[name]) for name in _HASHED]
        return Common(
            before=f'{{{before},"{_COMMAND}":',
            after=f",{after}}}",
            hashed="\0".join((*hashed, env_hash or "", "")).encode(),
            env_hash=env_hash,
            resource_key=resource_key(request_of("", 0, 0, shared["resources"], shared["time_limit_s"], "")),
            resources=self._text(shared["resources"]),
            goal=parse_goal(str(shared["tracking"].get("goal") or "")),
            code=_code(shared["snapshot"]),
        )

    def _text(self, value: Any) -> str:
        known = self._texts.get(id(value))
        if known is None:
            known = self._texts[id(value)] = value, _dump(value)
        return known[1]


_COMMAND = "command"
_REST = tuple(sorted(set(FIELDS) - COLUMNS - {_COMMAND}))
_HASHED = tuple(sorted(COLUMNS & set(FIELDS) - {"id", "name", "message", "environment"}))


def _dump(value: Any) -> str:
    try:
        return dump_json(value)
    except (TypeError, ValueError) as exc:
        raise InvalidError(f"the run cannot be queued: {exc}", "a spec is plain JSON; NaN is no number there") from exc


def rows(
    encoded: Sequence[Encoded], now_us: int, user: str, launch_id: str | None, waiting: Container[str]
) -> list[tuple[Any, ...]]:
    """Return values of `runyard.store.runs.INSERTED`; ``waiting``: runs that lack more than slots."""
    place = run_dir_name(now_us, "")
    found = []
    for spec, rest, digest, common in encoded:
        shared = spec.shared
        state = states.HELD if shared["hold"] else states.QUEUED
        found.append(
            (
                spec.id, escape(shared["project"]), _escaped(spec.name), escape(spec.message), user, state,
                int(not shared["hold"] and spec.id not in waiting), -shared["priority"], now_us, 0, 0, 0, 0,
                shared["retries"], int(shared["requeue"]), common.resource_key, common.resources,
                shared["time_limit_s"], rest, digest, escape(command_text(spec.command)), shared["snapshot"].get("tree"),
                *common.code, common.env_hash, launch_id, escape(f"runs/{shared['project']}/{place}{spec.id}"),
                _escaped(shared["sweep"]), _escaped(common.goal[1]) if common.goal else None,
                common.goal[0] if common.goal else None,
            )
        )  # fmt: skip
    return found


def _escaped(text: str | None) -> str | None:
    return None if text is None else escape(text)


def _code(snapshot: Json) -> tuple[str | None, str | None, int | None]:
    commit, branch, dirty = (snapshot.get(name) for name in ("commit", "branch", "dirty"))
    return (
        escape(commit) if isinstance(commit, str) else None,
        escape(branch) if isinstance(branch, str) else None,
        int(dirty) if isinstance(dirty, bool) else None,
    )
