"""The query language: what is read, and what is said of what cannot be."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.model.fields import Field
from runyard.model.query import parse, parse_field, parse_order
from runyard.model.recorded import holds, version_key
from runyard.model.times import Moment, parse_duration, parse_moment
from runyard.model.tree import All, Compare, Either, Has, Holds, IsNan, Named, Not, OneOf, Words
from runyard.wire.errors import InvalidError
from runyard.wire.goals import smaller_is_better

NOW = 1_800_000_000_000_000
LR = Field("params", "lr", kind="any")
LOSS = Field("metrics", "loss", "last", "number")
A_VALUE = "a field such as run.state or params.lr, a number, or a text in quotes"
TAGS = Field("tags", "", kind="set")


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    "query",
    ["a b", "run.py", "--lr=0.1", "it's", "';", "not good", "train or eval", "50%", "x-y", "a=b", "data.size=3", "(a", "3",
     "train in prod", "é 🧪", "\0", "a.b.c", "run.sate"],
)  # fmt: skip
def test_words(query: str) -> None:
    assert parse(query, NOW) == All((Words(tuple(query.split())),))


@pytest.mark.parametrize(
    ("query", "tree"),
    [
        ("", All(())),
        (" \n", All(())),
        ("params.lr", Either((All((Words(("params.lr",)),)), Has(LR)))),
        ("code.dirty", Has(Field("code", "dirty", kind="switch"))),
        ('params["lr"]', Has(LR)),
        ("params.lr>=1e-3", Compare(LR, ">=", 0.001)),
        ("params.lr in (0.5)", OneOf(LR, (0.5,), none=False)),
        ('params.lr not in ("a")', OneOf(LR, ("a",), none=True)),
        ("-.5 < metrics.loss <= 1.", All((Compare(LOSS, ">", -0.5), Compare(LOSS, "<=", 1.0)))),
        ("metrics.loss.last == inf", Compare(LOSS, "==", float("inf"))),
        ("params.lambda == -inf", Compare(Field("params", "lambda", kind="any"), "==", -float("inf"))),
        ("params.is is None", Not(Has(Field("params", "is", kind="any")))),
        ("params.lr is not None", Has(LR)),
        ("params.lr != None", Has(LR)),
        ("params.lr == true", Compare(LR, "==", True)),
        ("params.ﬁ > 1", Compare(Field("params", "ﬁ", kind="any"), ">", 1.0)),
        ('params["\\u00fc\\n\\q"] == "\\x41\'"', Compare(Field("params", "ü\n\\q", kind="any"), "==", "A'")),
        ("metrics.loss is nan", IsNan(LOSS)),
        ("metrics.loss.min < 1", Compare(Field("metrics", "loss", "min", "number"), "<", 1.0)),
        ('metrics["loss.min"] < 1', Compare(Field("metrics", "loss.min", "last", "number"), "<", 1.0)),
        ("metrics.min < 1", Compare(Field("metrics", "min", "last", "number"), "<", 1.0)),
        ('"x" in tags', Named(TAGS, "x")),
        ("'x' not in tags", Not(Named(TAGS, "x"))),
        ('"ad" in params.lr', Holds(LR, "in", "ad")),
        ('run.name.endswith("x")', Holds(Field("run", "name"), "endswith", "x")),
        ('params.lr in (1, "a",)', OneOf(LR, (1.0, "a"))),
        ("params.lr not in [1]", OneOf(LR, (1.0,), none=True)),
        ("0.1 == params.lr and not has(metrics.loss) or 'a b'",
         Either((All((Compare(LR, "==", 0.1), Not(Has(LOSS)))), Words(("a b",))))),
        ("run.duration > '1h30m'", Compare(Field("run", "duration", kind="duration"), ">", 5400.0)),
        ("run.created_at >= '2h ago'",
         Compare(Field("run", "created", kind="time"), ">=", Moment(NOW - 7_200_000_000, NOW - 7_199_999_999))),
        ("data.train.csv.size > 1", Compare(Field("data", "train.csv", "size", "number"), ">", 1.0)),
        ("env.packages.scikit_learn == '1'", Compare(Field("env", "scikit-learn", "packages"), "==", "1")),
    ],
)  # fmt: skip
def test_expressions(query: str, tree: object) -> None:
    assert parse(query, NOW) == tree


@pytest.mark.parametrize(
    ("query", "column", "message", "hint"),
    [
        ("metrics.loss < 0.5 and run.sate == 1", 28, "run has no field sate", "did you mean run.state or run.started?"),
        ("metric.loss < 1", 1, "there is no metric", "did you mean metrics?"),
        ("loss < 0.5", 1, "there is no loss",
         'did you mean metrics.loss or params.loss? Or in quotes it is a text, or a word to search for: "loss"'),
        ("lr = 0.3", 4, "= is no operator here", "write =="),
        ('params.lr in "a"', 14, "a list, or a field that is a text, is expected after in",
         'e.g. params.lr in (0.1, 0.2), "adam" in params.optimizer'),
        ("baseline and metrics.loss < 1", 1, "there is no baseline",
         'in quotes it is a text, or a word to search for: "baseline"'),
        ("params.lr = 3", 11, "= is no operator here", "write =="),
        ("params.lr > 1 && params.x < 2", 15, "&& is no operator here", "write and"),
        ("params.lr <", 12, f"the query ends where {A_VALUE} is expected",
         "see docs/search.md"),
        ("params.lr 3 < 4", 11, "an operator such as ==, <, in, and, or is expected, found 3",
         'words to search for stand in quotes: "baseline" and metrics.loss < 1'),
        ("metrics.val/acc > 3", 12, "an operator such as ==, <, in, and, or is expected, found /",
         'there is no arithmetic; a name with other characters stands in brackets: metrics["val/acc"]'),
        ("(params.lr < 3", 1, "this ( is never closed", "see docs/search.md"),
        ("params.lr < 3)", 14, "this ) closes nothing", "see docs/search.md"),
        ("params.3d > 1", 7, "a name does not begin with a digit", 'in brackets it may: params["3d"]'),
        ('run.state == "don"', 14, "no run is ever 'don'",
         "states: queued, held, running, finished, failed, killed, lost"),
        ('run.state in ("failed", "runing")', 25, "no run is ever 'runing'", "did you mean running?"),
        ("run.name > 3", 12, "run.name is a text", "put what it is compared with in quotes"),
        ('metrics.loss < "0.5"', 16, "metrics.loss is a number", "write what it is compared with without quotes"),
        ("metrics.loss == nan", 17, "nothing equals nan", "metrics.loss is nan"),
        ('run.duration > "soon"', 16, "'soon' is no duration", 'seconds, or e.g. "90s", "2h", "1h30m"'),
        ("tags == 'x'", 1, "tags has any number of names", '"NAME" in tags'),
        ("1 < 2", 1, "this compares two values, and nothing of a run", "a text to search for stands alone"),
        ('"é" and metrics["a"].bst > 3', 17, "a metric has no bst", "did you mean best?"),
        ("params.lr in ()", 14, "the list is empty", "see docs/search.md"),
        ("haz(params.lr) and params.x > 1", 1, "there is no such function",
         "there are has(FIELD), FIELD.startswith(TEXT), FIELD.endswith(TEXT)"),
        ("code.dirty == 1", 15, "code.dirty is on or off", "write code.dirty, or not code.dirty"),
        ('params["a" > 3', 7, "this [ is never closed", "see docs/search.md"),
        ('params[x] > 3', 8, "a name in quotes is expected in the brackets", 'e.g. params["batch-size"]'),
        ("run.name == params.y", 13, "run.name and params.y cannot be compared", "two numbers, two texts or two times can"),
    ],
)  # fmt: skip
def test_errors_say_where_what_and_what_instead(query: str, column: int, message: str, hint: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse(query, NOW)
    error = caught.value
    assert (error.details["column"], error.message, error.hint) == (
        column, f"column {column} of the query: {message}", hint
    )  # fmt: skip
    assert error.details["query"] == query


@pytest.mark.parametrize(
    "query",
    [
        "(" * 5000 + "params.x" + ")" * 5000,
        "not " * 2000 + "params.x == 1",
        "params" + ".a" * 4000 + " == 1",
        " and ".join(["params.x == 1"] * 500),
        "params.x in (" + "1," * 1400 + ")",
        "params.x == " + "-" * 3000 + "1",
        "x" * 10_001,
        "[" * 3000 + " == 1",
        "params.x < " * 250 + "1",
    ],
)
def test_what_is_too_long_or_too_deep_is_refused(query: str) -> None:
    with pytest.raises(InvalidError):
        parse(query, NOW)


def test_what_is_as_long_and_as_deep_as_may_be_is_read() -> None:
    for query in (
        "(" * 40 + "params.x == 1" + ")" * 40,
        " or ".join(["params.x == 1"] * 200),
        "params.x in (" + "1," * 1000 + ")",
        "params.x == " + "9" * 5000,
        '"' + "x" * 9_998 + '"',
    ):
        parse(query, NOW)


@given(st.text())
def test_any_text_is_read_or_refused(query: str) -> None:
    for read in (lambda text: parse(text, NOW), parse_field, parse_order):
        try:
            read(query)
        except InvalidError:
            continue


@given(st.text(min_size=1), st.sampled_from(["params", "metrics", "data"]))
def test_any_name_can_be_asked_for_as_it_is_shown(name: str, space: str) -> None:
    field = Field(space, name, "" if space != "metrics" else "last", "any")
    read = parse_field(str(field))
    assert (read.space, read.name) == (space, name) or read.part not in ("", "last")


def test_times(berlin: None) -> None:
    def us(text: str) -> int:
        return round(dt.datetime.fromisoformat(text).timestamp() * 1e6)

    day = Moment(us("2026-01-31T00:00:00+01:00"), us("2026-02-01T00:00:00+01:00"))
    assert parse_moment("2026-01-31", NOW) == day
    assert parse_moment(" 2026-07-01 09:30", NOW).start == us("2026-07-01T09:30:00+02:00")
    assert parse_moment("2026-07-01T09:30:00Z", NOW).start == us("2026-07-01T09:30:00+00:00")
    assert parse_moment("yesterday", day.start) == Moment(day.start - 86_400_000_000, day.start)
    assert parse_moment("today", day.end - 1) == day
    assert parse_moment("now", NOW) == Moment(NOW, NOW + 1)
    for text, seconds in {"2h ago": 7200, "3 days ago": 259200, "1h 30 min ago": 5400, "90 ago": 90}.items():
        assert parse_moment(text, NOW).start == NOW - seconds * 1_000_000, text
    for wrong in (
        "",
        "soon",
        "2026-13-01",
        "ago",
        "2 moons ago",
        "0001-01-01T00:00:00+23:59",
        "9" * 400 + "d ago",
        "nan ago",
    ):
        with pytest.raises(ValueError):
            parse_moment(wrong, NOW)
    assert parse_duration("2 hours") == 7200.0


def test_orders() -> None:
    assert [(key.field.name, key.descending) for key in parse_order("-metrics.val/acc, params[\"a,b\"],loss")] == [
        ("val/acc", True), ("a,b", False), ("loss", False)
    ]  # fmt: skip
    assert parse_order(" ") == parse_order("-run.created")
    for wrong in ("-", "run.sate", "loss,,acc", "data..0", "a,b,c,d,e,f", "env.python", "metrics."):
        with pytest.raises(InvalidError):
            parse_order(wrong)


def test_the_name_says_what_is_best() -> None:
    for name in ("loss", "val/loss", "train_loss", "Val-MSE", "WER", "eval.perplexity", "l1_error"):
        assert smaller_is_better(name), name
    for name in ("acc", "glossary", "lossless", "f1", "auc", "reward", ""):
        assert not smaller_is_better(name), name


def test_versions_are_in_their_order() -> None:
    versions = [
        "1.9",
        "2.0.dev1",
        "2.0a1",
        "2.0rc1",
        "2.0",
        "2.0+cu118",
        "2.0.post1",
        "2.0.1",
        "2.1rc1",
        "2.1",
        "2.9",
        "2.10",
    ]
    assert sorted(set(versions), key=version_key) == versions
    assert version_key("2.0.0") == version_key("2")


def test_environments() -> None:
    content = {
        "python": {"version": "3.11.4"},
        "packages": {"torch": "2.10.0"},
        "os": "Debian",
        "lock_files": ["uv.lock"],
    }
    for query, expected in {
        'env.python >= "3.9"': True, 'env.packages.torch > "2.9"': True, 'env.packages.torch == "2.10"': False,
        'env.packages.jax != "1"': False, 'env.os in ("Debian", "Ubuntu")': True, '"bian" in env.os': True,
        'env.os.startswith("U")': False, "has(env.kernel)": False, 'env.python.version not in ("3.11.4",)': False,
    }.items():  # fmt: skip
        assert holds(parse(query, NOW), content) is expected, query
