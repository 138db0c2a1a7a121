"""Defects put into the code on purpose, one for each thing that the suite must notice."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

SERVER: dict[str, Callable[[], None]] = {}
AGENT: dict[str, Callable[[], None]] = {}


def apply(name: str, kind: str) -> None:
    """Put a defect into this process, if it is one of its kind."""
    if name:
        assert name in SERVER or name in AGENT, name
        {"server": SERVER, "agent": AGENT}[kind].get(name, lambda: None)()


def _in(place: dict[str, Callable[[], None]]) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def register(function: Callable[[], None]) -> Callable[[], None]:
        place[function.__name__] = function
        return function

    return register


@_in(SERVER)
def answered_before_commit() -> None:
    """A submit is answered before it is durable."""
    from runyard.services import submit

    late = submit.submit

    def early(context: Any, specs: Any, env: Any, actor: Any) -> list[str]:
        def work() -> None:
            time.sleep(1.0)
            late(context, specs, env, actor)

        threading.Thread(target=work, daemon=True).start()
        return [spec["id"] for spec in specs]

    submit.submit = early  # type: ignore[assignment]
    from runyard.services import yard

    yard.Yard.run = _patient(yard.Yard.run)  # type: ignore[method-assign]


def _patient(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, ref: str, actor: Any) -> Any:
        try:
            return function(self, ref, actor)
        except Exception:  # noqa: BLE001  it is not there yet
            return {"id": ref}

    return call


class _Unended:
    """The row of an attempt that always looks as if it had not ended."""

    def __init__(self, row: Any) -> None:
        self._row = row
        self.ended_at = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, name)


@_in(SERVER)
def ends_taken_again() -> None:
    """The end of an attempt counts as often as it is reported."""
    from runyard.services import finish
    from runyard.store import attempts

    store: Any = attempts
    find_many = store.find_many
    store.find_many = lambda connection, ids: {key: _Unended(row) for key, row in find_many(connection, ids).items()}
    finish._counts = lambda changes, run, row, end: True


@_in(SERVER)
def no_fence_for_ends() -> None:
    """The end of an attempt counts for the run even when another one has it."""
    from runyard.services import finish

    finish._counts = lambda changes, run, row, end: True


@_in(SERVER)
def no_fence_for_starts() -> None:
    """Leave to start is given to attempts that are no longer the run's, and the agent does not look twice."""
    from runyard.services import phases

    phases._may_enter = lambda run, row, epoch, phase: True


@_in(SERVER)
def lease_ignored() -> None:
    """No lease ever ends."""
    from runyard.services import lease

    lease.expire = lambda changes: None


@_in(SERVER)
def slots_released_at_lost() -> None:
    """The slots of a lost run are given to others; and the agent (below) starts what it is given, come what may."""
    from sqlalchemy import text

    from runyard.services import lease

    expire = lease.expire
    release = text("DELETE FROM slot_use WHERE attempt_id IN (SELECT attempt_id FROM runs WHERE state = 'lost')")

    def both(changes: Any) -> None:
        expire(changes)
        changes.connection.execute(release)

    lease.expire = both


@_in(AGENT)
def _slots_released_at_lost() -> None:
    from runyard.agent import state

    state.State.wait_for_turn = lambda self, attempt, timeout_s: True  # type: ignore[method-assign]


AGENT["slots_released_at_lost"] = AGENT.pop("_slots_released_at_lost")


@_in(SERVER)
def data_fenced() -> None:
    """The log of an attempt is thrown away once another attempt has the run."""
    from runyard.services import files

    append = files.append_log

    def only_current(context: Any, attempt_id: str, offset: int, data: bytes) -> int:
        _, run = files._attempt_and_run(context, attempt_id)
        return append(context, attempt_id, offset, data) if run.attempt_id == attempt_id else offset + len(data)

    files.append_log = only_current


@_in(AGENT)
def journal_not_written() -> None:
    """The agent starts programs without writing down first that it will."""
    from runyard.agent import life

    class Forgetful:
        def __getattr__(self, name: str) -> Any:
            return getattr(original, name)

        def write_json(self, path: str, value: Any, *rest: Any, **fields: Any) -> None:
            if not path.endswith("/assignment.json"):
                original.write_json(path, value, *rest, **fields)

    module: Any = life
    original, module.files = module.files, Forgetful()


@_in(AGENT)
def leave_not_asked() -> None:
    """The agent executes programs without the server's leave."""
    from runyard.agent import life
    from runyard.wire import states

    def grant(self: Any, attempt: Any) -> None:
        attempt.phase = states.PHASE_RUNNING

    life.Life._grant = grant  # type: ignore[method-assign]


@_in(AGENT)
def no_recheck() -> None:
    """A leave to start that has grown old is still good."""
    from runyard.agent import life

    life.SLOW_GRANT_S = life.FRESH_GRANT_S = life.START_WITHIN_S = 1e9


AGENT["no_fence_for_starts"] = no_recheck


@_in(AGENT)
def end_not_repeated() -> None:
    """An end whose report was not answered is forgotten."""
    from runyard.agent import report

    send = report.Reporter._send

    def once(self: Any, batch: list[Any]) -> list[Any]:
        for attempt in send(self, batch):
            self._context.forget(attempt)
        return []

    report.Reporter._send = once  # type: ignore[method-assign]


@_in(AGENT)
def log_not_repeated() -> None:
    """A piece of a log whose arrival was not confirmed is not sent again."""
    from runyard.agent import ship
    from runyard.wire.errors import UnavailableError

    put = ship.LogShipper._put

    def once(self: Any, link: Any, offset: int, piece: bytes) -> None:
        try:
            put(self, link, offset, piece)
        except UnavailableError:
            if piece:
                put(self, link, offset, b"?" * len(piece))  # so that what follows has its place

    ship.LogShipper._put = once  # type: ignore[method-assign]


@_in(SERVER)
def records_taken_twice() -> None:
    """Records count as often as they are sent."""
    from runyard.services import ingest

    append = ingest.append

    def always_new(context: Any, attempt: str, stream: str, first: int, data: bytes, lost: bool) -> int:
        return append(context, attempt, os.urandom(8).hex(), first, data, True)

    ingest.append = always_new  # type: ignore[assignment]


@_in(AGENT)
def records_not_repeated() -> None:
    """Records whose arrival was not confirmed are not sent again."""
    from runyard.agent import spools
    from runyard.wire.errors import UnavailableError

    put = spools._Stream._put

    def once(self: Any, link: Any, records: Any, stand_in: bool = False) -> None:
        try:
            put(self, link, records, stand_in)
        except UnavailableError:
            pass

    spools._Stream._put = once  # type: ignore[method-assign]
