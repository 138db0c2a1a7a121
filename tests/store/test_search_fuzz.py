"""Queries made at random: what the database finds is what a few lines of Python find in the same runs."""

from __future__ import annotations

import json
import math
import operator
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runyard.testing.logged import add
from runyard.testing.stage import ME, Stage
from runyard.wire.errors import InvalidError
from runyard.wire.goals import smaller_is_better
from tests.fuzz import MORE
from tests.store.backends import make_stage

Row = dict[str, Any]
Test = Callable[[Row], bool]
Condition = tuple[str, Test]
OPS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
NUMBERS = [0.0, 1.0, -1.0, 0.1, 1e-3, 3.0, 1e300, math.inf, -math.inf]
TEXTS = [
    "adam", "adamw", "sgd", "", "Adam", "a%m", "a_m", "ü", "🧪", "x' OR '1'='1", '"', "\\", "n", "1", "true",
    "p" * 100, "p" * 99, "p" * 100 + "-first", "p" * 100 + "-second", "p" * 100 + "\0\udc80",
    "line\nbreak", "é" * 120 + "🧪", "[1, 2]",
]  # fmt: skip
PARAMS = ["lr", "opt", "lambda", "model.depth", "größe", 'odd "name\\', "'; DROP TABLE runs; --", "loss"]
METRICS = ["loss", "acc", "val/acc", "step", "ünsicher"]
STATS = ["last", "min", "max", "mean", "best", "count", "step"]
TAGS = ["baseline", "a b", "ü", "'", "%"]
SEED = 7
SLIPS = [
    "(",
    ")",
    '"',
    "'",
    "\\",
    ".",
    ",",
    " ",
    "not ",
    "=",
    "<",
    "-",
    "9" * 400,
    "e",
    "\0",
    "\ud800",
    "\n",
    "#",
    "[",
    "inf",
    "None",
]
"""What somebody types by mistake."""


def rows() -> list[Row]:
    """Return runs that have some of everything."""
    chance = random.Random(SEED)
    found = []
    for number in range(60):
        series = [*NUMBERS, math.nan]
        found.append(
            {
                "params": {
                    name: chance.choice([*NUMBERS, *TEXTS, True, False, None, math.nan, 3])
                    for name in PARAMS if chance.random() < 0.6
                },
                "metrics": {
                    name: [chance.choice(series) for _ in range(chance.randint(1, 3))]
                    for name in METRICS if chance.random() < 0.6
                },
                "tags": {tag for tag in TAGS if chance.random() < 0.3},
                "name": None if number % 3 else f"run{number}",
                "message": chance.choice(["", "first try", "baseline again", "ÄRGER"]),
                "seconds": chance.choice([None, 0.5, 3.0, 1e6]),
                "goal": chance.choice([(None, None), ("acc", -1), ("loss", 1), ("loss", -1)]),
            }
        )  # fmt: skip
    return found


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value)
    return ("-" if value < 0 else "") + ("inf" if math.isinf(value) else repr(abs(value)))


def compares(value: Any, op: str, other: Any) -> bool:
    """Compare as the language does: what has no order has none, and only ``!=`` holds of it."""
    if value is None:
        return False
    if isinstance(value, str) != isinstance(other, str):
        return op == "!="
    if isinstance(value, str) and op not in ("==", "!="):
        return bool(OPS[op](value[:100], other[:100]))
    return bool(OPS[op](value, other))


def statistic(row: Row, name: str, stat: str) -> float | None:
    values = row["metrics"].get(name)
    if values is None:
        return None
    numbers = [value for value in values if not math.isnan(value)]
    if stat in ("count", "step"):
        return len(values) - (stat == "step")
    if stat == "last" or not numbers:
        return values[-1] if stat == "last" else math.nan
    metric, sign = row["goal"]
    best = min if (sign < 0 if metric == name else smaller_is_better(name)) else max
    return float(
        sum(numbers) / len(numbers) if stat == "mean" else {"min": min, "max": max, "best": best}[stat](numbers)
    )


