"""The spool: a record is whole or absent, whatever happens to the writer, the disk or the file."""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runyard.client import spool as writing
from runyard.client.spool import SpoolWriter
from runyard.wire import paths, spool
from tests.agent.fake_server import logged
from tests.client.streams import environment, messages, read_all, rows
from tests.fuzz import MORE

NAMES = st.text(max_size=20)
VALUES = st.floats(allow_nan=False)
ROWS = st.lists(
    st.tuples(st.dictionaries(NAMES, VALUES, max_size=5), st.integers(-(2**63), 2**63 - 1)), max_size=30
)  # fmt: skip


def write(directory: Path, said: list[str] | None = None) -> SpoolWriter:
    return SpoolWriter(
        str(directory), {"type": "process", "pid": os.getpid()}, (said if said is not None else []).append
    )


@given(ROWS)
@settings(max_examples=50 * MORE, deadline=None)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, given_rows: list[tuple[dict[str, float], int]]
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    writer = write(directory)
    live = spool.StreamReader(str(directory), writer.stream)
    seen = []
    for values, step in given_rows:
        writer.row(values, step)
        seen += [record for part in iter(live.read, []) for record in part]
    writer.close()
    expected = [(step, values) for values, step in given_rows]
    assert rows(directory) == expected
    assert logged(seen) == expected
    assert live.damage.bytes == 0


def test_many_segments(tmp_path: Path) -> None:
    writer = write(tmp_path)
    for step in range(30_000):
        writer.row({f"m{step % 3}": step / 3, "x": math.pi, "y": 2.0, "z": 3.0}, step)
    writer.message({"type": "media", "name": "large"}, os.urandom(3 << 20))
    writer.row({"last": 1.0}, 30_000)
    writer.close()
    found = rows(tmp_path)
    assert [step for step, _ in found] == list(range(30_001))
    assert found[29_999][1] == {"m2": 29_999 / 3, "x": math.pi, "y": 2.0, "z": 3.0}
    assert len(list(tmp_path.iterdir())) == 4  # three of 1 MiB, the last cut short, and one with the large record
    assert len(messages(tmp_path, "media")[0]["content"]) == 3 << 20


@pytest.mark.parametrize(
    ("values", "step"),
    [({"a": "text"}, 1), ({"a": None}, 1), ({1: 2.0}, 1), ({"a": 1.0}, 2**63), ({"a": 1.0}, 0.5), ({"a": 10**400}, 1)],
)
def test_what_is_no_row_is_refused_and_leaves_nothing(tmp_path: Path, values: dict[Any, Any], step: int) -> None:
    writer = write(tmp_path)
    writer.row({"a": 0.0}, 0)
    with pytest.raises((TypeError, ValueError, OverflowError, struct.error)):
        writer.row(values, step)
    writer.row({"a": 2.0}, 2)
    writer.close()
    assert rows(tmp_path) == [(0, {"a": 0.0}), (2, {"a": 2.0})]


def test_a_group_is_one_record(tmp_path: Path) -> None:
    writer = write(tmp_path)
    writer.group([({"a": 1.0}, 1, 5), ({"b": 2.0}, 2, 6)], [({"type": "position", "value": 7}, b"xy")])
    writer.close()
    stream = writer.stream
    assert [record.kind for record in read_all(tmp_path, stream)] == [spool.MESSAGE, spool.GROUP]
    assert rows(tmp_path) == [(1, {"a": 1.0}), (2, {"b": 2.0})]
    assert messages(tmp_path, "position")[0]["content"] == b"xy"


def test_a_call_that_interrupts_a_call(tmp_path: Path) -> None:
    """As a signal handler does, or the destructor of something that was just freed."""
    writer = write(tmp_path)

    class Late(float):
        def __float__(self) -> float:
            return 1.0

    class Nosy(dict[str, Any]):
        def values(self):
            writer.row({"inner": 1.0}, 0)
            writer.message({"type": "tags", "add": ["inner"]})
            return super().values()

    for step in range(3):
        writer.row(Nosy(outer=Late()), step)
    writer.close()
    assert sorted(name for _, values in rows(tmp_path) for name in values) == ["inner"] * 3 + ["outer"] * 3
    assert len(messages(tmp_path, "tags")) == 3


