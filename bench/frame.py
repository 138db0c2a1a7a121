"""Runs as a pandas data frame through the API: 10,000 runs with 20 parameters and 5 metrics each.

The baseline is what a program could do that reads the database by itself: plain SELECTs of runs, parameters and metrics with
sqlite3, a pivot for the two long ones, and a join.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import readers
from bench.common import Report, Target, arguments, measure
from bench.search import METRICS, PARAMS, SMALL, seed
from bench.yard import Yard, running

CELLS = 100
"""Cells that are compared with the baseline's."""


def plain(path: Path) -> Any:
    """Return the same frame from the database file."""
    import pandas as pd

    with sqlite3.connect(path) as connection:
        runs = connection.execute(
            "SELECT seq, id, project, name, state, created_at FROM runs ORDER BY seq DESC"
        ).fetchall()
        names = dict(connection.execute("SELECT id, name FROM names").fetchall())
        params = connection.execute("SELECT run_seq, name_id, value FROM params").fetchall()
        metrics = connection.execute("SELECT run_seq, name_id, last FROM metrics").fetchall()
    frame = pd.DataFrame(runs, columns=["seq", "id", "project", "name", "state", "created_at"]).set_index("seq")
    frame["created_at"] = pd.to_datetime(frame["created_at"], unit="us", utc=True)
    for space, rows in (("params", params), ("metrics", metrics)):
        long = pd.DataFrame(rows, columns=["seq", "name", "value"])
        wide = long.pivot(index="seq", columns="name", values="value")
        wide.columns = [f"{space}.{names[name_id]}" for name_id in wide.columns]
        if space == "params":
            wide = wide.map(json.loads)
        frame = frame.join(wide)
    return frame


def same(one: Any, two: Any) -> None:
    """Raise SystemExit unless both frames have the same content."""
    if one.shape[0] != two.shape[0] or not set(one.columns) <= set(two.columns):
        raise SystemExit(f"{one.shape} {list(one.columns)} is not {two.shape} {list(two.columns)}")
    left, right = one.set_index("id"), two.set_index("id")
    for name in left.columns:
        for run in left.index[:: max(1, len(left) // CELLS)]:
            if left.at[run, name] != right.at[run, name] and left.at[run, name] == left.at[run, name]:
                raise SystemExit(f"{name} of {run}: {left.at[run, name]!r} is not {right.at[run, name]!r}")


def main() -> int:
    options = arguments(__doc__)
    report = Report("frame", quick=options.quick)
    what = f"{SMALL:,} runs x {PARAMS} parameters x {len(METRICS)} metrics into pandas"
    target = Target(number=1.0, of="value", unit="s")
    try:
        import pandas  # noqa: F401  that it is there
    except ModuleNotFoundError:
        report.not_measured(what, "needs pandas", target)
        return report.finish()
    import runyard

    def prepare(yard: Yard) -> None:
        yard.home.mkdir()
        seed(str(yard.home), "", SMALL)

    with running(0, prepare) as yard, tempfile.TemporaryDirectory(prefix="ry-bench-") as top:
        os.environ["RUNYARD_HOME"] = str(yard.home)
        database = yard.home / "yard.db"
        same(runyard.runs().df(), plain(database))
        target_file = os.path.join(top, "runs.csv")
        cases = {
            "frame": lambda: runyard.runs().df(),
            "plain": lambda: plain(database),
            "csv": lambda: runyard.runs().csv(target_file),
            "filtered": lambda: runyard.runs("metrics.loss < 0.1").df(),
        }
        taken = measure(cases, 3 if options.quick else 10)
        cpu = readers.cpu_each(yard, cases["frame"], 3 if options.quick else 10)
    base = taken["plain"].median
    about = "sqlite3 and a pivot"
    report.row(what, taken["frame"].median, "s", baseline=base, against=about, target=target, sample=taken["frame"])
    report.row("the same as CSV", taken["csv"].median, "s", sample=taken["csv"])
    report.row("those with loss < 0.1 (a tenth)", taken["filtered"].median, "s", sample=taken["filtered"])
    report.row("processor time of client and server", cpu, "s")
    readers.beside(report, "mlflow", readers.MLFLOW_FRAME, SMALL, {"frame": ("MLflow: the same", cpu)})
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