def param_text(name: str) -> str:
    return f"params.{name}" if all(part.isidentifier() for part in name.split(".")) else f"params[{quoted(name)}]"


@st.composite
def of_param(draw: Any) -> Condition:
    name, op = draw(st.sampled_from([*PARAMS, "nowhere"])), draw(st.sampled_from(list(OPS)))
    value = draw(st.sampled_from([*NUMBERS, *TEXTS, True, False]))
    if isinstance(value, bool) and op not in ("==", "!="):
        op = "=="
    return f"{param_text(name)} {op} {literal(value)}", lambda row: compares(row["params"].get(name), op, value)


@st.composite
def of_list(draw: Any) -> Condition:
    name, none = draw(st.sampled_from(PARAMS)), draw(st.booleans())
    values = draw(st.lists(st.sampled_from([*NUMBERS, *TEXTS]), min_size=1, max_size=5))
    text = f"{param_text(name)} {'not in' if none else 'in'} ({', '.join(map(literal, values))},)"

    def test(row: Row) -> bool:
        value = row["params"].get(name)
        return value is not None and any(compares(value, "==", other) for other in values) != none

    return text, test


@st.composite
def of_text(draw: Any) -> Condition:
    name, text = (
        draw(st.sampled_from(PARAMS)),
        draw(st.sampled_from([*TEXTS, "da", "%", "_", "-first", "-second", "e9"])),
    )
    how = draw(st.sampled_from(["in", "not in", "startswith", "endswith"]))
    place = param_text(name)
    shown = f"{quoted(text)} {how} {place}" if "in" in how.split() else f"{place}.{how}({quoted(text)})"
    check: dict[str, Callable[[str], bool]] = {
        "in": lambda value: text in value, "not in": lambda value: text not in value,
        "startswith": lambda value: value.startswith(text), "endswith": lambda value: value.endswith(text),
    }  # fmt: skip
    return shown, lambda row: isinstance(value := row["params"].get(name), str) and check[how](value)


@st.composite
def of_metric(draw: Any) -> Condition:
    name, stat = draw(st.sampled_from([*METRICS, "nowhere"])), draw(st.sampled_from(STATS))
    place = f"metrics[{quoted(name)}].{stat}"
    ops = draw(st.lists(st.sampled_from(list(OPS)), min_size=1, max_size=2))
    values = draw(st.lists(st.sampled_from(NUMBERS), min_size=2, max_size=2))
    if len(ops) == 1:
        return f"{place} {ops[0]} {literal(values[0])}", lambda row: compares(
            statistic(row, name, stat), ops[0], values[0]
        )
    chained = f"{literal(values[0])} {ops[0]} {place} {ops[1]} {literal(values[1])}"
    swapped = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(ops[0], ops[0])
    return (
        chained,
        lambda row: (
            compares(statistic(row, name, stat), swapped, values[0])
            and compares(statistic(row, name, stat), ops[1], values[1])
        ),
    )


@st.composite
def of_two(draw: Any) -> Condition:
    (one, left), (two, right) = draw(st.tuples(*[st.sampled_from(
        [*((param_text(n), lambda row, n=n: row["params"].get(n)) for n in PARAMS),
         *((f"metrics[{quoted(n)}].{s}", lambda row, n=n, s=s: statistic(row, n, s)) for n in METRICS for s in STATS)]
    )] * 2))  # fmt: skip
    op = draw(st.sampled_from(list(OPS)))
    return f"{one} {op} {two}", lambda row: (b := right(row)) is not None and compares(left(row), op, b)


