"""How the agent introduces itself: the machine, the account, the slots, and the attempts that it has."""

from __future__ import annotations

import hashlib
import os
import time

import runyard
from runyard.agent import slots
from runyard.agent.link import Link
from runyard.agent.state import phases
from runyard.wire import files, paths, procs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.agent.context import Context
    from runyard.agent.link import Target


def host_id(home: paths.Home, name: str) -> str:
    """Return the id under which this machine is known: its own, or one derived from it for a name given on purpose."""
    return home.host if not name else hashlib.sha256(("%s\0%s" % (home.host, name)).encode()).hexdigest()[:12]


def agent_id(home: paths.Home, name: str = "") -> str:
    """Return the agent's id: the same for every process of this host, account and home."""
    identity = "%s\0%d\0%s" % (host_id(home, name), os.getuid(), os.path.realpath(home.path))
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def account() -> str:
    """Return the name of the Unix account, or its number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def disk_free(path: str) -> int:
    """Return the bytes that an unprivileged process may still write there; 0 when unknown."""
    try:
        info = os.statvfs(path)
    except OSError:
        return 0
    return info.f_bavail * info.f_frsize


def shares_home(home: paths.Home, target: Target) -> bool:
    """Tell whether the server's home is this one: the yard that answers is the one that ``server.json`` names.

    Raises `UnavailableError` when the server does not answer.
    """
    mine = files.read_json(home.server_json)
    if not isinstance(mine, dict) or not mine.get("yard"):
        return False
    link = Link(target)
    try:
        return bool(link.call("GET", "/health", timeout=10.0).get("yard") == mine["yard"])
    finally:
        link.close()


def body(context: Context, name: str, shared: bool) -> dict[str, Any]:
    """Return the hello message of docs/protocol.md."""
    system = os.uname()
    found = context.slots()
    return {
        "host": {
            "id": host_id(context.home, name),
            "name": name or system.nodename,
            "boot_id": procs.boot_id(),
            "cpus": context.cores,
            "mem": slots.memory(),
            "os": "%s %s %s" % (system.sysname, system.release, system.machine),
            "gpus": [
                {key: slot[key] for key in ("index", "uuid", "model", "mem")} for slot in found if slot["kind"] == "gpu"
            ],
        },
        "user": account(),
        "uid": os.getuid(),
        "pid": os.getpid(),
        "version": runyard.__version__,
        "shared_home": context.home.path if shared else None,
        "slots": found,
        "attempts": phases(context.state.all()),
        "sent": time.monotonic_ns(),
    }


def heartbeat(context: Context) -> dict[str, Any]:
    """Return the heartbeat message of docs/protocol.md."""
    return {
        "attempts": phases(context.state.all()),
        "slots": context.slots(),
        "disk_free": disk_free(context.home.path),
        "boot_id": procs.boot_id(),
    }
