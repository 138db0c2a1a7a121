"""Event files while they are written, cut off, damaged."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runyard.capture import events, proto
from runyard.capture.events import EventsReader, metric_name
from runyard.capture.found import Found
from runyard.wire import jsonlite, spool
from tests.fuzz import MORE

from .writer import (
    FIXTURES,
    double,
    event,
    field,
    messages,
    opening,
    plugin,
    points,
    record,
    said,
    scalar,
    single,
    sink,
    tensor_scalar,
)

NAME = "runs/events.out.tfevents.1.host"
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
RECORDED = [path for path in sorted(FIXTURES.rglob("*tfevents*")) if path.stat().st_size < 1100]

tags = st.sampled_from(["loss", "train/loss", "acc", "ä"])
numbers = st.floats(width=32) | st.sampled_from([0.0, 0.5, 1.0])
steps = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(0, 3)
event_lists = st.lists(st.tuples(steps, tags, numbers, st.booleans()), max_size=12)


def read(path: Path, *, restored: bool = False, name: str = NAME, state: object = None) -> tuple[list[Found], object]:
    """Return what there is to read, and the state after it."""
    reader = EventsReader(str(path), name)
    if state is not None:
        reader.restore(jsonlite.loads(jsonlite.dumps(state).encode()))
    found = []
    for _ in range(10_000):
        one = sink()
        more = reader.turn(one)
        found.append(one.finish())
        if not more:
            return found, reader.state()
    raise AssertionError("it does not come to an end")


def refused(found: list[Found]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for message, _ in messages(found, "refused"):
        counts[message["why"]] = counts.get(message["why"], 0) + message["count"]
    return counts


def written(items: list[tuple[int, str, float, bool]]) -> bytes:
    return opening() + b"".join(
        event(step, (tensor_scalar if tensor else scalar)(tag, value)) for step, tag, value, tensor in items
    )


@SHARED
@given(event_lists)
def test_what_is_written_is_read(tmp_path: Path, items: list[tuple[int, str, float, bool]]) -> None:
    path = tmp_path / "f"
    path.write_bytes(written(items))
    found, _ = read(path)
    assert points(found) == [(tag, step, repr(value)) for step, tag, value, _ in items]
    assert refused(found) == {}


@SHARED
@given(event_lists, st.lists(st.integers(0, 2000), max_size=8))
def test_however_it_grows_nothing_is_read_twice_or_missed(
    tmp_path: Path, items: list[tuple[int, str, float, bool]], cuts: list[int]
) -> None:
    path, data = tmp_path / "f", written(items)
    path.write_bytes(b"")
    found: list[Found] = []
    state: object = None
    for cut in [*sorted(cuts), len(data)]:
        with path.open("r+b") as file:
            file.write(data[:cut])
        more, state = read(path, state=state)
        found += more
    assert points(found) == [(tag, step, repr(value)) for step, tag, value, _ in items]
    assert refused(found) == {}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: str(path.relative_to(FIXTURES).parent))
def test_cut_off_at_any_byte_the_rest_follows(path: Path, tmp_path: Path) -> None:
    data, target = path.read_bytes(), tmp_path / path.name
    target.write_bytes(data)
    whole, _ = read(target)
    for cut in range(len(data)):
        target.write_bytes(data[:cut])
        found, state = read(target)
        assert points(found) == points(whole)[: len(points(found))]
        target.write_bytes(data)
        rest, _ = read(target, state=state)
        assert points(found + rest) == points(whole)
        assert said(found + rest) == said(whole)
        assert refused(found + rest) == {}


@SHARED
@given(st.binary(max_size=300), st.binary(max_size=300), st.booleans())
def test_any_bytes_are_read_to_their_end(tmp_path: Path, before: bytes, inside: bytes, framed: bool) -> None:
    path = tmp_path / "f"
    path.write_bytes(before + (record(inside) if framed else inside))
    found, _ = read(path)
    assert all(isinstance(step, int) for one in found for _, step, _ in one.rows)


@SHARED
@given(
    st.sampled_from(RECORDED), st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 7)), min_size=1, max_size=6)
)
def test_flipped_bits_are_survived(tmp_path: Path, recorded: Path, flips: list[tuple[int, int]]) -> None:
    data = bytearray(recorded.read_bytes())
    for place, bit in flips:
        data[place % len(data)] ^= 1 << bit
    path = tmp_path / "f"
    path.write_bytes(data)
    read(path)


@settings(SHARED, max_examples=200 * MORE)
@given(
    st.sampled_from(RECORDED),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.sampled_from(["flip", "cut", "add", "byte"]), st.integers(0, 255)),
             min_size=1, max_size=6),
)  # fmt: skip
def test_nonsense_with_fitting_checksums_is_survived(
    tmp_path: Path, recorded: Path, changes: list[tuple[int, str, int]]
) -> None:
    """As another writer, or a later version of one, may have written it."""
    contents = framed(recorded.read_bytes())
    for place, how, value in changes:
        content = contents[place % len(contents)]
        at = place // len(contents) % max(len(content), 1)
        if how == "cut":
            del content[at:]
        elif how == "add":
            content[at:at] = bytes([value]) * (value % 12)
        elif content:
            content[at] = value if how == "byte" else content[at] ^ 1 << value % 8
    path = tmp_path / "f"
    path.write_bytes(b"".join(record(bytes(content)) for content in contents) + event(7, scalar("after", 0.5)))
    found, state = read(path)
    assert ("after", 7, "0.5") in points(found)
    assert jsonlite.loads(jsonlite.dumps(state).encode()) is not None
    for one in found:
        spool.join([spool.record(0, spool.MESSAGE, 0, spool.message_body(*item)) for item in one.messages])


def framed(data: bytes) -> list[bytearray]:
    """Return the contents of the records of a file."""
    found, start = [], 0
    while start < len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        found.append(bytearray(data[start + 12 : start + 12 + length]))
        start += length + 16
    return found


def test_behind_a_damaged_length_it_goes_on_and_says_what_was_lost(tmp_path: Path) -> None:
    first, second, third = (event(step, scalar("loss", step / 2)) for step in (1, 2, 3))
    path = tmp_path / "f"
    path.write_bytes(opening() + first + bytes([second[0] ^ 255]) + second[1:] + third)
    found, _ = read(path)
    assert points(found) == [("loss", 1, "0.5"), ("loss", 3, "1.5")]
    assert refused(found) == {"damaged bytes": len(second)}


def test_a_record_that_cannot_be_decoded_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(opening() + record(b"\xff" * 9) + record(bytes(30)) + event(1, scalar("loss", 0.5)))
    found, _ = read(path)
    assert points(found) == [("loss", 1, "0.5")]
    assert refused(found) == {"damaged records": 2}


@pytest.mark.parametrize("junk", [b"junk" * 200_000, bytes(1_000_000), b"\0\0\0\0abcd\t" * 50_000])
def test_much_junk_is_passed_over(junk: bytes, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(opening() + junk + event(1, scalar("loss", 0.5)))
    found, _ = read(path)
    assert points(found) == [("loss", 1, "0.5")]
    assert refused(found) == {"damaged bytes": len(junk)}


def test_zeros_at_the_end_are_room_that_is_still_to_be_written(tmp_path: Path) -> None:
    path, more = tmp_path / "f", event(2, scalar("loss", 0.25))
    start = opening() + event(1, scalar("loss", 0.5))
    path.write_bytes(start + bytes(4096))
    found, state = read(path)
    path.write_bytes(start + more + bytes(4096 - len(more)))
    rest, _ = read(path, state=state)
    assert points(found + rest) == [("loss", 1, "0.5"), ("loss", 2, "0.25")]
    assert refused(found + rest) == {}


def test_a_file_put_in_its_place_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(opening() + event(1, scalar("loss", 0.5)))
    found, state = read(path)
    path.write_bytes(event(5, scalar("loss", 0.125), wall=1.8e9) + event(6, scalar("loss", 0.0)))
    rest, _ = read(path, state=state)
    assert points(found + rest) == [("loss", 1, "0.5"), ("loss", 5, "0.125"), ("loss", 6, "0.0")]


def test_what_is_written_behind_a_cut_is_read_and_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "f"
    start = opening() + event(1, scalar("loss", 0.5))
    path.write_bytes(start + event(2, scalar("loss", 0.25)))
    found, state = read(path)
    path.write_bytes(start)
    again, state = read(path, state=state)
    path.write_bytes(start + event(9, scalar("loss", 0.75)))
    rest, _ = read(path, state=state)
    assert points(found + again + rest) == [("loss", 1, "0.5"), ("loss", 2, "0.25"), ("loss", 9, "0.75")]


def test_a_huge_record_is_passed_over(tmp_path: Path) -> None:
    path, size = tmp_path / "f", events.MAX_RECORD + 1
    length = struct.pack("<Q", size)
    with path.open("wb") as file:
        file.write(opening() + length + struct.pack("<I", events.masked_crc(length)))
        file.seek(size + 4, 1)  # a hole
        file.write(event(1, scalar("loss", 0.5)))
    found, _ = read(path)
    assert points(found) == [("loss", 1, "0.5")]
    assert refused(found) == {"records of more than 64 MiB": 1}


def test_a_long_record_is_waited_for_and_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    image = b"\x89PNG" + bytes(events.CHUNK * 2)
    data = opening() + event(4, field(1, "picture") + field(4, field(4, image))) + event(5, scalar("loss", 0.5))
    path.write_bytes(data[: events.CHUNK])
    found, state = read(path)
    assert said(found) == []
    path.write_bytes(data)
    rest, _ = read(path, state=state)
    assert messages(rest, "media")[0][1] == image
    assert points(rest) == [("loss", 5, "0.5")]


def test_the_plugin_of_a_tag_may_be_said_once(tmp_path: Path) -> None:
    """As TensorFlow's FileWriter does; also when the reader was started again since."""
    path = tmp_path / "f"
    lines = field(8, field(1, 7) + field(8, "some text"))
    start = opening() + event(1, field(1, "note") + lines + plugin("text"))
    path.write_bytes(start)
    found, state = read(path)
    path.write_bytes(start + event(2, field(1, "note") + lines))
    rest, _ = read(path, state=state)
    assert [(message["step"], content) for message, content in messages(found + rest, "media")] == [
        (1, b"some text"), (2, b"some text"),
    ]  # fmt: skip


