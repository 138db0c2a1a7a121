"""What is worth saying of an end besides its exit code: the text that `show` gives under the state."""

from __future__ import annotations

import os
import stat
import time

from runyard.agent import missing
from runyard.wire import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from runyard.agent.stage import Staged
    from runyard.agent.state import Attempt

NAMED = 5
LOOK_S = 1.0
LOOK_ENTRIES = 20_000
"""Bounds on the look at linked data: seconds, and files and directories."""


def remarks(attempt: Attempt, end: dict[str, Any], staged: Staged, shared: bool) -> str:
    """Return what to say of an end, "" for nothing; ``shared``: this host has the submitter's files."""
    found = [str(end.get("detail") or "")]
    spec = attempt.spec
    if shared and end.get("exit_code") and not spec.get("in_place") and not found[0]:
        log = paths.log_path(staged.run_dir, attempt.number)
        found.append(missing.remedy(attempt.run, log, staged.cwd, staged.tree, spec["source"]))
    if shared and end.get("started_at") is not None:
        links = [(link["path"], link["target"]) for link in spec.get("links") or []]
        changed = written_through(links, end["started_at"] / 1e6)
        if changed:
            found.append("your own files were written, through links: %s" % _list(changed))
    if end.get("leftover"):
        found.append("stopped what it had left running: %s" % _list(end["leftover"]))
    if end.get("unkilled"):
        names = ["%d %s" % (pid, name) for pid, _, name in end["unkilled"]]
        found.append("its slots were kept until what could not be killed was gone: %s" % _list(names))
    return "; ".join(text for text in found if text)


def _list(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (" and %d more" % (len(names) - NAMED) if len(names) > NAMED else "")


def written_through(links: list[tuple[str, str]], since: float) -> list[str]:
    """Return linked files, as the run names them, that were written since then (seconds since 1970), in order.

    ``links``: (path in the run, target). What somebody else wrote there meanwhile is among them. Large directories are
    looked at only as far as `LOOK_S` and `LOOK_ENTRIES` go.
    """
    found: list[str] = []
    until, left = time.monotonic() + LOOK_S, LOOK_ENTRIES
    for path, target in links:
        for name, info in _files(path, target):
            left -= 1
            if left < 0 or time.monotonic() > until:
                return sorted(found)
            if stat.S_ISREG(info.st_mode) and info.st_mtime >= since:
                found.append(name)
    return sorted(found)


def _files(path: str, target: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield what is at and below a target, by the name that it has in the run; links in it are not followed."""
    todo, first = [(path, target)], True
    while todo:
        path, target = todo.pop()
        try:
            info = os.stat(target) if first else os.lstat(target)
            names = os.listdir(target) if stat.S_ISDIR(info.st_mode) else []
        except OSError:
            continue
        finally:
            first = False
        yield path, info
        todo += [(path + "/" + name, os.path.join(target, name)) for name in names]
