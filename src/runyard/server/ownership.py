"""Exactly one server per home: who may start, who waits, who is refused; and the file that says where the server is."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import Any

from runyard.wire import files, paths, procs
from runyard.wire.errors import HomeError, RunyardError, UnavailableError
from runyard.wire.http import Http
from runyard.wire.paths import Home

WINNER_TIMEOUT_S = 60.0
POLL_S = 0.05


class AlreadyRunning(Exception):  # noqa: N818  not an error: what was wanted is so
    """Another process serves this home; ``info`` is its server.json."""

    def __init__(self, info: dict[str, Any]) -> None:
        super().__init__(info["url"])
        self.info = info


def read(home: Home) -> dict[str, Any] | None:
    """Return server.json, None when there is none."""
    info = files.read_json(home.server_json)
    return info if isinstance(info, dict) else None


def prepare(home: Home) -> None:
    """Make the home (0700) and see that it can be written; raises HomeError."""
    try:
        os.makedirs(home.path, 0o700, exist_ok=True)
        probe = os.path.join(home.path, f".probe.{os.getpid()}")
        files.write_atomic(probe, b"")
        os.unlink(probe)
    except OSError as exc:
        raise HomeError(
            f"the home {home.path} is not writable: {exc.strerror}",
            "set RUNYARD_HOME to a directory on a local disk that you can write",
        ) from exc


def check_file_system(home: Home, database: str) -> None:
    """Refuse SQLite on a network file system, where its locks do not hold; raises HomeError.

    ``database`` is the URL in use, ``""`` for yard.db in the home.
    """
    path = home.path
    if database:
        scheme, _, rest = database.partition("://")
        if not scheme.startswith("sqlite"):
            return
        path = os.path.join(home.path, rest[1:]) if rest.startswith("/") else home.path
    kind = paths.file_system(path)
    if kind in paths.NETWORK_FILE_SYSTEMS:
        raise HomeError(
            f"{path} lies on a network file system ({kind}), where an SQLite database is not safe",
            "set RUNYARD_HOME to a directory on a local disk, or use `runyard start --database postgresql://...`",
        )


def check_database(home: Home, database: str) -> None:
    """Refuse to begin an empty yard in a home that has the runs of one; raises HomeError. ``database`` as above."""
    lost = "" if database else paths.lost_database(home)
    if lost:
        raise HomeError(lost, paths.LOST_DATABASE)


def check_other_host(home: Home) -> None:
    """Refuse a home that a server on another host owns; raises HomeError. Call it with the lock held.

    On a local disk the lock alone proves that no server lives; a network file system may not carry it.
    """
    info = read(home)
    if info is not None and info.get("host_id") != paths.host_id() and paths.is_network_file_system(home.path):
        raise _owned_elsewhere(home, info)


def _owned_elsewhere(home: Home, info: dict[str, Any]) -> HomeError:
    name = info.get("host") or "another host"
    return HomeError(
        "the home {} is owned by the server on {} ({})".format(home.path, name, info.get("url", "address unknown")),
        "use it from here with RUNYARD_SERVER={}, or lend it this machine: runyard agent --server {}; "
        "if that server is gone for good, remove {}".format(
            info.get("url", "URL"), info.get("url", "URL"), home.server_json
        ),
        host=name,
    )


def acquire(home: Home) -> int:
    """Take the lock that makes this process the home's server, and return its descriptor.

    Waits for the readiness of a server that has it already. Raises AlreadyRunning then, HomeError when that one is on
    another host, UnavailableError when it does not become ready.
    """
    deadline = time.monotonic() + WINNER_TIMEOUT_S
    while True:
        lock = files.try_lock(home.server_lock)
        if lock is not None:
            try:
                check_other_host(home)
            except HomeError:
                os.close(lock)
                raise
            return lock
        info = read(home)
        if info is not None and info.get("host_id") != paths.host_id() and not procs.is_served(info):
            raise _owned_elsewhere(home, info)
        if info is not None and answers(info):
            raise AlreadyRunning(info)
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"another process holds {home.server_lock} but does not answer",
                f"see {home.server_log}; end that process if it hangs",
            )
        time.sleep(POLL_S)


def answers(info: dict[str, Any]) -> bool:
    """Tell whether the server of a server.json lives on this boot and answers on its socket."""
    if not procs.is_alive(int(info.get("pid") or 0), info.get("pid_start")):
        return False
    try:
        with Http("unix:" + str(info.get("socket")), timeout=2.0) as http:
            return bool(http.json("GET", "/health")["yard"] == info.get("yard"))
    except (RunyardError, KeyError, TypeError):
        return False


def publish(home: Home, info: dict[str, Any]) -> None:
    """Write server.json (0600, atomically): from now on commands find this server."""
    data = json.dumps(info, indent=1, ensure_ascii=True).encode("ascii") + b"\n"
    files.write_atomic(home.interpreter, sys.executable.encode("utf-8", "surrogateescape") + b"\n", 0o644)
    files.write_atomic(home.server_json, data, 0o600)


def withdraw(home: Home) -> None:
    """Remove server.json if it is this process's."""
    info = read(home)
    if info is not None and info.get("pid") == os.getpid():
        with contextlib.suppress(FileNotFoundError):
            os.unlink(home.server_json)
