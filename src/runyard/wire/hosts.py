"""Under which id this machine works in a home: its own, or the one from before its host name was changed."""

from __future__ import annotations

import os

from runyard.wire import files, paths, procs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def known_as(home: str) -> str:
    """Return the id of this machine in a home.

    The host's name is a part of the id. So that runs go on, and find their server, when it is changed, the id stays as
    long as a server or a supervisor of that time lives.
    """
    info = _read(os.path.join(home, "server.json"))
    if procs.is_served(info):
        return str(info.get("host_id") or paths.host_id())
    own, top = paths.host_id(), os.path.join(home, "hosts")
    for host in [own, *sorted(set(_names(top)) - {own})]:
        attempts = os.path.join(top, host, "attempts")
        if any(_is_supervised(os.path.join(attempts, name)) for name in _names(attempts)):
            return host
    return own


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _is_supervised(attempt: str) -> bool:
    status = _read(os.path.join(attempt, "status.json"))
    return procs.lives_here(status.get("boot_id"), status.get("supervisor_pid"), status.get("supervisor_start"))


def _read(path: str) -> dict[str, Any]:
    try:
        value = files.read_json(path)
    except OSError:
        return {}
    return value if isinstance(value, dict) else {}
