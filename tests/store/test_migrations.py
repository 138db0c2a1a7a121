"""Upgrades can be repeated, are taken up where they were interrupted, and refuse what is newer."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.operations import Operations
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from runyard.services.yard import open_yard
from runyard.store import migrate
from runyard.wire.errors import ConfigError, RunyardError
from tests.store.backends import SETTINGS, Postgres, make_stage
from tests.store.test_upgrade import differences


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with nothing in it."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'new.db'}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    with postgres.database(empty=True) as url:
        yield url


def test_an_upgrade_can_be_repeated(empty: str, home: Path) -> None:
    first = migrate.upgrade(make_url(empty))
    assert first[0] is None
    assert migrate.upgrade(make_url(empty)) == (first[1], first[1])
    stage = make_stage(home, empty)
    run_id = stage.submit()
    stage.restart()
    assert migrate.upgrade(make_url(empty)) == (first[1], first[1])
    assert stage.state(run_id) == "queued"
    stage.close()


class HaltError(Exception):
    pass


def test_an_interrupted_upgrade_is_taken_up_again(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create = Operations.create_table

    for survive in (0, 3, 7):
        left = [survive]

        def interrupted(self: Any, *args: Any, left: list[int] = left, **options: Any) -> Any:
            if not left[0]:
                raise HaltError
            left[0] -= 1
            return create(self, *args, **options)

        monkeypatch.setattr(Operations, "create_table", interrupted)
        with pytest.raises(HaltError):
            migrate.upgrade(make_url(empty))
    monkeypatch.setattr(Operations, "create_table", create)
    migrate.upgrade(make_url(empty))
    assert differences(empty) == []


UPGRADE = "import sys; from sqlalchemy import make_url; from runyard.store import migrate; migrate.upgrade(make_url(sys.argv[1]))"


def test_servers_that_start_at_once_on_one_database(postgres: Postgres) -> None:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with postgres.database(empty=True) as url:
        target = make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        children = [subprocess.Popen([sys.executable, "-c", UPGRADE, target], env=environ) for _ in range(3)]
        assert [child.wait(60) for child in children] == [0, 0, 0]
        assert differences(url) == []


def test_a_newer_database_is_refused_with_the_remedy_and_left_alone(empty: str, home: Path) -> None:
    migrate.upgrade(make_url(empty))
    engine = create_engine(make_url(empty), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError) as caught:
        open_yard(str(home), SETTINGS, database_url=empty)
    assert "newer" in caught.value.message
    assert "install" in caught.value.hint
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "9999"
    engine.dispose()


def test_a_refused_yard_leaves_nothing_open(home: Path) -> None:
    before = threading.active_count()
    with pytest.raises(RunyardError):
        open_yard(str(home), SETTINGS, database_url="postgresql://nobody@127.0.0.1:1/nothing")
    assert threading.active_count() == before


NEXT = '''
"""A column more."""
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "{name}", "{before}", None, None


def upgrade() -> None:
    op.add_column("users", sa.Column("{name}", sa.Text()))
'''


def test_a_database_is_copied_before_it_is_changed(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the server of a newer version is started; what was there can be looked at and brought back."""
    url = f"sqlite:///{home / 'yard.db'}"
    stage = make_stage(home, url)
    run_id = stage.submit(message="before")
    stage.close()
    assert not (home / "backups").exists(), "a new database, and one that is as it should be, is not copied"
    shutil.copytree(migrate.MIGRATIONS, tmp_path / "newer")
    monkeypatch.setattr(migrate, "MIGRATIONS", str(tmp_path / "newer"))
    before = original = migrate.upgrade(make_url(url))[0]
    for number in range(5):
        name = f"n{number}"
        (tmp_path / "newer" / "versions" / f"{name}.py").write_text(NEXT.format(name=name, before=before))
        before = name
        open_yard(str(home), SETTINGS, database_url=url).close()
        open_yard(str(home), SETTINGS, database_url=url).close()
        if not number:
            (copy,) = (home / "backups").iterdir()
            assert copy.stat().st_mode & 0o777 == 0o600
            with sqlite3.connect(copy) as old:
                assert old.execute("SELECT version_num FROM alembic_version").fetchall() == [(original,)]
                assert old.execute("SELECT id, message FROM runs").fetchall() == [(run_id, "before")]
            old.close()
    kept = sorted(path.name.rpartition("-")[2] for path in (home / "backups").iterdir())
    assert kept == ["n1.db", "n2.db", "n3.db"]
