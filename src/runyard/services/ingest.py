"""Taking in what runs log: records of spool streams (docs/spool.md) become rows of the store.

Whoever cuts a stream into requests, and however often they are repeated, each record is taken in once: its number says
whether it is here already, and the number of the next one is stored in the transaction that stores what it says.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from runyard.services.api import Json
from runyard.services.compact import LOOSE_MAX
from runyard.services.context import Change, Context, change
from runyard.services.messages import BAD_NAME, Messages, flat, keep_attachments, read_config
from runyard.services.series import points_of
from runyard.store import attempts, blocks, metrics, names, runs, tracked
from runyard.store.blocks import MAX_COLUMNS, DamagedBlockError
from runyard.store.database import StatementError
from runyard.store.metrics import Summary
from runyard.wire import spool
from runyard.wire.errors import ConflictError, InvalidError, NotFoundError

T = TypeVar("T")
TRIES = 10
MISTAKES = (ArithmeticError, AttributeError, LookupError, RecursionError, StatementError, TypeError, ValueError)
"""What a message that nobody had thought of may end in. That a database is away is none of these."""
COMPACT = "compact"
"""Topic: a run has so many blocks that `upkeep` is worth its while."""


class Rows(NamedTuple):
    """Rows of one shape, in the order in which they were logged."""

    names: list[str]
    times: array[int]
    steps: array[int]
    columns: list[array[float]]
    messages: int
    """How many messages of the batch came before the last of them."""
    source: int = metrics.LOGGED


class Batch(NamedTuple):
    """What a request brings that is new."""

    next: int
    lost: int
    rows: list[Rows]
    messages: list[tuple[Json, bytes]]


class Encoded(NamedTuple):
    """Rows as they are stored."""

    blocks: list[tuple[int, None, int, bytes]]
    summaries: dict[int, Summary]
    least: dict[int, int]
    """The least step of each metric, where the attempt may have to take a series over."""


def append(context: Context, attempt_id: str, stream: str, first: int, data: bytes, lost: bool) -> int:
    """Take in records of a stream, the first with number ``first``; return the number of the first that is not here.

    ``lost``: those between what is here and ``first`` are gone for good.

    Raises:
        NotFoundError: there is no such attempt.
        ConflictError: ``first`` leaves a gap; ``details["next"]`` says where to go on.
        InvalidError: the data is not whole records.
    """
    records = _read(_whole, data)
    with context.db.read() as connection:
        attempt = attempts.find(connection, attempt_id)
        run = None if attempt is None else runs.find(connection, attempt.run_id)
        row = tracked.find_stream(connection, attempt_id, stream)
    if attempt is None or run is None:
        raise NotFoundError(f"there is no attempt {attempt_id}")
    for _ in range(TRIES):
        here = 0 if row is None else int(row.next)
        if first > here and not lost:
            raise ConflictError(f"the stream is here up to record {here}, not {first}", "send from there", next=here)
        batch = _new(records, here)
        if batch.next == here:
            return here
        _drop_outdone(batch)
        ids = _intern(context, batch)
        batch.messages.extend(_unnamed(batch.rows, ids))
        encoded = _encode(batch.rows, attempt.number, ids)
        keep_attachments(context, run, batch.messages)
        try:
            done, row = _store(context, attempt, run, stream, here, batch, encoded, ids)
        except MISTAKES:
            batch = batch._replace(messages=_sifted(context, attempt, run, batch.messages, ids))
            done, row = _store(context, attempt, run, stream, here, batch, encoded, ids)
        if done:
            return batch.next
    raise ConflictError("somebody else sends the same stream", "send again", next=0 if row is None else int(row.next))


def _sifted(
    context: Context, attempt: Any, run: Any, messages: list[tuple[Json, bytes]], ids: dict[str, int]
) -> list[tuple[Json, bytes]]:
    """Try each message alone, and undo it; return them all, those that fail as notes that they were refused."""

    def work(changes: Change) -> list[tuple[Json, bytes]]:
        kept = tracked.lock(changes.connection, run.seq)
        found = []
        for message, content in messages:
            savepoint = changes.connection.begin_nested()
            try:
                said = Messages(changes, run, attempt, ids, kept)
                said.take(message, content)
                said.flush()
                found.append((message, content))
            except MISTAKES as exc:
                why = f"the server cannot take it: {type(exc).__name__}: {exc}"
                found.append(({"type": "refused", "name": message["type"], "why": why}, b""))
            finally:
                savepoint.rollback()
        return found

    sifted: list[tuple[Json, bytes]] = change(context, work)
    return sifted


def _store(
    context: Context,
    attempt: Any,
    run: Any,
    stream: str,
    here: int,
    batch: Batch,
    encoded: Encoded,
    ids: dict[str, int],
) -> tuple[bool, Any]:
    """Store a batch if the stream is still where it was; return whether it was, and the stream's row."""

    def work(changes: Change) -> tuple[bool, Any]:
        connection = changes.connection
        kept = tracked.lock(connection, run.seq)
        row = tracked.find_stream(connection, attempt.id, stream)
        if (0 if row is None else int(row.next)) != here:
            return False, row
        said = Messages(changes, run, attempt, ids, kept)
        if batch.lost:
            said.miss(batch.lost, "its spool was damaged")
        for message, attachment in batch.messages:
            said.take(message, attachment)
        said.flush()
        metrics.add_blocks(connection, run.seq, attempt.number, encoded.blocks)
        _merge(connection, run.seq, attempt.number, encoded.summaries, encoded.least)
        _merge(connection, run.seq, attempt.number, said.summaries, {})
        lost = said.missing + (0 if row is None else int(row.lost))
        process = said.process if said.process is not None else {} if row is None else row.process
        tracked.save_stream(connection, row, attempt.id, stream, next=batch.next, lost=lost, process=process)
        changes.tell(f"run:{run.id}", f"metrics:{run.id}")
        return True, row

    result: tuple[bool, Any] = change(context, work)
    if result[0] and encoded.blocks:
        loose = context.loose_blocks.get(run.seq, 0) + len(encoded.blocks)
        context.loose_blocks[run.seq] = loose
        if loose > LOOSE_MAX:
            context.topics.publish([COMPACT])
    return result


