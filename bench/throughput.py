"""1,000 runs of ``true`` through 8 CPU slots, end to end, against ``xargs -P8`` that runs as many directly."""

from __future__ import annotations

import subprocess
import sys
import time

from bench.common import Report, Target, arguments
from bench.yard import Json, Yard, running, small_repository

SLOTS = 8


def main() -> int:
    options = arguments(__doc__)
    report = Report("throughput", quick=options.quick)
    number = 100 if options.quick else 1000
    with running(SLOTS) as yard:
        spec = yard.first_run(small_repository(yard.home.parent / "small"), "true")
        measure_yard(report, yard, spec, number)
    return report.finish()


def measure_yard(report: Report, yard: Yard, spec: Json, number: int) -> None:
    with yard.connect() as api:
        yard.submit_many(api, spec, 2 * SLOTS)
        yard.all_ended(api)
        direct = xargs(number)
        before, started = yard.cpu_s(), time.perf_counter()
        yard.submit_many(api, spec, number)
        yard.all_ended(api)
        seconds = time.perf_counter() - started
        after = yard.cpu_s()
    report.row(f"xargs -P{SLOTS}: {number} times true", number / direct, "runs/s")
    report.row(
        f"{number} runs of true through {SLOTS} slots", number / seconds, "runs/s", baseline=number / direct,
        against="xargs", target=Target(number=15, of="value", least=True, unit="runs/s"),
    )  # fmt: skip
    for name in after:
        report.row(f"  processor time per run: {name}", (after[name] - before[name]) / number, "s")


def xargs(number: int) -> float:
    """Return the seconds that it takes to run ``true`` that many times, 8 at a time, each a process."""
    words = "\n".join(["x"] * number)
    started = time.perf_counter()
    # `true x`: as many processes as words
    subprocess.run(["xargs", f"-P{SLOTS}", "-n1", "true"], input=words, text=True, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