class InterruptedCallError(Exception):
    """Raised by a handler of a signal, at any instruction."""


def interrupted_at(number: int, work: Callable[[], None]) -> bool:
    """Do something, with an exception at its instruction of that number in the writer; False when it has fewer."""
    left = [number]

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_filename not in (writing.__file__, spool.__file__):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_code.co_name != "_settle":
            left[0] -= 1
            if left[0] == 0:
                raise InterruptedCallError
        return trace

    before = sys.gettrace()
    try:
        sys.settrace(trace)
        work()
    except InterruptedCallError:
        return True
    finally:
        sys.settrace(before)
    return False


def fitting(directory: Path) -> int:
    """Return how many rows the first segment takes."""
    writer, count = write(directory), 0
    while not (directory / (writer.stream + ".00001")).exists():
        writer.row({"a": 1.0}, count)
        count += 1
    return count - 1


@pytest.mark.parametrize("kind", ["ext4", "nfs"])
@pytest.mark.parametrize("what", ["row", "other columns", "other segment", "first row", "message"])
def test_an_exception_at_any_instruction_costs_only_the_call_that_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, what: str
) -> None:
    monkeypatch.setattr(paths, "file_system", lambda path: kind)
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 4096)
    before = {"first row": 0, "other segment": fitting(tmp_path / "full")}.get(what, 3)
    for number in range(1, 10_000, 3 if what in ("first row", "other segment") else 1):
        directory = tmp_path / str(number)
        writer = write(directory)
        kept = list(range(before))
        for step in kept:
            writer.row({"a": 1.0}, step)

        def call(writer: SpoolWriter = writer, kept: list[int] = kept) -> None:
            if what == "message":
                writer.message({"type": "tags", "add": ["t"], "at": 1})
            else:
                writer.row({"b" if what == "other columns" else "a": 1.0}, 1000)
                kept.append(1000)

        interrupted = interrupted_at(number, call)
        for step in range(2000, 2003):
            writer.row({"a": 1.0}, step)
        writer.close()
        steps = [step for step, _ in rows(directory)]
        shutil.rmtree(directory)
        assert steps in ([*kept, 2000, 2001, 2002], [*kept, 1000, 2000, 2001, 2002]), number
        assert writer.lost == 0
        if not interrupted:
            assert number > 20
            return
    raise AssertionError("it never ended")


def test_threads(tmp_path: Path) -> None:
    writer = write(tmp_path)

    def work(number: int) -> None:
        for step in range(2000):
            writer.row({f"t{number}": float(step)}, step)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    found = rows(tmp_path)
    for number in range(8):
        assert [step for step, values in found if f"t{number}" in values] == list(range(2000))


# -- damage


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    directory = tmp_path_factory.mktemp("sample")
    writer = write(directory)
    for step in range(60):
        writer.row({"loss": float(step)} if step % 2 else {"loss": float(step), "acc": 1.0}, step)
    writer.close()
    return directory, writer.stream


