"""Reading one metric of 100,000 points through the API: all of it, and 1,000 points for a plot."""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
from pathlib import Path

from bench import readers
from bench.common import Report, Target, arguments, measure
from bench.yard import running
from runyard.client.api import Api

POINTS = 100_000
PROGRAM = """
import random, runyard, sys
draw = random.Random(1).gauss
for step in range(int(sys.argv[1])):
    runyard.log({"loss": draw(0.5, 0.1)}, step=step)
"""


def main() -> int:
    options = arguments(__doc__)
    report = Report("series", quick=options.quick)
    rounds = 3 if options.quick else 20
    with running(1) as yard, tempfile.TemporaryDirectory(prefix="ry-bench-") as top:
        (Path(top) / "log.py").write_text(PROGRAM)
        submitted = json.loads(yard.call("run", "--json", "--in-place", "python", "log.py", str(POINTS), cwd=Path(top)))
        with yard.connect() as api:
            run = yard.until_ended(api, submitted["id"])
            floor = plain_table(Path(top) / "floor.db", read(api, run["id"], 0)["values"])
            for what in ("as it arrived", "compacted"):
                if what == "compacted":
                    wait_compacted(yard.home)
                taken = measure(
                    {
                        "floor": lambda: floor.execute("SELECT step, value FROM points ORDER BY step").fetchall(),
                        "all": lambda: read(api, run["id"], 0),
                        "some": lambda: read(api, run["id"], 1000),
                    },
                    rounds,
                )
                base = taken["floor"].median
                report.row(f"all {POINTS} points, {what}", taken["all"].median, "s", baseline=base,
                           against="a plain SQLite table", target=Target(number=0.1, of="value", unit="s"))  # fmt: skip
                report.row(f"1,000 of them for a plot, {what}", taken["some"].median, "s", baseline=base,
                           against="a plain SQLite table", target=Target(number=0.02, of="value", unit="s"))  # fmt: skip
            cpu = readers.cpu_each(yard, lambda: read(api, run["id"], 0), rounds)
            some = readers.cpu_each(yard, lambda: read(api, run["id"], 1000), rounds)
    report.row("all of them, processor time of client and server", cpu, "s")
    report.row("1,000 of them, processor time of client and server", some, "s")
    readers.beside(report, "trackio", readers.TRACKIO_SERIES, POINTS, {"all": ("Trackio: all of them", cpu)})
    readers.beside(report, "mlflow", readers.MLFLOW_SERIES, POINTS, {"all": ("MLflow: all of them", cpu)})
    return report.finish()


def read(api: Api, run: str, points: int) -> dict[str, list[float]]:
    found = api.series(run, "loss", points=points)
    if len(found["steps"]) < (points or POINTS) * 0.9:
        raise SystemExit(f"only {len(found['steps'])} points came")
    return found


def plain_table(path: Path, values: list[float]) -> sqlite3.Connection:
    """Return a database with a row for each point."""
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE points (step INTEGER PRIMARY KEY, value REAL)")
    db.executemany("INSERT INTO points VALUES (?, ?)", enumerate(values))
    db.commit()
    return db


def wait_compacted(home: Path) -> None:
    """Wait until the yard has compacted what has arrived."""
    import time

    deadline = time.monotonic() + 60.0
    with sqlite3.connect(f"file:{home}/yard.db?mode=ro", uri=True) as db:
        while db.execute("SELECT COUNT(*) FROM metric_blocks WHERE name_id IS NULL").fetchone()[0]:
            if time.monotonic() > deadline:
                raise SystemExit("the points are not compacted")
            time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
