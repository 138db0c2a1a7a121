"""What every service needs: the database, the home, the settings, and who wants to know of changes."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runyard.store import events, names, runs
from runyard.store.database import Connection, Database
from runyard.wire.errors import UnavailableError
from runyard.wire.paths import Home
from runyard.wire.timing import Timing

NAMES_MAX = 200_000


class Topics:
    """Callbacks by topic, called after a commit. Thread-safe; a callback must not block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[str], None]] = []

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Add a callback; the returned function removes it."""
        with self._lock:
            self._callbacks.append(callback)

        def unsubscribe() -> None:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)

        return unsubscribe

    def publish(self, topics: Iterable[str]) -> None:
        """Tell everybody."""
        with self._lock:
            callbacks = list(self._callbacks)
        for topic in dict.fromkeys(topics):
            for callback in callbacks:
                callback(topic)


class Clock:
    """The two clocks that services read; tests move them."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def now_us(self, connection: Connection) -> int:
        """Return the database's time in microseconds since 1970 UTC."""
        return self._db.now_us(connection)

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        return time.monotonic()


class Names:
    """Numbers of names of parameters and metrics, remembered: they never change. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def get(self, db: Database, wanted: Collection[str]) -> dict[str, int]:
        """Return the numbers of names, which are stored if they are new."""
        known = self._known
        unknown = [name for name in wanted if name not in known]
        found = {name: known[name] for name in wanted if name in known}
        if unknown:
            new = db.write(lambda connection: names.add(connection, unknown))
            found.update(new)
            self._known = {**known, **new} if len(known) + len(new) <= NAMES_MAX else new
        return found


@dataclass(kw_only=True)
class Context:
    """The arguments that all services share."""

    db: Database
    home: Home
    settings: Mapping[str, Any]
    clock: Clock
    secret: bytes
    """Key of the run tokens, 32 bytes, kept beside the database in a 0600 file."""
    topics: Topics = field(default_factory=Topics)
    timing: Timing = field(default_factory=Timing)
    names: Names = field(default_factory=Names)
    loose_blocks: dict[int, int] = field(default_factory=dict)
    """Blocks of points that came since the last compaction, by run."""
    doubtful_launches: dict[str, float] = field(default_factory=dict)
    """Environment files of which it is not known whether a run needs them, because the database went away, and since
    when (monotonic seconds)."""

    def run_path(self, relative: str) -> str:
        """Return the absolute path of a run's directory."""
        return os.path.join(self.home.path, relative)


class Change:
    """Collects, inside one transaction, what must happen after its commit."""

    def __init__(self, connection: Connection, now_us: int, timing: Timing) -> None:
        self.connection = connection
        self.now_us = now_us
        self.timing = timing
        self.topics: list[str] = []
        self.ended_launches: set[str] = set()
        """Environment files that perhaps nobody needs any more."""
        self._events: list[events.EventRow] = []

    @property
    def lease_until(self) -> int:
        """When a lease that is given now ends."""
        return self.now_us + round(self.timing.lease_s * 1e6)

    def tell(self, *topics: str) -> None:
        """Publish these topics once the transaction is committed."""
        self.topics.extend(topics)

    def event(
        self,
        kind: str,
        run: Any,
        to_state: str | None = None,
        *,
        attempt_id: str | None = None,
        actor: str = "yard",
        detail: Any = None,
    ) -> None:
        """Record what happens to a run (its row before the change), and tell those who follow it.

        ``to_state``: by default it stays in its state. All events of a transaction are written at its end, at once.
        """
        self._events.append(
            events.row(self.now_us, kind, run.id, attempt_id, run.state, to_state or run.state, actor, detail)
        )
        self.tell("run:" + run.id)

    def note(self, rows: Iterable[events.EventRow]) -> None:
        """Record events as `runyard.store.events.row` makes them."""
        self._events.extend(rows)

    def flush(self) -> None:
        """Write what has been put off."""
        events.add_many(self.connection, self._events)
        self._events = []


def change(context: Context, work: Callable[[Change], Any]) -> Any:
    """Run ``work`` in one transaction, then publish its topics and forget environments that nobody needs any more."""

    def transaction(connection: Connection) -> tuple[Any, Change]:
        changes = Change(connection, context.clock.now_us(connection), context.timing)
        result = work(changes)
        changes.flush()
        return result, changes

    result, changes = context.db.write(transaction)
    if changes.ended_launches:
        try:
            drop_launches(context, changes.ended_launches)
        except UnavailableError:
            doubt_launches(context, changes.ended_launches)
    context.topics.publish(changes.topics)
    return result


def drop_launches(context: Context, launch_ids: Iterable[str]) -> None:
    """Remove environment files that no run needs which has not ended.

    Looked up after the commit: of two transactions that end the last two runs at once, neither sees the other's.
    """
    with context.db.glance() as connection:
        unneeded = [launch_id for launch_id in launch_ids if not runs.launch_needed(connection, launch_id)]
    for launch_id in unneeded:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(context.home.launch, launch_id + ".json"))


def doubt_launches(context: Context, launch_ids: Iterable[str]) -> None:
    """Leave these environment files for `settle_doubts`."""
    context.doubtful_launches.update(dict.fromkeys(launch_ids, context.clock.monotonic()))


def settle_doubts(context: Context) -> None:
    """Remove what was left because the database went away, once it has been back for a lease: nothing is on its way then."""
    before = context.clock.monotonic() - context.timing.lease_s
    due = [launch_id for launch_id, since in list(context.doubtful_launches.items()) if since < before]
    if due:
        drop_launches(context, due)
        for launch_id in due:
            del context.doubtful_launches[launch_id]


def sweep_launches(context: Context) -> None:
    """Remove environment files that a crash has left. Nothing may be submitting."""
    names = os.listdir(context.home.launch) if os.path.isdir(context.home.launch) else []
    whole = {name for name in names if name.endswith(".json")}
    drop_launches(context, [name.removesuffix(".json") for name in whole])
    for name in set(names) - whole:
        os.unlink(os.path.join(context.home.launch, name))  # half written
