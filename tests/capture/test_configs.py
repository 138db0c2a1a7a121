"""Configuration files as parameters: what each format says, and that no text breaks the server."""

from __future__ import annotations

import json
import math
import subprocess
import sys
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
        ("yaml", "a: !!timestamp x"), ("yaml", "a: !!bool x"), ("yaml", "a: !!omap x"), ("yaml", "a: " + "[" * 200 + "]" * 200),
        ("ini", "[a]\nb=1\n=2"), ("toml", "#" * 70_000),
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


HOSTILE = {
    "blanks in an option": ("ini", "[a]\nk" + " " * 20_000 + "v"),
    "short runs of blanks": ("ini", "[a]\nk" + (" " * 63 + "v") * 1000),
    "blanks in a header": ("ini", "[" + " " * 60_000),
    "wrong lines": ("ini", "[a]\n" + "=\n" * 30_000),
    "wrong lines, indented": ("ini", "[a]\n" + " =\n" * 20_000),
    "lines": ("ini", "[a]\n" + "k\n" * 30_000),
    "sections": ("ini", "".join(f"[{n}]\nk=1\n" for n in range(4000))),
    "lines of one value": ("ini", "[a]\nk=1\n" + " x\n" * 20_000),
    "a dotted key": ("toml", ".".join("a" * 16_000) + " = 1"),
    "a dotted key with blanks": ("toml", " . ".join("a" * 16_000) + " = 1"),
    "a dotted header": ("toml", "[" + ".".join("a" * 16_000) + "]"),
    "a dotted key inside": ("toml", "x = {w = [0.1, 0.2], " + ".".join("a" * 16_000) + " = 1}"),
    "many dotted keys": ("toml", "".join(".".join("a" * 199) + f".b{n} = 1\n" for n in range(150))),
    "lists in lists": ("yaml", "[" * 250_000),
    "mappings in mappings": ("yaml", "{" * 250_000),
    "lists in lists, in lines": ("yaml", "- " * 120_000),
    "names in names": ("yaml", "? " * 120_000),
    "values": ("yaml", "a: [" + "1," * 120_000 + "]"),
    "a mapping merged often": (
        "yaml", "a: &a\n" + "".join(f"  k{n}: 1\n" for n in range(9000)) + "".join(f"m{n}:\n  <<: *a\n" for n in range(2000))
    ),
    "a mapping merged often at once": (
        "yaml", "a: &a {" + "".join(f"k{n}: 1, " for n in range(4000)) + "}\nb: {<<: [" + "*a," * 4000 + "]}"
    ),
    "long names": (
        "yaml", "k" * 600 + ": \n  a0: &a0 {x: 1}\n" + "".join(
            f"  a{n}: &a{n} {{{','.join(f'k{m}: *a{n - 1}' for m in range(9))}}}\n" for n in range(1, 9)
        )
    ),
    "a number": ("json", '{"a": ' + "9" * 4000 + "}"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_takes_long(name: str) -> None:
    """In a process of its own, as it may be the end of that."""
    kind, text = HOSTILE[name]
    program = (
        "import sys, time\nfrom runyard.services.configs import parse_config\n"
        "text = sys.stdin.read()\nstarted = time.process_time()\nparse_config(sys.argv[1], text)\n"
        "print(time.process_time() - started)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, kind], input=text, text=True, capture_output=True, timeout=60, check=True
    )
    assert float(done.stdout) < 1.5


def test_what_configuration_files_have_is_within_the_bounds() -> None:
    numbers = ", ".join(f"{number}.5" for number in range(2000))
    assert parse_config("toml", f"a = [{numbers}]\nb = '{'x.y' * 100}'  # {'.' * 80}\n").note == ""
    assert parse_config("yaml", "a: " + "[" * 90 + "1" + "]" * 90).note == ""
    assert parse_config("yaml", "".join(f"k{number}: {{a: 1, b: [x, y]}}\n" for number in range(900))).note.startswith(
        "only the"
    )
    merged = "a: &a {x: 1, y: 2}\n" + "".join(f"k{number}: {{<<: *a, y: 3}}\n" for number in range(300))
    assert parse_config("yaml", merged).values["k299.y"] == 3
    assert parse_config("ini", "[a]\nk = a   b" + " " * 100 + "c\n").values == {"a.k": "a   b c"}


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
