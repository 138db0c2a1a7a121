"""What a forked process becomes: the real server or the real agent, with a movable clock, short waits and fault points."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import runyard.agent.life
import runyard.agent.loop
import runyard.agent.main
import runyard.agent.ship
import runyard.agent.spools
import runyard.server.chores
import runyard.server.lifecycle
import runyard.services.yard
from runyard.agent import launch, report, stage
from runyard.services import assign, compact, ingest
from runyard.services.context import Clock
from runyard.store.database import Connection, Database
from runyard.wire import paths
from runyard.wire.timing import Timing
from tests.crash import mutations
from tests.crash.points import SERVER_OPERATIONS, VARIABLE, hit

SCALE = 1 / 30
LOST_REQUEUE_S = 4.0


def timing() -> Timing:
    """Return the waits of the suite: a lease of 2 s. Answers may take longer than that scale says, on a busy machine."""
    result = Timing(SCALE)
    result.lost_requeue_s = LOST_REQUEUE_S
    result.clock_tolerance_s = 0.5
    result.gap_s = 1.2
    result.beat_timeout_s = result.answer_s = result.poll_margin_s = 1.0
    result.refused_s = 0.5
    return result


class MovableClock(Clock):
    """The database's clock, moved by the seconds that the file ``clock`` in the control directory holds."""

    def __init__(self, db: Database, path: str) -> None:
        super().__init__(db)
        self._clock_db = db
        self._path = path

    def now_us(self, connection: Connection) -> int:
        """Return microseconds since 1970, moved."""
        with open(self._path, encoding="ascii") as file:
            moved = float(file.read() or 0.0)
        return self._clock_db.now_us(connection) + round(moved * 1e6)


def warm_up() -> None:
    """Import what is otherwise imported at first use."""
    import asyncio
    import sqlite3

    import psycopg
    import uvicorn.protocols.http.httptools_impl

    import runyard.server.app
    import runyard.store.migrations.versions  # noqa: F401

    del asyncio, sqlite3, psycopg, uvicorn


def begin(order: dict[str, Any]) -> None:
    """Be what the order says, in a new session, and never return."""
    status = 99
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        random.seed()
        _streams(order["log"])
        os.environ.clear()
        os.environ.update(order["environment"])
        status = {"server": _server, "agent": _agent}[order["kind"]](order["words"], order["mutation"])
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else 98
    except BaseException:  # noqa: BLE001  a forked copy of the nursery must not go on as one
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _streams(log: str) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.closerange(3, 64)


def _server(words: list[str], mutation: str) -> int:
    clock = os.path.join(os.environ[VARIABLE], "clock")

    def opened(home: str, settings: Any, *, database_url: str = "") -> runyard.services.yard.Yard:
        yard = runyard.services.yard.open_yard(home, settings, database_url=database_url, timing=timing())
        yard.context.clock = MovableClock(yard.context.db, clock)
        return yard

    _mark_server()
    taking_in: Any = ingest
    compact.LOOSE_MAX = taking_in.LOOSE_MAX = 3
    runyard.server.chores.UPKEEP_AFTER_END_S = 0.3
    mutations.apply(mutation, "server")
    return runyard.server.lifecycle.main(words, opened)


def _mark_server() -> None:
    """Put a fault point before and after the commit of each operation."""
    local = threading.local()
    write = Database.write
    yard: Any = runyard.services.yard.Yard

    def named(function: Callable[..., Any], operation: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            local.operation = operation
            try:
                return function(*args, **kwargs)
            finally:
                local.operation = ""

        return call

    def marked(self: Database, work: Callable[[Connection], Any]) -> Any:
        operation = getattr(local, "operation", "")
        if not operation:
            return write(self, work)

        def watched(connection: Connection) -> Any:
            result = work(connection)
            hit("server.%s.before_commit" % operation)
            return result

        result = write(self, watched)
        hit("server.%s.after_commit" % operation)
        return result

    Database.write = marked  # type: ignore[method-assign]
    for operation in SERVER_OPERATIONS:
        if operation != "assign":
            setattr(yard, operation, named(getattr(yard, operation), operation))
    yard._expire = named(yard._expire, "expire")
    assign.assign = named(assign.assign, "assign")


def _agent(words: list[str], mutation: str) -> int:
    """``words``: path of the server's socket as this agent shall see it, or ``""``; directory of the library; options."""
    from runyard.agent import main

    socket, library, *rest = words
    if socket:
        paths.Home.socket = lambda self: socket  # type: ignore[method-assign]
    main.library = lambda home: library
    runyard.agent.life.FRESH_GRANT_S = 1.0
    runyard.agent.life.START_WITHIN_S = 3.0
    _mark_agent()
    mutations.apply(mutation, "agent")
    return main.serve(main.parse(rest), os.environ, timing())


def _around(owner: Any, name: str, before: str = "", after: str = "") -> None:
    function = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        if before:
            hit("agent." + before)
        result = function(*args, **kwargs)
        if after:
            hit("agent." + after)
        return result

    setattr(owner, name, call)


def _mark_agent() -> None:
    life = runyard.agent.life
    _around(life.Life, "begin", before="assigned")
    _around(life.Life, "_stage", before="journaled")
    _around(stage, "_fill", before="staging", after="staged")
    _around(life.Life, "_grant", before="before_grant", after="granted")
    _around(launch, "start_supervisor", before="before_launch", after="launched")
    _around(life.Life, "_close", before="ended")
    _around(report.Reporter, "_send_outputs", after="outputs_sent")
    _around(report.Reporter, "_send", before="before_report")
    _around(report.Reporter, "_answered", before="reported")
    _around(runyard.agent.ship.LogShipper, "_put", after="log_sent")
    _around(runyard.agent.ship.Shipper, "_send_files", before="shipping")
    _around(runyard.agent.spools._Stream, "_put", before="spool_read", after="spool_sent")
    _around(runyard.agent.spools._Stream, "_say_lost", before="segment_sent")
