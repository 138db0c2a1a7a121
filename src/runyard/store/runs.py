"""Rows of runs: finding them, and the statements of the queue."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    Row,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    select,
    text,
    update,
)

from runyard.store.bulk import Update, insert_rows
from runyard.store.tables import attempts, run_after, run_tags, runs
from runyard.store.types import dump_json, escape
from runyard.wire import states

RunRow = Row[Any]
Record: Any = namedtuple("Record", list(runs.columns.keys()))  # type: ignore[misc]
"""A run as a plain tuple: looking at a field of it takes a tenth of the time that it takes of a row."""
CHUNK = 500
"""Values per IN list: below the parameter limits of every database."""


# Statements of the hot paths are built once: building one takes longer than running it.
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_FIND = select(runs).where(runs.c.id == bindparam("id"))
_FIND_MANY = select(runs).where(runs.c.id.in_(_IDS))
_LOCKED = select(
    *(
        runs.c[name]
        for name in "seq id state ready epoch attempt_id attempts failures losses retries requeue kill_at kill_by "
        "kill_grace_s launch_id started_at ended_at trashed_at host_id".split()
    )
)
"""What decisions need of a run: without what is large, or costs time to decode."""
_LOCK = _LOCKED.where(runs.c.id == bindparam("id")).with_for_update()
_LOCK_MANY = _LOCKED.where(runs.c.id.in_(_IDS)).order_by(runs.c.id).with_for_update()
_LOCK_READY = (
    select(runs.c.id, runs.c.epoch, runs.c.state, runs.c.ready)
    .where(runs.c.id.in_(_IDS))
    .with_for_update(skip_locked=True)
)
"""By id alone: asked for what is queued as well, databases go through the whole queue."""
_QUEUE = (
    select(runs.c.seq, runs.c.id, runs.c.priority_rank, runs.c.resources, runs.c.resource_key, runs.c.epoch,
           runs.c.time_limit_s, runs.c.user_name, runs.c.attempts)
    .where(runs.c.state == states.QUEUED, runs.c.ready == 1)
    .order_by(runs.c.priority_rank, runs.c.seq)
    .limit(bindparam("limit"))
)  # fmt: skip
_QUEUE_WITHOUT = _QUEUE.where(runs.c.resource_key.not_in(bindparam("keys", expanding=True)))
_WAITS = (
    select(run_after.c.run_id)
    .join(runs, runs.c.id == run_after.c.after_id)
    .where(run_after.c.run_id.in_(_IDS), runs.c.state != states.FINISHED)
    .distinct()
)
_DEPENDENTS = (
    select(run_after.c.run_id, run_after.c.after_id).where(run_after.c.after_id.in_(_IDS)).order_by(run_after.c.run_id)
)
_LAUNCH_NEEDED = select(runs.c.id).where(runs.c.launch_id == bindparam("launch"), runs.c.ended_at.is_(None)).limit(1)


def records(rows: Iterable[Sequence[Any]]) -> list[Any]:
    """Return rows that begin with all columns of runs as `Record`."""
    width, make = len(runs.columns), Record._make
    return [make(row[:width]) for row in rows]


def chunks(values: Iterable[str]) -> Iterable[list[str]]:
    """Cut values into lists of at most `CHUNK`."""
    items = list(values)
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def find(connection: Connection, run_id: str) -> RunRow | None:
    """Return the run with this whole id, or None."""
    return connection.execute(_FIND, {"id": run_id}).first()


def find_many(connection: Connection, ids: Collection[str]) -> dict[str, RunRow]:
    """Return the runs with these ids, by id."""
    found: dict[str, RunRow] = {}
    for some in chunks(ids):
        found.update((row.id, row) for row in connection.execute(_FIND_MANY, {"ids": some}))
    return found


def where_ref(connection: Connection, ref: str, limit: int = 10) -> Sequence[RunRow]:
    """Return the runs that a name, or else a prefix of an id, or else a name in the trash fits; newest first.

    The name comes first: it was chosen, while a short prefix may fit anything.
    """
    named = runs.c.name == ref
    ways = [and_(named, runs.c.trashed_at.is_(None)), and_(named, runs.c.trashed_at.is_not(None))]
    if ref.isascii() and ref.isalnum():
        ways.insert(1, and_(runs.c.id >= ref, runs.c.id < ref[:-1] + chr(ord(ref[-1]) + 1)))
    for condition in ways:
        found = connection.execute(select(runs).where(condition).order_by(runs.c.seq.desc()).limit(limit)).all()
        if found:
            return found
    return ()


def find_last(connection: Connection, user: str) -> RunRow | None:
    """Return the run that this user submitted last."""
    query = select(runs).where(runs.c.user_name == user, runs.c.trashed_at.is_(None))
    return connection.execute(query.order_by(runs.c.seq.desc()).limit(1)).first()


def counts(connection: Connection) -> dict[str, int]:
    """Return how many runs are in each state (without the trash)."""
    query = select(runs.c.state, func.count()).where(runs.c.trashed_at.is_(None)).group_by(runs.c.state)
    return {state: int(n) for state, n in connection.execute(query)}


def oldest_queued(connection: Connection) -> int | None:
    """Return when the oldest queued run was submitted, None when none is queued."""
    query = select(func.min(runs.c.created_at)).where(runs.c.state == states.QUEUED, runs.c.trashed_at.is_(None))
    found = connection.execute(query).scalar()
    return None if found is None else int(found)


def queue_page(connection: Connection, skip_keys: Collection[str], limit: int) -> Sequence[Any]:
    """Return the next runs that lack nothing but slots, in queue order, without those of some resource keys."""
    if skip_keys:
        return connection.execute(_QUEUE_WITHOUT, {"keys": list(skip_keys), "limit": limit}).all()
    return connection.execute(_QUEUE, {"limit": limit}).all()


def lock_ready(connection: Connection, ids: Collection[str]) -> dict[str, int]:
    """Lock those of the runs that are still ready and that nobody else is taking; return their epochs by id.

    Here as in every lock: SQLite has one writer, so a plain read inside a write transaction locks as much, and
    SQLAlchemy leaves ``FOR UPDATE`` away.
    """
    rows = connection.execute(_LOCK_READY, {"ids": list(ids)})
    return {row.id: row.epoch for row in rows if row.state == states.QUEUED and row.ready == 1}


_ASSIGN = Update(
    "UPDATE runs SET state = 'running', ready = 0, epoch = :epoch, attempt_id = :attempt, attempts = :number, "
    "host_id = :host, kill_at = NULL, kill_by = NULL, kill_grace_s = NULL "
    "WHERE id = :id AND epoch = :epoch - 1 AND CASE state WHEN 'queued' THEN ready ELSE 0 END = 1",
    numbers=("epoch", "number"),
)
"""``CASE`` so that no database takes the index of the queue, which fits thousands of rows, for that of the id."""


def assign(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Give runs to attempts: ``id, epoch, attempt, number, host``. The rows must be locked by `lock_ready`."""
    _ASSIGN.run(connection, rows)


