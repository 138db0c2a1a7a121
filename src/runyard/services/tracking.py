"""What is known of a run by what it logged, as JSON: parameters, metrics, media, data, progress."""

from __future__ import annotations

import math
import operator
import os
import re
from array import array
from collections.abc import Sequence
from typing import Any

from runyard.services import files, ingest, series
from runyard.services.api import Actor, Json, Series
from runyard.services.context import Context
from runyard.services.find import find_run
from runyard.services.messages import RANKS, UNDER, media_path
from runyard.services.views import base_dir, iso
from runyard.store import metrics, names, runs, tracked
from runyard.store.database import Connection
from runyard.store.metrics import Summary
from runyard.wire.errors import NotFoundError

COMPARED = 200
"""Data files of a run that are compared with those of earlier runs."""
TAIL, TAIL_READ = 4000, 32 << 10
"""Characters of a log's end that are kept, and bytes that are read for it."""
ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
SYSTEM = "system/"
"""Start of the names of what the host measures of a run; such metrics stand apart."""
ORIGINS = {rank: origin for origin, rank in RANKS.items()}


def plain(value: float | None) -> float | str:
    """Return a stored number as JSON: what JSON has no number for is text."""
    if value is None or math.isnan(value):
        return "NaN"
    return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


_first = operator.itemgetter(0)


def fill(connection: Connection, rows: Sequence[Any], values: Sequence[Json], whole: bool) -> None:
    """Put parameters and metrics into the JSON of runs; ``whole``: and where each is from, media, data, what was captured."""
    seqs = [row.seq for row in rows]
    params, summaries = tracked.params_of(connection, seqs), metrics.of_runs(connection, seqs)
    progress = tracked.of_runs(connection, seqs)
    data = tracked.data_of(connection, seqs) if whole else {}
    ids = {name_id for found in summaries.values() for name_id in found}
    ids.update(name_id for found in params.values() for name_id, _ in found)
    named = names.of(connection, ids)
    for row, value in zip(rows, values, strict=True):
        value["params"] = dict(
            sorted([(named[name_id], item) for name_id, item in params.get(row.seq, ())], key=_first)
        )
        measured = sorted([(named[name_id], item) for name_id, item in summaries.get(row.seq, {}).items()], key=_first)
        value["metrics"] = {name: summary_json(item) for name, item in measured if not name.startswith(SYSTEM)}
        extra = progress.get(row.seq)
        value["progress"] = extra.progress if extra is not None else None
        if whole:
            sources = sorted([(named[key], item) for key, item in tracked.param_sources(connection, row.seq).items()])
            value["param_origins"] = {name: ORIGINS.get(rank, "") for name, (rank, _) in sources}
            value["param_sources"] = {name: source for name, (_, source) in sources}
            value["system"] = {
                name[len(SYSTEM) :]: summary_json(item) for name, item in measured if name.startswith(SYSTEM)
            }
            value["media"] = _media(connection, row.seq)
            value["data"] = _data(connection, row, data.get(row.seq, ()))
            capture = dict(extra.capture or {}) if extra is not None else {}
            capture.pop(UNDER, None)
            value["capture"] = capture or None


def summary_json(item: Summary) -> Json:
    """Return the summary of a metric; of a result without points only its value."""
    return {
        "last": plain(item.last),
        "min": plain(item.min),
        "max": plain(item.max),
        "mean": plain(item.mean if item.count else item.last),
        "count": item.count,
        "step": item.step,
        "min_step": item.min_step,
        "max_step": item.max_step,
    }


def _data(connection: Connection, run: Any, rows: Sequence[Any]) -> list[Json]:
    """Return the data of a run; ``changed_since``: the run before it that read something else there."""
    known = [row.path for row in rows if row.sha256][:COMPARED]
    earlier = tracked.earlier_data(connection, run.project, run.seq, known)
    found = []
    for row in rows:
        before = earlier.get(row.path)
        changed = before is not None and before.sha256 != row.sha256
        found.append({**data_json(row), "changed_since": before.id if before is not None and changed else None})
    return found


def _media(connection: Connection, run_seq: int) -> list[Json]:
    """Return what a run logged besides numbers, by name and kind: how many, the least and the last step."""
    rows = tracked.media_counts(connection, run_seq)
    named = names.of(connection, {row.name_id for row in rows})
    found = [
        {
            "name": named[row.name_id],
            "kind": row.kind,
            "count": row.items,
            "min_step": row.least,
            "max_step": row.last,
        }
        for row in rows
    ]
    return sorted(found, key=lambda item: (item["name"], item["kind"]))


def data_json(row: Any) -> Json:
    """Return one file, or directory, that a run read."""
    return {
        "path": row.path, "size": row.size, "modified_at": iso(row.mtime) if row.mtime else None,
        "sha256": row.sha256, "via": row.via, "files": row.files,
    }  # fmt: skip


class Tracking:
    """The part of the yard that concerns what runs log."""

    context: Context

    def append_spool(self, attempt: str, stream: str, first: int, data: bytes, lost: bool = False) -> int:
        """Take in records of a stream."""
        return ingest.append(self.context, attempt, stream, first, data, lost)

    def series(
        self, ref: str, metric: str, actor: Actor, *, points: int = 1000, method: str = "lttb",
        start: int | None = None, end: int | None = None,
    ) -> Series:  # fmt: skip
        """Return points of a metric."""
        with self.context.db.read() as connection:
            run = find_run(connection, ref, actor)
            found, count = series.series(connection, run, metric, points=points, method=method, start=start, end=end)
        steps, times = array("q", found.steps.tobytes()), array("q", found.times.tobytes())
        return Series(metric, count, steps, times, array("d", found.values.tobytes()))

    def media(self, ref: str, actor: Actor) -> list[Json]:
        """Return the media of a run."""
        with self.context.db.read() as connection:
            rows = tracked.media_of(connection, find_run(connection, ref, actor).seq)
            named = names.of(connection, {row.name_id for row in rows})
        found = [
            {
                "name": named[row.name_id], "step": row.step, "at": iso(row.at), "kind": row.kind,
                "format": row.format, "caption": row.caption, "size": row.size, "sha256": row.sha256,
            }
            for row in rows
        ]  # fmt: skip
        return sorted(found, key=lambda item: item["name"])

    def media_place(self, ref: str, sha256: str, actor: Actor) -> str:
        """Return the path of the content of a medium."""
        with self.context.db.read() as connection:
            run = find_run(connection, ref, actor)
            forms = {row.format for row in tracked.media_of(connection, run.seq) if row.sha256 == sha256}
        for form in forms:
            path = media_path(base_dir(self.context, run), sha256, form)
            if os.path.isfile(path):
                return path
        raise NotFoundError(f"run {run.id} has no medium {sha256}", f"see GET /api/v1/runs/{run.id}/media")

    def keep_log_tail(self, run_id: str) -> None:
        """Remember the end of a run's log."""
        with self.context.db.read() as connection:
            run = runs.find(connection, run_id)
        if run is None or run.started_at is None:
            return
        place = files.log_place(self.context, run, None)
        text = log_tail(place.path)

        def work(connection: Connection) -> None:
            tracked.lock(connection, run.seq)
            tracked.change(connection, run.seq, log_tail=text)

        if text:
            self.context.db.write(work)


def log_tail(path: str) -> str:
    """Return the end of a log as text: no escape sequences, of progress bars only what was last."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_READ))
            data = file.read()
    except OSError:
        return ""
    lines = ESCAPES.sub("", data.decode("utf-8", "replace")).split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)[-TAIL:]
