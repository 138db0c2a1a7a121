"""Fixtures of the tests of store and services."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runyard.testing.stage import Stage
from tests.store.backends import Postgres, copy_sqlite, make_stage, sqlite_template


@pytest.fixture(scope="session")
def template() -> Iterator[Path]:
    with sqlite_template() as path:
        yield path


@pytest.fixture(scope="session")
def postgres(require: Callable[[str], None]) -> Iterator[Postgres]:
    require("postgresql")
    server = Postgres()
    yield server
    server.close()


@pytest.fixture
def sqlite_url(home: Path, template: Path) -> str:
    return copy_sqlite(template, home / "yard.db")


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """A migrated database of each kind."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    found: str = request.getfixturevalue(name)
    return found


@pytest.fixture
def any_stage(home: Path, url: str) -> Iterator[Stage]:
    """A yard in this process on each kind of database."""
    stage = make_stage(home, url)
    yield stage
    stage.close()
