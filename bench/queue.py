"""The queue through the service: 100,000 runs submitted in one call; claim and finish by 8 clients, durable.

Every client is an agent with ten slots: it asks what there is (at most ten runs), and reports the ends of those in one
message. Beside them one thread assigns, as in the server. A claim counts once its transaction is on disk. The baseline is
what the database alone does: the same number of durable transactions, each of one row, by as many threads.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from bench.common import Report, Target, arguments
from runyard.services.api import Actor, Json
from runyard.services.yard import Yard, open_yard
from runyard.wire.http import Http
from runyard.wire.ids import new_run_id
from runyard.wire.settings import defaults

CLIENTS = 8
SLOTS = 10
LARGE, SMALL = 100_000, 1_000
ME = Actor(user="bench")
POSTGRESQL = "RUNYARD_TEST_POSTGRESQL_URL"


class Service(Protocol):
    """What a client needs."""

    def poll(self, agent: str, known: list[str]) -> Json:
        """Return what there is for an agent."""

    def finish(self, ends: list[Json]) -> dict[str, str]:
        """Report ends."""


def specs(number: int) -> list[Json]:
    """Return specs that share a snapshot and an environment, and differ in a parameter."""
    shared = {
        "project": "digits", "program": "/usr/bin/python3", "source": "/home/user/digits", "repo_name": "digits",
        "snapshot": {"tree": "4b825dc642cb6eb9a060e54bf8d69288fbee4904", "commit": "0" * 40, "branch": "main",
                     "dirty": True, "changed": ["train.py"], "files": 500, "bytes": 10_000_000},
        "links": [{"path": "data", "target": "/home/user/digits/data", "why": "ignored data"}],
        "environment": {"python": "3.11", "packages": {f"package{i}": "1.0" for i in range(100)}},
    }  # fmt: skip
    return [
        {**shared, "id": new_run_id(), "command": ["python", "train.py", "--lr", str(i / number)]}
        for i in range(number)
    ]


class Queue:
    """A yard with a queue of a given length, eight agents and a thread that assigns."""

    def __init__(self, yard: Yard, queued: int) -> None:
        self.yard = yard
        self.queued = queued
        self.submit_s = self.fill(queued + CLIENTS * SLOTS)
        for number in range(CLIENTS):
            yard.hello(f"agent{number}", hello(number))

    def fill(self, number: int) -> float:
        """Submit more; return the seconds that took."""
        new = specs(number)
        started = time.perf_counter()
        self.yard.submit(new, {"PATH": "/bin"}, ME)
        return time.perf_counter() - started

    def rate(self, number: int) -> float:
        """Return the claims and finishes per second of `number` runs."""
        with serving(self.yard) as services:
            seconds = drain(services, number)
        self.fill(number)
        return number / seconds


def hello(number: int) -> Json:
    """Return what an agent with ten CPU slots says of itself."""
    slots = [
        {"name": f"cpu{i}", "kind": "cpu", "index": i, "uuid": None, "model": None, "mem": None, "threads": 1,
         "free": True, "why": ""}
        for i in range(SLOTS)
    ]  # fmt: skip
    host = {"id": f"host{number}", "name": f"host{number}", "boot_id": "b", "cpus": 64, "mem": 1 << 38, "os": "Linux",
            "gpus": []}  # fmt: skip
    return {"host": host, "user": "bench", "uid": 1, "pid": 1, "version": "0", "shared_home": None, "slots": slots,
            "attempts": {}}  # fmt: skip


class Bells:
    """Rings for whoever waits for a topic, as the server's long polls do."""

    def __init__(self) -> None:
        self._bells: dict[str, threading.Event] = {}

    def bell(self, topic: str) -> threading.Event:
        """Return the event that a topic sets."""
        return self._bells.setdefault(topic, threading.Event())

    def ring(self, topic: str) -> None:
        """Take a topic of the yard."""
        if topic in self._bells:
            self._bells[topic].set()