@given(st.data())
@settings(max_examples=300 * MORE, deadline=None)
def test_a_damaged_file_gives_all_whole_records(
    sample: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    source, stream = sample
    whole = (source / spool.segment_name(stream, 0)).read_bytes()
    originals = {record.raw for record in read_all(source, stream)}
    broken = bytearray(whole)
    kind = data.draw(st.sampled_from(["flip", "cut", "zero", "noise"]))
    start = data.draw(st.integers(0, len(whole) - 1))
    length = data.draw(st.integers(1, 300))
    touched = range(start, min(start + length, len(whole)))
    if kind == "flip":
        broken[start] ^= 1 << data.draw(st.integers(0, 7))
        touched = range(start, start + 1)
    elif kind == "cut":
        del broken[start:]
        touched = range(start, len(whole))
    else:
        noise = (
            bytes(len(touched))
            if kind == "zero"
            else data.draw(st.binary(min_size=len(touched), max_size=len(touched)))
        )
        broken[touched.start : touched.stop] = noise
    directory = tmp_path_factory.mktemp("broken")
    (directory / spool.segment_name(stream, 0)).write_bytes(broken)
    reader = spool.StreamReader(str(directory), stream, dead=True)
    found = [record for part in iter(reader.read, []) for record in part]
    assert {record.raw for record in found} <= originals
    lost = [record for record in read_all(source, stream) if record.raw not in {one.raw for one in found}]
    for record in lost:  # only what was touched, the record's own padding included
        begin = whole.index(record.raw)
        assert touched.start < begin + spool.aligned(len(record.raw)) and begin < touched.stop
    if any(record.number < found[-1].number for record in lost if found):
        assert reader.damage.records > 0


@given(st.binary(max_size=4000))
@settings(max_examples=200 * MORE, deadline=None)
def test_any_bytes_are_read_without_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    directory = tmp_path_factory.mktemp("any")
    for number, content in enumerate((data, spool.header("0" * 16, 1, 5) + data)):
        (directory / spool.segment_name("0" * 16, number)).write_bytes(content)
    reader = spool.StreamReader(str(directory), "0" * 16, dead=True)
    assert list(iter(reader.read, [])) is not None
    for parse in (spool.parse_message, spool.parse_shape):
        with contextlib.suppress(ValueError):
            parse(data)


def test_a_torn_tail_of_a_live_writer_is_waited_for(tmp_path: Path) -> None:
    writer = write(tmp_path)
    writer.row({"a": 1.0}, 1)
    writer.row({"a": 2.0}, 2)
    path = tmp_path / spool.segment_name(writer.stream, 0)
    whole = path.read_bytes()
    last = read_all(tmp_path, writer.stream)[-1]
    at = whole.index(last.raw)
    path.write_bytes(whole[: at + 30] + bytes(len(whole) - at - 30))
    reader = spool.StreamReader(str(tmp_path), writer.stream)
    assert len(logged([record for part in iter(reader.read, []) for record in part])) == 1
    assert reader.read() == []
    path.write_bytes(whole)
    assert [record.number for record in reader.read()] == [last.number]
    assert reader.damage.bytes == 0


# -- the disk is full


@pytest.fixture
def small_disk(tmp_path: Path, require) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    require("root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_costs_records_but_not_the_program(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "RETRY_S", 0.0)
    said: list[str] = []
    writer = write(small_disk, said)
    (small_disk / "filler").write_bytes(bytes(1_500_000))
    for step in range(40_000):
        writer.row({"a": float(step), "b": 0.0}, step)
    assert len(said) == 1 and "No space left" in said[0]
    assert writer.lost > 0
    (small_disk / "filler").unlink()
    for step in range(40_000, 41_000):
        writer.row({"a": float(step), "b": 0.0}, step)
    writer.close()
    found = [step for step, _ in rows(small_disk)]
    assert len(found) == 41_000 - writer.lost and found[-1] == 40_999
    reader = spool.StreamReader(str(small_disk), writer.stream, dead=True)
    while reader.read():
        pass
    assert sum(reader.lost.values()) == writer.lost


def test_a_disk_that_is_full_from_the_start(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "RETRY_S", 0.0)
    (small_disk / "filler").write_bytes(bytes(3_100_000))
    writer = write(small_disk)
    for step in range(10):
        writer.row({"a": 1.0}, step)
    assert spool.lost_without_segment(str(small_disk)) == {writer.stream: 10}
    (small_disk / "filler").unlink()
    writer.row({"a": 1.0}, 10)
    writer.close()
    assert rows(small_disk) == [(10, {"a": 1.0})]
    assert spool.lost_without_segment(str(small_disk)) == {writer.stream: 10}


def test_small_records_after_a_large_one_that_found_no_room_are_read(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "RETRY_S", 0.0)
    writer = write(small_disk)
    writer.row({"a": 1.0}, 0)
    reader = spool.StreamReader(str(small_disk), writer.stream)
    stop = threading.Event()
    found: list[spool.Record] = []

    def read() -> None:
        while not stop.is_set():
            found.extend(reader.read())

    (small_disk / "filler").write_bytes(bytes(2_000_000))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        work = pool.submit(read)
        for step in range(1, 301):  # there is no room for a second segment, and the reader may look at any moment
            writer.message({"type": "media", "name": "large"}, bytes(1_100_000))
            writer.row({"a": 1.0}, step)
        stop.set()
        work.result()
    assert writer.lost == 300
    writer.close()
    while more := reader.read():
        found += more
    assert [step for step, _ in logged(found)] == list(range(301))


def test_columns_that_found_no_room_are_said_again(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "file_system", lambda path: "nfs")
    writer = write(small_disk)
    writer.row({"a": 1.0}, 0)
    room = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(room.f_bavail * room.f_frsize))
    step = 1
    while not writer.lost:  # the last page of the file has some room
        writer.row({f"b{step}": 1.0}, step)
        step += 1
    (small_disk / "filler").unlink()
    for later in range(100):
        writer.row({f"b{step - 1}": 1.0}, step + later)
    writer.close()
    assert [at for at, _ in rows(small_disk)] == [*range(step - 1), *range(step, step + 100)]


def test_where_mapping_is_not_safe_the_same_bytes_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "file_system", lambda path: "nfs")
    writer = write(tmp_path)
    for step in range(20_000):
        writer.row({"a": float(step), "b": 1.0, "c": 2.0}, step)
    assert len(rows(tmp_path)) == 20_000
    writer.close()
    assert len(rows(tmp_path)) == 20_000


