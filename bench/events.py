"""Reading 100,000 scalars from an event file of TensorBoard, against TensorBoard's own readers (where it is installed).

Also what the check of their CRC would add, and a turn in which nothing is new, in a tree of 1,000 directories.
"""

from __future__ import annotations

import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.common import Case, Report, Sample, Target, arguments, measure
from runyard.capture.events import masked_crc
from runyard.capture.watch import FileWatcher

TAGS = ("train/loss", "train/acc", "val/loss", "lr")
NUMBERS, TENSORS = "100,000 scalars (number)", "100,000 scalars (tensor)"
LOADER, ACCUMULATOR, CRC, IDLE = "EventFileLoader", "EventAccumulator", "CRC-32C of all records", "turn, nothing new"


def main() -> int:
    options = arguments(__doc__)
    report = Report("events", quick=options.quick)
    count = 10_000 if options.quick else 100_000
    with tempfile.TemporaryDirectory(prefix="ry-bench-") as directory:
        top = Path(directory)
        for name, value in (("numbers", number), ("tensors", tensor)):
            (top / name).mkdir()
            (top / name / "events.out.tfevents.1.host").write_bytes(events(count, value))
        idle = watch_tree(top / "idle")
        cases: dict[str, Case | Callable[[], object]] = {
            NUMBERS: lambda: read(top / "numbers"),
            TENSORS: lambda: read(top / "tensors"),
            CRC: lambda: check(top / "numbers" / "events.out.tfevents.1.host"),
            IDLE: lambda: idle.turn(1.0),
        }
        baseline = tensorboard(str(top / "tensors"), count)
        found = measure({**cases, **baseline}, 1 if options.quick else 5, warmup=0 if options.quick else 1)
    add_rows(report, found, bool(baseline), 100_000 / count)
    return report.finish()


def add_rows(report: Report, found: dict[str, Sample], compared: bool, scale: float) -> None:
    target = Target(number=1.0)
    for name in (NUMBERS, TENSORS):
        if compared:
            report.row(name, found[name].median * scale, "s", baseline=found[LOADER].median * scale, against=LOADER,
                       target=target, sample=found[name])  # fmt: skip
        else:
            report.row(name, found[name].median * scale, "s", sample=found[name])
    for name in (LOADER, ACCUMULATOR):
        if compared:
            report.row(name, found[name].median * scale, "s", sample=found[name])
        else:
            report.not_measured(name, "tensorboard is not installed")
    report.row(CRC, found[CRC].median * scale, "s", baseline=found[NUMBERS].median * scale, against="reading them")
    report.row(IDLE, found[IDLE].median, "s", target=Target(number=0.02, of="value", unit="s"), sample=found[IDLE])


def read(tree: Path) -> int:
    """Read all there is, in turns of half a second as the collector has them; return the number of values."""
    watcher, values = FileWatcher(str(tree)), 0
    while True:
        values += sum(len(row) for row, _, _ in watcher.turn(0.5).rows)
        if not watcher.behind:
            return values


def watch_tree(top: Path) -> FileWatcher:
    """Return a watcher that knows 1,000 directories with 10 files each, 100 of them tables."""
    for number in range(1000):
        place = top / str(number // 100) / str(number)
        place.mkdir(parents=True)
        for name in range(10):
            (place / f"image_{name}.png").touch()
        if number < 100:
            (place / "metrics.csv").write_text("step,loss\n1,0.5\n")
    watcher = FileWatcher(str(top))
    watcher.turn(60.0)
    return watcher


def check(path: Path) -> None:
    """Compute the CRC of every record, one after the other."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        masked_crc(data[at + 12 : at + 12 + length])
        at += length + 16


def tensorboard(tree: str, count: int) -> dict[str, Callable[[], object]]:
    """Return what TensorBoard needs to read the same; nothing where it is not installed."""
    try:
        from tensorboard.backend.event_processing import (  # type: ignore[import-not-found,unused-ignore]
            event_accumulator,
            event_file_loader,
        )
    except ImportError:
        return {}

    def load() -> None:
        loader: Any = event_file_loader.EventFileLoader(tree + "/events.out.tfevents.1.host")
        assert sum(1 for _ in loader.Load()) == count

    def accumulate() -> None:
        accumulator: Any = event_accumulator.EventAccumulator(tree, size_guidance={"tensors": 0})
        accumulator.Reload()
        assert len(accumulator.Tensors(TAGS[0])) == count // len(TAGS)

    return {LOADER: load, ACCUMULATOR: accumulate}


def number(tag: str, value: float) -> bytes:
    return field(1, tag.encode()) + b"\x15" + struct.pack("<f", value)


def tensor(tag: str, value: float) -> bytes:
    content = b"\x08\x01" + field(2, b"") + field(4, struct.pack("<f", value))
    return field(1, tag.encode()) + field(8, content) + field(9, field(1, field(1, b"scalars")))


def events(count: int, value: Callable[[str, float], bytes]) -> bytes:
    """Return an event file with so many scalars, of four tags."""
    parts = []
    for item in range(count):
        step = item // len(TAGS)
        entry = field(1, value(TAGS[item % len(TAGS)], 1 / (step + 1)))
        content = b"\x09" + struct.pack("<d", 1.7e9 + item / 100) + b"\x10" + varint(step) + field(5, entry)
        length = struct.pack("<Q", len(content))
        parts += [length, struct.pack("<I", masked_crc(length)), content, struct.pack("<I", masked_crc(content))]
    return b"".join(parts)


def field(key: int, content: bytes) -> bytes:
    return bytes([key << 3 | 2, len(content)]) + content


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


if __name__ == "__main__":
    sys.exit(main())
