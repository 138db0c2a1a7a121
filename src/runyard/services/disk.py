"""What the yard's files cost, and giving some of it back: trash, unchanged code, old checkpoints.

Nothing here touches a run that has not ended. Code comes back with `checkout`; what `gc` removes it names first.
"""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from runyard.services.api import Actor, Json
from runyard.services.context import Change, Context, change
from runyard.services.control import delete_directory, move_directory, trash_path
from runyard.services.control import discard as discard_row
from runyard.services.views import base_dir, run_dir
from runyard.snapshot.gc import gc as gc_snapshots
from runyard.snapshot.gc import would_free
from runyard.store import events, outputs, runs
from runyard.wire.errors import SnapshotError
from runyard.wire.paths import manifest_path
from runyard.wire.settings import parse_keep
from runyard.wire.tree import is_real, read_manifest, thin

log = logging.getLogger("runyard.disk")
DAY_US = 86_400_000_000
DOOMED = ".deleting"
"""End of the names of directories below ``trash/`` that belong to no run any more."""


def size_of(path: str) -> tuple[int, int]:
    """Return the disk space (bytes, by blocks) and the number of inodes of a file or directory; links are not followed."""
    total, count = 0, 0
    stack = [path]
    while stack:
        place = stack.pop()
        try:
            stat = os.lstat(place)
            total += stat.st_blocks * 512
            count += 1
            if os.path.isdir(place) and not os.path.islink(place):
                stack.extend(entry.path for entry in os.scandir(place))
        except OSError:
            continue  # it went away while we looked
    return total, count


def du(context: Context) -> Json:
    """Return the disk space of the home by part, and of the runs by project: bytes and inodes."""
    home = context.home
    parts = {"snapshots": home.snapshots, "runs": home.runs, "trash": home.trash, "lib": home.lib,
             "downloads": home.downloads, "backups": home.backups,
             "hosts": os.path.join(home.path, "hosts")}  # fmt: skip
    found = {name: _cost(path) for name, path in parts.items()}
    database = [home.database, home.database + "-wal", home.database + "-shm"]
    found["database"] = {"bytes": sum(size_of(path)[0] for path in database), "inodes": len(database)}
    projects = {}
    if os.path.isdir(home.runs):
        projects = {entry.name: _cost(entry.path) for entry in sorted(os.scandir(home.runs), key=lambda e: e.name)}
    disk = os.statvfs(home.path)
    return {
        "home": home.path,
        "parts": found,
        "projects": projects,
        "total": sum(part["bytes"] for part in found.values()),
        "free": disk.f_bavail * disk.f_frsize,
    }


def _cost(path: str) -> Json:
    size, inodes = size_of(path)
    return {"bytes": size, "inodes": inodes}


def thin_after_us(context: Context) -> int | None:
    """Return how long code is kept after the end of a run (setting ``keep_code``), or None for ever."""
    days = parse_keep(str(context.settings["keep_code"]))
    return None if days is None else int(days * DAY_US)


def _ended(context: Context, before_us: int | None, thinned: bool) -> Iterator[Any]:
    """Yield ended runs with a directory of their own, oldest first, in pages."""
    after = 0
    while True:
        with context.db.read() as connection:
            rows = runs.where_ended(connection, after, before_us, thinned)
        yield from (row for row in rows if not row.spec.get("in_place"))
        if not rows:
            return
        after = rows[-1].seq


def gc(context: Context, body: Json) -> Json:
    """Say what can be given back, and give it back when ``do`` is true.

    ``checkpoints``: also thin outputs that match the setting ``checkpoints`` to the newest of each pattern and run.
    Returns ``{"done", "skipped", "code": {"runs", "bytes", "files"}, "checkpoints": {"files": [...], "count", "bytes"},
    "snapshots": {"trees", "bytes"}}``; ``skipped``: runs whose files cannot be read or removed.
    """
    do = bool(body.get("do"))
    code = {"runs": 0, "files": 0, "bytes": 0}
    old: list[Json] = []
    skipped: set[str] = set()
    for row in _ended(context, None, thinned=False):
        with _skipping(row.id, skipped):
            files, size = _thin_run(context, row, do)
            if files:
                code["runs"] += 1
                code["files"] += files
                code["bytes"] += size
    if body.get("checkpoints"):
        for row in _ended(context, None, thinned=True):
            with _skipping(row.id, skipped):
                old.extend(_old_checkpoints(context, row, do))
    with context.db.read() as connection:
        live = runs.trees_in_use(connection)
    if do:
        swept = gc_snapshots(context.home.path, live)
        trees, freed = len(swept.removed), max(0, swept.before - swept.after)
    else:
        trees, freed = would_free(context.home.path, live)
    return {
        "done": do,
        "skipped": len(skipped),
        "snapshots": {"trees": trees, "bytes": freed},
        "code": code,
        "checkpoints": {"files": old[:1000], "count": len(old), "bytes": sum(item["size"] for item in old)},
    }


@contextmanager
def _skipping(run_id: str, skipped: set[str]) -> Iterator[None]:
    """Go on with the next run when the files of one cannot be read or removed."""
    try:
        yield
    except (OSError, SnapshotError) as exc:
        log.warning("the files of run %s are skipped: %s", run_id, exc)
        skipped.add(run_id)


