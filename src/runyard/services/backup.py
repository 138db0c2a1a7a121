"""Backups: database and snapshots in one file, and bringing them back.

The file is a tar (gzip): ``manifest.json``, ``tables/<name>.jsonl`` (see `runyard.store.dump`; no environment values, no
secrets: run environments live in 0600 files that are left out, tokens are stored as hashes) and ``snapshots.bundle``
(git-bundle(1)). Logs and outputs are ordinary files below ``runs/``: copy them with any tool.

A restore starts a new generation: nothing is assigned until the agents of that day have reported, so that no run that still
lives is started twice.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import os
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from typing import IO, Any

import runyard
from runyard.services.api import Json
from runyard.services.context import Context
from runyard.snapshot.repository import Repository
from runyard.store import attempts, dump, hosts, migrate, records
from runyard.store.database import Connection, Database
from runyard.wire import config
from runyard.wire.errors import ConflictError, HomeError, InvalidError, RunyardError
from runyard.wire.files import sync_path, try_lock
from runyard.wire.paths import Home

FORMAT = 1
DAY_US = 86_400_000_000
AWAITED = "awaited_agents"
"""Fact: agents that must report before anything is assigned after a restore, comma-separated."""


def backup(context: Context, path: str) -> Json:
    """Write a backup to an absolute path that does not exist yet.

    Raises:
        InvalidError: the path is relative or its directory is missing.
        ConflictError: the file exists.
    """
    if not os.path.isabs(path) or not os.path.isdir(os.path.dirname(path)):
        raise InvalidError(f"cannot write a backup to {path}", "name a file in a directory that exists")
    _require_new(path)
    # A name of its own: two backups may be made at once, and one of them may have been cut off.
    fd, partial = tempfile.mkstemp(".partial", os.path.basename(path) + ".", os.path.dirname(path))
    try:
        with os.fdopen(fd, "wb") as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as tar:
            counts = _write(context, tar)
        sync_path(partial)
        _require_new(path)  # renamed, not linked: disks for backups often know no hard links
        os.rename(partial, path)
        sync_path(os.path.dirname(path))
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise
    return {"path": path, "bytes": os.path.getsize(path), "rows": counts}


def _require_new(path: str) -> None:
    if os.path.lexists(path):
        raise ConflictError(f"{path} exists already", "name a new file")


def _write(context: Context, tar: tarfile.TarFile) -> dict[str, int]:
    """Database first: every tree that its runs name is then in the snapshots, which only grow while they are locked."""
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="runyard-backup-") as scratch:
        with context.db.read() as connection:
            for table in dump.table_names():
                counts[table] = _add_table(connection, tar, table, scratch)
        _add_bytes(
            tar,
            "manifest.json",
            json.dumps({"format": FORMAT, "version": runyard.__version__, "rows": counts}).encode(),
        )
        repository = Repository(context.home.path)
        if os.path.isdir(repository.refs):
            bundle = os.path.join(scratch, "snapshots.bundle")
            with repository.lock():
                if repository.trees():
                    _git(repository, ["bundle", "create", "--quiet", bundle, "--all"])
                    tar.add(bundle, "snapshots.bundle")
    return counts


def _git(repository: Repository, args: Sequence[str]) -> None:
    with repository.git(list(args)) as git:
        git.output()


def _add_table(connection: Connection, tar: tarfile.TarFile, table: str, scratch: str) -> int:
    place, count = os.path.join(scratch, table), 0
    with open(place, "w", encoding="ascii") as file:
        for line in dump.rows(connection, table):
            file.write(line + "\n")
            count += 1
    tar.add(place, f"tables/{table}.jsonl")
    os.unlink(place)
    return count


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o600
    tar.addfile(info, io.BytesIO(data))


def restore(home: str, path: str, database_url: str = "") -> Json:
    """Fill an empty yard from a backup. No server of the home may run. After a failure it can be tried again.

    Raises:
        InvalidError: the file is no backup, or of a newer version.
        ConflictError: the server runs, or the yard has runs already.
        HomeError: the home cannot be written.
        SnapshotError: the code cannot be.
    """
    place = Home(home)
    os.makedirs(home, 0o700, exist_ok=True)
    lock = try_lock(place.server_lock)
    if lock is None:
        raise ConflictError(f"the server of {home} is running", "stop it first: runyard stop")
    try:
        with tarfile.open(path, "r:gz") as tar:
            return _read(place, tar, database_url)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise InvalidError(
            f"{path} cannot be read as a backup: {exc}", "name a file that `runyard backup` wrote"
        ) from exc
    except OSError as exc:
        raise HomeError(f"{path} cannot be brought back to {home}: {exc}", "see to it, then restore again") from exc
    finally:
        os.close(lock)


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes] | None:
    try:
        return tar.extractfile(name)
    except KeyError:
        return None


def _read(place: Home, tar: tarfile.TarFile, database_url: str) -> Json:
    file = _member(tar, "manifest.json")
    manifest: Json = {} if file is None else json.loads(file.read())
    if manifest.get("format") != FORMAT:
        raise InvalidError(
            "this is no backup that this version reads", f"format {manifest.get('format')}, wanted {FORMAT}"
        )
    settings = config.home_settings(place.path, os.environ)
    db = Database(database_url or str(settings["database"]) or "sqlite:///" + place.database)
    try:
        migrate.upgrade(db.url)
        with db.read() as connection:
            _require_empty(connection)
        # The code first: once there are rows, nothing more is brought back.
        bundle = _member(tar, "snapshots.bundle")
        if bundle is not None:
            _unbundle(place, bundle)
        counts = db.write(lambda connection: _load(connection, tar))
    finally:
        db.close()
    return {"rows": counts, "version": manifest.get("version")}


def _require_empty(connection: Connection) -> None:
    if not dump.is_empty(connection):
        raise ConflictError(
            "this yard has runs already", "restore into a new home: set RUNYARD_HOME to an empty directory"
        )


def _load(connection: Connection, tar: tarfile.TarFile) -> dict[str, int]:
    _require_empty(connection)
    counts: dict[str, int] = {}
    dump.clear(connection)
    for table in dump.table_names():
        file = _member(tar, f"tables/{table}.jsonl")
        if file is not None:
            counts[table] = dump.load(connection, table, io.TextIOWrapper(file, "ascii"))
    dump.reset_sequences(connection)
    records.set_fact(connection, AWAITED, ",".join(sorted(_agents_of_the_day(connection))))
    return counts


def _agents_of_the_day(connection: Connection) -> set[str]:
    """Return the agents that may have work now: those with some then, and all others that were there in the last day.

    One that was idle may have been given, since, what the backup says is still queued.
    """
    seen = {row.id: row.seen_at for row in hosts.all_agents(connection)}
    since = max(seen.values(), default=0) - DAY_US
    busy = {row.agent_id for row in attempts.all_active(connection)}
    return busy | {agent for agent, at in seen.items() if at >= since}


def _unbundle(place: Home, bundle: IO[bytes]) -> None:
    repository = Repository(place.path).open()
    with tempfile.NamedTemporaryFile(prefix="runyard-restore-", suffix=".bundle") as file:
        while data := bundle.read(1 << 20):
            file.write(data)
        file.flush()
        with repository.lock():
            _git(repository, ["fetch", "--quiet", "--no-write-fetch-head", file.name, "refs/trees/*:refs/trees/*"])


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m runyard.services.backup --home H FILE``: restore; the last line of stderr says what went wrong."""
    parser = argparse.ArgumentParser(prog="runyard restore")
    parser.add_argument("--home", required=True)
    parser.add_argument("--database", default="")
    parser.add_argument("file")
    args = parser.parse_args(argv)
    try:
        answer: Any = restore(args.home, args.file, args.database)
    except RunyardError as exc:
        sys.stderr.write(json.dumps(exc.body()) + "\n")
        return exc.exit_status
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
