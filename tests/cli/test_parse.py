from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.cli import parse
from runyard.cli.options import COMMANDS, FLAG, INT, NAMES, RUN_OPTIONS, SIZE, TEXT, TIME, VERBOSE
from runyard.wire.errors import UsageError

word = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
command = st.builds(lambda first, rest: [first, *rest], word.filter(lambda w: not w.startswith("-")), st.lists(word))
VALUES = {TEXT: word, INT: st.integers(1, 99).map(str), SIZE: st.just("2GB"), TIME: st.just("90s")}
MEANT: dict[str, Callable[[str], object]] = {INT: int, SIZE: lambda _: 2 << 30, TIME: lambda _: 90.0, TEXT: str}


@st.composite
def given_options(draw: st.DrawFn) -> tuple[list[str], dict[str, Any]]:
    """Words of options, and what they mean."""
    words: list[str] = []
    meant = parse.defaults()
    for option in draw(st.lists(st.sampled_from([o for o in RUN_OPTIONS if o.key not in ("namespace", "project")]))):
        short = bool(option.short) and draw(st.booleans())
        name = "-" + option.short if short else option.flag
        if option.kind == FLAG:
            words.append(name)
            meant[option.key] = True
            continue
        value = draw(VALUES[option.kind])
        joined = draw(st.booleans())
        words += [name + ("" if short else "=") + value] if joined else [name, value]
        parsed = MEANT[option.kind](value)
        meant[option.key] = [*meant[option.key], parsed] if option.repeat else parsed
    return words, meant


@given(given_options(), command, st.booleans())
def test_options_end_at_the_first_word_that_is_none_and_the_command_is_untouched(
    options: tuple[list[str], dict[str, object]], words: list[str], separated: bool
) -> None:
    line = [*options[0], *(["--"] if separated else []), *words]
    assert parse.parse_run(line) == (options[1], words, separated)


@given(st.lists(word))
def test_a_line_is_parsed_or_refused_with_a_reason(words: list[str]) -> None:
    refusal = None
    try:
        kind, _ = parse.split(words)
    except UsageError as exc:
        refusal = exc
    assert (refusal.message and refusal.hint) if refusal else kind in ("click", "run", "version")


def test_flags_can_be_joined() -> None:
    options, words, _ = parse.parse_run(["-fvm", "text", "-tone", "-ttwo", "python", "-f"]) or ({}, [], False)
    assert (options["follow"], options["verbose"], options["message"]) == (True, True, "text")
    assert (options["tag"], words) == (["one", "two"], ["python", "-f"])


def test_namespace_is_project() -> None:
    assert (parse.parse_run(["-n", "a", "true"]) or ({}, [], False))[0]["project"] == "a"
    with pytest.raises(UsageError, match="same option"):
        parse.parse_run(["-n", "a", "-p", "b", "true"])


@pytest.mark.parametrize(
    ("line", "kind", "value"),
    [
        ([], "click", []),
        (["--version"], "version", None),
        (["ls", "-q"], "click", ["ls", "-q"]),
        (["-v", "ls"], "click", ["ls", "-v"]),
        (["run", "--help"], "click", ["run", "--help"]),
        (["-m", "x", "--help"], "click", ["run", "--help"]),
    ],
)
def test_what_goes_where(line: list[str], kind: str, value: object) -> None:
    assert parse.split(line) == (kind, value)


def test_run_may_follow_options_and_its_program_may_have_a_commands_name() -> None:
    kind, (options, words, named) = parse.split(["-m", "x", "run", "--hold", "ls", "-l"])
    assert (kind, words, named) == ("run", ["ls", "-l"], True)
    assert (options["message"], options["hold"]) == ("x", True)
    assert parse.split(["--", "ls"])[1][1:] == (["ls"], True)


def test_the_tables_are_consistent() -> None:
    flags = [option.flag for option in (*RUN_OPTIONS, VERBOSE)]
    shorts = [option.short for option in (*RUN_OPTIONS, VERBOSE) if option.short]
    assert len(flags) == len(set(flags))
    assert len(shorts) == len(set(shorts))
    assert len(NAMES) == len(COMMANDS)
    assert all(option.help.endswith(".") and bool(option.metavar) == (option.kind != FLAG) for option in RUN_OPTIONS)
