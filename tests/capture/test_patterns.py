"""A user's own patterns."""

from __future__ import annotations

from typing import Any

import pytest

from runyard.capture.lines import LineParser


def rows(pattern: Any, *lines: str) -> list[tuple[int, dict[str, float]]]:
    parser = LineParser(pattern)
    points = parser.feed("".join(line + "\n" for line in lines).encode(), 1) + parser.flush(1)
    return [(point.step, point.values) for point in points]


@pytest.mark.parametrize(
    ("pattern", "line", "values"),
    [
        ([r"score is (\S+)"], "the score is 0.5 now", {"is": 0.5}),
        ([r"score=(\value)"], "the score=0.5;", {"score": 0.5}),
        ([r"^(\value)$"], "0.5", {"value": 0.5}),
        ([r"(?#val/score)is now=(\S+)"], "it is now=0.5", {"val/score": 0.5}),
        ([r"(\w+) -> (\S+)"], "a -> 1 b -> 2%", {"a": 1.0, "b": 2.0}),
        ([r"(?P<_key>\key) -> (?P<_val>\value)"], "a -> 1", {"a": 1.0}),
        ([r"<(?P<loss>\value),(?P<acc>\value)>"], "<0.5,0.9>", {"loss": 0.5, "acc": 0.9}),
        (["a (.*)", "b (.*)"], "a 1", {"a": 1.0}),
        ([r"n (\S+)"], "n 1,234.5", {"n": 1234.5}),
    ],
)
def test_groups_say_name_and_value(pattern: Any, line: str, values: dict[str, float]) -> None:
    assert rows(pattern, line) == [(0, values)]


def test_a_pattern_goes_before_the_usual_ones() -> None:
    found = rows([r"^loss: \S+ \((?P<loss>\S+)\)"], "loss: 0.5 (0.25)", "acc: 0.9", "loss: 0.5")
    assert found == [(0, {"loss": 0.25}), (0, {"acc": 0.9}), (1, {"loss": 0.5})]


def test_a_line_that_a_pattern_takes_is_looked_at_no_further() -> None:
    assert rows([r"^ignored (nothing)?"], "ignored loss: 0.5", "loss: 0.25") == [(0, {"loss": 0.25})]


def test_a_pattern_says_the_step() -> None:
    found = rows([r"<(?P<step>\step)> (?P<loss>\value)"], "<7> 0.5", "acc: 0.9", "<8> 0.4")
    assert found == [(7, {"loss": 0.5}), (7, {"acc": 0.9}), (8, {"loss": 0.4})]
    assert rows([r"<(?P<step>\S+)> (?P<loss>\value)"], "<inf> 0.5", "<nan> 0.5") == [
        (0, {"loss": 0.5}),
        (1, {"loss": 0.5}),
    ]


@pytest.mark.parametrize("pattern", ["(", "loss", "(a)(b)(c)", r"(\S+){99999999999999}"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"regular expression|group"):
        LineParser([pattern])