@st.composite
def of_presence(draw: Any) -> Condition:
    kind = draw(
        st.sampled_from(["param", "none", "metric", "nan", "tag", "tags", "name", "duration", "message", "words"])
    )
    name, metric, tag = (draw(st.sampled_from(list(choice))) for choice in (PARAMS, METRICS, TAGS))
    word = draw(st.sampled_from(["BASELINE", "first try", "ÄRGER", "adam", "lr=0.1", "\\", "%", "opt="]))
    found: dict[str, Condition] = {
        "param": (f"has({param_text(name)})", lambda row: row["params"].get(name) is not None),
        "none": (f"{param_text(name)} is None", lambda row: row["params"].get(name) is None),
        "metric": (f"has(metrics[{quoted(metric)}])", lambda row: metric in row["metrics"]),
        "nan": (f"metrics[{quoted(metric)}].min is nan",
                lambda row: (value := statistic(row, metric, "min")) is not None and math.isnan(value)),
        "tag": (f"{quoted(tag)} in tags", lambda row: tag in row["tags"]),
        "tags": ("has(tags)", lambda row: bool(row["tags"])),
        "name": ('run.name >= "run3"', lambda row: row["name"] is not None and row["name"] >= "run3"),
        "duration": ("run.duration <= 3", lambda row: row["seconds"] is not None and row["seconds"] <= 3),
        "message": ('"again" not in run.message', lambda row: "again" not in row["message"]),
        "words": (quoted(word), lambda row: any(lower(word) in lower(text) for text in texts(row))),
    }  # fmt: skip
    return found[kind]


def lower(text: str) -> str:
    return "".join(char.lower() if char.isascii() else char for char in text)


def texts(row: Row) -> list[str]:
    shown = []
    for name, value in row["params"].items():
        plain = "NaN" if isinstance(value, float) and math.isnan(value) else str(value).replace("inf", "Infinity")
        text = value if isinstance(value, str) else {"True": "true", "False": "false", "None": "null"}.get(plain, plain)
        shown.append(f"{name}={text[:100]}")
    return [row["message"], row["name"] or "", "python train.py", "digits", *row["tags"], *shown]


atoms = st.one_of(of_param(), of_list(), of_text(), of_metric(), of_two(), of_presence())


