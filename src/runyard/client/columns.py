"""Runs and points of metrics as columns of values, as the server has them: the ground of exports and data frames."""

from __future__ import annotations

import math
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from runyard.client.api import Api

PAGE = 20_000
"""Runs per request."""
ID = "run.id"
DEFAULT = ("id", "project", "name", "state", "created_at", "params.*", "metrics.*")
HISTORY = ("run", "metric", "step", "time", "value")
_TIMES = ("created", "started", "ended")
TIMES = frozenset(
    ["time"] + ["%s%s%s" % (space, name, end) for space in ("run.", "") for name in _TIMES for end in ("", "_at")]
)
"""Names of columns that hold times: ISO 8601 in UTC, of a history (``time``) microseconds since 1970."""
NOTHING, SWITCH, INTEGER, NUMBER, TEXT, MIXED = "nothing", "switch", "integer", "number", "text", "mixed"
_ODD = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_TEXTS = frozenset("id project name state message user host command reason origin sweep goal".split())
"""Fields of runs that are texts, whatever they say."""
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_KINDS = {
    frozenset(): NOTHING, frozenset([bool]): SWITCH, frozenset([int]): INTEGER, frozenset([float]): NUMBER,
    frozenset([int, float]): NUMBER, frozenset([str]): TEXT,
}  # type: dict[frozenset[type], str]  # fmt: skip


