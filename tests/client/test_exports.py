"""Columns of values, and the files made of them."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.client import columns, exports
from runyard.client.columns import Columns

TEXTS = st.text(max_size=20).filter(lambda text: text.isprintable() or "\n" in text or "," in text).map(
    lambda text: text.encode("utf-8", "replace").decode()
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXTS
TABLES = st.lists(st.tuples(SCALARS, SCALARS), min_size=1, max_size=8).map(
    lambda rows: Columns({"params.a": [a for a, _ in rows], 'metrics["b,c"]': [b for _, b in rows]}, len(rows))
)


def same(one: Any, two: Any) -> bool:
    """Tell whether two values are the same, NaN too; 1 and true are not."""
    if isinstance(one, float) and isinstance(two, float) and math.isnan(one):
        return math.isnan(two)
    return isinstance(one, bool) == isinstance(two, bool) and one == two


@given(TABLES)
def test_what_is_read_back_from_csv_is_what_was_written(table: Columns) -> None:
    rows = list(csv.reader(io.StringIO(exports.csv(table).decode(), newline="")))
    assert rows[0] == table.names
    assert rows[1:] == [[exports.word(value) for value in row] for row in table.rows()]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""), ("", '""'), ("a,b", '"a,b"'), ('say "x"', '"say ""x"""'), ("two\nlines", '"two\nlines"'), (" x", '" x"'),
        (True, "true"), (1, "1"), (0.1, "0.1"), (1e-05, "1e-05"), (-0.0, "-0.0"), (math.nan, "NaN"),
        (-math.inf, "-Infinity"), ("größe", "größe"), ("🧪", "🧪"),
    ],
)  # fmt: skip
def test_cells_of_csv(value: Any, shown: str) -> None:
    assert exports.csv(Columns({"a": [value]}, 1)).decode() == "a\n" + shown + "\n"


@given(TABLES)
def test_json_has_an_object_for_each_run_and_keeps_the_types(table: Columns) -> None:
    found = json.loads(exports.json_records(table), parse_constant=lambda name: pytest.fail("%s is no JSON" % name))
    assert [list(row) for row in found] == [table.names] * table.count
    for row, values in zip(found, table.rows(), strict=True):
        for one, two in zip(row.values(), values, strict=True):
            assert same(one, exports.scalar(two))


def test_json_of_no_runs() -> None:
    assert json.loads(exports.json_records(Columns({}, 0))) == []


TYPED = {
    "id": ["a", "b", "c"], "created_at": ["2026-11-20T09:30:05.000001Z", None, "1969-12-31T23:59:59.999999Z"],
    "params.lr": [0.1, None, 1], "params.seed": [1, 2, 3], "params.depth": [1, None, 2**62 + 1],
    "params.flag": [True, False, True], "params.maybe": [True, None, False], "params.mixed": [0.5, "auto", True],
    "params.text": ["größe", None, ""], "params.empty": [None, None, None],
    "metrics.loss": [math.nan, None, -math.inf],
}  # type: dict[str, list[Any]]  # fmt: skip


def test_types_in_parquet() -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(exports.parquet(Columns(TYPED, 3))))
    types = {field.name: str(field.type) for field in table.schema}
    assert types == {
        "id": "string", "created_at": "timestamp[us, tz=UTC]", "params.lr": "double", "params.seed": "int64",
        "params.depth": "int64", "params.flag": "bool", "params.maybe": "bool", "params.mixed": "string",
        "params.text": "string", "params.empty": "null", "metrics.loss": "double",
    }  # fmt: skip
    values = table.to_pydict()
    assert values["params.lr"] == [0.1, None, 1.0]
    assert values["params.depth"] == [1, None, 2**62 + 1]
    assert values["params.mixed"] == ["0.5", "auto", "true"]
    assert values["params.text"] == ["größe", None, ""]
    assert math.isnan(values["metrics.loss"][0]) and values["metrics.loss"][1:] == [None, -math.inf]
    assert [moment and moment.isoformat() for moment in values["created_at"]] == [
        "2026-11-20T09:30:05.000001+00:00", None, "1969-12-31T23:59:59.999999+00:00"
    ]  # fmt: skip


def test_types_in_a_data_frame() -> None:
    pytest.importorskip("pandas")
    import pandas as pd

    frame = exports.frame(Columns(TYPED, 3))
    kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert kinds.pop("created_at").endswith(", UTC]")
    assert {kinds.pop("id"), kinds.pop("params.text")} <= {"str", "object", "string"}
    assert kinds == {
        "params.lr": "float64", "params.seed": "int64", "params.depth": "Int64", "params.flag": "bool",
        "params.maybe": "boolean", "params.mixed": "object", "params.empty": "object", "metrics.loss": "float64",
    }  # fmt: skip
    assert frame["params.depth"][2] == 2**62 + 1 and frame["params.depth"][1] is pd.NA
    assert list(frame["params.mixed"]) == [0.5, "auto", True]
    assert frame["created_at"][0] == pd.Timestamp("2026-11-20T09:30:05.000001Z")
    assert exports.frame(Columns({name: [] for name in TYPED}, 0)).shape == (0, len(TYPED))


