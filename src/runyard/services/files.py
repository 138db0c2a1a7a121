"""Logs and outputs: where their bytes are, and taking in those of agents that share no directory with the server.

Data belongs to its attempt and is taken in however late; the fence does not apply to it.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Sequence
from typing import Any

from runyard.services.api import Json, LogPlace
from runyard.services.context import Change, Context
from runyard.services.views import base_dir, run_dir
from runyard.store import attempts, hosts, outputs, runs
from runyard.store.database import Connection
from runyard.wire.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    StaleError,
    UnavailableError,
)
from runyard.wire.ids import new_secret
from runyard.wire.paths import RECORDS, is_network_file_system, leaves, log_path

HOME_PLACE = "home"
AGENT_PLACE = "agent"


LOG_LATE_US = 60_000_000
"""How long after an attempt's end the rest of its log is waited for, where it comes over the network."""


def log_place(context: Context, run: Any, number: int | None) -> LogPlace:
    """Return the log of an attempt, by default the newest that started.

    Raises:
        NotFoundError: the run has no such attempt.
    """
    with context.db.read() as connection:
        tries = attempts.of_runs(connection, [run.id]).get(run.id, [])
        now = context.clock.now_us(connection)
    if number is not None:
        named = [row for row in tries if row.number == number]
        if not named:
            raise NotFoundError(f"run {run.id} has no attempt {number}", f"see: runyard show {run.id}")
        path = log_path(base_dir(context, run), number)
        return LogPlace(path, not named[0].active and _is_whole(context, named[0], path, now), number)
    shown = next((row for row in reversed(tries) if row.started_at is not None), None)
    path = log_path(base_dir(context, run), shown.number if shown else 1)
    over = run.ended_at is not None and not any(row.active for row in tries)
    return LogPlace(
        path, over and (shown is None or _is_whole(context, shown, path, now)), shown.number if shown else 1
    )


def _is_whole(context: Context, row: Any, path: str, now_us: int) -> bool:
    """Tell whether all of the log of an attempt that has ended is here, or will not come any more."""
    if row.log_bytes is None or row.ended_at is None or now_us - row.ended_at > LOG_LATE_US:
        return True
    size = os.stat(path).st_size if os.path.exists(path) else 0
    if size >= row.log_bytes:
        return True
    if is_network_file_system(context.home.path):
        return False
    # What is not here was removed: the supervisor wrote it before the end, to this very disk.
    with context.db.read() as connection:
        return _shares_home(connection, row.agent_id)


def _is_inside(path: object) -> bool:
    """Tell whether a path, as it is written, is that of something below a directory."""
    return isinstance(path, str) and not leaves(path) and posixpath.normpath(path) != "."


def inside(root: str, path: str) -> str:
    """Return the absolute path of ``path`` below ``root``.

    Raises:
        ForbiddenError: it leads out of the directory, by ``..``, by being absolute or through a link.
    """
    if not _is_inside(path):
        raise ForbiddenError(f"{path!r} is no path in the run's directory", "see what there is: runyard outputs RUN")
    real_root = os.path.realpath(root)
    real = os.path.realpath(os.path.join(real_root, path))
    if not real.startswith(real_root + os.sep):
        raise ForbiddenError(
            f"{path!r} leads out of the run's directory", "see what there is with: runyard outputs RUN"
        )
    return real


def output_place(context: Context, run: Any, path: str) -> str:
    """Return the absolute path of an existing file in a run's working tree; raises NotFoundError, ForbiddenError."""
    top = run_dir(context, run)
    place = inside(top, path)
    if run.started_at and not os.path.isdir(top):
        raise NotFoundError(f"the files of run {run.id} are gone, with {top}", f"again: runyard rerun {run.id}")
    if not os.path.isfile(place):
        raise NotFoundError(f"run {run.id} has no file {path!r}", f"see: runyard outputs {run.id}")
    return place


def append_log(context: Context, attempt_id: str, offset: int, data: bytes) -> int:
    """Append bytes of an attempt's log that the server has not got yet; return how many it has.

    Raises:
        ConflictError: ``offset`` leaves a gap; ``details["size"]`` says where to go on.
    """
    if offset < 0:
        raise InvalidError(f"a log has no byte {offset}")
    row, run = _attempt_and_run(context, attempt_id)
    path = log_path(base_dir(context, run), row.number)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(fd).st_size
        if offset > size:
            raise ConflictError(f"the log ends at byte {size}, not {offset}", "send from there", size=size)
        new = data[size - offset :]
        while new:
            written = os.pwrite(fd, new, size)
            size += written
            new = new[written:]
    finally:
        os.close(fd)
    context.topics.publish([f"run:{run.id}"])
    return size