_START = Update(
    "UPDATE runs SET state = 'running', ready = 0, epoch = 1, attempts = 1, attempt_id = :attempt, host_id = :host, "
    "started_at = :started, created_at = :started WHERE id = :id",
    numbers=("started",),
)


def start_many(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Let new runs have been running since they were begun: ``id, attempt, host, started``."""
    _START.run(connection, rows)


_END = Update(
    "UPDATE runs SET state = :state, ready = 0, ended_at = :ended_at, exit_code = :exit_code, signal = :signal, "
    "reason = :reason, origin = :origin, end_detail = :end_detail, failures = :failures, losses = :losses WHERE id = :id",
    numbers=("ended_at", "exit_code", "signal", "failures", "losses"),
)


def end_many(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Give runs their final state: ``id, state, ended_at, exit_code, signal, reason, origin, end_detail, failures, losses``."""
    if rows:
        values = [{**row, "end_detail": None if (t := row["end_detail"]) is None else escape(t)} for row in rows]
        _END.run(connection, values)


def set_fields(connection: Connection, run_id: str, **values: Any) -> None:
    """Set columns of one run."""
    connection.execute(update(runs).where(runs.c.id == run_id).values(**values))


def lock(connection: Connection, run_id: str) -> RunRow | None:
    """Return what decisions need of a run, locked until the end of the transaction."""
    return connection.execute(_LOCK, {"id": run_id}).first()


def lock_many(connection: Connection, ids: Iterable[str]) -> dict[str, RunRow]:
    """Return the same of several runs by id, locked always in the same order."""
    found: dict[str, RunRow] = {}
    for some in chunks(sorted(set(ids))):
        found.update((row.id, row) for row in connection.execute(_LOCK_MANY, {"ids": some}))
    return found


INSERTED = (
    "id", "project", "name", "message", "user_name", "state", "ready", "priority_rank", "created_at", "epoch",
    "attempts", "failures", "losses", "retries", "requeue", "resource_key", "resources", "time_limit_s", "spec",
    "spec_hash", "command_text", "tree", "code_commit", "code_branch", "code_dirty", "env_hash", "launch_id", "dir", "sweep",
    "goal_metric", "goal_sign",
)  # fmt: skip
"""Columns of a new run, in the order of the values for `insert_many`."""


def insert_many(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert runs: values of `INSERTED`, as the database stores them (text escaped, JSON as text)."""
    insert_rows(connection, runs, INSERTED, rows)


def where_known(connection: Connection, ids: Collection[str]) -> dict[str, str]:
    """Return the hashes of the specs of those of these runs that exist, by id."""
    found: dict[str, str] = {}
    listing = _LISTINGS.get(connection.dialect.name)
    if listing is not None:
        statement = text(f"SELECT id, spec_hash FROM runs WHERE id IN ({listing})")  # noqa: S608 - text of our own
        return {row.id: row.spec_hash for row in connection.execute(statement, {"ids": dump_json(list(ids))})}
    for some in chunks(ids):
        query = select(runs.c.id, runs.c.spec_hash).where(runs.c.id.in_(some))
        found.update(tuple(row) for row in connection.execute(query))
    return found


_LISTINGS = {
    "sqlite": "SELECT value FROM json_each(:ids)",
    "postgresql": "SELECT value FROM json_array_elements_text(CAST(:ids AS json))",
}
"""How a JSON array becomes rows: one parameter, however many values."""


def set_tags(connection: Connection, run_id: str, add: Iterable[str], remove: Iterable[str]) -> None:
    """Add and remove tags of a run."""
    gone = list(remove)
    if gone:
        connection.execute(delete(run_tags).where(run_tags.c.run_id == run_id, run_tags.c.tag.in_(gone)))
    have = set(tags(connection, [run_id]).get(run_id, ()))
    new = [{"run_id": run_id, "tag": tag} for tag in dict.fromkeys(add) if tag not in have]
    if new:
        connection.execute(insert(run_tags), new)


def tags(connection: Connection, ids: Collection[str]) -> dict[str, list[str]]:
    """Return the tags of runs, by run, in order."""
    found: dict[str, list[str]] = {}
    for some in chunks(ids):
        query = select(run_tags).where(run_tags.c.run_id.in_(some)).order_by(run_tags.c.tag)
        for row in connection.execute(query):
            found.setdefault(row.run_id, []).append(row.tag)
    return found


def where_met(connection: Connection, ids: Collection[str]) -> list[str]:
    """Return those of these runs whose dependencies have all finished; see `open_dependencies`."""
    blocked: set[str] = set()
    for some in chunks(ids):
        blocked.update(connection.execute(_WAITS, {"ids": some}).scalars())
    return [run_id for run_id in ids if run_id not in blocked]


_READY = text("UPDATE runs SET ready = 1 WHERE id = :id AND CASE state WHEN 'queued' THEN ready ELSE 1 END = 0")


def make_ready(connection: Connection, ids: Collection[str]) -> None:
    """Let these runs compete for slots, as far as they are queued."""
    if ids:
        connection.execute(_READY, [{"id": run_id} for run_id in ids])


def open_dependencies(connection: Connection, run_id: str) -> Sequence[Any]:
    """Return ``id, state`` of the runs that must still finish before this one.

    One that is there no more had finished: had it failed, so would this one have, and removed are ended runs only.
    """
    query = (
        select(runs.c.id, runs.c.state)
        .join(run_after, runs.c.id == run_after.c.after_id)
        .where(run_after.c.run_id == run_id, runs.c.state != states.FINISHED)
        .order_by(runs.c.seq)
    )
    return connection.execute(query).all()


def dependents(connection: Connection, ids: Collection[str]) -> list[tuple[str, str]]:
    """Return the runs that wait for any of these, each with the one that it waits for."""
    found: list[tuple[str, str]] = []
    for some in chunks(ids):
        found.extend((row.run_id, row.after_id) for row in connection.execute(_DEPENDENTS, {"ids": some}))
    return found


def launch_needed(connection: Connection, launch_id: str) -> bool:
    """Tell whether a run that has not ended yet needs this launch file."""
    return connection.execute(_LAUNCH_NEEDED, {"launch": launch_id}).first() is not None


def remove(connection: Connection, run_id: str) -> None:
    """Delete a run and, by cascade, what belongs to it."""
    connection.execute(delete(runs).where(runs.c.id == run_id))


def recent_words(connection: Connection, limit: int) -> list[str]:
    """Return ids and names of the newest runs, to find what a user may have meant."""
    query = select(runs.c.id, runs.c.name).order_by(runs.c.seq.desc()).limit(limit)
    return [word for row in connection.execute(query) for word in (row.name, row.id) if word]


def add_tags_and_dependencies(
    connection: Connection, tags: Sequence[tuple[str, str]], after: Sequence[tuple[str, str]]
) -> None:
    """Insert tags (``run_id, tag``) and dependencies (``run_id, after_id``) of new runs."""
    insert_rows(connection, run_tags, ("run_id", "tag"), tags)
    insert_rows(connection, run_after, ("run_id", "after_id"), after)


def where_ended(connection: Connection, after_seq: int, before_us: int | None, thinned: bool) -> Sequence[RunRow]:
    """Return a page of ended runs after a ``seq``, those whose code is still whole, or all with ``thinned``.

    Without those of which a process may live: one that was given up, or killed, while its host was silent.
    """
    living = exists(select(attempts.c.id).where(attempts.c.run_id == runs.c.id, attempts.c.active == 1))
    query = select(runs).where(
        runs.c.seq > after_seq, runs.c.ended_at.is_not(None), runs.c.trashed_at.is_(None), ~living
    )
    if before_us is not None:
        query = query.where(runs.c.ended_at < before_us)
    if not thinned:
        query = query.where(runs.c.thinned_at.is_(None))
    return connection.execute(query.order_by(runs.c.seq).limit(CHUNK)).all()


def mark_thinned(connection: Connection, run_id: str, now_us: int) -> None:
    """Note that a run's unchanged code was removed."""
    set_fields(connection, run_id, thinned_at=now_us)


def where_trashed(connection: Connection, before_us: int) -> Sequence[RunRow]:
    """Return runs that were removed before a time."""
    return connection.execute(select(runs).where(runs.c.trashed_at < before_us).limit(CHUNK)).all()


def trees_in_use(connection: Connection) -> set[str]:
    """Return the trees that a run of any state refers to."""
    query = select(runs.c.tree).where(runs.c.tree.is_not(None)).distinct()
    found = set(connection.execute(query).scalars())
    for spec in connection.execute(select(runs.c.spec).where(runs.c.spec.like('%"also":[{%'))).scalars():
        found.update(tree["tree"] for tree in spec["also"])
    return found
