"""Finding the server of a home, and starting it.

A home belongs to one host: ``server.json`` says which, and the lock on ``server.lock`` says that the server lives.
Commands on the server's host use its Unix socket; elsewhere its address and token, if it listens beyond loopback.
"""

from __future__ import annotations

import os
import sys
import time

from runyard.client.api import Api
from runyard.wire import files, paths, procs
from runyard.wire.errors import HomeError, UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

START_TIMEOUT_S = 60.0
POLL_S = 0.02
SERVER_COMMAND = (sys.executable, "-P", "-m", "runyard.server")
"""-P: a file in the home, where the server starts, must not stand for a module."""
JOB_VARIABLES = {"SLURM_JOB_ID": "a Slurm job", "RAY_JOB_ID": "a Ray job", "RUNYARD_RUN_ID": "a run"}
"""Inside of these nothing is started: a server would die with the job, or belong to the wrong host."""


class Found:
    """What ``server.json`` says, and whether that is so."""

    def __init__(self, info: dict[str, Any], here: bool, alive: bool) -> None:
        self.info = info
        self.here = here
        """The home's server belongs to this host."""
        self.alive = alive
        """Its process lives (always False for another host: that cannot be known)."""


def find(home: paths.Home) -> Found | None:
    """Read ``server.json`` of a home; None when there is none. Raises `HomeError` when it may not be read."""
    try:
        info = files.read_json(home.server_json)
    except PermissionError as exc:
        raise HomeError(
            "the home %s cannot be read: %s" % (home.path, exc.strerror),
            "a home belongs to one user: set RUNYARD_HOME to a directory of yours, or repair its permissions",
        ) from exc
    if not isinstance(info, dict):
        return None
    alive = procs.is_served(info)
    # A host that was given another name meanwhile has another id, too.
    return Found(info, alive or info.get("host_id") == paths.host_id(), alive)


def _last_line(path: str) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 4096))
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return ""
    if not lines:
        return ""
    stamp, bracket, said = lines[-1].partition("] ")  # time, level and [request], as `runyard.server.logs` writes them
    return said if bracket and stamp[:1].isdigit() else lines[-1]


def prepare(home: paths.Home) -> None:
    """Create the home's directory (0700); raises `HomeError` when it cannot be used."""
    try:
        os.makedirs(home.path, 0o700, exist_ok=True)
    except OSError as exc:
        raise HomeError(
            "the home %s cannot be created: %s" % (home.path, exc.strerror),
            "set RUNYARD_HOME to a directory on a local disk that you can write",
        ) from exc
    if not os.access(home.path, os.W_OK | os.X_OK):
        raise HomeError(
            "the home %s is not writable" % home.path,
            "set RUNYARD_HOME to a directory on a local disk that you can write, or repair its permissions",
        )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def start(home: paths.Home, environ: Mapping[str, str], arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Start the server of a home, detached, wait until it is ready and return its ``server.json``.

    ``arguments`` are those of ``python -m runyard.server``, besides ``--home``. When another process is starting it,
    wait for that one. Raises `ConfigError`, `HomeError` or `UnavailableError` with the reason.
    """
    import subprocess

    from runyard.wire import config
    from runyard.wire.serverenv import server_environment

    prepare(home)
    config.home_settings(home.path, environ)  # what is wrong there is said at once, and not by a server's log
    deadline = time.monotonic() + START_TIMEOUT_S
    process = None
    while time.monotonic() < deadline:
        found = find(home)
        if found is not None and found.alive:
            return found.info
        busy = files.is_locked(home.server_lock)
        if process is None and not busy:
            with open(home.server_log, "ab", opener=_private) as log:
                process = subprocess.Popen(
                    [*SERVER_COMMAND, "--home", home.path, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=home.path,
                    env=server_environment(environ),
                    start_new_session=True,
                )
        elif process is not None and process.poll() is not None and not busy:
            raise UnavailableError(
                "the server could not start: %s" % (_last_line(home.server_log) or "it said nothing"),
                "the whole log: %s" % home.server_log,
            )
        time.sleep(POLL_S)
    raise UnavailableError(
        "the server was not ready after %d s" % START_TIMEOUT_S, "its log says why: %s" % home.server_log
    )


def _must_not_start(home: paths.Home, environ: Mapping[str, str]) -> str:
    """Return why a command must not start a server by itself, or ``""``; raises `ConfigError`."""
    for variable, what in JOB_VARIABLES.items():
        if environ.get(variable):
            return "inside of %s no server is started" % what
    from runyard.wire import config  # whoever needs no server started does not pay for it

    if config.home_settings(home.path, environ)["autostart"]:
        return ""
    return "%s forbids to start it" % ("RUNYARD_AUTOSTART" if "RUNYARD_AUTOSTART" in environ else "config.toml")


def left_behind(home: paths.Home) -> bool:
    """Tell whether a home whose ``server.json`` names another host may be used by this one.

    On a local disk a free lock proves that no server lives: the home was copied or moved, or this host got another name.
    """
    return not paths.is_network_file_system(home.path) and not files.is_locked(home.server_lock)


def elsewhere(home: paths.Home, info: dict[str, Any]) -> Api:
    """Connect to the server of a home that belongs to another host; raises `HomeError` when it cannot be reached."""
    url = str(info.get("url") or "")
    local = url.rpartition("://")[2].startswith(("127.", "localhost", "[::1]"))
    if url and not local:
        return Api(url, str(info.get("token") or ""))
    name = info.get("host") or "another host"
    raise HomeError(
        "the home %s belongs to %s, whose server listens there only" % (home.path, name),
        "on %s run: runyard restart --listen 0.0.0.0:8086; or give this host its own RUNYARD_HOME" % name,
    )


def connect(
    environ: Mapping[str, str], autostart: bool = True, started: Callable[[dict[str, Any]], None] | None = None
) -> Api:
    """Return the API of the server that these variables mean, starting it when needed and allowed.

    ``RUNYARD_SERVER`` (with ``RUNYARD_TOKEN``) names a server elsewhere; else it is that of ``RUNYARD_HOME``. Inside a
    run those two are the run's own, good for its attempt only; there the home's server, if it is the same one, is asked
    over its socket, which may do everything. ``started`` is
    called with ``server.json`` when a server was started. Raises `ConfigError`, `HomeError`, `UnavailableError`.
    """
    url = environ.get("RUNYARD_SERVER", "")
    inside = bool(environ.get("RUNYARD_RUN_ID"))
    if url and not inside:
        return Api(url, environ.get("RUNYARD_TOKEN", ""))
    home = paths.Home(paths.home(environ))
    found = find(home)
    if found is not None and found.alive:
        socket = "unix:" + str(found.info["socket"])
        if not inside or url in ("", socket, found.info.get("url")):
            return Api(socket)
    if url:
        return Api(url, environ.get("RUNYARD_TOKEN", ""))
    if found is not None and not found.here and not left_behind(home):
        return elsewhere(home, found.info)
    forbidden = _must_not_start(home, environ) if autostart else "this command does not start it"
    if forbidden:
        raise UnavailableError("the server is not running, and %s" % forbidden, "start it with: runyard start")
    info = start(home, environ)
    if started is not None:
        started(info)
    return Api("unix:" + str(info["socket"]))
