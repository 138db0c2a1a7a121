"""However the bytes are cut, and wherever a reader is replaced by another one, the same is found; and nothing raises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runyard.capture import known, lines
from runyard.capture.lines import LineParser
from tests.fuzz import MORE

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.log"))
PIECES = [
    b"loss: 0.5\n", b"step: 3\n", b"step: 4\r\n", b"Epoch 2/3\n", b"epoch 1 step 2 loss 0.25\n", b"acc=0.9 loss=0.5\n",
    b"Acc@1: 0.1\nAcc@5: 0.5\n", b"f1: 1,234.5\n", b"x: nan\n", b'{"step": 5, "loss": 0.5}\n', b"{'loss': 0.1, 'k': 'v'}\n",
    b"{'loss': '0.69', 'grad_norm': '0.2', 'learning_rate': '0.1', 'epoch': '0.6'}\n", b"Test metric  DataLoader 0\n",
    "│ Test metric │ DataLoader 0 │\n│ acc │ 0.5 │\n└──┘\n".encode(),
    b"Traceback (most recent call last):\n", b'  File "x.py", line 3\n', b"ValueError: 3\n", b"x.py:1: UserWarning: a\n  b = 1\n",
    "\r a:  25%|██▌ | 5/20 [00:01<00:03, 4.99it/s, loss=0.2]".encode(), b"\rb:   0%| | 0/20 [00:00<?, ?it/s, loss=0.3]",
    "\r a:  50%|█████ | 10/20 [00:02<00:02, 5.0it/s, loss=0.1]".encode(), b"\r7it [00:01, 5.0it/s, loss=0.7]",
    "\rEpoch 1/2:  50%|█████ | 4/8 [00:00<00:00, 9it/s, v=[1]]print: 3\n".encode(), b"\x1b[A\r", b"\n", b"\r", b"\x08\x08\x08",
    "\r\x1b[1m 3/24\x1b[0m \x1b[37m━━━━\x1b[0m \x1b[1m0s\x1b[0m 3ms/step - loss: 0.6".encode(),
    "\r24/24 ━━━━ 0s 3ms/step - loss: 0.4 - val_loss: 0.3\n".encode(), b"6/6 - 0s - 3ms/step - loss: 0.2\n",
    "\r\x1b[2KEpoch 1/2  ━━━━━ 3/8 0:00:00 • 0:00:01 6.0it/s loss: 0.5\n".encode(), b" " * 70 + b"val_loss: 0.1   \n",
    b"\xff\xe2\x82", b"\x1b]0;title", b"\x01\x02: 5\n", b"plain text\n", b"y" * 5000, b"\x1b[", b"z=0.5", b" ", b"]",
]  # fmt: skip
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=12)), max_size=30).map(b"".join)


def found(data: bytes, cuts: list[int], replace: bool = False) -> str:
    """Return what a parser finds, as text (NaN is equal to itself in it); with ``replace`` a new one goes on at each cut."""
    parser, points = LineParser(), []
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        points += parser.feed(data[begin:end], 1)
        if replace:
            state = json.dumps(parser.state())
            parser = LineParser()
            parser.restore(json.loads(state))
    points += parser.flush(1)
    return repr(([(point.step, point.values) for point in points], parser.progress))


@settings(max_examples=400 * MORE)
@given(TEXTS, st.data())
def test_however_it_is_cut_the_same_is_found(data: bytes, draw: st.DataObject) -> None:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=12)))
    whole = found(data, [])
    assert found(data, cuts) == whole
    assert found(data, cuts, replace=True) == whole


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcripts_byte_by_byte_and_with_a_new_reader_every_so_often(path: Path) -> None:
    data = path.read_bytes()
    whole = found(data, [])
    assert found(data, list(range(1, len(data)))) == whole
    assert found(data, list(range(1, len(data), 97)), replace=True) == whole


@given(st.binary(max_size=400))
def test_no_bytes_raise(data: bytes) -> None:
    found(data, [])


@settings(max_examples=400 * MORE)
@given(st.text(alphabet="losacepth 0123456789.:=,-+[]{}()'\"/%|eE\n\r\x1b\t━•<?i", max_size=120))
def test_nothing_that_looks_like_metrics_raises(text: str) -> None:
    found(text.encode(), [])


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 8000, b"{" * 8000, b'{"a":' * 1500, b"loss: " + b"9" * 8000, b"step: " + b"9" * 8000, b"loss: 1e" + b"9" * 5000,
        b"a" * 8000 + b": 1", b"a " * 4000 + b"loss: 0.5", b"a=1 " * 2000, b"loss: 0.5, " * 700, b"(" * 4000 + b"a=1",
        b"1 " * 4000, b"epoch " * 1300, b"- " * 4000, b"'a': 1, " * 1000, b"a:" * 4000, b"\t" * 8000 + b"a: 1",
        ("━" * 2700).encode(), b"|" * 8000, b"1/2 [" * 1600, b"INFO " * 1600, b"[INFO] " * 1100 + b"loss: 0.5",
        b"x" * 4000 + b"|" + b" " * 4000 + b"| 1/2 [", b"1it [00:01, " * 600, b"Epoch 1/9999999999999999999999 loss: 0.5",
        b"\x1b" * 8000, b"\x1b]" * 4000, b"loss:" + b" " * 8000, b"train " * 1300 + b"loss: 1",
    ],
)  # fmt: skip
def test_no_line_takes_long(line: bytes) -> None:
    # Quadratic patterns would take seconds here; the limit on the test is generous, a line takes milliseconds.
    parser = LineParser()
    for number in range(3):
        parser.feed(line + b" %d\n" % number, 1)
    parser.flush(1)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "REMEMBERED", 8)
    text = "".join(
        f"{'x' * (number % 40)}loss: 0.{number:03d}\n{'yz' * (number % 31)} {number}\n" for number in range(500)
    )
    assert len(LineParser().feed(text.encode(), 1)) == 500
    parser = LineParser()
    parser.feed(text.encode(), 1)
    assert len(parser._known._known) <= 8


def test_a_state_of_another_version_is_refused() -> None:
    state = LineParser().state()
    with pytest.raises(ValueError, match="version"):
        LineParser().restore({**state, "version": 0})


def test_large_pieces_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"".join(b"step: %d\nloss: 0.5\n" % number for number in range(1000))
    whole = found(data, [])
    monkeypatch.setattr(lines, "PIECE", 100)
    assert found(data, []) == whole
