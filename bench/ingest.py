"""Taking in what runs log: 8 runs at once, 10 metrics a step with the time of each, on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import text

from bench.common import Report, Target, arguments
from runyard.client.spool import SpoolWriter
from runyard.services.api import Actor
from runyard.services.compact import compact_runs
from runyard.services.yard import Yard as Service
from runyard.services.yard import open_yard
from runyard.store import attempts, runs
from runyard.testing.stage import make_spec
from runyard.wire import settings, spool, states
from runyard.wire.ids import new_run_id
from tests.store.backends import VARIABLE, Postgres

RUNS, METRICS = 8, 10
ME = Actor(user="bench")
AGENT = "bench-agent"


class Spool:
    """What one program has logged, in memory, cut into requests as an agent cuts it."""

    def __init__(self, directory: Path) -> None:
        self.requests: list[tuple[str, int, bytes]] = []
        self.rows = 0
        for stream in spool.streams(str(directory)):
            reader = spool.StreamReader(str(directory), stream, dead=True)
            for records in iter(reader.read, []):
                self.rows += sum(record.kind == spool.ROW for record in records)
                said = {record.shape for record in records if record.kind == spool.SHAPE}
                shapes = [raw for shape, raw in reader.shapes.items() if shape not in said]
                body = spool.join(shapes + [record.raw for record in records])
                self.requests.append((stream, records[0].number, body))

    def send(self, yard: Yard, attempt: str) -> None:
        """Send it all."""
        for stream, first, body in self.requests:
            yard.service.append_spool(attempt, stream, first, body)


class Yard:
    """A yard in this process, with one host."""

    def __init__(self, service: Service, home: Path) -> None:
        self.service = service
        self.home = home
        slots = [
            {
                "name": f"cpu{n}",
                "kind": "cpu",
                "index": n,
                "uuid": None,
                "model": None,
                "mem": None,
                "threads": 1,
                "free": True,
            }
            for n in range(2 * RUNS)
        ]
        host = {
            "id": "bench-host",
            "name": "bench",
            "boot_id": "boot",
            "cpus": 16,
            "mem": 1 << 34,
            "os": "",
            "gpus": [],
        }
        service.hello(AGENT, {"host": host, "user": "bench", "uid": 0, "pid": 1, "version": "0", "shared_home": str(home),
                              "slots": slots, "attempts": {}, "sent": time.monotonic_ns()})  # fmt: skip

    def attempt(self) -> str:
        """Return the attempt of a new run that runs."""
        run_id = new_run_id()
        self.service.submit([make_spec(run_id)], None, ME)
        self.service.poll(AGENT, [])
        self.service.tick()
        (found,) = [item for item in self.service.poll(AGENT, [])["assign"] if item["run"] == run_id]
        self.service.phase(found["attempt"], found["epoch"], states.PHASE_RUNNING)
        return str(found["attempt"])

    def finish(self, attempt: str) -> None:
        """End an attempt, and let the yard compact what it logged."""
        end = {"attempt": attempt, "epoch": 1, "exit_code": 0, "signal": None, "reason": "exited", "origin": "user",
               "started_at": None, "ended_at": 1, "log_bytes": 0, "log_dropped": 0}  # fmt: skip
        self.service.finish([end])
        with self.service.context.db.read() as connection:
            row = attempts.find(connection, attempt)
            run = runs.find(connection, row.run_id) if row is not None else None
        if run is not None:
            compact_runs(self.service.context, [run.seq])

    def disk(self) -> int:
        """Return the bytes that the points and summaries take in the database."""
        db = self.service.context.db
        with db.read() as connection:
            if db.is_sqlite:
                query = "SELECT SUM(pgsize) FROM dbstat WHERE name LIKE '%metric%'"
            else:
                query = "SELECT pg_total_relation_size('metric_blocks') + pg_total_relation_size('metrics')"
            return int(connection.execute(text(query)).scalar() or 0)


@contextmanager
def opened(home: Path, url: str = "") -> Iterator[Yard]:
    """Give an empty yard. ``url``: of an empty database; by default a file in the home."""
    service = open_yard(str(home), settings.defaults(), database_url=url)
    try:
        yield Yard(service, home)
    finally:
        service.close()


def logged(directory: Path, steps: int, seed: int) -> Spool:
    """Return what a program logs."""
    import random

    rng = random.Random(seed)
    writer = SpoolWriter(str(directory), {"type": "process"}, print)
    now = 1_700_000_000_000_000
    for step in range(steps):
        now += rng.randint(900, 1100)
        writer.row({f"metric{n}": rng.gauss(0.5, 0.1) for n in range(METRICS)}, step, now)
    writer.close()
    return Spool(directory)


def main() -> int:
    options = arguments(__doc__)
    report = Report("ingest", quick=options.quick)
    steps = 2_000 if options.quick else 100_000
    with tempfile.TemporaryDirectory(prefix="ry-bench-") as top:
        spools = [logged(Path(top) / f"spool{n}", steps, n) for n in range(RUNS)]
        target = Target(number=1_000_000, of="value", least=True, unit="points/s")
        with opened(Path(top) / "sqlite") as yard:
            measure_one(report, "SQLite", yard, spools, steps * METRICS * RUNS, target)
        target = Target(number=200_000, of="value", least=True, unit="points/s")
        if os.environ.get(VARIABLE):
            servers = Postgres()
            with servers.database(empty=True) as url, opened(Path(top) / "postgresql", url) as yard:
                measure_one(report, "PostgreSQL", yard, spools, steps * METRICS * RUNS, target)
            servers.close()
        else:
            report.not_measured(f"PostgreSQL: {RUNS} runs at once", f"no {VARIABLE}", target)
    return report.finish()


def measure_one(report: Report, name: str, yard: Yard, spools: list[Spool], count: int, target: Target) -> None:
    began = [yard.attempt() for _ in spools]
    before = yard.disk()
    errors: list[BaseException] = []

    def send(one: Spool, attempt: str) -> None:
        try:
            one.send(yard, attempt)
        except BaseException as exc:  # noqa: BLE001 - of a thread
            errors.append(exc)

    threads = [threading.Thread(target=send, args=pair) for pair in zip(spools, began, strict=True)]
    begun, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    if errors:
        raise errors[0]
    report.row(f"{name}: {RUNS} runs at once", count / seconds, "points/s", target=target)
    report.row("  processor time of the server", cpu / count * 1e6, "µs a point")
    report.row("  on disk as it arrived", (yard.disk() - before) / count, "B/point")
    begun = time.perf_counter()
    for attempt in began:
        yard.finish(attempt)
    report.row("  compacting", count / (time.perf_counter() - begun), "points/s")
    size: Any = (blocks_bytes(yard)) / count
    report.row("  points, compacted", size, "B/point", target=Target(number=9, of="value", unit="B/point"))


def blocks_bytes(yard: Yard) -> int:
    """Return the bytes of all blocks."""
    with yard.service.context.db.read() as connection:
        return int(connection.execute(text("SELECT SUM(LENGTH(data)) FROM metric_blocks")).scalar() or 0)


if __name__ == "__main__":
    sys.exit(main())
