"""How many printed lines a second are looked at for metrics, against Guild AI's way: a regular expression on every line.

Lines come in pieces of 64 kB, as from the log of a run. Guild's two patterns (`guild/summary.py`, default
`output-scalars`) know only `key: value`, one on a line: the baseline finds nothing in most of what is measured here.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable

from bench.common import Report, Target, arguments, measure
from runyard.capture.lines import LineParser

LINES = 100_000
PIECE = 1 << 16
KEY, STEP = r"[_a-zA-Z]\S*", r"[0-9]+"
VALUE = r"(?:[-+]?[0-9]*\.?(?:[0-9]+)?(?:[eE][-+]?[0-9]+)?|[nN][aA][nN]|[-+]?[iI][nN][fF])"
GUILD = (
    re.compile(rf"^(?P<_key>{KEY}):\s+(?P<_val>{VALUE})\s+\((?:step\s+)?(?P<step>{STEP})\)$", re.ASCII),
    re.compile(rf"^({KEY}):\s+({VALUE})(?:\s+\(.*\))?$", re.ASCII),
)
TARGET = Target(number=100_000, of="value", least=True, unit="lines/s")


def main() -> int:
    options = arguments(__doc__)
    count = LINES // 10 if options.quick else LINES
    report = Report("lines", quick=options.quick)
    for what, data, target in cases(count):
        pieces = [data[start : start + PIECE] for start in range(0, len(data), PIECE)]
        found = measure({"guild": run(guild, data), "runyard": run(ours, pieces)}, 3 if options.quick else 7)
        lines = data.count(b"\n") + data.count(b"\r")
        base, sample = found["guild"], found["runyard"]
        report.row(f"Guild: {what}", lines / base.median, "lines/s", sample=base)
        report.row(
            what, lines / sample.median, "lines/s",
            baseline=lines / base.median, against="Guild", target=target, sample=sample,
        )  # fmt: skip
    return report.finish()


def run(reader: Callable[..., object], given: object) -> Callable[[], object]:
    return lambda: reader(given)


def ours(pieces: list[bytes]) -> int:
    parser = LineParser()
    found = sum(len(parser.feed(piece, 1)) for piece in pieces)
    return found + len(parser.flush(1))


def guild(data: bytes) -> int:
    """Do what Guild does with each line of output, without writing what is found."""
    step, implied, found = None, 0, 0
    seen: set[str] = set()
    for raw in data.splitlines():
        values: dict[str, float] = {}
        line = raw.decode("utf-8", "replace").rstrip()
        for pattern in GUILD:
            for match in pattern.finditer(line):
                groups = match.groupdict()
                key, value = (groups["_key"], groups["_val"]) if groups else match.groups()
                try:
                    values[key] = float(value)
                except ValueError:
                    continue
        if "step" in values:
            step = int(values.pop("step"))
        if step is None and not seen.isdisjoint(values):
            implied += 1
            seen.clear()
        seen.update(values)
        found += len(values)
    return found


def cases(count: int) -> list[tuple[str, bytes, Target | None]]:
    """Return what is measured: lines of each kind, and what must be reached."""
    at = range(count)
    draw = random.Random(1)
    values = [draw.random() for _ in at]
    ids = [draw.getrandbits(96) for _ in at]
    stamp = "2026-01-01 12:00:%02d,%03d INFO worker %d: loaded shard number %d of the training data from disk\n"
    bar = "\rtrain:  25%%|█████▎               | %d/200000 [00:00<00:00, 47.90it/s, loss=%.3f, lr=1.0e-03]"
    kinds: list[tuple[str, str, Target | None]] = [
        ("step: 1 / loss: 0.5", "".join(f"step: {i}\nloss: {values[i]:.5f}\n" for i in at[: count // 2]), TARGET),
        (
            "key=value",
            "".join(f"step={i} loss={v:.5f} acc={1 - v:.4f} lr=1e-3\n" for i, v in enumerate(values)),
            TARGET,
        ),
        ("key=value, all digits", "".join(f"epoch={i} loss={v!r}\n" for i, v in enumerate(values)), TARGET),
        ("no metric, a logger's", "".join(stamp % (i % 60, i % 1000, i % 8, i) for i in at), TARGET),
        (
            "no metric, prose",
            "Loading the weights of the model from the local directory, please wait\n" * count,
            TARGET,
        ),
        ("no metric, no two alike", "".join(f"saved {i:x} as {i % 977:x}.bin, took 3 s\n" for i in ids), TARGET),
        ("frames of tqdm", "".join(bar % (i, v) for i, v in enumerate(values)), None),
    ]
    return [(what, text.encode(), target) for what, text, target in kinds]


if __name__ == "__main__":
    sys.exit(main())
