"""Bringing a database to the schema of this version.

Migrations are in ``migrations/versions``; each can be run again after it was interrupted, because not every database can
roll back DDL.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from runyard.store.database import translated
from runyard.wire.errors import ConfigError
from runyard.wire.files import sync_path

logger = logging.getLogger("runyard.store")
COPY = "before-upgrade-"
COPIES_KEPT = 3
"""Copies of the database that were made before migrations: start of their names, and how many stay."""
LOCK_KEY = 0x72756E79617264  # "runyard"
MIGRATIONS = os.path.join(os.path.dirname(__file__), "migrations")


def upgrade(url: URL, revision: str = "head", copies: str = "") -> tuple[str | None, str]:
    """Migrate to the newest schema, or up to a revision; return the revision before and after.

    ``copies``: directory for a copy of a SQLite database that is about to be changed, ``""`` for none. A server's
    database is for `runyard backup`, which `runyard restart` runs before an upgrade.

    Raises:
        ConfigError: the database was made by a newer version, or is none.
        UnavailableError: the database does not answer.
    """
    config = _config()
    engine = create_engine(url, poolclass=NullPool)
    try:
        with (
            translated((url.database or "") if url.get_backend_name() == "sqlite" else ""),
            engine.connect() as connection,
        ):
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            elif connection.dialect.name == "postgresql":
                # Held until the connection is closed: a second server that starts now waits, and finds all done.
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK_KEY})
                connection.commit()
            before = _revision(connection)
            _refuse_newer(config, before)
            connection.rollback()
            if copies and before not in (None, _script(config, revision)) and connection.dialect.name == "sqlite":
                _keep_copy(connection, copies, str(before))
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            connection.commit()
            after = _revision(connection)
    finally:
        engine.dispose()
    return before, after or ""


def _keep_copy(connection: Connection, directory: str, revision: str) -> None:
    """Copy a SQLite database beside those of earlier upgrades, of which the newest stay."""
    os.makedirs(directory, 0o700, exist_ok=True)
    path = os.path.join(directory, time.strftime(f"{COPY}%Y%m%d-%H%M%S-{revision}.db", time.gmtime()))
    partial = path + ".partial"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(partial)
    connection.exec_driver_sql("VACUUM INTO ?", (partial,))
    connection.rollback()
    os.chmod(partial, 0o600)
    sync_path(partial)
    os.rename(partial, path)
    sync_path(directory)
    logger.info("the database is migrated from %s; as it was: %s", revision, path)
    for old in sorted(name for name in os.listdir(directory) if name.startswith(COPY))[:-COPIES_KEPT]:
        os.unlink(os.path.join(directory, old))


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", MIGRATIONS.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _script(config: Config, revision: str) -> str:
    """Return the id of a revision that may be named ``head``; raises CommandError when there is none."""
    return str(ScriptDirectory.from_config(config).get_revision(revision).revision)


def _refuse_newer(config: Config, revision: str | None) -> None:
    if revision is None:
        return
    try:
        _script(config, revision)
    except CommandError as exc:
        raise ConfigError(
            f"the database has schema {revision}, which this version of Runyard does not know: a newer one made it",
            "install the newer version again (pip install -U runyard), or restore a backup",
        ) from exc
