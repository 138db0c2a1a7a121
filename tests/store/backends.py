"""Databases for tests: a SQLite file, or a PostgreSQL database made from a template."""

from __future__ import annotations

import os
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, inspect, make_url, text
from sqlalchemy.pool import NullPool

from runyard.services.yard import Yard, open_yard
from runyard.store import migrate
from runyard.testing.clock import ManualClock
from runyard.testing.stage import Opened, Stage
from runyard.wire.settings import defaults

SETTINGS = {**defaults(), "min_free": "1k"}
VARIABLE = "RUNYARD_TEST_POSTGRESQL_URL"


class Postgres:
    """Databases on the server that the environment names, each made from a migrated template and dropped again."""

    def __init__(self) -> None:
        self._admin = make_url(os.environ[VARIABLE]).set(drivername="postgresql+psycopg")
        self._engine = create_engine(self._admin, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self._template = self._new_name("template")
        self._create(self._template, "template0")
        migrate.upgrade(self._admin.set(database=self._template))

    def _new_name(self, kind: str) -> str:
        return f"runyard_test_{kind}_{os.getpid()}_{uuid.uuid4().hex[:8]}"

    def _create(self, name: str, template: str) -> None:
        with self._engine.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template}" ENCODING \'UTF8\''))

    def _drop(self, name: str) -> None:
        with self._engine.connect() as connection:
            connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))

    @contextmanager
    def database(self, empty: bool = False) -> Iterator[str]:
        """Give the URL of a new database, migrated unless ``empty``."""
        name = self._new_name("db")
        self._create(name, "template0" if empty else self._template)
        try:
            yield self._admin.set(database=name).render_as_string(hide_password=False)
        finally:
            self._drop(name)

    def close(self) -> None:
        """Drop the template."""
        self._drop(self._template)
        self._engine.dispose()


@contextmanager
def sqlite_template() -> Iterator[Path]:
    """Give a migrated SQLite file."""
    import tempfile

    directory = Path(tempfile.mkdtemp(prefix="ry-template-"))
    path = directory / "yard.db"
    migrate.upgrade(make_url(f"sqlite:///{path}"))
    try:
        yield path
    finally:
        shutil.rmtree(directory)


def copy_sqlite(template: Path, target: Path) -> str:
    """Copy a SQLite database with its journal; return the copy's URL."""
    source = sqlite3.connect(template)
    copy = sqlite3.connect(target)
    source.backup(copy)
    source.close()
    copy.close()
    return f"sqlite:///{target}"


def open_inner(home: Path, url: str, clock: ManualClock) -> Yard:
    """Open a yard in this process."""
    return open_yard(str(home), SETTINGS, database_url=url, clock=clock)


def make_stage(home: Path, url: str) -> Stage:
    """Return a stage on a yard in this process."""

    def open_it(clock: ManualClock) -> Opened:
        yard = open_inner(home, url, clock)
        return Opened(service=yard, inner=yard, close=yard.close)

    return Stage(open_it, lambda: dump(url), remote=False)


def dump(url: str) -> str:
    """Return every value of every table as text."""
    engine = create_engine(make_url(url).set(drivername=_driver(url)), poolclass=NullPool)
    lines = []
    with engine.connect() as connection:
        for table in sorted(inspect(connection).get_table_names()):
            rows = connection.execute(text(f'SELECT * FROM "{table}"'))
            lines += [f"{table}: {tuple(row)!r}" for row in rows]
    engine.dispose()
    return "\n".join(sorted(lines))


def _driver(url: str) -> str:
    return "sqlite" if url.startswith("sqlite") else "postgresql+psycopg"
