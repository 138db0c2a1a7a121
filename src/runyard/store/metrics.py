"""Rows of metrics: one summary for each run and metric, and blocks of points (`runyard.store.blocks`)."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Sequence
from math import inf, isnan
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, func, insert, select, text

from runyard.store.tables import metric_blocks, metrics, runs

MANY = 500
PRINTED, WRITTEN, LOGGED = 0, 1, 2
"""Who says the points of a metric. What a line prints is rounded, and often what is logged, too: the highest counts."""


class Summary(NamedTuple):
    """What is known of a metric without reading its points. None is NaN, or nothing yet."""

    attempt: int
    """Number of the last attempt that logged it."""
    source: int
    """Of the points: `PRINTED`, `WRITTEN` or `LOGGED`."""
    count: int  # type: ignore[assignment]  # the method of tuples is not needed
    last: float | None
    min: float | None
    max: float | None
    total: float | None
    """Sum of the values that are no NaN; None where there are none, or it is none: inf - inf."""
    nans: int
    step: int | None
    """Of the last value."""
    min_step: int | None
    max_step: int | None
    first_at: int | None
    last_at: int | None

    @property
    def mean(self) -> float | None:
        """Mean of the values that are no NaN."""
        numbers = self.count - self.nans
        return None if self.total is None or numbers <= 0 else self.total / numbers

    def then(self, later: Summary) -> Summary:
        """Return the summary of these points and of later ones."""
        low, high = (later.min, later.min_step), (later.max, later.max_step)
        if self.min is not None and (low[0] is None or self.min <= low[0]):
            low = self.min, self.min_step
        if self.max is not None and (high[0] is None or self.max >= high[0]):
            high = self.max, self.max_step
        totals = [part.total for part in (self, later) if part.count > part.nans]
        numbers = [total for total in totals if total is not None]
        return later._replace(
            count=self.count + later.count, nans=self.nans + later.nans,
            total=_number(sum(numbers)) if numbers and len(numbers) == len(totals) else None,
            min=low[0], min_step=low[1], max=high[0], max_step=high[1],
            first_at=later.first_at if self.first_at is None else self.first_at,
        )  # fmt: skip


COLUMNS = Summary._fields


def _number(value: float | None) -> float | None:
    return None if value is None or isnan(value) else value


def summarize(attempt: int, source: int, times: array[int], steps: array[int], values: array[float]) -> Summary:
    """Return the summary of points, at least one, in the order in which they were logged."""
    total: float | None = sum(values)
    numbers: Sequence[float] = values
    places: Sequence[int] = steps
    nans = 0
    if total is None or isnan(total):  # a NaN, or infinities of both signs
        kept = [(value, step) for value, step in zip(values, steps, strict=True) if not isnan(value)]
        nans = len(values) - len(kept)
        numbers, places = [value for value, _ in kept], [step for _, step in kept]
        total = sum(numbers)
        total = _number(total) if numbers else None
    low, high = min(numbers, default=None), max(numbers, default=None)
    return Summary(
        attempt=attempt, source=source, count=len(values), last=_number(values[-1]), min=low, max=high, total=total,
        nans=nans, step=steps[-1],
        min_step=None if low is None else places[numbers.index(low)],
        max_step=None if high is None else places[numbers.index(high)],
        first_at=times[0], last_at=times[-1],
    )  # fmt: skip


def of_value(attempt: int, value: float, at: int) -> Summary:
    """Return the summary of a result that has no step and no points."""
    number = _number(value)
    return Summary(
        attempt=attempt, source=LOGGED, count=0, last=number, min=number, max=number, total=None, nans=0, step=None,
        min_step=None, max_step=None, first_at=at, last_at=at,
    )  # fmt: skip


_OF_RUNS = select(metrics.c.run_seq, metrics.c.name_id, *(metrics.c[name] for name in COLUMNS))


def find(connection: Connection, run_seq: int, name_ids: Collection[int]) -> dict[int, Summary]:
    """Return the summaries of some metrics of a run."""
    found: dict[int, Summary] = {}
    listed = list(name_ids)
    for start in range(0, len(listed), MANY):
        some = listed[start : start + MANY]
        query = _OF_RUNS.where(metrics.c.run_seq == run_seq, metrics.c.name_id.in_(some))
        found.update((row[1], Summary(*row[2:])) for row in connection.execute(query).all())
    return found


def of_runs(connection: Connection, seqs: Collection[int]) -> dict[int, dict[int, Summary]]:
    """Return all summaries of runs: by run, by name."""
    found: dict[int, dict[int, Summary]] = {}
    listed = list(seqs)
    for start in range(0, len(listed), MANY):
        query = _OF_RUNS.where(metrics.c.run_seq.in_(listed[start : start + MANY]))
        for row in connection.execute(query).all():
            found.setdefault(row[0], {})[row[1]] = Summary(*row[2:])
    return found


_SAVE = (
    f"INSERT INTO metrics (run_seq, name_id, {', '.join(COLUMNS)}) "  # noqa: S608 - names of columns
    f"VALUES (:run_seq, :name_id, {', '.join(':' + name for name in COLUMNS)}) "
    f"ON CONFLICT (run_seq, name_id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in COLUMNS)}"
)
_SAVE_MANY = text(_SAVE)


def save(connection: Connection, run_seq: int, found: dict[int, Summary]) -> None:
    """Store summaries of a run, which must be locked (`tracked.lock`)."""
    rows = [
        {"run_seq": run_seq, "name_id": name_id, **{name: getattr(item, name) for name in COLUMNS}}
        for name_id, item in sorted(found.items())
    ]
    if rows:
        connection.execute(_SAVE_MANY, rows)


_BLOCK = insert(metric_blocks)


def add_blocks(
    connection: Connection, run_seq: int, attempt: int, blocks: Iterable[tuple[int, int | None, int, bytes]]
) -> None:
    """Insert blocks: ``(source; name id, or None for one of several metrics; rows; data)``."""
    rows = [
        {"run_seq": run_seq, "attempt": attempt, "source": source, "name_id": name_id, "count": count, "data": data}
        for source, name_id, count, data in blocks
    ]
    if rows:
        connection.execute(_BLOCK, rows)


def blocks_of(
    connection: Connection, run_seq: int, name_id: int | None, limit: int | None = None
) -> Sequence[Row[Any]]:
    """Return ``id, attempt, source, name_id, count, data`` of the blocks that may have points of a metric, as they arrived.

    Without a name: those of several metrics only, the first ``limit`` of them.
    """
    columns = metric_blocks.c
    query = select(columns.id, columns.attempt, columns.source, columns.name_id, columns.count, columns.data)
    loose = query.where(columns.run_seq == run_seq, columns.name_id.is_(None))
    found: list[Any] = list(connection.execute(loose.order_by(columns.id).limit(limit)))
    if name_id is not None:
        found += connection.execute(query.where(columns.run_seq == run_seq, columns.name_id == name_id))
    # What is compacted came before what is not, though its blocks may be younger.
    return sorted(found, key=lambda row: (row.attempt, row.name_id is None, row.id))


def chunk_sizes(
    connection: Connection, run_seq: int, attempt: int, source: int, name_ids: Collection[int]
) -> dict[int, list[tuple[int, int]]]:
    """Return ``(id, rows)`` of the blocks of one metric each, by metric, in the order in which they were made."""
    columns = metric_blocks.c
    query = (
        select(columns.name_id, columns.id, columns.count)
        .where(columns.run_seq == run_seq, columns.attempt == attempt, columns.source == source)
        .order_by(columns.name_id, columns.id)
    )
    found: dict[int, list[tuple[int, int]]] = {}
    listed = list(name_ids)
    for start in range(0, len(listed), MANY):
        some = listed[start : start + MANY]
        for name_id, block_id, count in connection.execute(query.where(columns.name_id.in_(some))):
            found.setdefault(name_id, []).append((block_id, count))
    return found


def block_data(connection: Connection, ids: Sequence[int]) -> list[bytes]:
    """Return the data of blocks, in the order of their ids."""
    query = select(metric_blocks.c.data).where(metric_blocks.c.id.in_(ids)).order_by(metric_blocks.c.id)
    return [bytes(data) for data in connection.execute(query).scalars()]


def remove_blocks(connection: Connection, ids: Sequence[int]) -> None:
    """Delete blocks."""
    for start in range(0, len(ids), MANY):
        connection.execute(delete(metric_blocks).where(metric_blocks.c.id.in_(ids[start : start + MANY])))


def where_loose(connection: Connection, most: int, ended_before: int, limit: int) -> list[int]:
    """Return runs whose blocks of several metrics are to be compacted: more than ``most``, or the run has ended."""
    columns = metric_blocks.c
    query = (
        select(columns.run_seq, func.count(), func.max(runs.c.ended_at))
        .join(runs, runs.c.seq == columns.run_seq)
        .where(columns.name_id.is_(None))
        .group_by(columns.run_seq)
    )
    found = []
    for run_seq, count, ended_at in connection.execute(query):
        if count > most or (ended_at if ended_at is not None else inf) < ended_before:
            found.append(run_seq)
    return found[:limit]
