"""The reader of pages itself: what it lets pass and what it refuses."""

from __future__ import annotations

import pytest

from tests.docs.blocks import Block, anchors, code_blocks, console_steps, links, matches


def test_code_blocks_have_language_line_and_text() -> None:
    page = "# A\n\n```console\n$ true\n```\n\n````toml\n```\na = 1\n````\n"
    assert code_blocks(page) == [
        Block(language="console", line=3, text="$ true"),
        Block(language="toml", line=7, text="```\na = 1"),
    ]


def test_an_open_block_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 1"):
        code_blocks("```\nx")


def test_console_steps_split_commands_and_output() -> None:
    block = Block(language="console", line=10, text="$ echo a \\\n> b\na b\n\n$ true")
    steps = console_steps(block)
    assert [(step.command, step.line, step.expected) for step in steps] == [
        ("echo a \\\nb", 11, ["a b", ""]),
        ("true", 15, []),
    ]


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        (["a  b"], "a b\n", True),
        (["a", ""], "a\n", True),
        (["run …"], "run abc def\n", True),
        (["run …"], "ran abc\n", False),
        (["…%"], "12%\n", True),
        (["a", "...", "z"], "a\nb\nc\nz\n", True),
        (["a", "...", "z"], "a\nz\n", True),
        (["a", "...", "z"], "a\nb\n", False),
        (["a"], "a\nb\n", False),
        (["a"], "", False),
        (["a.c"], "abc\n", False),
        (["run wp2virfoac44 in repo"], "run abcdefgh2345 in repo\n", True),
        (["run wp2virfoac44 in repo"], "run abcdefgh234 in repo\n", False),
        (["main f55761a"], "main 0123abc\n", True),
        (["http://127.0.0.1:8086/runs"], "http://127.0.0.1:41417/runs\n", True),
        (["http://127.0.0.1:8086/runs"], "http://127.0.0.2:41417/runs\n", False),
        (["1.5s 64 B 3 files"], "0.2s 128 B 3 files\n", True),
        (["1.5s 64 B 3 files"], "0.2s 128 B 4 files\n", False),
        (["2026-11-20 09:30:05"], "2027-01-02 10:11:12\n", True),
        (["exit code 0"], "exit code 1\n", False),
        (["program  /home/ada/x/bin/python"], "program  /usr/bin/python3\n", True),
        (["program  /home/ada/x/bin/python"], "program  python3\n", False),
        (["state  assigned on box gpu0"], "state  assigned on vm cpu1\n", True),
        (["state  assigned on box gpu0"], "state  queued: it starts in a moment\n", True),
        (["state  assigned on box gpu0"], "state  held\n", False),
        (["4s  gpu0  x"], "5s  cpu12  x\n", True),
        (["4s  gpu0  x"], "5s  -  x\n", False),
    ],
)
def test_matches(expected: list[str], actual: str, same: bool) -> None:
    assert (matches(expected, actual) is not None) is same


def test_ids_are_found_by_their_place_and_not_by_their_looks() -> None:
    assert matches(["run wp2virfoac44", "..."], "run abcdefghijkl\nanotherwords\n") == ["abcdefghijkl"]


def test_links_and_anchors() -> None:
    page = "# Où? A `b`!\n[x](y.md#z) `[no](no)`\n```\n[no](no)\n```\n[r]: docs/r.md\n"
    assert links(page) == ["y.md#z", "docs/r.md"]
    assert anchors(page) == {"où-a-b"}
