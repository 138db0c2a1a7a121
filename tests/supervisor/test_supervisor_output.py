"""What a program writes is what the log holds: all of it, unchanged, at once; and never at the program's cost."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runyard.wire import logs
from tests.supervisor.supervised import Attempt, alive, fill, python, until

Make = Callable[..., Attempt]
Disk = Callable[[int], Path]

WRITER = """if True:
    import hashlib, os, sys
    total, where = int(sys.argv[1]), sys.argv[2]
    block = bytes(range(256)) * 255 + b"no newline at all"
    digest, left = hashlib.sha256(), total
    while left:
        view = memoryview(block)[:left]
        digest.update(view)
        left -= len(view)
        while view:
            view = view[os.write(1, view):]
    open(where, "w").write(digest.hexdigest())
"""


def records(one: Attempt) -> list[tuple[int, int]]:
    """Return the time index: offset in the log, and when the bytes from there on came (microseconds since 1970)."""
    data = one.times_path.read_bytes()
    return list(logs.TIME_RECORD.iter_unpack(data[: len(data) // 16 * 16]))


@pytest.mark.parametrize(("pty", "size"), [(True, 100_000_000), (False, 100_000_000)])
def test_a_lot_of_output_is_recorded_unchanged(attempt: Make, tmp_path: Path, pty: bool, size: int) -> None:
    one = attempt(python(WRITER, str(size), str(tmp_path / "sum")), pty=pty)
    end = one.run(90)
    assert end["exit_code"] == 0 and end["log_bytes"] == size and end["log_dropped"] == 0
    assert hashlib.sha256(one.log()).hexdigest() == (tmp_path / "sum").read_text()
    times = records(one)
    assert times[0][0] == 0 and len(times) <= size // 65536 + 100
    assert all(times[i][0] < times[i + 1][0] <= size for i in range(len(times) - 1))


def test_every_byte_passes_the_terminal(attempt: Make) -> None:
    code = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 2 + b'\\n\\r\\n\\xff')"
    one = attempt(python(code))
    assert one.run()["exit_code"] == 0
    assert one.log() == bytes(range(256)) * 2 + b"\n\r\n\xff"


def test_output_can_be_read_at_once(attempt: Make) -> None:
    code = """if True:
        import sys, time
        for _ in range(15):
            time.sleep(0.05)
            sys.stdout.write("%d\\n" % (time.monotonic_ns() // 1000)); sys.stdout.flush()
    """
    one = attempt(python(code)).start()
    late, seen = [], 0
    while seen < 15:
        lines = until(lambda seen=seen: one.log().split(b"\n")[seen:-1])  # type: ignore[misc]
        late += [time.monotonic_ns() // 1000 - int(line) for line in lines]
        seen += len(lines)
    one.end()
    assert sorted(late)[len(late) // 2] < 50_000, late


def test_text_without_newline_can_be_read_at_once(attempt: Make) -> None:
    one = attempt(python("import os, time; os.write(1, b'50%\\r'); time.sleep(60)")).start()
    assert one.says(b"50%\r") == b"50%\r"
    one.stop(0)
    one.end()


def test_time_index_tells_when_output_came(attempt: Make) -> None:
    code = "import os, time\nfor i in range(4):\n os.write(1, b'%d\\n' % (time.time_ns() // 1000)); time.sleep(0.15)"
    one = attempt(python(code))
    one.run()
    times = records(one)
    assert len(times) == 4
    for (_, at), line in zip(times, one.log().splitlines(), strict=True):
        assert 0 <= at - int(line) < 1_000_000


def test_times_come_at_most_every_tenth_of_a_second(attempt: Make) -> None:
    code = "import os, time\nfor i in range(100):\n os.write(1, b'x\\n'); time.sleep(0.004)"
    one = attempt(python(code))
    one.run()
    times = records(one)
    assert 3 <= len(times) <= 40
    assert all(times[i + 1][1] - times[i][1] >= 100_000 for i in range(len(times) - 1))


def test_end_is_the_exit_though_a_grandchild_holds_the_output(attempt: Make) -> None:
    one = attempt(
        ["sh", "-c", "trap '' TERM; (trap '' TERM; sleep 0.3; echo late; exec sleep 61) & echo early"]
    ).start()
    one.says(b"early")
    began = time.monotonic()
    end = one.end()
    assert time.monotonic() - began < 10 and end["exit_code"] == 0
    assert end["leftover"] and one.log() == b"early\nlate\n"
    assert end["ended_at"] - end["started_at"] < 1_500_000


def test_output_is_taken_in_for_two_seconds_after_the_program_though_a_grandchild_goes_on(attempt: Make) -> None:
    code = """if True:
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            while True: os.write(1, b"%d\\n" % time.time_ns()); time.sleep(0.02)
        time.sleep(0.3); os._exit(0)
    """
    one = attempt(python(code), lacks=("impatience",))
    end = one.run()
    drained_s = int(one.log().splitlines()[-2]) / 1e9 - end["ended_at"] / 1e6
    assert 1.5 < drained_s < 2.0 + 1.0
    assert end["leftover"]


def test_end_does_not_wait_for_a_stranger_who_holds_the_output(attempt: Make) -> None:
    one = attempt(python("import time; print('x', flush=True); time.sleep(0.5)")).start().running()
    one.says(b"x")
    fd = os.open(os.readlink("/proc/%d/fd/1" % one.status()["pid"]), os.O_WRONLY | os.O_NOCTTY)
    try:
        began = time.monotonic()
        assert one.end()["exit_code"] == 0
        assert time.monotonic() - began < 10
    finally:
        os.close(fd)


def test_end_does_not_wait_for_strangers_who_go_on_printing(attempt: Make) -> None:
    one = attempt(["sleep", "0.5"], pty=False, lacks=("fast_disk",)).start().running()
    with open("/proc/%d/fd/1" % one.status()["pid"], "wb") as pipe:
        strangers = [subprocess.Popen(["cat", "/dev/zero"], stdout=pipe, stderr=subprocess.DEVNULL) for _ in range(3)]
    began = time.monotonic()
    try:
        assert one.end()["exit_code"] == 0
        assert time.monotonic() - began < 10
    finally:
        for stranger in strangers:
            stranger.kill()
            stranger.wait()


def test_full_disk_costs_output_and_nothing_else(small_disk: Disk, attempt: Make, tmp_path: Path) -> None:
    disk = small_disk(1 << 20)
    size = 20_000_000
    one = attempt(
        python(WRITER, str(size), str(tmp_path / "sum")), log=str(disk / "log.1"), times=str(disk / "times.1")
    )
    end = one.run()
    assert end["exit_code"] == 0 and (tmp_path / "sum").exists()
    assert end["log_bytes"] == len(one.log()) > 900_000
    assert end["log_bytes"] + end["log_dropped"] == size
    pattern = bytes(range(256)) * 255 + b"no newline at all"
    assert one.log() == (pattern * 20)[: len(one.log())]


def test_recording_goes_on_when_the_disk_has_room_again(small_disk: Disk, attempt: Make) -> None:
    disk = small_disk(1 << 20)
    code = """if True:
        import os, sys, time
        def wait(name):
            while not os.path.exists(name): time.sleep(0.01)
        os.write(1, b"first\\n"); wait("full"); os.write(1, b"d" * 9000); wait("room"); os.write(1, b"last\\n")
    """
    one = attempt(python(code), log=str(disk / "log.1"), times=str(disk / "times.1")).start()
    one.says(b"first\n")
    fill(disk)
    (one.cwd / "full").touch()
    time.sleep(0.3)
    (disk / "filler").unlink()
    (one.cwd / "room").touch()
    end = one.end()
    assert one.log().startswith(b"first\nddd") and one.log().endswith(b"last\n")
    assert 0 < end["log_dropped"] < 9000 and end["log_bytes"] == len(one.log())
    times = records(one)
    assert os.path.getsize(one.times_path) % 16 == 0 and len(times) >= 2


def test_end_is_written_on_a_full_disk(small_disk: Disk, attempt: Make) -> None:
    disk = small_disk(2 << 20)
    one = attempt(["sh", "-c", "read x < go; echo some output; exit 9"])
    one.move(disk)
    os.mkfifo(one.cwd / "go")
    one.start().running()
    fill(disk)
    (one.cwd / "go").write_text("go\n")
    end = one.end()
    assert end["exit_code"] == 9 and end["reason"] == "exited"


def test_nothing_is_executed_when_its_end_could_not_be_written(small_disk: Disk, attempt: Make) -> None:
    from runyard.agent import launch

    disk = small_disk(1 << 20)
    one = attempt(["sh", "-c", "touch was-here"])
    one.move(disk)
    (one.dir / "lock").touch()
    (one.dir / "supervisor.err").touch()
    fill(disk)
    one.start()
    until(lambda: launch.reap(one.pid))
    assert not (one.cwd / "was-here").exists() and one.status() == {}
    (disk / "filler").unlink()


def test_log_that_cannot_be_opened_does_not_stop_the_program(attempt: Make, tmp_path: Path) -> None:
    one = attempt(["sh", "-c", "echo lost; exit 4"], log=str(tmp_path / "no" / "log.1"))
    end = one.run()
    assert end["exit_code"] == 4 and end["log_bytes"] == 0 and end["log_dropped"] == 5


def test_program_that_writes_and_ignores_everything_else_is_not_blocked_by_a_dead_reader(attempt: Make) -> None:
    one = attempt(["sh", "-c", "while :; do echo y; done"]).start()
    until(lambda: len(one.log()) > 1000)
    reader = os.open(one.log_path, os.O_RDONLY)  # somebody who never reads on
    size = len(one.log())
    until(lambda: one.log_path.stat().st_size > size + 100_000)
    os.close(reader)
    pid = one.status()["pid"]
    one.stop(0)
    one.end()
    assert not alive(pid)
