"""Why a program found no file: what its last words name is in the submitter's directory, and was not frozen or linked."""

from __future__ import annotations

import os
import re
import shlex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

TAIL_BYTES = 8192
NAMES = 50
"""Names that are looked up at most."""
_COMPLAINT = re.compile(
    r"no such file|not found|does ?n[o']t exist|cannot open|can't open|cannot find|unable to open", re.IGNORECASE
)
_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"|`([^`']+)[`']")


def remedy(run: str, log: str, working: str, tree: str, source: str) -> str:
    """Return which path only the submitter's directory has, and the command that links it; "" if there is none.

    Args:
        run: The run's id.
        log: Path of its raw log, whose last lines are read.
        working: The directory that the program was started in, in ``tree``.
        tree: The run's working tree.
        source: The directory that the tree was frozen from.
    """
    for name in _names(log):
        path = os.path.relpath(os.path.normpath(os.path.join(working, name)), tree)
        if path.startswith("../../") or path in (".", "..") or not os.path.exists(os.path.join(source, path)):
            continue
        link = _topmost_missing(path, tree)
        if link:
            start = os.path.join(source, os.path.relpath(working, tree))
            words = ["runyard", "rerun", run, "--link", os.path.relpath(os.path.join(source, link), start)]
            outside = "outside of the repository" if path.startswith("../") else "ignored by git, or new"
            there = os.path.normpath(os.path.join(source, path))
            return "%s is there, but not in the run (%s): %s" % (there, outside, " ".join(map(shlex.quote, words)))
    return ""


def _topmost_missing(path: str, tree: str) -> str:
    """Return the shortest beginning of a path that is not in the tree; "" when all of it is."""
    parts = path.split("/")
    for count in range(2 if parts[0] == ".." else 1, len(parts) + 1):
        start = "/".join(parts[:count])
        if not os.path.lexists(os.path.join(tree, start)):
            return start
    return ""


def _names(log: str) -> Iterator[str]:
    """Yield what may be the names of files in the last lines that say that something is not there, newest first."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            tail = file.read().decode("utf-8", "replace")
    except OSError:
        return
    seen = set()
    for line in reversed(re.split("[\r\n]+", tail)):
        if not _COMPLAINT.search(line):
            continue
        quoted = [next(filter(None, groups)) for groups in _QUOTED.findall(line)]
        for name in quoted + [word.lstrip("'\"`([<").rstrip("'\"`)]>.,:;") for word in line.split()]:
            if name and "\0" not in name and len(name) < 1024 and name not in seen:
                seen.add(name)
                yield name
                if len(seen) == NAMES:
                    return
