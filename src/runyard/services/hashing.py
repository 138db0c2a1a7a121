"""Hashing outputs in the background, a file at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial

from runyard.services.context import Context
from runyard.services.views import run_dir
from runyard.store import outputs, runs

READ_SIZE = 1 << 20
PAGE = 50


def hash_outputs(context: Context, stop: Callable[[], bool]) -> int:
    """Hash outputs of ended runs that have no hash yet; return how many were done.

    A file that changed since it was listed keeps no hash: the next report of its size and time comes first.
    """
    done = 0
    with context.db.read() as connection:
        rows = outputs.where_unhashed(connection, PAGE)
        owners = runs.find_many(connection, {row.run_id for row in rows})
    for row in rows:
        if stop():
            break
        path = os.path.join(run_dir(context, owners[row.run_id]), row.path)
        digest = _hash(path, row.size, stop)
        if digest is None and stop():
            break
        context.db.write(partial(outputs.set_hash, run_id=row.run_id, path=row.path, size=row.size, mtime=row.mtime,
                                 sha256=digest or ""))  # fmt: skip
        done += 1
    return done


def _hash(path: str, size: int, stop: Callable[[], bool]) -> str | None:
    """Return the SHA-256 of a file that has this size, or None when it is not there or not that any more."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as file:
            if os.fstat(file.fileno()).st_size != size:
                return None
            while data := file.read(READ_SIZE):
                if stop():
                    return None
                digest.update(data)
    except OSError:
        return None
    return digest.hexdigest()