def _merge(connection: Any, run_seq: int, attempt: int, found: dict[int, Summary], least: dict[int, int]) -> None:
    """Put summaries of new points together with what is stored.

    A later attempt's series takes over from its first step on, so what earlier ones logged there no longer counts; one
    that comes late changes nothing where a later one has logged. The last value is that of the last attempt.
    """
    known = metrics.find(connection, run_seq, found.keys())
    merged = {}
    for name_id, summary in found.items():
        before = known.get(name_id)
        if before is not None and before.count and summary.count and summary.source < before.source:
            continue
        newest = summary if before is None or attempt >= before.attempt else before
        if before is None or not (before.count or summary.count):
            merged[name_id] = newest
        elif not summary.count:  # a result has no points: it stands for the last one
            # Without a step the attempt has no points here: its first ones take over.
            step = before.step if attempt == before.attempt else None
            result = before._replace(attempt=attempt, last=summary.last, step=step)
            merged[name_id] = result if newest is summary else before
        elif before.attempt == attempt and (
            not before.count or (before.source == summary.source and not _goes_back(before, least.get(name_id)))
        ):
            merged[name_id] = before.then(summary) if before.count else summary
        else:
            rebuilt = _rebuilt(connection, run_seq, name_id, newest.attempt, summary.source) or before.then(summary)
            merged[name_id] = rebuilt._replace(last=newest.last, step=newest.step)
    metrics.save(connection, run_seq, merged)


def _goes_back(before: Summary, least: int | None) -> bool:
    """Tell whether points may be before the first ones of their attempt, so that they take over more of the series."""
    return least is not None and (before.step is None or least < before.step)


def _rebuilt(connection: Any, run_seq: int, name_id: int, attempt: int, source: int) -> Summary | None:
    try:
        points = points_of(connection, run_seq, name_id)
    except DamagedBlockError:
        return None
    if points is None:
        return None
    times, steps = array("q", points.times.tobytes()), array("q", points.steps.tobytes())
    return metrics.summarize(attempt, source, times, steps, array("d", points.values.tobytes()))


def _new(records: Iterable[spool.Record], here: int) -> Batch:
    """Return what of these records is not here yet, rows by shape; shapes in the order of their last rows."""
    shapes: dict[int, list[str]] = {}
    bodies: dict[int, list[bytes]] = {}
    said: dict[int, int] = {}
    rows: list[Rows] = []
    messages: list[tuple[Json, bytes]] = []
    following, lost = here, 0
    for record in records:
        if record.kind == spool.SHAPE:
            if record.shape in bodies:
                rows.append(_columns(shapes, record.shape, bodies.pop(record.shape), said[record.shape]))
            shapes[record.shape] = _read(spool.parse_shape, record.body)
        if record.number < here:
            continue
        lost += record.number - following
        following = record.number + 1
        if record.kind == spool.ROW:
            found = bodies.pop(record.shape, [])
            found.append(record.raw[spool.RECORD_BYTES :])
            bodies[record.shape] = found
            said[record.shape] = len(messages)
        elif record.kind == spool.MESSAGE:
            message, content = _read(spool.parse_message, record.body)
            if message["type"] == "config":
                messages += [(said, b"") for said in read_config(message)]
            else:
                messages.append((message, content))
        elif record.kind == spool.GROUP:
            inner = _new(_read(_whole, record.body), 0)
            if inner.rows:  # these come after the rows before them
                rows += [_columns(shapes, shape, bodies[shape], said[shape]) for shape in bodies]
                bodies.clear()
            source = _source(inner.messages)
            rows += [part._replace(messages=len(messages) + part.messages, source=source) for part in inner.rows]
            messages += inner.messages
    rows += [_columns(shapes, shape, found, said[shape]) for shape, found in bodies.items()]
    return Batch(following, lost, rows, messages)


