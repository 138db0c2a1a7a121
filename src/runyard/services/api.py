"""The yard as a caller sees it: one interface, in process (`services.yard.Yard`) and over HTTP (`client.api`).

All methods are synchronous, thread-safe and idempotent where docs/protocol.md says so; values are the JSON of
docs/protocol.md. Errors are the classes of `runyard.wire.errors`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who asks.

    ``scope`` is ``owner`` (everything), ``agent`` (the agent protocol), ``attempt`` (may write ``attempt`` only) or
    ``read``.
    """

    user: str
    scope: str = "owner"
    attempt: str | None = None


class LogPlace(NamedTuple):
    """A log of a run."""

    path: str
    """Absolute; the file may not exist yet."""
    over: bool
    """No more will come."""
    attempt: int
    """Its number."""


class Series(NamedTuple):
    """Points of a metric, in the order of their steps."""

    metric: str
    total: int
    """How many there are in the range that was asked for; more than are here when some were left out."""
    steps: array[int]
    times: array[int]
    """Microseconds since 1970 UTC."""
    values: array[float]


class YardService(Protocol):
    """What the yard does. ``ref`` is a run id, a unique prefix, a unique name or ``@last``."""

    # People and programs
    def status(self) -> Json: ...
    def submit(self, specs: Sequence[Json], env: Mapping[str, str] | None, actor: Actor) -> list[str]: ...
    def run(self, ref: str, actor: Actor) -> Json: ...
    def runs(self, filters: Mapping[str, Any], actor: Actor) -> Json: ...
    def table(self, filters: Mapping[str, Any], actor: Actor) -> Json:
        """Return a page of runs as columns: ``{"columns": [name...], "data": [[value...]...], "next", "hints"}``."""
        ...

    def edit(self, ref: str, changes: Mapping[str, Any], actor: Actor) -> Json: ...
    def kill(self, ref: str, now: bool, actor: Actor) -> Json: ...
    def hold(self, ref: str, actor: Actor) -> Json: ...
    def release(self, ref: str, actor: Actor) -> Json: ...
    def remove(self, ref: str, now: bool, actor: Actor) -> Json: ...
    def restore(self, ref: str, actor: Actor) -> Json: ...
    def events(self, ref: str, after: int, actor: Actor) -> list[Json]: ...
    def outputs(self, ref: str, actor: Actor) -> list[Json]: ...
    def log_place(self, ref: str, attempt: int | None, actor: Actor) -> LogPlace:
        """Return where the log of an attempt is; by default that of the newest that has started."""
        ...

    def output_place(self, ref: str, path: str, actor: Actor) -> str:
        """Return the absolute path of an output; raises NotFoundError; never outside of the run's directory."""
        ...

    def series(
        self, ref: str, metric: str, actor: Actor, *, points: int = 1000, method: str = "lttb",
        start: int | None = None, end: int | None = None,
    ) -> Series:  # fmt: skip
        """Return points of a metric between two steps, at most ``points`` (0: all); see `services.series`."""
        ...

    def media(self, ref: str, actor: Actor) -> list[Json]: ...
    def media_place(self, ref: str, sha256: str, actor: Actor) -> str:
        """Return the absolute path of the content of a medium of a run; raises NotFoundError."""
        ...

    # Tokens
    def authenticate(self, token: str) -> Actor:
        """Return whom a bearer token stands for; raises AuthError."""
        ...

    def create_token(self, name: str, scope: str, lifetime_s: float | None, actor: Actor) -> Json: ...
    def tokens(self, actor: Actor) -> list[Json]: ...
    def revoke_token(self, name: str, actor: Actor) -> None: ...

    # Agents
    def hello(self, agent: str, body: Json) -> Json: ...
    def heartbeat(self, agent: str, body: Json) -> Json: ...
    def poll(self, agent: str, known: Sequence[str]) -> Json:
        """Return at once what there is for an agent: ``{"assign", "stop", "drain"}``; the caller waits and asks again."""
        ...

    def drain(self, agent: str, on: bool, actor: Actor) -> Json:
        """Let an agent take nothing new, and end once all that it has is reported; it is over when it says hello again."""
        ...

    def begin_own(self, agent: str, begun: Sequence[Json]) -> list[Json]:
        """Take in runs that programs on an agent's host began by themselves; return their assignments."""
        ...

    def phase(self, attempt: str, epoch: int, phase: str) -> Json: ...
    def finish(self, ends: Sequence[Json]) -> dict[str, str]: ...
    def hand_back(self, attempt: str, epoch: int, why: str) -> Json: ...
    def append_log(self, attempt: str, offset: int, data: bytes) -> int: ...
    def append_spool(self, attempt: str, stream: str, first: int, data: bytes, lost: bool = False) -> int:
        """Take in records of a stream (docs/spool.md); return the number of the first that is not here."""
        ...

    def report_outputs(self, attempt: str, outputs: Sequence[Json]) -> list[str]: ...
    def upload_place(self, attempt: str, path: str) -> str:
        """Return where an output's bytes are to be written (a server that shares no directory with the agent)."""
        ...

    def uploaded(self, attempt: str, path: str, place: str) -> None:
        """Put an output, whose bytes are at ``place`` (`upload_place`), where it belongs."""
        ...

    # The yard's own work
    def tick(self) -> float:
        """Assign what can start and expire leases; return the seconds until it is due again."""
        ...

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back (from any thread, must not block) with a topic after each commit that concerns it.

        Topics: ``queue`` (something may start: call `tick`), ``agent:<id>`` (poll has something), ``run:<id>`` (the run
        changed). Returns a function that ends the subscription.
        """
        ...

    def du(self) -> Json: ...
    def upkeep(self, stop: Callable[[], bool]) -> int: ...
    def keep_log_tail(self, run_id: str) -> None:
        """Remember the end of the log of a run that has ended, to search."""
        ...

    def notify(self, run_id: str, url: str) -> bool: ...
    def gc(self, body: Json, actor: Actor) -> Json: ...
    def backup(self, path: str, actor: Actor) -> Json: ...
    def close(self) -> None: ...
