"""A log as a person reads it: what a terminal would show in the end, whatever way the bytes are cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.wire.render import LINE_MAX, Renderer


def render(*pieces: bytes, colors: bool = False) -> str:
    renderer = Renderer(colors)
    return "".join([renderer.feed(piece) for piece in pieces] + [renderer.finish()])


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", ""),
        (b"one\ntwo", "one\ntwo"),
        (b"one\r\ntwo\r\n", "one\ntwo\n"),
        (b"10%\r50%\r100%\n", "100%\n"),
        (b"epoch 10/10\rdone\n", "doneh 10/10\n"),
        (b"epoch 10/10\r\x1b[Kdone\n", "done\n"),
        (b"epoch 10/10\r\x1b[2Kdone\n", "done\n"),
        (b"abc\b\bX\n", "aXc\n"),
        (b"abc\x1b[1K|\n", "   |\n"),
        (b"abc\x1b[2D|\x1b[5G#\n", "a|c #\n"),
        (b"a\tb\x07c\n", "a\tbc\n"),
        (b"\x1b[31mred\x1b[0m\n", "red\n"),
        (b"\x1b]0;title\x07text \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n", "text link\n"),
        (b"\x1b(Bx\x1b=y\x1b7z\n", "xyz\n"),
        (b"\x1b[?25lhidden cursor\x1b[?25h\n", "hidden cursor\n"),
        ("äöü €\n".encode(), "äöü €\n"),
        (b"caf\xe9\n\xff\xfe\n", "caf�\n��\n"),
        (b"cut \xe2\x82", "cut �"),
        (b"unfinished \x1b[3", "unfinished "),
        (b"\x9b31mx\xc2\x9b31my\n", "�31mx31my\n"),
        (b"stay\r", "stay"),
    ],
)
def test_text(raw: bytes, text: str) -> None:
    assert render(raw) == text
    assert render(*(raw[i : i + 1] for i in range(len(raw)))) == text


def test_colors_are_kept_when_asked() -> None:
    assert render(b"\x1b[1m\x1b[31mred\x1b[0m plain\n", colors=True) == "\x1b[1m\x1b[31mred\x1b[0m plain\n"
    assert render(b"\x1b[31mabc\x1b[0m\rX\n", colors=True) == "X\x1b[31mbc\x1b[0m\n"
    assert render(b"\x1b[2J\x1b[>4m\x1b[31mx\x1b[m\x1b[5n\n", colors=True) == "\x1b[31mx\x1b[0m\n"


def test_color_never_runs_over_the_end_of_a_line() -> None:
    assert render(b"\x1b[31mone\ntwo\n", colors=True) == "\x1b[31mone\x1b[0m\n\x1b[31mtwo\x1b[0m\n"


def test_finished_lines_come_at_once_and_the_last_is_pending() -> None:
    renderer = Renderer()
    assert renderer.feed(b"one\n10%\r20%") == "one\n"
    assert renderer.pending() == "20%"
    assert renderer.feed(b"\r30%\n") == "30%\n"
    assert renderer.pending() == "" and renderer.finish() == ""


def test_bars_of_several_lines_collapse() -> None:
    frames = [(b"\r\x1b[2K\x1b[1A\x1b[2K" if i else b"") + b"outer %d\ninner %d" % (i, i) for i in range(200)]
    text = render(*frames, b"\nend\n")
    assert text.endswith("outer 199\ninner 199\nend\n")
    assert len(text.splitlines()) <= 4, "the first frame may stand twice: it was given out before the first move up"


def test_memory_is_bounded() -> None:
    renderer = Renderer()
    for _ in range(200):
        renderer.feed(b"x" * 3000)
        assert len(renderer.pending()) <= LINE_MAX
    for i in range(20000):
        renderer.feed(b"\r%d%%" % i)
    for _ in range(100):
        renderer.feed(b"\x1b]0;" + b"t" * 1000)
        renderer.feed(b"\x1b[60A" + b"\n" * 70)
    assert len(renderer.pending()) <= 2 * LINE_MAX


def test_long_line_without_a_newline_is_given_out_whole() -> None:
    data = bytes(range(97, 123)) * 40000
    assert render(*(data[i : i + 65536] for i in range(0, len(data), 65536))) == data.decode()


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"\r",
                b"\n",
                b"\b",
                b"\x1b",
                b"\x1b[",
                b"K",
                b"\x1b[2K",
                b"\x1b[A",
                b"\x1b[31m",
                b"\x1b[0m",
                b"]",
                b"\x07",
            ]
        ),
        st.text(max_size=4).map(lambda text: text.encode("utf-8", "replace")),
        st.binary(max_size=3),
    ),
    max_size=25,
)


@given(pieces=PIECES, cuts=st.lists(st.integers(0, 100), max_size=6), colors=st.booleans())
def test_cuts_do_not_matter(pieces: list[bytes], cuts: list[int], colors: bool) -> None:
    data = b"".join(pieces)
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    parts = [data[places[i] : places[i + 1]] for i in range(len(places) - 1)]
    assert render(*parts, colors=colors) == render(data, colors=colors)


@given(pieces=PIECES, colors=st.booleans())
def test_nothing_that_steers_a_terminal_comes_out(pieces: list[bytes], colors: bool) -> None:
    text = render(b"".join(pieces), colors=colors)
    if colors:
        text = re.sub("\x1b\\[[0-9;:]*m", "", text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


@given(st.text(alphabet=st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc")), max_size=50))
def test_plain_text_is_unchanged(text: str) -> None:
    assert render(text.encode() + b"\n" + text.encode()) == text + "\n" + text
