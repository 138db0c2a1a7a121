"""What a run logged, as text: parameters, metrics, data, and what was captured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from runyard.cli import text

Json = dict[str, Any]
MANY = 20
LONG = 60
ORIGINS = ("cli", "script", "command", "call", "file", "default", "constant")
"""Of parameters, in the order in which they are shown."""


def number(value: Any) -> str:
    """Return a number rounded for reading: five digits."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return "%d" % value if isinstance(value, int) or (value == int(value) and abs(value) < 1e6) else "%.5g" % value


def plain(value: Any) -> str:
    """Return a parameter in one line."""
    if isinstance(value, str):
        shown = value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        shown = repr(value)
    else:
        import json

        shown = json.dumps(value)
    return name(shown)


def name(shown: str) -> str:
    """Return a name, or another text, in one line; a long one is cut."""
    shown = text.plain(shown)
    return shown if len(shown) <= LONG else shown[: LONG - 1] + "…"


def tables(run: Json, everything: bool = False) -> list[str]:
    """Return parameters, metrics, media, data and what was not taken as tables, those that there are.

    ``everything``: all rows of each, not only the first ones.
    """
    listed = (
        (_params(run), ("PARAMETER", "VALUE", "FROM")),
        (_metrics(run), ("METRIC", "LAST", "MIN", "MAX", "MEAN", "STEP", "POINTS")),
        (_media(run), ("LOGGED", "KIND", "NUMBER", "STEPS")),
        (_data(run), ("DATA", "SIZE", "SHA-256", "SEEN BY")),
    )
    parts = [_table(rows, head, run["id"], everything) for rows, head in listed if rows]
    refused = (run.get("capture") or {}).get("refused") or []
    if refused:
        rows = [(name(item["name"]) or '""', str(item["count"]), item["why"]) for item in refused]
        parts.append(text.table(rows, ("NOT TAKEN", "TIMES", "WHY")))
    return parts


def _params(run: Json) -> list[tuple[str, ...]]:
    """Return the rows of parameters: those that somebody gave for this run before those that are always there."""
    params, sources, origins = (run.get(key) or {} for key in ("params", "param_sources", "param_origins"))

    def key(param: str) -> tuple[int, str]:
        origin = origins.get(param)
        return (ORIGINS.index(origin) if origin in ORIGINS else len(ORIGINS), param)

    return [(name(param), plain(params[param]), sources.get(param, "")) for param in sorted(params, key=key)]


def _metrics(run: Json) -> list[tuple[str, ...]]:
    """Return the rows of metrics: those with points before results."""
    metrics = run.get("metrics") or {}
    return [
        (name(metric), number(m["last"]), number(m["min"]), number(m["max"]), number(m["mean"]),
         "-" if m.get("step") is None else str(m["step"]), str(m["count"] or "-"))
        for metric, m in sorted(metrics.items(), key=lambda item: (not item[1]["count"], item[0]))
    ]  # fmt: skip


def _media(run: Json) -> list[tuple[str, ...]]:
    return [
        (name(item["name"]), item["kind"], str(item["count"]), _steps(item["min_step"], item["max_step"]))
        for item in run.get("media") or []
    ]


def _data(run: Json) -> list[tuple[str, ...]]:
    return [
        (item["path"], text.size(item["size"]), (item.get("sha256") or "-")[:12], _seen(item))
        for item in run.get("data") or []
    ]


def _steps(least: int | None, last: int | None) -> str:
    return "-" if least is None else str(least) if least == last else "%s to %s" % (least, last)


def _seen(item: Json) -> str:
    files = item.get("files") or 1
    changed = item.get("changed_since")
    return (
        str(item.get("via") or "")
        + (" (%s)" % text.count(files, "file") if files > 1 else "")
        + (", changed since %s" % changed if changed else "")
    )


def _table(rows: Sequence[Sequence[str]], head: tuple[str, ...], run_id: str, everything: bool) -> str:
    shown = text.table(rows if everything else rows[:MANY], head)
    more = 0 if everything else len(rows) - MANY
    return shown + ("\n%d more: runyard show --all %s" % (more, run_id) if more > 0 else "")


def captured(run: Json) -> str:
    """Return what was captured of a run, in one line: ``its log, 3 parameters, 2 metrics, 1 data file``."""
    counts = (
        (len(run.get("params") or {}), "parameter"),
        (len(run.get("metrics") or {}), "metric"),
        (sum(item["count"] for item in run.get("media") or []), "medium", "media"),
        (len(run.get("data") or []), "data file"),
        (len(run.get("outputs") or []) if run.get("files") not in ("trashed", "gone") else 0, "output"),
    )
    return ", ".join(["its log", *(text.count(count, *words) for count, *words in counts if count)])


def remarks(run: Json) -> list[str]:
    """Return what a person should know of what was captured: notes, and what is missing."""
    capture = run.get("capture") or {}
    found = [str(note) for note in capture.get("notes") or []]
    if capture.get("missing"):
        found.append(
            "%s of what it logged is missing: %s"
            % (text.count(capture["missing"], "record"), capture.get("missing_why"))
        )
    return found


def refused(run: Json) -> list[str]:
    """Return what was not taken of what a run logged, a line for each."""
    listed = (run.get("capture") or {}).get("refused") or []
    return ["%s was not taken (%d times): %s" % (item["name"], item["count"], item["why"]) for item in listed]


def highlights(run: Json) -> list[str]:
    """Return the last values of a few metrics: ``loss 0.31  acc 0.97``."""
    metrics = run.get("metrics") or {}
    return ["%s %s" % (name, number(metrics[name]["last"])) for name in list(metrics)[:6]]


def progress(run: Json) -> str:
    """Return how far a running run is: ``40/100, 12s left``; ``""`` when it does not say."""
    found = run.get("progress") or {}
    if found.get("done") is None or run.get("ended_at"):
        return ""
    shown = number(found["done"]) + ("/" + number(found["total"]) if found.get("total") else "")
    return shown + (", %s left" % text.duration(found["left_s"]) if found.get("left_s") is not None else "")
