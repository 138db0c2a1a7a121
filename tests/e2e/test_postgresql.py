"""A yard on PostgreSQL: chosen once, kept for every later start, and nothing of it in SQLite."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from tests.e2e.harness import Cli, end_all, wait_for


@pytest.fixture
def database(require: Any, home: Path) -> Iterator[str]:
    """The URL of an empty database; whoever uses it is ended before it goes."""
    require("postgresql")
    admin = make_url(os.environ["RUNYARD_TEST_POSTGRESQL_URL"]).set(drivername="postgresql+psycopg")
    engine = create_engine(admin, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    name = f"runyard_test_e2e_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE \"{name}\" ENCODING 'UTF8' TEMPLATE template0"))
    yield admin.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    end_all(home)
    with engine.connect() as connection:
        connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
    engine.dispose()


def connections(url: str, command: str) -> int:
    """Count the other connections to a database, or (``pg_terminate_backend(pid)``) break them off."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), poolclass=NullPool)
    with engine.connect() as connection:
        query = f"SELECT {command} FROM pg_stat_activity WHERE datname = current_database() AND pid != pg_backend_pid()"
        found = len(connection.execute(text(query)).all())
    engine.dispose()
    return found


def test_a_yard_on_postgresql_runs_keeps_and_finds_everything(cli: Cli, database: str) -> None:
    cli.call("start", "--database", database)
    assert cli.json("status")["database"] == "postgresql"
    first = cli.submit("-t", "base", "python", "train.py", "--lr", "0.3")
    second = cli.submit("--after", first, "python", "train.py")
    failing = cli.submit("--retries", "1", "python", "train.py", "--exit", "3")
    held = cli.submit("--hold", "python", "train.py", "--sleep", "60")
    assert cli.until(second, "finished")["attempts"][0]["number"] == 1
    assert len(cli.until(failing, "failed")["attempts"]) == 2
    cli.call("release", held)
    cli.until(held, "running")
    cli.call("kill", held)
    assert cli.until(held, "killed")["end"]["origin"] == "human"
    assert [run["id"] for run in cli.json("ls", "-t", "base")] == [first]
    assert cli.out("logs", first) == "lr 0.3 version 1\n"
    assert [output["path"] for output in cli.show(first)["outputs"]] == ["model.txt"]
    assert not list(cli.home.glob("yard.db*"))
    assert cli.json("du")["parts"]["database"]["bytes"] == 0


def test_a_restart_finds_the_database_again(cli: Cli, database: str, tmp_path: Path) -> None:
    cli.call("start", "--database", database)
    run_id = cli.submit("python", "train.py", "--sleep", "2")
    cli.until(run_id, "running")
    cli.call("stop")
    assert (cli.home / "config.toml").stat().st_mode & 0o077 == 0, "the address may hold a password"
    assert cli.json("ls")[0]["id"] == run_id, "the first command started it again, with that database"
    assert cli.until(run_id, "finished")["end"]["exit_code"] == 0
    cli.call("backup", str(tmp_path / "yard.tar.gz"))
    assert cli.json("status")["database"] == "postgresql"


def test_broken_connections_and_a_short_outage_lose_nothing(cli: Cli, database: str) -> None:
    cli.call("start", "--database", database)
    runs = [cli.submit("python", "train.py", "--sleep", "1") for _ in range(2)]
    for run in runs:
        cli.until(run, "running")
    for _ in range(3):
        wait_for(lambda: connections(database, "pg_terminate_backend(pid)"), "a connection to break off")
    for run in runs:
        assert cli.until(run, "finished", deadline_s=90.0)["end"]["exit_code"] == 0
        assert len(cli.show(run)["attempts"]) == 1


def test_an_address_that_leads_nowhere_is_refused_with_the_reason(cli: Cli) -> None:
    done = cli.call("start", "--database", "postgresql://root@127.0.0.1:1/nowhere", code=1)
    assert "the database does not answer" in done.stderr
    assert "Traceback" not in done.stderr + cli.server_log()
    done = cli.call("start", "--database", "nonsense", code=1)
    assert "not a database URL" in done.stderr
    assert not (cli.home / "config.toml").exists(), "what is of no use is not kept"
    assert cli.json("ls") == []
    assert cli.json("status")["database"] == "sqlite"
