"""What the hooks in the Python processes of a run cost, against the same Python without them.

Start-up: an empty program; one that parses arguments (`argparse` alone is most of it) and has constants, so that a stream
is begun and written. Opening: 100,000 opens of 10 files, and 5,000 files opened once each, in one process.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.common import Report, Sample, Target, arguments

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "runyard"
PARSER = """
import argparse
LR = 0.1
PARAMS = {"depth": 3}
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=LR)
parser.parse_args()
"""
AGAIN = """
import sys, time
names = ["data/%d.bin" % number for number in range(10)]
count = int(sys.argv[1])
for name in names: open(name).close()
start = time.process_time()
for _ in range(count // 10):
    for name in names:
        open(name).close()
print((time.process_time() - start) / count)
"""
ONCE = """
import sys, time
names = ["images/%d/%d.png" % (number % 50, number) for number in range(int(sys.argv[1]))]
start = time.process_time()
for name in names:
    open(name).close()
print((time.process_time() - start) / len(names))
"""


def main() -> int:
    options = arguments(__doc__)
    report = Report("inject", quick=options.quick)
    with tempfile.TemporaryDirectory(prefix="ry-bench-") as directory:
        top = Path(directory)
        plain, hooked = environments(top)
        rounds = 5 if options.quick else 60
        measure_start(report, top, plain, hooked, rounds)
        measure_open(report, top, plain, hooked, 3 if options.quick else 9, 10_000 if options.quick else 100_000)
    return report.finish()


def environments(top: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the environment without and with the hooks; a copy of the client half and a tree are made."""
    package, tree = top / "lib" / "runyard", top / "tree"
    package.mkdir(parents=True)
    shutil.copy(PACKAGE / "__init__.py", package)
    for part in ("wire", "client", "capture"):
        shutil.copytree(PACKAGE / part, package / part, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "data").mkdir(parents=True)
    for number in range(10):
        (tree / "data" / f"{number}.bin").write_bytes(b"1")
    for number in range(5000):
        path = tree / "images" / str(number % 50) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
    for name, text in (("empty", ""), ("parser", PARSER), ("again", AGAIN), ("once", ONCE)):
        (tree / f"{name}.py").write_text(text)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RUNYARD_"))}
    hooked = plain | {
        "PYTHONPATH": str(package / "capture" / "inject"), "RUNYARD_SPOOL": str(top / "spool"),
        "RUNYARD_CAPTURE": "params,data", "RUNYARD_RUN_DIR": str(tree), "RUNYARD_ATTEMPT": "0" * 32,
    }  # fmt: skip
    time.sleep(0.05)  # so that the files are older than the programs
    return plain, hooked


def call(top: Path, environ: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], env=environ, cwd=top / "tree", capture_output=True, text=True, check=True
    )
    return done.stdout


def measure_start(report: Report, top: Path, plain: dict[str, str], hooked: dict[str, str], rounds: int) -> None:
    programs = {
        "python -c pass": (("-c", "pass"), Target(number=3, of="value", unit="ms")),
        "empty script, begins a stream": (("empty.py",), None),
        "script with argparse and constants": (("parser.py", "--lr", "0.5"), None),
    }
    for what, (command, target) in programs.items():
        taken: dict[str, list[float]] = {"plain": [], "hooked": []}
        for number in range(-3, rounds):
            for name, environ in (("plain", plain), ("hooked", hooked)):
                seconds = cpu(top, environ, *command)
                if number >= 0:
                    taken[name].append(seconds)
        base, with_hooks = Sample(tuple(taken["plain"])), Sample(tuple(taken["hooked"]))
        report.row(f"{what}, processor time", 1000 * base.median, "ms")
        report.row(f"{what}: hooks add", 1000 * (with_hooks.median - base.median), "ms", target=target)


def cpu(top: Path, environ: dict[str, str], *command: str) -> float:
    """Return the processor time of a program in seconds: that of the clock says more about what else the machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call(top, environ, *command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_open(
    report: Report, top: Path, plain: dict[str, str], hooked: dict[str, str], rounds: int, count: int
) -> None:
    cases = (
        ("open of a file that was opened before", "again.py", count, Target(number=1, of="value", unit="µs")),
        ("first open of a file", "once.py", 5000, None),
    )
    for what, script, number, target in cases:
        taken: dict[str, list[float]] = {"plain": [], "hooked": []}
        for _ in range(rounds):
            taken["plain"].append(float(call(top, plain, script, str(number))))
            taken["hooked"].append(float(call(top, hooked, script, str(number))))
        base, with_hooks = Sample(tuple(taken["plain"])), Sample(tuple(taken["hooked"]))
        report.row(what, 1e6 * base.median, "µs")
        report.row(f"{what}: hooks add", 1e6 * (with_hooks.median - base.median), "µs", target=target)


if __name__ == "__main__":
    sys.exit(main())
