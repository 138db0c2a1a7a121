"""Columns of values as CSV, JSON, Parquet and data frames. pandas and pyarrow are imported where they are asked for."""

from __future__ import annotations

import json
import math

from runyard.client import columns
from runyard.wire.errors import RunyardError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from runyard.client.columns import Columns


class MissingPackageError(RunyardError, ImportError):
    """An optional package is needed for this and not installed."""

    code = "missing_package"


def needed(name: str) -> Any:
    """Import an optional package; raises `MissingPackageError`."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise MissingPackageError(
            "this needs %s, which this Python does not have (%s)" % (name.partition(".")[0], exc),
            "install it: pip install 'runyard[pandas]'",
        ) from exc


def scalar(value: Any) -> Any:
    """Return a value as JSON has it: NaN and infinities are texts."""
    if type(value) is float and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def word(value: Any) -> str:
    """Return a value as text: ``true``, ``0.1``, ``NaN``; ``""`` for none."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(scalar(value)).strip('"') if isinstance(value, (bool, float)) else str(value)


def csv(table: Columns) -> bytes:
    """Return CSV (RFC 4180, but lines end with a line feed) in UTF-8; a missing value is empty, an empty text in quotes."""
    lines = [",".join(map(_field, table.names))]
    if table.values:
        lines += map(",".join, zip(*map(_fields, table.values.values())))
    return ("\n".join(lines) + "\n").encode("utf-8")


def _fields(values: Sequence[Any]) -> list[str]:
    """Return the fields of a column; a text that many runs have is made once."""
    texts = {value: _field(value) for value in {value for value in values if type(value) is str}}
    return [
        texts[value]
        if type(value) is str
        else repr(value)
        if type(value) is float and value - value == 0.0
        else word(value)
        for value in values
    ]


def _field(value: Any) -> str:
    text = word(value)
    if isinstance(value, str) and (not text or text != text.strip() or any(char in text for char in ',"\n\r')):
        return '"%s"' % text.replace('"', '""')
    return text


def json_records(table: Columns) -> bytes:
    """Return a JSON array with an object for each row; null where there is no value."""
    names = table.names
    rows = (dict(zip(names, map(scalar, row))) for row in table.rows())
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    return ("[%s]\n" % ("\n" + lines + "\n" if lines else "")).encode("utf-8")


def parquet(table: Columns) -> bytes:
    """Return a Parquet file; columns with values of several kinds are text. Raises `MissingPackageError`."""
    arrow, writer = needed("pyarrow"), needed("pyarrow.parquet")
    types = {
        columns.NOTHING: arrow.null, columns.SWITCH: arrow.bool_, columns.INTEGER: arrow.int64,
        columns.NUMBER: arrow.float64, columns.TEXT: arrow.string, columns.MIXED: arrow.string,
    }  # fmt: skip
    arrays = {}
    for name, values in table.values.items():
        kind = table.kind(name)
        if name in columns.TIMES and kind in (columns.TEXT, columns.INTEGER):
            moments = [_moment(value) for value in values] if kind == columns.TEXT else values
            arrays[name] = arrow.array(moments, arrow.timestamp("us", tz="UTC"))
            continue
        column: list[Any] = values
        if kind == columns.MIXED:
            column = [None if value is None else word(value) for value in values]
        elif kind == columns.NUMBER:
            column = [None if value is None else float(value) for value in values]
        arrays[name] = arrow.array(column, types[kind]())
    sink = arrow.BufferOutputStream()
    writer.write_table(arrow.table(arrays), sink)
    return bytes(sink.getvalue().to_pybytes())


def _moment(text: str | None) -> int | None:
    """Return microseconds since 1970 of a time as the server writes it: ISO 8601 in UTC."""
    if text is None:
        return None
    import datetime

    moment = datetime.datetime.strptime(text[:26].rstrip("Z") + "+0000", "%Y-%m-%dT%H:%M:%S.%f%z")
    return (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) // datetime.timedelta(microseconds=1)


def frame(table: Columns) -> Any:
    """Return a pandas data frame. Raises `MissingPackageError`.

    Times are ``datetime64`` in UTC; numbers float64, in which what is missing is NaN; whole numbers and switches
    int64 and bool, where some are missing Int64 and boolean; columns with values of several kinds hold objects.
    """
    pandas = needed("pandas")
    series = {}
    for name, values in table.values.items():
        kind, whole = table.kind(name), None not in values
        if name in columns.TIMES and kind == columns.TEXT:
            series[name] = pandas.to_datetime(pandas.Series(values, dtype="object"), utc=True)
        elif kind in (columns.SWITCH, columns.INTEGER):
            plain, nullable = ("bool", "boolean") if kind == columns.SWITCH else ("int64", "Int64")
            series[name] = pandas.Series(values, dtype=plain if whole else nullable)
        elif kind in (columns.MIXED, columns.NOTHING):
            series[name] = pandas.Series(values, dtype="object")
        else:
            series[name] = pandas.Series(values, dtype="float64" if kind == columns.NUMBER else None)
    return pandas.DataFrame(series, index=range(table.count))


def long_frame(found: Iterable[tuple[str, str, dict[str, Any]]]) -> Any:
    """Return points of metrics as a pandas data frame: run, metric, step, time, value. Raises `MissingPackageError`."""
    pandas = needed("pandas")
    numpy = needed("numpy")
    runs, metrics, counts = [], [], []  # type: list[str], list[str], list[int]
    arrays = {"step": [numpy.zeros(0, "int64")], "time": [numpy.zeros(0, "int64")], "value": [numpy.zeros(0)]}
    for run, metric, points in found:
        runs.append(run)
        metrics.append(metric)
        counts.append(len(points["steps"]))
        for name, column in arrays.items():
            column.append(numpy.asarray(points[name + "s"]))
    values = {
        "run": numpy.repeat(numpy.asarray(runs, dtype=object), counts),
        "metric": numpy.repeat(numpy.asarray(metrics, dtype=object), counts),
    }
    values.update((name, numpy.concatenate(column)) for name, column in arrays.items())
    values["time"] = pandas.to_datetime(pandas.Series(values["time"]), unit="us", utc=True)
    return pandas.DataFrame(values)


def long_columns(found: Iterable[tuple[str, str, dict[str, Any]]]) -> Columns:
    """Return points of metrics as columns: run, metric, step, time (microseconds since 1970) and value."""
    values = {name: [] for name in columns.HISTORY}  # type: dict[str, list[Any]]
    for run, metric, points in found:
        count = len(points["steps"])
        values["run"] += [run] * count
        values["metric"] += [columns.utf8(metric)] * count
        for name in ("step", "time", "value"):
            values[name] += points[name + "s"].tolist()
    return columns.Columns(values, len(values["run"]))


def with_dates(table: Columns) -> Columns:
    """Return a history whose times are ISO 8601 texts."""
    return columns.Columns(dict(table.values, time=list(map(_iso, table.values["time"]))), table.count)


def _iso(moment: int) -> str | None:
    """Return a time as text; None for one that no calendar has, of a clock that was wrong."""
    import datetime

    start = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
    try:
        found = start + datetime.timedelta(microseconds=moment)
    except OverflowError:
        return None
    return found.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