LARGE = {
    "params.seed": [2**64 - 1, 3, None], "params.low": [-(2**63) - 1, None, 1], "params.huge": [10**400, 0.5, None],
    "params.beside": [2**53 + 1, 0.5, None], "params.largest": [2**63 - 1, -(2**63), 0], "params.exact": [2**53 - 1, 0.5, 1],
}  # type: dict[str, list[Any]]  # fmt: skip


def test_whole_numbers_that_64_bits_do_not_hold_lose_nothing() -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = Columns(LARGE, 3)
    frame = exports.frame(table)
    assert [str(kind) for kind in frame.dtypes] == ["object", "object", "object", "object", "int64", "float64"]
    assert {name: list(frame[name]) for name in frame if name != "params.exact"} == {
        name: values for name, values in LARGE.items() if name != "params.exact"
    }
    values = pq.read_table(io.BytesIO(exports.parquet(table))).to_pydict()
    assert values["params.seed"] == ["18446744073709551615", "3", None]
    assert values["params.largest"] == LARGE["params.largest"]
    assert values["params.exact"] == [float(2**53 - 1), 0.5, 1.0]
    assert exports.csv(table).decode().splitlines()[1].startswith("18446744073709551615,-9223372036854775809,1000")
    assert json.loads(exports.json_records(table))[0]["params.huge"] == 10**400


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(exports.MissingPackageError) as caught:
        exports.frame(Columns({"a": [1]}, 1))
    assert "needs pandas" in caught.value.message and "pip install 'runyard[pandas]'" in caught.value.hint
    assert isinstance(caught.value, ImportError)


class Pages:
    """Answers like the table of the server, a page of some runs at a time."""

    def __init__(self, *pages: dict[str, list[Any]]) -> None:
        self.pages = list(pages)
        self.asked: list[dict[str, Any]] = []

    def table(self, **filters: Any) -> dict[str, Any]:
        self.asked.append(filters)
        page = self.pages[len(self.asked) - 1]
        more = len(self.asked) < len(self.pages)
        return {"columns": list(page), "data": list(page.values()), "next": "more" if more else None, "hints": []}


def fetch(pages: Pages, wanted: list[str], **filters: Any) -> Columns:
    return columns.fetch(pages, wanted, **filters)  # type: ignore[arg-type]


def test_pages_are_put_together() -> None:
    pages = Pages(
        {"run.id": ["a", "b"], "id": ["a", "b"], "params.b": [1, None], "metrics.loss": ["NaN", 0.5]},
        {"run.id": ["c"], "id": ["c"], "params.a": ["x"], "params.b": [2]},
    )
    found = fetch(pages, ["id", "params.*", "metrics.*"], limit=9, q="x")
    assert found.names == ["id", "params.a", "params.b", "metrics.loss"]
    assert found.count == 3
    assert found.values["params.a"] == [None, None, "x"]
    assert found.values["params.b"] == [1, None, 2]
    loss = found.values["metrics.loss"]
    assert math.isnan(loss[0]) and loss[1:] == [0.5, None]
    assert [(asked["limit"], asked["before"], asked["q"]) for asked in pages.asked] == [
        (9, None, "x"),
        (7, "more", "x"),
    ]


@pytest.mark.parametrize(
    ("name", "sent", "values"),
    [
        ("metrics.loss", ["Infinity", "-Infinity", 1.0], [math.inf, -math.inf, 1.0]),
        ("loss", ["Infinity", None], [math.inf, None]),
        ("params.lr", ["Infinity", 0.1], [math.inf, 0.1]),
        ("params.name", ["NaN", None], ["NaN", None]),
        ("params.name", ["NaN", "Infinity"], ["NaN", "Infinity"]),
        ("params.name", ["NaN", "other", 1], ["NaN", "other", 1]),
        ("params.l", [[1, "ü"], None, "[1]", []], ['[1, "ü"]', None, "[1]", "[]"]), ("params.l", [[1], 2], ["[1]", 2]),
        ("name", ["Infinity"], ["Infinity"]),
        ("run.message", ["a\udce9b", "ü"], ["a\\udce9b", "ü"]),
        ("params.n", [1, None, -(2**63)], [1, None, -(2**63)]),
        ("params.n", [1, 2**63, 10**400], [1, 2**63, 10**400]),
    ],
)  # fmt: skip
def test_values_that_json_has_not(name: str, sent: list[Any], values: list[Any]) -> None:
    found = fetch(Pages({"run.id": ["r"] * len(sent), name: sent}), [name])
    assert found.values == {name: values}


NAMES = st.text(st.sampled_from("ab/.\\\"',[] ü"), min_size=1, max_size=8)


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_any_metric_can_be_a_column_among_others(names: list[str]) -> None:
    fields = [columns.quoted("metrics", name) + ".max" for name in names]
    assert columns.split(" , ".join(["lr", *fields])) == ["lr", *fields]
    assert [columns.metric_of(field) for field in fields] == [(name, "max") for name in names]


@pytest.mark.parametrize(
    ("field", "metric"),
    [
        ("metrics.loss", ("loss", "last")), ("metrics.val.loss.min", ("val.loss", "min")),
        ("metrics.val/acc", ("val/acc", "last")),
        ("metrics['a\"b']", ('a"b', "last")), ("params.lr", ("", "")), ("loss", ("", "")),
    ],
)  # fmt: skip
def test_the_metric_of_a_column(field: str, metric: tuple[str, str]) -> None:
    assert columns.metric_of(field) == metric
