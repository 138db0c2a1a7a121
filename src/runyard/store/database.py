"""One database: SQLite with a single writer, or a server through a pool.

SQLite: one thread commits a queue of writes as a group (``synchronous=FULL``; a caller gets its answer after the commit),
because the busy handler of many writers is unfair and one fsync per write is slow. Reads have connections of their own.
PostgreSQL (and MariaDB): each write is a READ COMMITTED transaction on a pooled connection, repeated on deadlock.
"""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from runyard.wire.errors import ConfigError, ConflictError, UnavailableError, disk_full

__all__ = ["Connection", "Database", "StatementError", "TakenError", "translated"]

T = TypeVar("T")
GROUP_MAX = 128
"""Writes per group commit."""
IDLE_S = 1.0
"""Seconds after which a pooled connection to a server is tried before it is used."""
RETRIES = 8
RETRY_WAIT_S = 0.02
DEADLOCK_STATES = frozenset({"40001", "40P01", "1213", "1205"})
"""SQLSTATE of serialization failure and deadlock (PostgreSQL), error numbers of deadlock and lock wait (MariaDB)."""
DUPLICATE_STATES = frozenset({"23505", "1062"})
"""The same for a key that exists already: somebody inserted it after this transaction had looked."""
FULL_STATES = frozenset({"53100", "1021"})
"""The same for a full disk."""
POSTGRESQL = "postgresql+psycopg"
DRIVERS = {"postgresql": POSTGRESQL, "postgres": POSTGRESQL, POSTGRESQL: POSTGRESQL, "sqlite": "sqlite"}
URLS = "postgresql://USER@HOST/NAME or sqlite:///PATH"
DUPLICATE_TRIES = 3
DISCONNECT_TRIES = 2


class TakenError(ConflictError):
    """A constraint of the database refused the change: somebody else was first."""

    code = "taken"


class Database:
    """Read and write transactions on one database. Thread-safe.

    Raises:
        UnavailableError: the database cannot be reached or answers too late.
        TakenError: a constraint refused a write.
        ConfigError: the URL is malformed or its driver is missing.
    """

    def __init__(self, url: str) -> None:
        self.url = _parse(url)
        self.dialect = self.url.get_backend_name()
        self.is_sqlite = self.dialect == "sqlite"
        self._path = (self.url.database or "") if self.is_sqlite else ""
        try:
            self.engine = _engine(self.url, self.is_sqlite)
        except ModuleNotFoundError as exc:
            raise ConfigError(
                f"the driver for {self.dialect} is not installed: {exc.name}",
                'install it with: pip install "runyard[postgresql]"',
            ) from exc
        # READ COMMITTED would show a reader of several statements a different database in each.
        self._reader = self._glancer = self.engine
        if not self.is_sqlite:
            self._reader = self.engine.execution_options(isolation_level="REPEATABLE READ")
            self._glancer = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writer = _Writer(self.url) if self.is_sqlite else None

    def close(self) -> None:
        """End the writer after what is queued is committed, and close all connections. May be called twice."""
        if self._writer is not None:
            self._writer.close()
        self.engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection on which all reads see the database as it was at the first."""
        with translated(self._path), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def glance(self) -> Iterator[Connection]:
        """Give a connection on which each read sees the newest state: cheaper than `read`, where reads need not agree."""
        with translated(self._path), self._glancer.connect() as connection:
            yield connection

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction and return its result once it is durable.

        ``work`` may run more than once, so it must do nothing but talk to the connection. What it raises rolls back its
        own changes only and is raised here.
        """
        with translated(self._path):
            if self._writer is not None:
                return self._writer.submit(work)
            return self._retrying(work)

    def _retrying(self, work: Callable[[Connection], T]) -> T:
        for attempt in range(RETRIES):
            worked = False
            try:
                with self.engine.begin() as connection:
                    result = work(connection)
                    worked = True
                return result
            except DBAPIError as exc:
                # A connection that was lost during the commit may have committed; before it, certainly not.
                tries = DISCONNECT_TRIES if exc.connection_invalidated and not worked else 0
                if _has_state(exc, DUPLICATE_STATES):
                    tries = DUPLICATE_TRIES
                elif _has_state(exc, DEADLOCK_STATES):
                    tries = RETRIES
                if attempt + 1 >= tries:
                    raise
                time.sleep(RETRY_WAIT_S * (1 + attempt) * (1 + os.urandom(1)[0] / 256))
        raise AssertionError("unreachable")

    def now_us(self, connection: Connection) -> int:
        """Return the database's clock: microseconds since 1970 UTC. SQLite has no other than this machine's."""
        if self.is_sqlite:
            return time.time_ns() // 1000
        if self.dialect == "postgresql":
            query = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
        else:
            query = "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)"
        return int(connection.execute(text(query)).scalar_one())


