"""Reading the points of a metric: whole, or as few as a plot needs, without losing its peaks."""

from __future__ import annotations

from typing import Any

from runyard.store import blocks, metrics, names
from runyard.store.blocks import Points
from runyard.store.database import Connection
from runyard.wire.errors import DamagedError, InvalidError, NotFoundError

REMEDY = "runyard doctor finds what else is; bring a backup back into a new home: RUNYARD_HOME=NEW runyard restore FILE"
METHODS = ("lttb", "minmax", "none")
MAX_POINTS = 1_000_000
PRESELECT = 4
"""LTTB chooses from the least and the greatest of this many times as many buckets as there shall be points: MinMaxLTTB,
Van Der Donckt et al., 2023, https://arxiv.org/abs/2305.00332."""


def points_of(connection: Connection, run_seq: int, name_id: int) -> Points | None:
    """Return all points of a metric of a run, in the order of their steps; of equal steps in the order of logging.

    Where a run was tried again, what an earlier attempt logged from the first step of a later one on is left out; and all
    that lines print where files or the program itself say the same metric. None when there are none.

    Raises:
        DamagedBlockError: some of them are in a block that is damaged.
    """
    by_attempt: dict[int, list[Points]] = {}
    best = metrics.PRINTED
    damaged = False
    for row in metrics.blocks_of(connection, run_seq, name_id):
        if row.source < best:
            continue
        try:
            part = blocks.decode_one(bytes(row.data), name_id)
        except blocks.DamagedBlockError:
            damaged = True
            continue
        if part is not None and len(part.steps):
            if row.source > best:
                best = row.source
                by_attempt.clear()
            by_attempt.setdefault(row.attempt, []).append(part)
    found = _in_order(by_attempt)
    if damaged:
        _check_whole(connection, run_seq, name_id, 0 if found is None else len(found.steps))
    return found


def _check_whole(connection: Connection, run_seq: int, name_id: int, here: int) -> None:
    """Raise DamagedBlockError, unless none of the points are in blocks that are damaged: what is in those cannot be told."""
    known = metrics.find(connection, run_seq, [name_id]).get(name_id)
    if known is not None and known.count != here:
        raise blocks.DamagedBlockError(f"{here} of {known.count} can be read")


def _in_order(by_attempt: dict[int, list[Points]]) -> Points | None:
    import numpy as np

    found: Points | None = None
    for attempt in sorted(by_attempt):
        later = blocks.joined(by_attempt[attempt])
        if np.any(later.steps[1:] < later.steps[:-1]):
            later = later.pick(np.argsort(later.steps, kind="stable"))
        if found is not None:
            later = blocks.joined([found.part(0, int(np.searchsorted(found.steps, later.steps[0]))), later])
        found = later
    return found


def series(
    connection: Connection, run: Any, metric: str, *, points: int, method: str, start: int | None, end: int | None
) -> tuple[Points, int]:
    """Return points of a metric between two steps, at most ``points`` of them (0: all), and how many there are in the range.

    ``method``: ``lttb`` (largest triangle three buckets) keeps the look of the curve, ``minmax`` the least and the greatest
    value of each of as many buckets as there is room for. First and last are among them; a single one is the last.

    Raises:
        NotFoundError: the run has no such metric.
        InvalidError: there is no such method.
        DamagedError: some of the points are damaged.
    """
    import numpy as np

    if method not in METHODS:
        raise InvalidError(f"no method {method!r}", "methods: " + ", ".join(METHODS))
    name_id = names.find(connection, [metric]).get(metric)
    try:
        found = None if name_id is None else points_of(connection, run.seq, name_id)
    except blocks.DamagedBlockError as exc:
        raise DamagedError(f"the points of {metric!r} of run {run.id} are damaged: {exc}", REMEDY) from exc
    if found is None:
        raise NotFoundError(f"run {run.id} has no points of {metric!r}", f"see its metrics: runyard show {run.id}")
    if start is not None or end is not None:
        first = 0 if start is None else int(np.searchsorted(found.steps, start, "left"))
        last = len(found.steps) if end is None else int(np.searchsorted(found.steps, end, "right"))
        found = found.part(first, last)
    count = len(found.steps)
    if points and method != "none" and count > points:
        found = found.pick(_few(found, points, method))
    return found, count


def _few(points: Points, wanted: int, method: str) -> Any:
    import numpy as np

    ends = np.array([0, len(points.steps) - 1])[-wanted:]
    if method == "lttb":
        return _lttb(points, wanted) if wanted > len(ends) else ends
    buckets = (wanted - 2) // (3 if np.isnan(points.values).any() else 2)
    return _min_max(points.values, buckets) if buckets > 0 else ends


def _min_max(values: Any, buckets: int) -> Any:
    """Return the places of the least and of the greatest value of each bucket, in order, first and last included.

    A bucket with a NaN gives the place of one, too: a gap is to be seen.
    """
    import numpy as np

    count = len(values)
    edges = np.unique(np.arange(buckets + 1) * count // buckets)
    starts = edges[:-1]
    nans = np.isnan(values)
    chosen = [np.array([0, count - 1])]
    for replaced, least in ((np.inf, True), (-np.inf, False)):
        clean = np.where(nans, replaced, values) if nans.any() else values
        extremes = (np.minimum if least else np.maximum).reduceat(clean, starts)
        hits = np.flatnonzero(clean == np.repeat(extremes, np.diff(edges)))
        buckets_of = np.searchsorted(starts, hits, "right")
        chosen.append(hits[np.unique(buckets_of, return_index=True)[1]])
    if nans.any():
        places = np.flatnonzero(nans)
        chosen.append(places[np.unique(np.searchsorted(starts, places, "right"), return_index=True)[1]])
    return np.unique(np.concatenate(chosen))


def _lttb(points: Points, wanted: int) -> Any:
    """Return the places that Largest Triangle Three Buckets chooses (Steinarsson, 2013), first and last included."""
    import numpy as np

    places = _min_max(points.values, wanted * PRESELECT // 2)
    if len(places) <= wanted:
        return places
    xs, ys = points.steps[places].astype(np.float64), np.nan_to_num(points.values[places])
    inner, buckets = len(places) - 2, wanted - 2
    edges = 1 + np.arange(buckets + 1) * inner // buckets
    lengths = np.diff(edges)
    means_x = [*(np.add.reduceat(xs[: edges[-1]], edges[:-1]) / lengths)[1:].tolist(), float(xs[-1])]
    means_y = [*(np.add.reduceat(ys[: edges[-1]], edges[:-1]) / lengths)[1:].tolist(), float(ys[-1])]
    chosen = [0]
    x, y = float(xs[0]), float(ys[0])
    bounds = edges.tolist()
    for bucket in range(buckets):
        first, last = bounds[bucket], bounds[bucket + 1]
        area = np.abs((x - means_x[bucket]) * (ys[first:last] - y) - (x - xs[first:last]) * (means_y[bucket] - y))
        best = first + int(area.argmax())
        chosen.append(best)
        x, y = float(xs[best]), float(ys[best])
    chosen.append(len(places) - 1)
    return places[chosen]
