"""What a run wrote: the files of its working tree that are not the code as it was filled in."""

from __future__ import annotations

import os
import stat

from runyard.capture.steps import step_of
from runyard.capture.steps import type_of as type_of
from runyard.wire import states
from runyard.wire.tree import read_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

MAX_OUTPUTS = 50_000
SKIPPED = frozenset((".git", "__pycache__"))


def _files(top: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield regular files below a directory by relative path; links are never followed."""
    todo = [b""]
    skipped = {os.fsencode(name) for name in SKIPPED}
    while todo:
        below = todo.pop()
        try:
            with os.scandir(os.path.join(top, below)) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue  # not readable, or removed while we look: then it is no output
        for entry in listed:
            path = os.path.join(below, entry.name)
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(info.st_mode):
                if entry.name not in skipped:
                    todo.append(path)
            elif stat.S_ISREG(info.st_mode):
                yield path, info


def scan(tree: str, manifests: Sequence[tuple[str, str]], limit: int = MAX_OUTPUTS) -> list[dict[str, Any]]:
    """Return the outputs of a run, at most ``limit``, in order of path.

    Each is ``{"path", "size", "mtime_us", "type"}``, and ``step`` and ``series`` where its name carries a step.

    ``manifests``: (directory below the working tree, ``""`` for itself; manifest) of each piece of frozen code.
    Raises `SnapshotError` when a manifest is damaged.
    """
    code = {}
    for below, manifest in manifests:
        for record in read_manifest(manifest):
            code[os.path.join(os.fsencode(below), record.path)] = (record.size, record.mtime_ns)
    found: list[dict[str, Any]] = []
    for raw, info in _files(os.fsencode(tree)):
        if code.get(raw) == (info.st_size, info.st_mtime_ns):
            continue
        path = raw.decode("utf-8", "surrogateescape")
        mtime_us = max(states.TIMES_US[0], min(info.st_mtime_ns // 1000, states.TIMES_US[1]))
        output = {"path": path, "size": info.st_size, "mtime_us": mtime_us, "type": type_of(path)}
        series, step = step_of(path)
        if step is not None:
            output.update(step=step, series=series)
        found.append(output)
        if len(found) >= limit:
            break
    found.sort(key=lambda output: output["path"])
    return found


def is_stored(target: str, store: str) -> bool:
    """Tell whether a path lies in the directory where downloaded data is kept for later runs."""
    return os.path.normpath(target).startswith(os.path.join(store, ""))


def hand_on(tree: str, wanted: Sequence[dict[str, str]], store: str) -> list[str]:
    """Move data that the run downloaded to where later runs will link it, and link it back; returns what was moved.

    ``wanted``: ``{"path", "target"}``, as the spec's ``adopt``; a target outside of ``store`` is left alone, and so is
    one that exists, because another run was first.
    """
    moved = []
    for item in wanted:
        path, target = os.path.join(tree, item["path"]), os.path.normpath(item["target"])
        if not is_stored(target, store) or os.path.lexists(target):
            continue
        if os.path.islink(path) or not os.path.isdir(path) or not os.listdir(path):
            continue
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.rename(path, target)
            os.symlink(target, path)
        except OSError:
            continue  # another file system, say: the data stays with this run
        moved.append(item["path"])
    return moved
