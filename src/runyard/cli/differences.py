"""What two runs differ in besides code, command and environment: parameters, data and metrics."""

from __future__ import annotations

import math
from typing import Any

from runyard.cli import text, tracked
from runyard.wire.goals import verdict

Json = dict[str, Any]


def differences(old: Json, new: Json) -> Json:
    """Return ``{"parameters", "data", "metrics"}`` of two runs: by name, what differs; see the functions below."""
    goal = str(((new.get("tracking") or old.get("tracking")) or {}).get("goal") or "")
    return {"parameters": params(old, new), "data": data(old, new), "metrics": metrics(old, new, goal)}


def params(old: Json, new: Json) -> Json:
    """Return ``{name: {"old", "new", "source"}}`` of the parameters that differ; without the side that has none."""
    sides = [run.get("params") or {} for run in (old, new)]
    sources = {**(old.get("param_sources") or {}), **(new.get("param_sources") or {})}
    found: Json = {}
    for name in sorted({*sides[0], *sides[1]}):
        there = {word: side[name] for word, side in zip(("old", "new"), sides, strict=True) if name in side}
        values = [(type(value) is bool, value) for value in there.values()]
        if len(values) < 2 or values[0] != values[1]:
            found[name] = {**there, "source": sources.get(name, "")}
    return found


def data(old: Json, new: Json) -> Json:
    """Return ``{path: {"old", "new"}}`` of the data that differs: size and hash on each side, None where it was not read.

    What was hashed in both runs is compared by its content, else by size and time of change.
    """
    sides = [{item["path"]: item for item in run.get("data") or []} for run in (old, new)]
    found: Json = {}
    for path in sorted({*sides[0], *sides[1]}):
        one, two = (side.get(path) for side in sides)
        if one is None or two is None or not _same_data(one, two):
            found[path] = {"old": _fingerprint(one), "new": _fingerprint(two)}
    return found


def _same_data(one: Json, two: Json) -> bool:
    if one.get("sha256") and two.get("sha256"):
        return bool(one["sha256"] == two["sha256"])
    return all(one.get(name) == two.get(name) for name in ("size", "modified_at"))


def _fingerprint(item: Json | None) -> Json | None:
    return None if item is None else {name: item.get(name) for name in ("size", "sha256", "modified_at")}


def metrics(old: Json, new: Json, goal: str) -> Json:
    """Return ``{name: {"old", "new", "difference", "relative", "verdict"}}`` of the last values that differ.

    ``relative``: difference / |old|. Both are None where that is no finite number; ``verdict`` is ``better``, ``worse`` or
    ``""``, and ``old`` or ``new`` is None where a run has no such metric.
    """
    sides = [run.get("metrics") or {} for run in (old, new)]
    found: Json = {}
    for name in sorted({*sides[0], *sides[1]}):
        one, two = [(side.get(name) or {}).get("last") for side in sides]
        if one == two:
            continue
        left, right = _finite(one), _finite(two)
        difference = right - left if left is not None and right is not None else None
        relative = difference / abs(left) if difference is not None and left else None
        found[name] = {
            "old": one, "new": two, "difference": difference,
            "relative": relative if relative is not None and math.isfinite(relative) else None,
            "verdict": "" if difference is None else verdict(name, difference, goal),
        }  # fmt: skip
    return found


def _finite(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def sections(old: Json, new: Json) -> dict[str, str]:
    """Return what differs as text by its title; a section that is equal is one line."""
    changed = differences(old, new)
    found = {}
    for title, make in (("parameters", _params_text), ("data", _data_text), ("metrics", _metrics_text)):
        field = {"parameters": "params"}.get(title, title)
        if changed[title]:
            found[title] = "%s\n%s\n" % (title, make(changed[title]))
        else:
            found[title] = "%s: %s" % (title, "the same" if old.get(field) else "none")
    return found


def _params_text(changed: Json) -> str:
    rows = [
        (
            tracked.name(name),
            *("-" if side not in item else tracked.plain(item[side]) for side in ("old", "new")),
            item["source"],
        )
        for name, item in changed.items()
    ]
    return text.table(rows, ("PARAMETER", "OLD", "NEW", "FROM"))


def _data_text(changed: Json) -> str:
    return text.table([(path, *_data_row(item)) for path, item in changed.items()], ("DATA", "OLD", "NEW", "WHAT"))


def _data_row(item: Json) -> tuple[str, str, str]:
    old, new = item["old"], item["new"]
    what = "only in the new run" if old is None else "only in the old run" if new is None else "changed"
    return _short(old), _short(new), what


def _short(item: Json | None) -> str:
    if item is None:
        return "-"
    return "%s %s" % (text.size(item["size"]), (item.get("sha256") or "")[:12])


def _metrics_text(changed: Json) -> str:
    rows = []
    for name, item in changed.items():
        difference, relative = item["difference"], item["relative"]
        rows.append(
            (
                tracked.name(name),
                *("-" if item[side] is None else tracked.number(item[side]) for side in ("old", "new")),
                "-" if difference is None else "%+.5g" % difference,
                "-" if relative is None else "%+.1f%%" % (100 * relative),
                item["verdict"],
            )
        )
    return text.table(rows, ("METRIC", "OLD", "NEW", "DIFFERENCE", "RELATIVE", ""))
