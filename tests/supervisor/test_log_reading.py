"""Reading a log, and the time index that its recorder writes beside it."""

from __future__ import annotations

import time
from pathlib import Path

from runyard.agent.recorder import Recorder
from runyard.wire import logs


def test_log_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    path = str(tmp_path / "log.1")
    assert (logs.size(path), logs.read(path, 0, 10), logs.read(path, -5, 10)) == (0, b"", b"")


def test_bytes_by_offset(tmp_path: Path) -> None:
    path = tmp_path / "log.1"
    path.write_bytes(b"0123456789")
    assert logs.read(str(path), 3, 4) == b"3456"
    assert logs.read(str(path), 8, 100) == b"89"
    assert logs.read(str(path), 10, 100) == logs.read(str(path), 99, 1) == b""
    assert logs.read(str(path), -4, 2) == b"67"
    assert logs.read(str(path), -99, 2) == b"01"


def test_times_of_what_a_recorder_wrote(tmp_path: Path) -> None:
    log, times = str(tmp_path / "log.1"), str(tmp_path / "times.1")
    before = time.time_ns() // 1000
    recorder = Recorder(log, times)
    recorder.write(b"a" * 10)
    recorder.write(b"b" * 70000)
    recorder.write(b"c" * 10)
    recorder.close()
    (first, began), (second, later) = logs.TIME_RECORD.iter_unpack(Path(times).read_bytes())
    assert (first, second) == (0, 70010)
    assert before <= began <= later <= time.time_ns() // 1000


def test_recorder_goes_on_after_what_is_there_already(tmp_path: Path) -> None:
    log, times = tmp_path / "log.1", tmp_path / "times.1"
    log.write_bytes(b"before\n")
    times.write_bytes(logs.TIME_RECORD.pack(0, 5) + b"half")
    recorder = Recorder(str(log), str(times))
    recorder.write(b"after\n")
    recorder.close()
    assert log.read_bytes() == b"before\nafter\n" and recorder.size == 13
    assert [offset for offset, _ in logs.TIME_RECORD.iter_unpack(times.read_bytes())] == [0, 7]
