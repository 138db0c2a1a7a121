"""Searching many runs, through the HTTP API: each has 20 parameters and 5 metrics. Over a Unix socket, as the command line.

The floor is the same in plain SQL with the driver alone, on the same database and in turn with what it is compared with:
the filter by the right indexes, and all parameters and metrics of the runs found; the order from the index; the rows of the
newest runs. How the runs got there is measured elsewhere (`bench.queue`): here they are inserted in bulk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from bench import readers
from bench.common import Report, Sample, Target, arguments, measure
from bench.queue import ME, POSTGRESQL, new_database, specs
from bench.yard import Yard, running
from runyard.client.api import Api
from runyard.services.yard import open_yard
from runyard.store.bulk import insert_rows
from runyard.store.database import Connection
from runyard.store.tables import attempts, metrics, names, params
from runyard.wire.settings import defaults

SMALL, LARGE = 10_000, 100_000
PARAMS, METRICS, POINTS, PAGE = 20, ("loss", "acc", "val/loss", "val/acc", "time"), 100, 100
FILTER = 'metrics.loss < 0.5 and params.p3 == "v2"'
START_US = 1_790_000_000_000_000
PLACE = {"sqlite": "?", "postgresql": "%s"}
Fetch = Callable[[str, list[Any]], list[tuple[Any, ...]]]


def seed(home: str, url: str, number: int) -> None:
    """Fill a new yard with finished runs."""
    yard = open_yard(home, {**defaults(), "min_free": "0"}, database_url=url)
    try:
        for start in range(0, number, 10_000):
            yard.submit(specs(min(10_000, number - start)), {"PATH": "/bin"}, ME)
        yard.context.db.write(lambda connection: _log(connection, number))
        # What `PRAGMA optimize` and autovacuum would have done in the meantime.
        with yard.context.db.engine.connect() as connection:
            if yard.context.db.dialect == "postgresql":
                connection.exec_driver_sql("ANALYZE")
                connection.commit()
    finally:
        yard.close()


def _log(connection: Connection, number: int) -> None:
    """Let all runs have ended, and give them parameters and metrics."""
    listed = [*(f"p{i}" for i in range(PARAMS)), *METRICS]
    insert_rows(connection, names, ("id", "hash", "name"),
                [(i, hashlib.sha256(name.encode()).hexdigest(), name) for i, name in enumerate(listed, 1)])  # fmt: skip
    connection.exec_driver_sql(
        "UPDATE runs SET state = 'finished', ready = 0, attempts = 1, exit_code = 0, reason = 'exited', origin = 'user', "
        f"attempt_id = id, host_id = 'host', started_at = {START_US}, ended_at = {START_US} + seq * 1000000"
    )
    ids = [str(row[0]) for row in connection.exec_driver_sql("SELECT id FROM runs ORDER BY seq")]
    made = (START_US, START_US, START_US, START_US)
    insert_rows(
        connection, attempts,
        ("id", "run_id", "number", "epoch", "agent_id", "host_id", "slots", "phase", "active", "lease_until", "assigned_at",
         "started_at", "ended_at", "exit_code", "reason", "origin"),
        [(i, i, 1, 1, "agent", "host", '["cpu0"]', "ended", 0, *made, 0, "exited", "user") for i in ids],
    )  # fmt: skip
    chance = random.Random(1)
    for start in range(1, number + 1, 10_000):
        seqs = range(start, min(start + 10_000, number + 1))
        insert_rows(connection, params, ("run_seq", "name_id", "kind", "number", "head", "value", "rank", "source"),
                    [(seq, i + 1, *_param(chance, i), 4, "argparse") for seq in seqs for i in range(PARAMS)])  # fmt: skip
        insert_rows(
            connection, metrics,
            ("run_seq", "name_id", "attempt", "source", "count", "last", "min", "max", "total", "nans", "step"),
            [(seq, PARAMS + 1 + i, 1, 2, POINTS, last := chance.random(), last / 2, 1.0 + last, last * POINTS, 0, POINTS)
             for seq in seqs for i in range(len(METRICS))],
        )  # fmt: skip


def _param(chance: random.Random, number: int) -> tuple[str, float | None, str, str]:
    """Return kind, number, head and value: of every second parameter a number, of the others one of ten texts."""
    if number % 2:
        text = f"v{chance.randrange(10)}"
        return "text", None, text, json.dumps(text)
    value = round(chance.random(), 6)
    return "number", value, str(value), str(value)


def floors(fetch: Fetch, sign: str) -> dict[str, Callable[[], object]]:
    """Return the same searches in plain SQL; names 4, 21 and 22 are ``p3``, ``loss`` and ``acc``."""
    found = (
        "SELECT m.run_seq FROM metrics m JOIN params p ON p.run_seq = m.run_seq AND p.name_id = 4 AND p.head = 'v2' "
        f"WHERE m.name_id = 21 AND m.last < 0.5 ORDER BY m.last LIMIT {PAGE}"
    )

    def all_of(table: str, seqs: list[Any]) -> list[tuple[Any, ...]]:
        return fetch(f"SELECT * FROM {table} WHERE run_seq IN ({', '.join([sign] * len(seqs))})", seqs)

    def filtered() -> object:
        seqs = [row[0] for row in fetch(found, [])]
        return all_of("params", seqs), all_of("metrics", seqs)

    ordered = f"SELECT run_seq FROM metrics WHERE name_id = 22 AND last IS NOT NULL ORDER BY last DESC LIMIT {PAGE}"
    newest = f"SELECT * FROM runs WHERE trashed_at IS NULL ORDER BY seq DESC LIMIT {PAGE}"
    return {"filter": filtered, "order": lambda: fetch(ordered, []), "newest": lambda: fetch(newest, [])}


@contextlib.contextmanager
def driver(url: str) -> Iterator[tuple[Fetch, str]]:
    """Give what fetches rows with the driver alone, and how it writes a parameter."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        yield lambda statement, values: connection.execute(statement, values).fetchall(), "?"
        connection.close()
        return
    import psycopg

    with psycopg.connect(url, autocommit=True) as other:
        yield lambda statement, values: other.execute(statement, values or None).fetchall(), "%s"  # type: ignore[call-overload]


