"""Named faults to put into the services: suites that are worth anything fail with each of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import PropertyMock, patch

from runyard.services import context, finish, phases, settle
from runyard.services.context import Change
from runyard.services.guard import ExpiryGuard
from runyard.store import attempts, runs
from runyard.store.database import Connection


def _no_recheck(connection: Connection, ids: Collection[str]) -> dict[str, int]:
    return {run_id: row.epoch for run_id, row in runs.find_many(connection, ids).items()}


def _release_when_lost(connection: Connection, attempt_id: str, **values: Any) -> None:
    _set_fields(connection, attempt_id, **values)
    if values.get("lost_at") is not None:
        attempts.release(connection, [attempt_id])


_set_fields = attempts.set_fields


class _NeverEnded:
    """A row of an attempt that looks as if it had no end yet."""

    def __init__(self, row: Any) -> None:
        self._row = row

    def __getattr__(self, name: str) -> Any:
        return None if name == "ended_at" else getattr(self._row, name)


def _without_ends(connection: Connection, ids: Collection[str]) -> dict[str, Any]:
    return {key: _NeverEnded(row) for key, row in _find_many(connection, ids).items()}


_find_many = attempts.find_many

MUTATIONS: dict[str, tuple[Any, str, Any]] = {
    "no fence": (phases, "_may_enter", lambda *_: True),
    "no re-check": (runs, "lock_ready", _no_recheck),
    "leases end at once": (Change, "lease_until", PropertyMock(return_value=0)),
    "leases never end": (attempts, "where_expired", lambda *_: []),
    "superseded ends count": (finish, "_counts", lambda *_: True),
    "ends count twice": (attempts, "find_many", _without_ends),
    "nobody keeps a lost run": (finish, "may_keep", lambda *_: False),
    "slots are free when lost": (attempts, "set_fields", _release_when_lost),
    "no guard": (ExpiryGuard, "look", lambda *_: True),
    "dependents wait for ever": (settle, "make_ready", lambda *_: None),
    "dependents of failures start": (settle, "_failing", lambda *_: []),
    "environments are kept": (context, "drop_launches", lambda *_: None),
}
"""What is replaced, and by what, by what the fault is called."""


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Put a fault in, as long as the block lasts."""
    where, what, replacement = MUTATIONS[name]
    with patch.object(where, what, replacement):
        yield


def fails(work: Callable[[], object]) -> bool:
    """Tell whether a test fails: what pytest raises is no `Exception`."""
    try:
        work()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - that is what a test ends with when it fails
        return True
    return False