def _source(messages: list[tuple[Json, bytes]]) -> int:
    """Return who says the rows of a group: the collector says beside them what it looked at."""
    looked_at = {message.get("source") for message, _ in messages if message["type"] == "position"}
    return metrics.PRINTED if "logs" in looked_at else metrics.WRITTEN if "files" in looked_at else metrics.LOGGED


def _whole(body: bytes) -> list[spool.Record]:
    return list(spool.records(body))


def _read(parse: Callable[[bytes], T], body: bytes) -> T:
    try:
        return parse(body)
    except ValueError as exc:
        raise InvalidError(f"a spool record cannot be read: {exc}", "see docs/spool.md") from exc


def _columns(shapes: dict[int, list[str]], shape: int, bodies: list[bytes], messages: int) -> Rows:
    if shape not in shapes:
        raise InvalidError(f"there are rows of shape {shape}, which was not sent", "send the shapes first")
    named = shapes[shape]
    width = len(named) + 2
    data = b"".join(bodies)
    if len(data) != width * 8 * len(bodies) or len(bodies[0]) != width * 8:
        raise InvalidError("a row has not the length of its shape", "see docs/spool.md")
    whole, numbers = array("q", data), array("d", data)
    columns = [numbers[2 + index :: width] for index in range(len(named))]
    return Rows(named, whole[0::width], whole[1::width], columns, messages)


def _drop_outdone(batch: Batch) -> None:
    """Take out results that points of the same name follow: these say the last value."""
    if not any(message["type"] == "summary" for message, _ in batch.messages):
        return
    until: dict[str, int] = {}
    for rows in batch.rows:
        for name in rows.names:
            until[name] = max(rows.messages, until.get(name, 0))
    for place, (message, content) in enumerate(batch.messages):
        if message["type"] == "summary":
            values = {name: value for name, value in flat(message.get("values")) if until.get(name, 0) <= place}
            batch.messages[place] = ({**message, "values": values}, content)


def _intern(context: Context, batch: Batch) -> dict[str, int]:
    """Return the numbers of all names in a batch, which are stored before it is, so that they may be remembered."""
    wanted = {name for rows in batch.rows for name in rows.names}
    for message, _ in batch.messages:
        wanted.update(Messages.names_in(message))
    return context.names.get(context.db, {name for name in wanted if 0 < len(name) <= names.MAX_LENGTH})


def _unnamed(batch: list[Rows], ids: dict[str, int]) -> list[tuple[Json, bytes]]:
    """Return what is said of columns whose names cannot be taken."""
    said = {name: 0 for rows in batch for name in rows.names if name not in ids}
    for rows in batch:
        for name in said.keys() & rows.names:
            said[name] += len(rows.steps)
    return [({"type": "refused", "name": name, "why": BAD_NAME, "count": count}, b"") for name, count in said.items()]


def _encode(batch: list[Rows], attempt: int, ids: dict[str, int]) -> Encoded:
    """Return blocks of rows and what they add to the summaries; names that are too long are left out."""
    found: list[tuple[int, None, int, bytes]] = []
    summaries: dict[int, Summary] = {}
    least: dict[int, int] = {}
    for rows in batch:
        kept = [(ids[name], column) for name, column in zip(rows.names, rows.columns, strict=True) if name in ids]
        for start in range(0, len(kept), MAX_COLUMNS):
            some = kept[start : start + MAX_COLUMNS]
            data = blocks.encode([name_id for name_id, _ in some], rows.times, rows.steps, [c for _, c in some])
            found.append((rows.source, None, len(rows.times), data))
        for name_id, column in kept:
            summary = metrics.summarize(attempt, rows.source, rows.times, rows.steps, column)
            before = summaries.get(name_id)
            if before is None or before.source < summary.source:
                summaries[name_id] = summary
            elif before.source == summary.source:
                summaries[name_id] = before.then(summary)
        if attempt > 1:
            first = min(rows.steps)
            least.update((name_id, min(first, least.get(name_id, first))) for name_id, _ in kept)
    return Encoded(found, summaries, least)
