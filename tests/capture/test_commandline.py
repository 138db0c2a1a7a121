"""Reading command lines of programs that nobody told us about, and constants of scripts."""

from __future__ import annotations

import ast
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.capture.commandline import options, parse_command
from runyard.capture.constants import constants
from runyard.wire import values


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--x 1", {"x": 1}),
        ("--x=1e-4 --y=text", {"x": 1e-4, "y": "text"}),
        ("--learning-rate -0.5", {"learning_rate": -0.5}),
        ("-x 1 -lr=2 -j4 -v", {"x": 1, "lr": 2, "j": 4, "v": True}),
        ("--flag --other", {"flag": True, "other": True}),
        ("--layers 64 32 --name a", {"layers": "[64, 32]", "name": "a"}),
        (
            "model.dim=8 +extra=a ++force=b trainer/x=1 data.csv",
            {"model.dim": 8, "extra": "a", "force": "b", "trainer/x": 1},
        ),
        ("--url=a=b key=", {"url": "a=b", "key": ""}),
        ("--a true --b None --c no", {"a": True, "b": None, "c": "no"}),
        ("--x 1 -- --y 2", {"x": 1}),
        ("--password secret --max-tokens 5", {"password": "(hidden)", "max_tokens": 5}),
        ("train.csv - https://host/?a=b ./a=b", {}),
        ("--flag seed=1", {"flag": True, "seed": 1}),
    ],
)
def test_options(words: str, expected: dict[str, object]) -> None:
    assert options(words.split()) == expected


@pytest.mark.parametrize(
    "command",
    [
        "python train.py --lr 0.1",
        "/usr/bin/python3.11 -u -X dev train.py --lr 0.1",
        "python -m pack.train --lr 0.1",
        "./train --lr 0.1",
        "train --lr 0.1",
        "bash run.sh --lr 0.1",
        "torchrun --nproc_per_node 2 train.py --lr 0.1",
        "python -m torch.distributed.run --nproc_per_node=2 train.py --lr 0.1",
        "accelerate launch --num_processes 2 train.py --lr 0.1",
        "env A=1 nice -n 5 python train.py --lr 0.1",
        "uv run --with numpy python train.py --lr 0.1",
        "Rscript --vanilla fit.R --lr 0.1",
        "julia --project=. fit.jl --lr 0.1",
        "mpirun -n 4 python train.py --lr 0.1",
    ],
)
def test_what_belongs_to_what_starts_the_program_is_left_out(command: str) -> None:
    assert parse_command(command.split()) == {"lr": 0.1}


def test_a_script_on_the_command_line_sets_nothing() -> None:
    assert parse_command(["python", "-c", "x=1", "--lr", "2"]) == {"lr": 2}
    assert parse_command(["python"]) == parse_command([]) == {}


@given(st.lists(st.text(max_size=20), max_size=20))
def test_any_command_line_gives_what_can_be_recorded(words: list[str]) -> None:
    for name, value in parse_command(words).items():
        assert isinstance(name, str)
        assert value is None or isinstance(value, (bool, int, float, str))
        json.dumps({name: value}, ensure_ascii=False).encode()


SCRIPT = """
'''LR = 5'''
import os
LR = 0.1
BATCH: int = 2 * 16
NEGATIVE, (NOT_SEEN, B) = -1, (1, 2)
LAYERS = [64, 32]
NAME = "resnet"
STEPS = 1000 // BATCH
ON = not False
BIG = 10 ** 6
PARAMS = {"lr": 0.1, "optim": {"name": "adam", "betas": (0.9, 0.999)}}
CONFIG = dict(depth=3, width=1e-3)
config = {"seed": 1}
other = {"seed": 2}
lower = 1
HOME = os.environ["HOME"]
TWICE = 1
TWICE = 2
CHANGED = 1
CHANGED += 1
FILLED = {"a": 1}
FILLED["b"] = 2
def function():
    INNER = 1
if LR > 1:
    IN_IF = 1
if __name__ == "__main__":
    EPOCHS = 3
"""


def test_constants() -> None:
    found = constants(SCRIPT)
    assert {name: value for name, (value, _) in found.items()} == {
        "LR": 0.1, "BATCH": 32, "NEGATIVE": -1, "LAYERS": "[64, 32]", "NAME": "resnet", "ON": True, "BIG": 10**6,
        "PARAMS.lr": 0.1, "PARAMS.optim.name": "adam", "PARAMS.optim.betas": "[0.9, 0.999]", "CONFIG.depth": 3,
        "CONFIG.width": 1e-3, "config.seed": 1, "TWICE": 2, "EPOCHS": 3,
    }  # fmt: skip
    assert (found["LR"][1], found["TWICE"][1]) == (4, 19)


@pytest.mark.parametrize("source", ["X = 9 ** 9 ** 9", "X = 1 / 0", "X = 'a' * 10 ** 9", "X = 1 << 10 ** 9", "X = 2 ** -0.5j",
                                    "X = {**{}}", "X = (-1) ** 0.5", "X = 1e308 * 10 * 0"])  # fmt: skip
def test_nothing_that_takes_long_or_fails_is_reckoned(source: str) -> None:
    assert constants(source) == {}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner:
                    st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner)))  # fmt: skip
def test_any_literal_gives_what_can_be_recorded(value: object) -> None:
    source = "VALUE = " + repr(value).replace("nan", "'nan'").replace("inf", "'inf'")
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, UnicodeEncodeError):
        return
    for name, (found, line) in constants(source).items():
        assert (name.split(".")[0], line) == ("VALUE", 1)
        assert found is None or isinstance(found, (bool, int, float, str))


def test_values_are_flat_bounded_and_say_no_secrets() -> None:
    class Thing:
        def __init__(self) -> None:
            self.x = 1

    def function() -> None: ...

    found, cut = values.flatten({
        "a": {"b": {"c": 1}}, "list": list(range(10**6)), "text": "x" * 10**6, "thing": Thing(), "call": function,
        "empty": {}, "api_key": "k", "hf_token": "t", "token_count": "n", "deep": json.loads('{"a":' * 50 + "1" + "}" * 50),
        "huge": 10**5000, "set": {2, 1}, "nan": math.nan,
    })  # fmt: skip
    assert (found["a.b.c"], found["api_key"], found["hf_token"], found["token_count"]) == (
        1,
        "(hidden)",
        "(hidden)",
        "n",
    )
    assert all(len(value) <= values.MAX_TEXT for value in found.values() if isinstance(value, str))
    assert " at 0x" not in found["thing"]
    assert (found["empty"], found["huge"], found["set"]) == ("{}", "(large)", "[1, 2]")
    assert found["call"].endswith("function")
    assert not cut
    assert values.flatten({str(number): 1 for number in range(2000)}) == (
        {str(number): 1 for number in range(1000)},
        True,
    )
