"""Fixtures: yards to be broken."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.crash.nursery import Nursery
from tests.crash.schedule import logs
from tests.crash.yard import Template, Yard, make_template
from tests.store.backends import Postgres


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """What forks servers and agents."""
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """What yards start from."""
    return make_template(tmp_path_factory.mktemp("crash") / "template")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres | None]:
    """Databases on the PostgreSQL server, None where there is none."""
    if not os.environ.get("RUNYARD_TEST_POSTGRESQL_URL"):
        yield None
        return
    made = Postgres()
    yield made
    made.close()


@contextlib.contextmanager
def database_of(postgres: Postgres | None) -> Iterator[str]:
    """Give the URL of a new PostgreSQL database as the server's command line takes it."""
    if postgres is None:
        yield ""
        return
    with postgres.database() as url:
        yield url.replace("postgresql+psycopg", "postgresql")


@pytest.fixture
def make_yard(
    nursery: Nursery, template: Template, postgres: Postgres | None
) -> Callable[..., contextlib.AbstractContextManager[Yard]]:
    """Return what makes yards that are up; they take what `Yard` takes, and ``on_postgres``."""

    @contextlib.contextmanager
    def make(on_postgres: bool = False, **fields: Any) -> Iterator[Yard]:
        with database_of(postgres if on_postgres else None) as url:
            yard = Yard(nursery, template, database=url, **fields)
            try:
                yard.start()
                yard.wait_agents()
                yield yard
            except BaseException as exc:
                exc.add_note("\n".join([*yard.log, *logs(yard)]))
                raise
            finally:
                yard.close()

    return make