def report_outputs(changes: Change, attempt_id: str, found: Sequence[Json]) -> list[str]:
    """Record the outputs of an attempt; return the paths whose bytes the server wants to be sent."""
    row = attempts.find(changes.connection, attempt_id)
    if row is None:
        raise NotFoundError(f"there is no attempt {attempt_id}")
    try:
        items = [{**item, "size": int(item["size"]), "mtime_us": int(item["mtime_us"])} for item in found]
        types = {item["path"]: item["type"] for item in items}
    except (KeyError, TypeError, ValueError) as exc:
        raise InvalidError(f"the list of outputs is malformed: {exc!r}") from exc
    for path in types:
        if not _is_inside(path):
            raise InvalidError(f"{path!r} is no path of an output", "paths are relative to the run's directory")
    run = runs.lock(changes.connection, row.run_id)
    if run is None or attempts.newer_started(changes.connection, run.id, row.number):
        return []  # a superseded attempt changes nothing that is shown; its files stay where they are
    shared = _shares_home(changes.connection, row.agent_id)
    changed = outputs.save(changes.connection, run.id, attempt_id, items, HOME_PLACE if shared else AGENT_PLACE)
    changes.tell(f"run:{run.id}")
    if shared:
        return []
    have = outputs.of_runs(changes.connection, [run.id]).get(run.id, [])
    return sorted({o.path for o in have if o.place == AGENT_PLACE and o.path in types} | set(changed))


def _shares_home(connection: Connection, agent_id: str) -> bool:
    agent = hosts.find_agent(connection, agent_id)
    return agent is not None and bool(agent.shared_home)


def upload_place(context: Context, attempt_id: str, path: str) -> str:
    """Return where the bytes of an output are to be written, until `uploaded` moves them; the directory exists.

    Nothing else is there: what another transfer of this attempt has left behind is removed.

    Raises:
        NotFoundError: no such output was reported.
        StaleError: a later attempt has started, and the file of that name is its own.
    """
    row, run = _attempt_and_run(context, attempt_id)
    with context.db.read() as connection:
        if outputs.find(connection, run.id, path) is None:
            raise NotFoundError(f"attempt {attempt_id} has not reported an output {path!r}")
        if attempts.newer_started(connection, run.id, row.number):
            raise StaleError(f"a later attempt of run {run.id} has started", "its outputs are those of the run now")
    inside(run_dir(context, run), path)
    directory = os.path.join(base_dir(context, run), RECORDS)
    os.makedirs(directory, exist_ok=True)
    mine = f"upload.{attempt_id}."
    for name in os.listdir(directory):
        if name.startswith(mine):
            _unlink(os.path.join(directory, name))
    return os.path.join(os.path.realpath(directory), mine + new_secret()[:16])


def uploaded(context: Context, changes: Change, attempt_id: str, path: str, place: str) -> None:
    """Give an output that has arrived at ``place`` its name, and the time that was reported of it.

    In the transaction, so that it is not put into the directory of a later attempt that has started meanwhile.

    Raises:
        UnavailableError: the file cannot get that name.
    """
    row = attempts.find(changes.connection, attempt_id)
    if row is not None:
        runs.lock(changes.connection, row.run_id)  # so that no later attempt starts now
    run = None if row is None else runs.find(changes.connection, row.run_id)
    output = None if run is None else outputs.find(changes.connection, run.id, path)
    if row is None or run is None or output is None or attempts.newer_started(changes.connection, run.id, row.number):
        _unlink(place)
        return
    final = inside(run_dir(context, run), path)
    try:
        if os.path.exists(place):
            with contextlib.suppress(OverflowError):
                os.utime(place, ns=(output.mtime * 1000, output.mtime * 1000))
            os.makedirs(os.path.dirname(final), exist_ok=True)
            os.rename(place, final)
        elif not _is_version(final, output):
            return  # removed for another transfer of the same file: it is still wanted
    except OSError as exc:
        raise UnavailableError(f"the file could not be stored: {exc.strerror}") from exc
    outputs.set_place(changes.connection, run.id, path, HOME_PLACE)


def _is_version(path: str, output: Any) -> bool:
    """Tell whether a file is the reported version of an output: this transaction was tried before, and got that far."""
    try:
        info = os.stat(path)
    except OSError:
        return False
    return (info.st_size, info.st_mtime_ns) == (output.size, output.mtime * 1000)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _attempt_and_run(context: Context, attempt_id: str) -> tuple[Any, Any]:
    with context.db.read() as connection:
        row = attempts.find(connection, attempt_id)
        run = None if row is None else runs.find(connection, row.run_id)
    if row is None or run is None:
        raise NotFoundError(f"there is no attempt {attempt_id}")
    return row, run