class _Writer:
    """The one thread that writes to a SQLite file."""

    def __init__(self, url: URL) -> None:
        self._engine = _engine(url, True, writer=True)
        self._queue: queue.SimpleQueue[tuple[Callable[[Connection], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="runyard-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Connection], T]) -> T:
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise UnavailableError("the database is closed", "the server is stopping; try again in a moment")
            self._queue.put((work, future))
        return future.result()

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()
        self._engine.dispose()

    def _work(self) -> None:
        last = False
        while not last:
            group = [self._queue.get()]
            while len(group) < GROUP_MAX and not self._queue.empty():
                group.append(self._queue.get())
            last = None in group
            jobs = [job for job in group if job is not None]
            if jobs:
                self._commit(jobs)

    def _commit(self, jobs: list[tuple[Callable[[Connection], Any], Future[Any]]]) -> None:
        """Commit a group; a job that fails is rolled back alone, a commit that fails fails every job."""
        answers: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            with self._engine.begin() as connection:
                if len(jobs) == 1:  # what it raises rolls back the transaction, of which there is nothing else
                    answers.append((jobs[0][1], jobs[0][0](connection), None))
                else:
                    for work, future in jobs:
                        answers.append((future, *_attempt(connection, work)))
        except BaseException as exc:  # noqa: BLE001 - handed to the callers that wait, none may be left waiting
            for _, future in jobs:
                future.set_exception(exc)
            return
        for future, result, error in answers:
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


def _attempt(connection: Connection, work: Callable[[Connection], Any]) -> tuple[Any, BaseException | None]:
    savepoint = connection.begin_nested()
    try:
        result = work(connection)
    except BaseException as exc:  # noqa: BLE001 - belongs to the caller that waits for this job
        try:
            savepoint.rollback()
        except DBAPIError:
            raise exc from None  # SQLite has undone the whole group, as it may where the disk is full
        return None, exc
    savepoint.commit()
    return result, None


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as exc:
        raise ConfigError(f"not a database URL: {exc}", "use " + URLS) from exc
    if parsed.drivername not in DRIVERS:
        raise ConfigError(f"{parsed.drivername} is no database that a yard can use", "use " + URLS)
    return parsed.set(drivername=DRIVERS[parsed.drivername])


def _engine(url: URL, sqlite: bool, writer: bool = False) -> Engine:
    if not sqlite:
        engine = create_engine(
            url, pool_size=8, max_overflow=24, isolation_level="READ COMMITTED", connect_args={"connect_timeout": 5}
        )
        _check_idle(engine)
        if engine.dialect.name == "postgresql":
            _keep_plans_small(engine)
        return engine
    engine = create_engine(
        url, poolclass=QueuePool, pool_size=1 if writer else 8, max_overflow=0 if writer else 24,
        connect_args={"check_same_thread": False, "timeout": 30.0},
    )  # fmt: skip
    begin = "BEGIN IMMEDIATE" if writer else "BEGIN"

    @event.listens_for(engine, "connect")
    def _connect(raw: Any, _record: Any) -> None:
        raw.isolation_level = None  # we say BEGIN ourselves: the driver's own begins too late
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16000"):
            raw.execute(f"PRAGMA {pragma}")
        if not writer:
            raw.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _keep_plans_small(engine: Engine) -> None:
    """Keep PostgreSQL from starting workers and compilers for statements that take a millisecond."""

    @event.listens_for(engine, "connect")
    def _connect(raw: Any, _record: Any) -> None:
        cursor = raw.cursor()
        cursor.execute("SET max_parallel_workers_per_gather = 0")
        cursor.execute("SET jit = off")
        cursor.close()
        raw.commit()


def _check_idle(engine: Engine) -> None:
    """See that a connection which was idle for a while still lives; one used just now needs no such round trip."""

    @event.listens_for(engine, "checkin")
    def _checkin(_raw: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _checkout(raw: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get("used", time.monotonic()) < IDLE_S:
            return
        try:
            cursor = raw.cursor()
            cursor.execute("SELECT 1")
            cursor.close()
            raw.rollback()
        except engine.dialect.loaded_dbapi.Error as exc:
            raise DisconnectionError from exc  # the pool then opens another


def _has_state(exc: DBAPIError, wanted: frozenset[str]) -> bool:
    state = getattr(exc.orig, "sqlstate", None) or getattr(exc.orig, "pgcode", None)
    if state is None and exc.orig is not None and exc.orig.args:
        state = str(exc.orig.args[0])
    return state in wanted


@contextmanager
def translated(path: str = "") -> Iterator[None]:
    """Turn a lost database and a refused constraint into our own errors; programming errors pass.

    ``path``: the database's file, if it is one.
    """
    try:
        yield
    except IntegrityError as exc:
        raise TakenError(f"the database refused the change: {exc.orig}", "look again and repeat it if need be") from exc
    except (OperationalError, InterfaceError, PoolTimeoutError) as exc:
        if getattr(getattr(exc, "orig", None), "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise disk_full(f"{path} cannot grow" if path else "the database cannot grow") from exc
        if isinstance(exc, DBAPIError) and _has_state(exc, FULL_STATES):
            raise UnavailableError(
                f"the disk of the database server is full ({exc.orig}); nothing was changed",
                "make room there; then try again",
            ) from exc
        raise UnavailableError(
            f"the database does not answer: {getattr(exc, 'orig', None) or exc}",
            "check that it runs and has disk space; then try again",
        ) from exc
    except DatabaseError as exc:
        if type(exc) is not DatabaseError:
            raise  # a mistake in a statement
        # What SQLite says of a file that is damaged or something else (SQLITE_CORRUPT, SQLITE_NOTADB).
        raise ConfigError(
            f"the database cannot be used: {exc.orig}", "move it away and bring back a backup: runyard restore FILE"
        ) from exc