def searches(api: Api) -> dict[str, Callable[[], object]]:
    """Return what is asked of the server."""

    def found(number: int, **asked: Any) -> Callable[[], object]:
        def ask() -> object:
            page = api.runs(**asked, limit=number)
            assert len(page["runs"]) == number, (asked, len(page["runs"]))
            return page

        return ask

    return {
        "filter": found(PAGE, q=FILTER, order="metrics.loss"),
        "order": found(PAGE, order="-metrics.acc"),
        "newest": found(PAGE),
        "order as columns": lambda: api.table(order="-metrics.acc", limit=PAGE),
        "filter, newest first": found(PAGE, q=FILTER),
        "two of each": found(PAGE, q=FILTER + ' and metrics["val/acc"] > 0.1 and params.p4 < 0.9'),
        "part of a text": found(PAGE, q='"2" in params.p5 and metrics.acc > 0.5'),
        "few fit": lambda: api.runs(q="params.p0 < 0.001", order="run.duration"),
        "words": lambda: api.runs(q="no such words"),
    }


def frame(api: Api) -> object:
    """Return all runs as a table, where there is pandas as its data frame."""
    table = api.table(limit=SMALL)
    columns = dict(zip(table["columns"], table["data"], strict=True))
    try:
        import pandas as pd
    except ModuleNotFoundError:
        return columns
    return pd.DataFrame(columns)


TEXTS = {
    "filter": "metrics.loss < 0.5 and params.p3 == 'v2' by loss",
    "order": "no filter, by a metric",
    "newest": "no filter, newest first",
    "order as columns": "no filter, by a metric, as columns",
}
TARGETS = {"filter": 0.015, "order": 0.005, "newest": 0.020, "order as columns": 0.005}


def report_on(
    report: Report, name: str, url: str, number: int, rounds: int, small: dict[str, Sample]
) -> dict[str, Sample]:
    """Add the rows of one database with so many runs; ``small``: what was measured with fewer. Returns what was measured."""
    with ExitStack() as stack:
        database = "" if url == "sqlite" else stack.enter_context(new_database(url))

        def prepare(yard: Yard) -> None:
            yard.home.mkdir()
            seed(str(yard.home), database, number)

        settings = {"RUNYARD_DATABASE": database} if database else {}
        yard = stack.enter_context(running(0, prepare, **settings))
        fetch, sign = stack.enter_context(driver(database or f"sqlite:///{yard.home}/yard.db"))
        api = stack.enter_context(yard.connect())
        asked = searches(api)
        cases = {**asked, **{f"{key} floor": case for key, case in floors(fetch, sign).items()}}
        taken = measure(cases, rounds, warmup=3)
        what = f"{name}, {number:,} runs"
        for key in asked:
            floor = taken.get(f"{key} floor")
            target = None
            if key in TARGETS:
                target = Target(number=TARGETS[key], of="value", unit="s")
            if small and key == "filter":
                report.row(f"{what}: {key}", taken[key].median, "s", baseline=small[key].median, against="10,000 runs",
                           target=Target(number=3.0), sample=taken[key])  # fmt: skip
                continue
            report.row(
                f"{what}: {TEXTS.get(key, key)}", taken[key].median, "s", sample=taken[key], target=target,
                **({"baseline": floor.median, "against": "plain SQL"} if floor else {}),
            )  # fmt: skip
        if number == SMALL and not database:
            beside_mlflow(report, yard, asked, rounds)
        if number == SMALL:
            tables = measure({"table": lambda: frame(api)}, max(3, rounds // 10))["table"]
            report.row(f"{what}: all as columns", tables.median, "s", target=Target(number=1.0, of="value", unit="s"))
        return taken


def beside_mlflow(report: Report, yard: Yard, asked: dict[str, Callable[[], object]], rounds: int) -> None:
    """The same searches with MLflow's client on a database of its own with as many runs, in processor time."""
    rows = {}
    for key in ("filter", "order", "newest"):
        cpu = readers.cpu_each(yard, asked[key], rounds)
        report.row(f"{TEXTS[key]}, processor time of client and server", cpu, "s")
        rows[key] = f"MLflow: {TEXTS[key]}", cpu
    readers.beside(report, "mlflow", readers.MLFLOW_SEARCH, SMALL, rows)


def main() -> int:
    options = arguments(__doc__)
    report = Report("search", quick=options.quick)
    sizes, rounds = ([SMALL], 5) if options.quick else ([SMALL, LARGE], 50)
    postgresql = os.environ.get(POSTGRESQL)
    for name, url in (("SQLite", "sqlite"), ("PostgreSQL", postgresql)):
        if not url:
            report.not_measured(f"{name}: searches", f"{POSTGRESQL} names no server")
            continue
        taken: dict[str, Sample] = {}
        for number in sizes:
            taken = report_on(report, name, url, number, rounds, taken)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