def _thin_run(context: Context, row: Any, do: bool) -> tuple[int, int]:
    """Remove a run's unchanged code, or only count it; return how many files and bytes that are."""
    tree, manifest = run_dir(context, row), manifest_path(base_dir(context, row))
    pieces = [(tree, manifest)]
    for number, part in enumerate(row.spec.get("also") or [], 1):  # as the agent has laid them out (docs/protocol.md)
        pieces.append((os.path.normpath(os.path.join(tree, part["path"])), f"{manifest}.{number}"))
    files, size = 0, 0
    for place, described in pieces:
        for record in read_manifest(described):
            stat = _stat(os.path.join(os.fsencode(place), record.path))
            if stat is not None and (stat.st_size, stat.st_mtime_ns) == (record.size, record.mtime_ns):
                files, size = files + 1, size + record.size
        if do and os.path.isdir(place):
            thin(place, described)
    if do:
        context.db.write(lambda connection: runs.mark_thinned(connection, row.id, context.clock.now_us(connection)))
    return files, size


def _stat(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _old_checkpoints(context: Context, row: Any, do: bool) -> list[Json]:
    """Find the outputs that fit a pattern but for the newest, and remove them.

    A pattern without a slash keeps the newest of each directory: models of different folds may have one name.
    """
    patterns: Sequence[str] = context.settings["checkpoints"]
    top = os.fsencode(run_dir(context, row))
    with context.db.read() as connection:
        found = outputs.of_runs(connection, [row.id]).get(row.id, [])
    fits: dict[tuple[str, str], list[Any]] = {}
    for output in found:
        for pattern in (p for p in patterns if fnmatch.fnmatch(output.path, p)):
            if _is_as_recorded(top, output):
                group = (pattern, "" if "/" in pattern else os.path.dirname(output.path))
                fits.setdefault(group, []).append(output)
    kept = {max(group, key=lambda o: (o.mtime, o.path)).path for group in fits.values()}
    sizes = {output.path: output.size for group in fits.values() for output in group if output.path not in kept}
    old = [{"run": row.id, "path": path, "size": size} for path, size in sizes.items()]
    if do and old:
        for path in sizes:
            os.unlink(os.path.join(top, os.fsencode(path)))
        change(context, lambda changes: _forget(changes, row.id, old))
    return old


def _is_as_recorded(top: bytes, output: Any) -> bool:
    """Tell whether an output is still the file that was reported, and below the run: people move files and link them back."""
    path = os.fsencode(output.path)
    stat = _stat(os.path.join(top, path))
    same = stat is not None and (stat.st_size, stat.st_mtime_ns // 1000) == (output.size, output.mtime)
    return same and is_real(top, os.path.dirname(path), {b"": True})


def _forget(changes: Change, run_id: str, old: Sequence[Json]) -> None:
    outputs.remove(changes.connection, run_id, [item["path"] for item in old])
    detail = {"paths": [item["path"] for item in old][:100], "count": len(old)}
    changes.note([events.row(changes.now_us, "checkpoints_thinned", run_id, None, None, None, "yard", detail)])


def discard(context: Context, row: Any, before_us: int | None, actor: Actor) -> None:
    """Delete a run that is in the trash (since before a time) with its files; one that was brought back meanwhile stays.

    Its directory gets another name before its row goes, so that whatever of it cannot be deleted now, or is left by a
    crash, is known by that name; upkeep tries again.

    Raises:
        OSError: some of its files cannot be deleted.
    """
    with context.db.read() as connection:
        now = runs.find(connection, row.id)
    if now is None or now.trashed_at is None:
        return
    place = trash_path(context, row.dir)
    if not os.path.isdir(place):
        place = context.run_path(row.dir)  # a crash came between the row and the directory
    doomed = trash_path(context, row.dir) + DOOMED
    move_directory(place, doomed)
    change(context, lambda changes: discard_row(changes, row.id, before_us, actor))
    with context.db.read() as connection:
        left = runs.find(connection, row.id)
    if left is None:
        delete_directory(doomed)
    else:
        move_directory(doomed, base_dir(context, left))


def upkeep(context: Context, stop: Callable[[], bool]) -> int:
    """Empty the trash of what is due, and thin code that is old enough; return how many runs were touched.

    Long work: called by a thread of its own; ``stop`` tells when to leave off.
    """
    touched = 0
    skipped: set[str] = set()
    with context.db.read() as connection:
        now = context.clock.now_us(connection)
        before = now - int(float(context.settings["trash_days"]) * DAY_US)
        due = runs.where_trashed(connection, before)
    for path in glob.glob(os.path.join(glob.escape(context.home.trash), "*", "*" + DOOMED)):
        with _skipping(os.path.basename(path), skipped):
            delete_directory(path)
    for row in due:
        if stop():
            return touched
        with _skipping(row.id, skipped):
            discard(context, row, before, Actor(user="yard"))
            touched += 1
    keep_us = thin_after_us(context)
    if keep_us is not None:
        for row in _ended(context, now - keep_us, thinned=False):
            if stop():
                return touched
            with _skipping(row.id, skipped):
                _thin_run(context, row, do=True)
                touched += 1
    return touched