@contextmanager
def serving(yard: Yard) -> Iterator[list[Service]]:
    """Let the yard assign whenever something happened, and give services that wait for work, as with a server."""
    bells = Bells()
    due, stop = bells.bell("queue"), threading.Event()

    def work() -> None:
        while not stop.is_set():
            due.wait(0.5)
            due.clear()
            yard.tick()
            stop.wait(0.005)

    services: list[Service] = [Local(yard, bells.bell(f"agent:agent{i}")) for i in range(CLIENTS)]
    unsubscribe = yard.subscribe(bells.ring)
    thread = threading.Thread(target=work)
    thread.start()
    due.set()
    yield services
    stop.set()
    due.set()
    thread.join()
    unsubscribe()


class Local:
    """The two calls of a client, in process."""

    def __init__(self, yard: Yard, bell: threading.Event) -> None:
        self._yard = yard
        self._bell = bell

    def poll(self, agent: str, known: list[str]) -> Json:
        """Return what there is for an agent, after a while when there is nothing."""
        self._bell.clear()
        answer = self._yard.poll(agent, known)
        if not answer["assign"]:
            self._bell.wait(0.2)
            answer = self._yard.poll(agent, known)
        return answer

    def finish(self, ends: list[Json]) -> dict[str, str]:
        """Report ends."""
        return self._yard.finish(ends)