def combined(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    def join(parts: list[Condition], word: str) -> Condition:
        text = f" {word} ".join(f"({part[0]})" for part in parts)
        every = all if word == "and" else any
        return text, lambda row: every(part[1](row) for part in parts)

    several = st.lists(inner, min_size=2, max_size=3)
    return st.one_of(
        st.builds(join, several, st.sampled_from(["and", "or"])),
        inner.map(lambda part: (f"not ({part[0]})", lambda row: not part[1](row))),
    )


conditions = st.recursive(atoms, combined, max_leaves=6)


class Filled(NamedTuple):
    """A yard, and what is in it."""

    stage: Stage
    rows: list[Row]

    def __repr__(self) -> str:
        return "a yard"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    home = tmp_path_factory.mktemp("home")
    if request.param == "sqlite":
        stage = make_stage(home, f"sqlite:///{home / 'yard.db'}")
        yield from _filled(stage)
        return
    with request.getfixturevalue("postgres").database() as url:
        yield from _filled(make_stage(home, url))


def _filled(stage: Stage) -> Iterator[Filled]:
    made = rows()
    for row in made:
        row["id"] = stage.submit(name=row["name"], message=row["message"], tags=sorted(row["tags"]))
        metric, sign = row["goal"]
        add(stage, row["id"], params_=row["params"], metrics_=row["metrics"], goal_metric=metric, goal_sign=sign,
            started_at=None if row["seconds"] is None else 0, ended_at=round((row["seconds"] or 0) * 1e6))  # fmt: skip
    yield Filled(stage, made)
    stage.close()


RANDOMLY = settings(
    max_examples=300 * MORE, derandomize=MORE == 1, suppress_health_check=list(HealthCheck), deadline=None
)


@RANDOMLY
@given(condition=conditions)
def test_the_database_finds_what_python_finds(filled: Filled, condition: Condition) -> None:
    stage, made = filled
    text, test = condition
    found = [run["id"] for run in stage.yard.runs({"q": text, "limit": 1000}, ME)["runs"]]
    assert found == [row["id"] for row in reversed(made) if test(row)]


orders = st.lists(
    st.tuples(
        st.sampled_from(["", "-"]),
        st.sampled_from(
            ["run.name", "run.created", "run.state", "run.message", "run.duration", "code.dirty",
             *map(param_text, PARAMS), *(f"metrics[{quoted(n)}].{s}" for n in METRICS for s in STATS), "metrics.nowhere"]
        ),
    ).map("".join),
    min_size=1, max_size=3,
)  # fmt: skip


def key(row: Row, order: str) -> tuple[int, Any]:
    """Return ``(kind, value)``: numbers, then texts, then nothing."""
    if order.startswith("params"):
        name = next(name for name in PARAMS if param_text(name) == order)
        value = row["params"].get(name)
        if isinstance(value, str):
            return 1, value[:100]
    elif order.startswith("metrics["):
        name, stat = order.removeprefix("metrics[").rsplit("].", 1)
        value = statistic(row, json.loads(name), stat)
    elif order in ("run.name", "run.message"):
        return (2, 0) if (text := row[order.removeprefix("run.")]) is None else (1, text)
    else:
        value = {"run.created": row["number"], "run.duration": row["seconds"]}.get(order, 0)
    return (2, 0) if value is None or math.isnan(value) else (0, value)


def in_order(made: list[Row], order: list[str]) -> list[str]:
    found = sorted(made, key=lambda row: row["number"], reverse=order[0].startswith("-"))
    for item in reversed(order):
        name = item.removeprefix("-")
        there = [row for row in found if key(row, name)[0] < 2]
        values = sorted({key(row, name) for row in there}, reverse=item.startswith("-"))
        missing = [row for row in found if key(row, name)[0] == 2]
        found = [row for value in values for row in there if key(row, name) == value] + missing
    return [row["id"] for row in found]


@settings(RANDOMLY, max_examples=120 * MORE)
@given(order=orders, limit=st.integers(1, 70), condition=conditions)
def test_pages_together_are_the_whole_in_order(
    filled: Filled, order: list[str], limit: int, condition: Condition
) -> None:
    stage, made = filled
    for number, row in enumerate(made):
        row["number"] = number
    query: dict[str, Any] = {"order": ",".join(order), "limit": limit, "q": condition[0]}
    seen: list[str] = []
    before = None
    while True:
        page = stage.yard.runs({**query, **({"before": before} if before else {})}, ME)
        seen += [run["id"] for run in page["runs"]]
        before = page["next"]
        if before is None:
            break
        assert len(page["runs"]) == limit
    assert seen == in_order([row for row in made if condition[1](row)], order)


@settings(RANDOMLY, max_examples=500 * MORE)
@given(query=st.one_of(st.text(max_size=60), st.lists(st.sampled_from(
    ["run", "params", "metrics", ".", "lr", "[", "]", '"x"', "(", ")", "and", "or", "not", "in", "is", "None", "==", "<",
     "1", "-", ",", "tags", "has", "nan", " ", "data", "env", "code", "state", "=", "'", "\\", "\0", "\ud800", "é", "🧪"]
), max_size=14).map("".join), st.lists(st.sampled_from(
    ["run.name", "params.lr", 'metrics["a"].best', '"x"', "(", ")", "and", "or", "not", "in", "is", "None", "==", "<",
     "1", "-", ",", "tags", "has(", "nan", "data", "env.python", "code.dirty", "run.created", ".startswith("]
), max_size=10).map(" ".join)))  # fmt: skip
def test_any_text_is_a_query_or_invalid(filled: Filled, query: str) -> None:
    check_read_or_refused(filled, query)


@settings(RANDOMLY, max_examples=300 * MORE)
@given(condition=conditions, data=st.data())
def test_a_query_with_slips_is_read_or_refused(filled: Filled, condition: Condition, data: st.DataObject) -> None:
    query = condition[0]
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(query)))
        end = min(len(query), start + data.draw(st.integers(0, 3)))
        query = query[:start] + data.draw(st.sampled_from(["", query[start:end] * 2, *SLIPS])) + query[end:]
    check_read_or_refused(filled, query)


def check_read_or_refused(filled: Filled, query: str) -> None:
    stage, _ = filled
    for asked in ({"q": query}, {"order": query}, {"before": query or "x"}):
        try:
            column = 1 if stage.yard.runs(asked, ME) else 0
        except InvalidError as exc:
            column = exc.details.get("column", 1)
        assert 1 <= column <= len(query) + 1