def test_an_event_that_says_its_step_twice_is_of_the_last_one(tmp_path: Path) -> None:
    """As protocol buffers have it; no writer does so, but what is known of an event must not hide it."""
    path = tmp_path / "f"
    twice = [
        record(double(1, 1.7e9) + field(2, step) + field(5, field(1, scalar("loss", step / 4))) + field(2, 7))
        for step in (1, 2, 3)
    ]
    path.write_bytes(b"".join(twice))
    found, _ = read(path)
    assert points(found) == [("loss", 7, "0.25"), ("loss", 7, "0.5"), ("loss", 7, "0.75")]


def test_what_plugins_keep_to_themselves_is_left_out(tmp_path: Path) -> None:
    curve = field(8, field(1, 1) + field(4, struct.pack("<4f", 1, 2, 3, 4))) + plugin("pr_curves")
    path = tmp_path / "f"
    path.write_bytes(event(1, field(1, "curve") + curve) + record(double(1, 1.0) + field(4, b"graph")))
    found, _ = read(path)
    assert (points(found), said(found), refused(found)) == ([], [], {})


@pytest.mark.parametrize("wall", [0.0, -1.0, math.nan, math.inf, 1e300])
def test_a_time_that_is_none_is_not_said(wall: float, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(event(1, scalar("loss", 0.5), wall=wall))
    found, _ = read(path)
    assert found[0].rows == [({"loss": 0.5}, 1, 0)]


def test_values_of_one_step_are_one_row_unless_time_has_passed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    values = [("a", 0.0), ("b", 0.1), ("c", 5.0), ("c", 5.1)]
    path.write_bytes(b"".join(event(1, scalar(tag, 0.5), wall=1.7e9 + later) for tag, later in values))
    found, _ = read(path)
    assert [sorted(row) for row, _, _ in found[0].rows] == [["a", "b"], ["c"], ["c"]]


@pytest.mark.parametrize(
    ("directory", "tag", "name"),
    [
        ("", "loss", "loss"),
        ("runs/a", "loss", "loss"),
        ("logs/train", "epoch_loss", "train/epoch_loss"),
        ("logs/validation", "epoch_loss", "validation/epoch_loss"),
        ("logs/train", "train/loss", "train/loss"),
        ("runs/a/loss_val", "loss", "loss/val"),
        ("runs/a/train_loss_val", "train/loss", "train/loss/val"),
        ("runs/a/loss_", "loss", "loss"),
    ],
)
def test_names(directory: str, tag: str, name: str) -> None:
    assert metric_name(directory, tag) == name


@pytest.mark.parametrize(
    ("kind", "content", "numbers"),
    [
        (1, single(5, 0.5), [0.5]),
        (1, field(5, struct.pack("<2f", 0.5, 1.5)), [0.5, 1.5]),
        (2, double(6, 0.1), [0.1]),
        (3, field(7, -3), [-3.0]),
        (9, field(10, b"\x03"), [3.0]),
        (19, field(13, 0x3800), [0.5]),
        (14, field(13, 0x3FC0), [1.5]),
        (10, field(4, b"\x01"), [1.0]),
        (17, field(16, 7), [7.0]),
        (8, field(4, bytes(8)), []),
    ],
)
def test_numbers_of_tensors(kind: int, content: bytes, numbers: list[float]) -> None:
    assert proto.Tensor(field(1, kind) + content).numbers() == numbers


@given(st.binary(max_size=200))
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    for decode in (
        proto.event,
        proto.summary_value,
        proto.histogram,
        proto.hparams,
        lambda raw: proto.Tensor(raw).numbers(),
    ):
        try:
            decode(data)
        except ValueError:
            pass


def test_nested_parameters_end_somewhere() -> None:
    deep = b""
    for _ in range(1000):
        deep = field(6, field(1, deep))
    with pytest.raises(ValueError, match="deep"):
        proto.hparams(field(3, field(1, field(1, "x") + field(2, deep))))


def test_the_crc_is_that_of_tensorflow() -> None:
    recorded = (FIXTURES / "torch" / "events.out.tfevents.1700000000.host").read_bytes()
    (length, check) = struct.unpack_from("<QI", recorded)
    assert events.masked_crc(recorded[:8]) == check
    assert events.masked_crc(recorded[12 : 12 + length]) == struct.unpack_from("<I", recorded, 12 + length)[0]