def drain(services: Sequence[Service], number: int) -> float:
    """Let each client claim and finish until `number` runs are through; return the seconds."""
    left = number
    lock = threading.Lock()
    failed: list[BaseException] = []

    def client(service: Service, agent: str) -> None:
        nonlocal left
        try:
            while left > 0:
                given = service.poll(agent, [])["assign"]
                if given:
                    results = service.finish([end(item) for item in given])
                    assert set(results.values()) == {"accepted"}, results
                    with lock:
                        left -= len(given)
        except BaseException as exc:  # noqa: BLE001 - raised again below
            failed.append(exc)

    threads = [threading.Thread(target=client, args=(service, f"agent{i}")) for i, service in enumerate(services)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if failed:
        raise failed[0]
    return seconds * number / (number - left)  # a few more than asked for are through


def end(given: Json) -> Json:
    """Return the end of an assignment: its program has finished."""
    now = time.time_ns() // 1000
    return {
        "attempt": given["attempt"], "epoch": given["epoch"], "exit_code": 0, "signal": None, "reason": "exited",
        "origin": "user", "started_at": now, "ended_at": now, "log_bytes": 0, "log_dropped": 0,
    }  # fmt: skip


@contextmanager
def yard_on(url: str) -> Iterator[Yard]:
    """Give a yard on a database of its own (``sqlite`` or the URL of a PostgreSQL server)."""
    home = tempfile.mkdtemp(prefix="ry-bench-")
    with ExitStack() as stack:
        database = f"sqlite:///{home}/yard.db" if url == "sqlite" else stack.enter_context(new_database(url))
        yard = open_yard(home, {**defaults(), "min_free": "0"}, database_url=database)
        stack.callback(shutil.rmtree, home)
        stack.callback(yard.close)
        yield yard


@contextmanager
def new_database(url: str) -> Iterator[str]:
    """Give the URL of a new database on a PostgreSQL server."""
    import psycopg

    name = f"runyard_bench_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield url.rpartition("/")[0] + "/" + name
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def bare_rate(url: str, number: int) -> float:
    """Return the transactions per second of threads that insert one row each time, durably, with the driver alone."""
    with ExitStack() as stack:
        connect = bare_sqlite(stack) if url == "sqlite" else bare_postgresql(stack, url)

        def work() -> None:
            insert, close = connect()
            for _ in range(number // CLIENTS):
                insert()
            close()

        threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return number // CLIENTS * CLIENTS / (time.perf_counter() - started)


Connect = Callable[[], tuple[Callable[[], None], Callable[[], None]]]


def bare_sqlite(stack: ExitStack) -> Connect:
    """Return a function that connects to a new SQLite file, and gives what inserts and what closes."""
    path = str(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "bare.db")
    with sqlite3.connect(path) as first:
        first.execute("PRAGMA journal_mode=WAL")
        first.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")

    def connect() -> tuple[Callable[[], None], Callable[[], None]]:
        connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        connection.execute("PRAGMA synchronous=FULL")
        return lambda: execute(connection), connection.close

    def execute(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t (v) VALUES ('x')")

    return connect


def bare_postgresql(stack: ExitStack, url: str) -> Connect:
    """The same for a new database on a PostgreSQL server."""
    import psycopg

    database = stack.enter_context(new_database(url))
    with psycopg.connect(database, autocommit=True) as first:
        first.execute("CREATE TABLE t (id SERIAL PRIMARY KEY, v TEXT)")

    def connect() -> tuple[Callable[[], None], Callable[[], None]]:
        connection = psycopg.connect(database, autocommit=True)
        return lambda: execute(connection), connection.close

    def execute(connection: psycopg.Connection) -> None:
        connection.execute("INSERT INTO t (v) VALUES ('x')")

    return connect


def measure(report: Report, name: str, url: str, quick: bool) -> None:
    """Add the rows of one database."""
    large, small = (2_000, 500) if quick else (LARGE, SMALL)
    rounds, number = (1, 200) if quick else (5, 500)
    with yard_on(url) as many, yard_on(url) as few:
        long, short = Queue(many, large), Queue(few, small)
        rates: dict[str, list[float]] = {"long": [], "short": [], "bare": []}
        for _ in range(rounds):
            rates["long"].append(long.rate(number))
            rates["short"].append(short.rate(number))
            rates["bare"].append(bare_rate(url, number))
        best = {key: sorted(values)[len(values) // 2] for key, values in rates.items()}
        report.row(
            f"{name}: submit {large:,} runs in one call", long.submit_s, "s",
            target=Target(number=5.0, of="value", unit="s"),
        )  # fmt: skip
        report.row(f"{name}: one row per transaction, the driver alone", best["bare"], "/s")
        report.row(
            f"{name}: claim and finish, {small:,} queued", best["short"], "/s", baseline=best["bare"],
            against="the driver alone", target=Target(number=1000, of="value", least=True, unit="/s"),
        )  # fmt: skip
        report.row(
            f"{name}: claim and finish, {large:,} queued", best["long"], "/s", baseline=best["short"],
            against=f"{small:,} queued", target=Target(number=0.8, least=True),
        )  # fmt: skip


def measure_http(report: Report, quick: bool) -> None:
    """Add a row for the same through a server, over its Unix socket."""
    from bench.yard import running

    number = 200 if quick else 2000
    with running(0) as started, started.connect() as api:
        clients = [HttpClient(api.url, api.token) for _ in range(CLIENTS)]
        for i, client in enumerate(clients):
            client.http.json("PUT", f"/api/v1/agents/agent{i}", hello(i))
        waiting = specs(number + CLIENTS * SLOTS)
        begun = time.perf_counter()
        for start in range(0, len(waiting), 5000):
            api.submit_many(waiting[start : start + 5000], {"PATH": "/bin"})
        report.row(f"HTTP: submit {len(waiting):,} runs", time.perf_counter() - begun, "s")
        report.row("HTTP: claim and finish", number / drain(clients, number), "/s")
        for client in clients:
            client.http.close()


class HttpClient:
    """The two calls of a client, over HTTP."""

    def __init__(self, url: str, token: str) -> None:
        self.http = Http(url, token)

    def poll(self, agent: str, known: list[str]) -> Json:
        """Return what there is for an agent, at once."""
        answer: Json = self.http.json("POST", f"/api/v1/agents/{agent}/poll", {"known": known, "wait_s": 1})
        return answer

    def finish(self, ends: list[Json]) -> dict[str, str]:
        """Report ends."""
        results: dict[str, str] = self.http.json("POST", "/api/v1/attempts/finish", {"ends": ends})["results"]
        return results


def main() -> int:
    options = arguments(__doc__)
    report = Report("queue", quick=options.quick)
    measure(report, "SQLite", "sqlite", options.quick)
    url = os.environ.get(POSTGRESQL)
    if url:
        measure(report, "PostgreSQL", url, options.quick)
    else:
        report.not_measured("PostgreSQL: claim and finish", f"{POSTGRESQL} names no server")
    measure_http(report, options.quick)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
