"""Configuration files as parameters: what each format says, and that no text breaks the server."""

from __future__ import annotations

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.services.configs import parse_config

YAML = """
rate: 1e-4
answer: no
octal: 010
day: 2024-01-01
time: 12:30:45
grouped: 1_000
layers: [64, 32]
optim: &optim {name: adam, eps: .5, betas: [0.9, 0.999]}
again: {<<: *optim, name: sgd}
nothing: ~
empty:
on: true
inf: -.inf
tagged: !Model {dim: 8}
python: !!python/object/apply:os.system ["true"]
? {a: 1}
: odd
"""


def test_yaml_is_read_as_version_1_2() -> None:
    found = parse_config("yaml", YAML.partition("? {a")[0]).values
    assert found == {
        "rate": 1e-4, "answer": "no", "octal": 10, "day": "2024-01-01", "time": "12:30:45", "grouped": "1_000",
        "layers": "[64, 32]", "optim.name": "adam", "optim.eps": 0.5, "optim.betas": "[0.9, 0.999]", "again.name": "sgd",
        "again.eps": 0.5, "again.betas": "[0.9, 0.999]", "nothing": None, "empty": None, "on": True, "inf": -math.inf,
        "tagged.dim": 8, "python": '["true"]',
    }  # fmt: skip
    assert "no YAML" in parse_config("yaml", YAML).note


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("json", '{"a": {"b": [1, 2]}, "c": 1e-3, "password": "x"}', {"a.b": "[1, 2]", "c": 1e-3, "password": "(hidden)"}),
        ("toml", 'a = 1\nday = 2024-01-01\n[b]\nc = "x"\n', {"a": 1, "day": "2024-01-01", "b.c": "x"}),
        ("ini", "[train]\nLR = 1e-3\nname: x%y\nflag\n[DEFAULT]\nseed=1", {"train.LR": 1e-3, "train.name": "x%y",
                                                                        "train.flag": None, "seed": 1}),
        ("ini", "lr = 0.1\n", {"lr": 0.1}),
        ("yaml", "a: 1\n---\nb: 2\n", {"a": 1}),
        ("json", "[1, 2]", {}),
        ("yaml", "just text", {}),
        ("yaml", "", {}),
    ],
)  # fmt: skip
def test_formats(kind: str, text: str, expected: dict[str, object]) -> None:
    assert parse_config(kind, text) == (expected, "")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("yaml", "a: [1"), ("json", '{"a": '), ("toml", "a = "), ("ini", "[a]\n[b\n=x"), ("xml", "<a/>"),
        ("yaml", "[" * 5000), ("json", "[" * 50000), ("toml", "a = " + "[" * 5000), ("json", " " * 300_000),
        ("yaml", "a: !!int x"), ("yaml", "a: !!float x"), ("yaml", "a: \x00"), ("json", '{"a": ' + "9" * 5000 + "}"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_has_no_values_and_says_why(kind: str, text: str) -> None:
    found = parse_config(kind, text)
    assert (found.values, bool(found.note)) == ({}, True)


def nested(item: str) -> str:
    """Return YAML whose nine lines each name the one before several times."""
    lines = ["a0: &a0 {x: 1, y: 2, z: 3}"]
    lines += [f"a{n}: &a{n} {item.format(*[f'*a{n - 1}'] * 9)}" for n in range(1, 10)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [nested("[{}, {}, {}, {}, {}, {}, {}, {}, {}]"), nested("{{p: {}, q: {}, r: {}}}"),
     nested("{{<<: [{}, {}, {}, {}, {}, {}, {}, {}, {}]}}"), "a: &a [*a]", "a: &a {b: *a}"],
)  # fmt: skip
def test_aliases_do_not_grow_beyond_measure(text: str) -> None:
    started = time.monotonic()
    found = parse_config("yaml", text)
    assert len(json.dumps(found)) < 1_000_000
    assert time.monotonic() - started < 20


def test_more_values_than_a_program_has_parameters_are_cut() -> None:
    found = parse_config("json", json.dumps({str(number): number for number in range(1001)}))
    assert (len(found.values), found.note) == (1000, "only the first 1000 values were taken")


@given(st.sampled_from(["yaml", "json", "toml", "ini"]), st.text(max_size=200))
def test_no_text_raises(kind: str, text: str) -> None:
    for value in parse_config(kind, text).values.values():
        assert value is None or isinstance(value, (bool, int, float, str))
