"""What 1,000 finished runs of an unchanged repository cost on disk once thinned, against as many copies of their code."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

from bench.common import Report, Target, arguments
from bench.repository import ABOUT, FILES, SIZE, make
from bench.yard import Yard, like, running
from runyard.services.disk import size_of

SLOTS = 8
COMMAND = ("dd", "if=/dev/zero", "of=result.bin", "bs=1000", "count=1", "status=none")
"""Writes one file of 1 kB and prints nothing."""
RUNS, BYTES, INODES = 1000, 60_000_000, 20_000
BATCH = 50
"""Runs between two rounds of thinning: 500 MB, so that the disk need not hold 10 GB meanwhile."""


def main() -> int:
    options = arguments(__doc__)
    report = Report("disk", quick=options.quick)
    number = 40 if options.quick else RUNS
    with running(SLOTS) as yard:
        repository = yard.home.parent / "repository"
        make(repository, {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})
        yard.first_run(repository, *COMMAND)
        half = finished_and_thinned(yard, number // 2 - 1)
        whole = finished_and_thinned(yard, number // 2)
        parts = cost_of_parts(yard.home)
    # A quick round has the whole fixed cost but few of the runs: what 1,000 cost follows from the growth.
    size, inodes = (now + (now - then) / (number // 2) * (RUNS - number) for then, now in zip(half, whole, strict=True))
    size += parts["yard.db-wal"][0]
    about = f"{number} runs ({ABOUT}; each wrote 1 kB)" + (", as if 1,000" if number != RUNS else "")
    report.row(f"{about}: disk space", size / 1e6, "MB", baseline=RUNS * FILES * SIZE / 1e6,
               against="copies of the code", target=Target(number=BYTES / 1e6, of="value", unit="MB"))  # fmt: skip
    report.row(f"{about}: inodes", inodes, "inodes", baseline=RUNS * (FILES + 41), against="copies of the code",
               target=Target(number=INODES, of="value", unit="inodes"))  # fmt: skip
    for name, (part, count) in parts.items():
        report.row(f"  {name} ({count} inodes)", part / 1e6, "MB")
    return report.finish()


def finished_and_thinned(yard: Yard, number: int) -> tuple[float, int]:
    """Let so many runs like the last one finish, thin, and return disk space (bytes) and inodes of the whole home.

    The write-ahead log of the database has a fixed size once it has grown; what has not left it yet is counted as if
    it had.
    """
    with yard.connect() as api:
        spec = like(api.run("@last"))
        for begun in range(0, number, BATCH):
            yard.submit_many(api, spec, min(BATCH, number - begun))
            yard.all_ended(api, every_s=0.5)
            api.gc({"do": True})
    database = yard.home / "yard.db"
    size, inodes = size_of(str(yard.home))
    held = size_of(str(database))[0] + size_of(f"{database}-wal")[0]
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        pages, page = (connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "page_size"))
    connection.close()
    return size - held + pages * page, inodes


def cost_of_parts(home: Path) -> dict[str, tuple[int, int]]:
    """Return the disk space and inodes of what lies in the home, by name, and of one run."""
    found = {entry.name: size_of(str(entry)) for entry in sorted(home.iterdir())}
    newest = max((home / "runs").glob("*/*"), key=lambda path: path.stat().st_mtime_ns)
    return found | {"of runs, one": size_of(str(newest))}


if __name__ == "__main__":
    sys.exit(main())