class Columns:
    """Equally long lists of values, by name. None: a run has no such value; NaN and infinities are floats."""

    def __init__(self, values: dict[str, list[Any]], count: int) -> None:
        self.values = values
        self.count = count
        """How many rows there are, even without any column."""

    @property
    def names(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self.values)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield the values of each row, in the order of `names`."""
        return zip(*self.values.values()) if self.values else iter([()] * self.count)

    def kind(self, name: str) -> str:
        """Return what a column holds: nothing, switch, integer, number, text, or mixed.

        Whole numbers that 64 bits do not hold, or that beside others would lose digits as floats, are mixed.
        """
        found = _KINDS.get(frozenset(map(type, self.values[name])) - {type(None)}, MIXED)
        if found in (INTEGER, NUMBER):
            bits = 63 if found == INTEGER else 53
            whole = [value for value in self.values[name] if type(value) is int]
            if whole and not -(1 << bits) <= min(whole) <= max(whole) < 1 << bits:
                return MIXED
        return found

    def without(self, *names: str) -> Columns:
        """Return the same but for some columns."""
        return Columns({name: values for name, values in self.values.items() if name not in names}, self.count)


def split(fields: str | Sequence[str] | None) -> list[str]:
    """Return the fields of ``lr,metrics["a,b"]``: commas in brackets or quotes separate nothing. Lists stay."""
    if fields is None or not isinstance(fields, str):
        return list(fields or ())
    found, start, quote, depth, escaped = [], 0, "", 0, False
    for place, char in enumerate(fields):
        if quote:
            quote = "" if char == quote and not escaped else quote
            escaped = char == "\\" and not escaped
        elif char in "\"'" and depth:
            quote = char
        elif char in "[]":
            depth = max(0, depth + (1 if char == "[" else -1))
        elif char == "," and not depth:
            found.append(fields[start:place])
            start = place + 1
    return [name.strip() for name in (*found, fields[start:]) if name.strip()]


def quoted(space: str, name: str) -> str:
    """Return a field of the query language for any name: ``metrics["val/acc"]``."""
    return '%s["%s"]' % (space, name.replace("\\", "\\\\").replace('"', '\\"'))


def fetch(api: Api, wanted: Sequence[str] = (), limit: int | None = None, **filters: Any) -> Columns:
    """Return these fields of the runs that fit, in their order; ``wanted``: by default `DEFAULT`.

    ``params.*`` and ``metrics.*`` are all that any of the runs has, by name. Raises `RunyardError`.
    """
    wanted = list(wanted) or list(DEFAULT)
    asked = wanted if ID in wanted else [ID, *wanted]
    values: dict[str, list[Any]] = {}
    count, before, left = 0, None, limit
    while left is None or left > 0:
        size = PAGE if left is None else min(left, PAGE)
        page = api.table(columns=asked, limit=size, before=before, **filters)
        found = dict(zip(page["columns"], page["data"]))
        length = len(found[ID])
        for name in [*values, *found]:
            column = values.setdefault(name, [None] * count)
            if len(column) == count:  # not done already
                column += found.get(name) or [None] * length
        count += length
        left = None if left is None else left - length
        before = page["next"]
        if not before:
            break
    names = sorted(values, key=lambda name: _place(name, wanted))
    return Columns({utf8(name): _clean(name, values[name]) for name in names if name in wanted or name != ID}, count)


def _place(name: str, wanted: Sequence[str]) -> tuple[int, str]:
    """Return where a column stands: those of ``params.*`` there, by name."""
    every = name.partition(".")[0] + ".*"
    return (wanted.index(name), "") if name in wanted else (wanted.index(every) if every in wanted else -1, name)


def _clean(name: str, values: list[Any]) -> list[Any]:
    """Let NaN and infinities be numbers again, lists be texts, and texts be such that they can be written as UTF-8.

    The server has them as text. A parameter may be the text ``NaN``; it stays one unless other runs have a number there.
    """
    kinds = set(map(type, values))
    if kinds & {list, dict}:
        kinds.add(str)
        values = [_text(value) if type(value) in (list, dict) else value for value in values]
    if str not in kinds:
        return values
    odd = {value for value in values if type(value) is str} <= set(_ODD)
    text = name in _TEXTS or name.startswith(("params.", "params[", "run.", "code."))
    if odd and (kinds & {int, float} or not text):
        return [_ODD.get(value, value) if type(value) is str else value for value in values]
    try:
        "".join([value for value in values if type(value) is str]).encode("utf-8")
    except UnicodeEncodeError:
        return [utf8(value) if type(value) is str else value for value in values]
    return values


def _text(value: Any) -> str:
    """Return a list as text, as it is of parameters that were captured."""
    import json

    return json.dumps(value, ensure_ascii=False)


def utf8(text: str) -> str:
    """Return a text that can be written as UTF-8: lone surrogates stand as Python would write them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def history(
    api: Api, metrics: Sequence[str], points: int = 0, limit: int | None = None, **filters: Any
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield run, metric and its points (arrays ``steps``, ``times``, ``values``) for each run that has any.

    ``metrics``: names; ``points``: at most so many of each, chosen so that a plot shows the same; 0: all.
    """
    names = list(dict.fromkeys(map(metric_name, metrics)))
    counts = {name: quoted("metrics", name) + ".count" for name in names}
    found = fetch(api, [ID, *counts.values()], limit, **filters)
    for place, run in enumerate(found.values[ID]):
        for name in names:
            if found.values[counts[name]][place]:
                yield run, name, api.series(run, name, points=points)


def metric_name(field: str) -> str:
    """Return the metric that ``loss``, ``metrics.loss`` or ``metrics["val/acc"]`` names."""
    return metric_of(field)[0] or field


def metric_of(field: str) -> tuple[str, str]:
    """Return the metric of a column and its statistic: ``("val/acc", "max")``; ``("", "")`` where it is none."""
    if not field.startswith(("metrics.", "metrics[")):
        return "", ""
    rest = field[len("metrics") :]
    if rest.startswith("["):
        end = rest.rindex("]") if "]" in rest else len(rest)
        name, part = rest[1:end].strip(), rest[end + 1 :].lstrip(".")
        return _ESCAPED.sub(r"\1", name[1:-1]), part or "last"
    name, dot, part = rest[1:].rpartition(".")
    if dot and part in ("last", "min", "max", "mean", "best", "count", "step"):
        return name, part
    return rest[1:], "last"
