"""The contract of the yard on every database, in process and over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runyard.testing.stage import Stage
from runyard.testing.yard_contract import YardContract
from tests.store.backends import make_stage
from tests.store.remote import Wire, make_remote_stage, wire


class TestSqlite(YardContract):
    @pytest.fixture
    def stage(self, home: Path, sqlite_url: str) -> Iterator[Stage]:
        stage = make_stage(home, sqlite_url)
        yield stage
        stage.close()


class TestPostgresql(YardContract):
    @pytest.fixture
    def stage(self, home: Path, postgres_url: str) -> Iterator[Stage]:
        stage = make_stage(home, postgres_url)
        yield stage
        stage.close()


@pytest.fixture(scope="session")
def server() -> Iterator[Wire]:
    with wire() as made:
        yield made


class TestSqliteOverHttp(YardContract):
    @pytest.fixture
    def stage(self, home: Path, sqlite_url: str, server: Wire) -> Iterator[Stage]:
        stage = make_remote_stage(home, sqlite_url, server)
        yield stage
        stage.close()


class TestPostgresqlOverHttp(YardContract):
    @pytest.fixture
    def stage(self, home: Path, postgres_url: str, server: Wire) -> Iterator[Stage]:
        stage = make_remote_stage(home, postgres_url, server)
        yield stage
        stage.close()
