"""Databases of all releases still open, show what they showed, and go on; migrations make what the tables say."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, create_engine, insert, make_url
from sqlalchemy.pool import NullPool

from runyard.store import dump, migrate
from runyard.store.tables import metadata
from runyard.testing.stage import ME, FakeAgent, Stage
from runyard.wire import states
from tests.store.backends import Postgres, make_stage
from tests.store.freeze import BUSY, FROZEN, LOST_ONE, WAITING, picture

RELEASES = sorted(path.stem for path in FROZEN.glob("*.sql"))
REVISION = "alembic_version"


def thaw(version: str, path: Path) -> sqlite3.Connection:
    """Make the SQLite database of a release anew."""
    connection = sqlite3.connect(path)
    connection.executescript((FROZEN / f"{version}.sql").read_bytes().decode())
    connection.commit()
    return connection


def revision_of(connection: sqlite3.Connection) -> str:
    ((revision,),) = connection.execute(f"SELECT version_num FROM {REVISION}")
    return str(revision)


def expected(version: str) -> Any:
    return json.loads((FROZEN / f"{version}.json").read_text(encoding="utf-8"))


def same(was: Any, now: Any) -> bool:
    """Tell whether everything that was shown is shown still; fields may have been added."""
    if isinstance(was, dict):
        return isinstance(now, dict) and all(name in now and same(value, now[name]) for name, value in was.items())
    if isinstance(was, list):
        return isinstance(now, list) and len(was) == len(now) and all(map(same, was, now))
    return bool(was == now)


def check(version: str, stage: Stage) -> None:
    """The yard shows what it showed, and its runs go on where they were."""
    was, now = expected(version), picture(stage.yard)
    assert set(was["runs"]) == set(now["runs"])
    different = {
        run_id: now["runs"][run_id] for run_id, run in was["runs"].items() if not same(run, now["runs"][run_id])
    }
    assert different == {}
    assert same(was["tokens"], now["tokens"])
    ids = {shown["run"]["message"]: run_id for run_id, shown in was["runs"].items()}
    agent = returned(stage, ids[BUSY])
    (attempt,) = agent.has
    assert agent.end(attempt) == "accepted"
    assert stage.state(ids[BUSY]) == states.FINISHED
    assert stage.state(ids[LOST_ONE]) == states.LOST
    agent.end(agent.take_and_start())
    assert stage.state(ids[WAITING]) == states.FINISHED
    new = stage.submit(message="after the upgrade")
    agent.end(agent.take_and_start())
    assert stage.state(new) == states.FINISHED
    assert stage.yard.runs({"limit": 1}, ME)["runs"][0]["id"] == new


def returned(stage: Stage, busy: str) -> Any:
    """Return the agent, come back with the one attempt that it had."""
    agent = FakeAgent(stage, "near", slots=8, gpus=2)
    attempt = stage.run(busy)["attempts"][-1]
    told = {"number": attempt["number"], "slots": attempt["slots"]}
    agent.has[attempt["id"]] = {"epoch": 1, "run": busy, "phase": states.PHASE_RUNNING, **told}
    agent.hello()
    return agent


@pytest.mark.parametrize("version", RELEASES)
def test_a_sqlite_database_of_a_release_goes_on(version: str, home: Path) -> None:
    thaw(version, home / "yard.db").close()
    stage = make_stage(home, f"sqlite:///{home / 'yard.db'}")
    check(version, stage)
    stage.close()


@pytest.mark.parametrize("version", RELEASES)
def test_a_postgresql_database_of_a_release_goes_on(version: str, home: Path, postgres: Postgres) -> None:
    old = thaw(version, home / "old.db")
    old.row_factory = sqlite3.Row
    with postgres.database(empty=True) as url:
        target = make_url(url)
        migrate.upgrade(target, revision_of(old))
        engine = create_engine(target, poolclass=NullPool)
        with engine.begin() as connection:
            tables = MetaData()
            tables.reflect(connection)
            for table in reversed(tables.sorted_tables):
                connection.execute(table.delete())
            for table in tables.sorted_tables:
                rows = [dict(row) for row in old.execute(f'SELECT * FROM "{table.name}"')]
                if rows:
                    connection.execute(insert(table), rows)
            dump.reset_sequences(connection)
        engine.dispose()
        stage = make_stage(home, url)
        check(version, stage)
        stage.close()
    old.close()


@pytest.mark.parametrize("version", RELEASES)
def test_migrations_that_were_released_never_change(version: str, tmp_path: Path) -> None:
    old = thaw(version, tmp_path / "old.db")
    migrate.upgrade(make_url(f"sqlite:///{tmp_path / 'new.db'}"), revision_of(old))
    new = sqlite3.connect(tmp_path / "new.db")
    query = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name"
    assert old.execute(query).fetchall() == new.execute(query).fetchall(), "write a new migration instead"
    old.close()
    new.close()


def differences(url: str) -> list[Any]:
    engine = create_engine(make_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)
    engine.dispose()
    return [item for item in found if REVISION not in str(item)]


def test_migrations_make_the_tables_on_sqlite(sqlite_url: str) -> None:
    assert differences(sqlite_url) == []


def test_migrations_make_the_tables_on_postgresql(postgres_url: str) -> None:
    assert differences(postgres_url) == []
