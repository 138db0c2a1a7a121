"""What a run logged, as text: parameters, metrics, data, and what was captured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from runyard.cli import text

Json = dict[str, Any]
MANY = 20
LONG = 60


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
    shown = text.plain(shown)
    return shown if len(shown) <= LONG else shown[: LONG - 1] + "…"


def tables(run: Json) -> list[str]:
    """Return parameters, metrics, media and data of a run as tables, those that there are."""
    parts = []
    params, sources = run.get("params") or {}, run.get("param_sources") or {}
    if params:
        rows = [(name, plain(value), sources.get(name, "")) for name, value in sorted(params.items())]
        parts.append(_table(rows, ("PARAMETER", "VALUE", "FROM"), run["id"]))
    metrics = run.get("metrics") or {}
    if metrics:
        values = [
            (name, number(m["last"]), number(m["min"]), number(m["max"]), number(m["mean"]),
             "-" if m.get("step") is None else str(m["step"]), str(m["count"] or "-"))
            for name, m in sorted(metrics.items())
        ]  # fmt: skip
        parts.append(_table(values, ("METRIC", "LAST", "MIN", "MAX", "MEAN", "STEP", "POINTS"), run["id"]))
    media = [
        (item["name"], item["kind"], str(item["count"]), _steps(item["min_step"], item["max_step"]))
        for item in run.get("media") or []
    ]
    if media:
        parts.append(_table(media, ("LOGGED", "KIND", "NUMBER", "STEPS"), run["id"]))
    data = run.get("data") or []
    if data:
        files = [(d["path"], text.size(d["size"]), (d.get("sha256") or "-")[:12], _seen(d)) for d in data]
        parts.append(_table(files, ("DATA", "SIZE", "SHA-256", "SEEN BY"), run["id"]))
    refused = [
        (item["name"], str(item["count"]), item["why"]) for item in (run.get("capture") or {}).get("refused") or []
    ]
    if refused:
        parts.append(text.table(refused, ("NOT TAKEN", "TIMES", "WHY")))
    return parts


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


def _table(rows: Sequence[Sequence[str]], head: tuple[str, ...], run_id: str) -> str:
    shown = text.table(rows[:MANY], head)
    return shown + ("\n%d more: runyard show --json %s" % (len(rows) - MANY, run_id) if len(rows) > MANY else "")


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