# -- death

LOGGER = """
import os, sys
from runyard.client.spool import SpoolWriter
writer = SpoolWriter(sys.argv[1], {"type": "process", "pid": os.getpid()}, print)
out = os.open(sys.argv[2], os.O_RDWR)
import mmap, struct
told = mmap.mmap(out, 8)
step = 0
while True:
    writer.row({"a": float(step), "b": 1.0} if step % 7 else {"c": float(step)}, step)
    step += 1
    told[0:8] = struct.pack("=q", step)
"""


@pytest.mark.slow
def test_every_record_whose_call_returned_is_there_once(tmp_path: Path, crashes: int) -> None:
    """SIGKILL at random moments; ``--crashes N`` for more of them."""
    rng = random.Random(7)
    for number in range(crashes):
        directory = tmp_path / str(number)
        directory.mkdir()
        told = directory / "told"
        told.write_bytes(bytes(8))
        process = subprocess.Popen(
            [sys.executable, "-c", LOGGER, str(directory / "spool"), str(told)], env=environment(directory)
        )
        deadline = 50.0
        while struct.unpack("=q", told.read_bytes())[0] == 0 and deadline > 0 and process.poll() is None:
            deadline -= 0.01
            threading.Event().wait(0.01)
        threading.Event().wait(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        (logged_steps,) = struct.unpack("=q", told.read_bytes())
        found = [step for step, _ in rows(directory / "spool")]
        assert found == list(range(len(found)))
        assert logged_steps > 0 and len(found) in (logged_steps, logged_steps + 1)


def test_a_program_that_logs_little_takes_little_room(tmp_path: Path) -> None:
    """Thousands of short runs may wait for a yard."""
    writer = write(tmp_path / "short")
    for step in range(100):
        writer.row({"a": 1.0}, step)
    during = sum(path.stat().st_size for path in (tmp_path / "short").iterdir())
    writer.close()
    after = sum(path.stat().st_size for path in (tmp_path / "short").iterdir())
    assert after <= during <= 65536
    assert [step for step, _ in rows(tmp_path / "short")] == list(range(100))
    writer = write(tmp_path / "long")
    for step in range(5000):
        writer.row({"a": 1.0}, step)
    writer.close()
    sizes = [path.stat().st_size for path in sorted((tmp_path / "long").iterdir())]
    assert len(sizes) == 2 and sum(sizes) < 5000 * 56
    assert [step for step, _ in rows(tmp_path / "long")] == list(range(5000))
