"""Fingerprints of data: the SHA-256 of a file, or of a manifest of a directory; none is computed twice on a host."""

from __future__ import annotations

import hashlib
import os
import re
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

PIECE = 1 << 20
MAX_ENTRIES = 1_000_000
AT_ONCE = 1000
DVC_BYTES = 1 << 20
_MD5 = re.compile(r"^\s*(?:-\s+)?md5:\s*([0-9a-f]{32}(?:\.dir)?)\s*$", re.MULTILINE)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS hashes (path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, sha256 TEXT)
"""


class Cache:
    """Hashes of files by path, size, time and inode, in a file of this host. One that cannot be used is done without."""

    def __init__(self, path: str) -> None:
        self._db: Any = None
        self._new: list[tuple[bytes, int, int, int, str]] = []
        try:
            import sqlite3

            self._db = sqlite3.connect(path, timeout=5.0, isolation_level=None)
            self._db.execute(_SCHEMA)
            self._errors: Any = sqlite3.Error
        except Exception:  # noqa: BLE001  a Python without sqlite3, a damaged file: then everything is hashed again
            self._db = None

    def find(self, path: str, info: os.stat_result) -> str:
        """Return the hash of a file that is as it was, else ``""``."""
        if self._db is None:
            return ""
        query = "SELECT sha256 FROM hashes WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ?"
        try:
            row = self._db.execute(query, (os.fsencode(path), info.st_size, info.st_mtime_ns, info.st_ino)).fetchone()
        except self._errors:
            return ""
        return str(row[0]) if row else ""

    def keep(self, path: str, info: os.stat_result, sha256: str) -> None:
        """Remember the hash of a file; it may be lost before the next `write`."""
        self._new.append((os.fsencode(path), info.st_size, info.st_mtime_ns, info.st_ino, sha256))
        if len(self._new) >= AT_ONCE:
            self.write()

    def write(self) -> None:
        """Write what is new, all at once: each time the disk is waited for."""
        new, self._new = self._new, []
        if self._db is None or not new:
            return
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?)", new)
        except self._errors:
            pass


def sha256_of(path: str, cache: Cache) -> tuple[str, int]:
    """Return the SHA-256 of a regular file, and how many bytes were read for it; ``""`` when it changed meanwhile."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                return "", 0
            known = cache.find(path, before)
            if known:
                return known, 0
            while True:
                data = file.read(PIECE)
                if not data:
                    break
                digest.update(data)
            after = os.fstat(file.fileno())
    except OSError:
        return "", 0
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        return "", after.st_size
    cache.keep(path, after, digest.hexdigest())
    return digest.hexdigest(), after.st_size


class Manifest:
    """The fingerprint of a directory: the SHA-256 of ``<path> <sha256>`` lines of its files, sorted by path.

    At most ``most`` files; ``too_many`` says that there are more. ``before_ns``: files that changed later are left out.
    """

    def __init__(self, top: str, cache: Cache, most: int = MAX_ENTRIES, before_ns: int | None = None) -> None:
        self._top = top
        self._cache = cache
        self._digest = hashlib.sha256()
        self.files = self.size = self.mtime_us = 0
        paths: list[str] = []
        walked = 0
        for path in _walk(top, most + 1):
            walked += 1
            try:
                info = os.stat(path)
            except OSError:
                continue
            if before_ns is None or info.st_mtime_ns < before_ns:
                paths.append(path)
                self.size += info.st_size
                self.mtime_us = max(self.mtime_us, info.st_mtime_ns // 1000)
        self.too_many = walked > most
        self._paths = sorted(paths[:most], reverse=True)
        """What is left, the next one last."""
        self.files = len(self._paths)

    def go_on(self, budget: int) -> str | None:
        """Hash about ``budget`` more bytes; return the fingerprint when all is done, None before."""
        while self._paths:
            if budget <= 0:
                return None
            path = self._paths.pop()
            sha256, read = sha256_of(path, self._cache)
            budget -= read + 4096
            line = "%s %s\n" % (os.path.relpath(path, self._top), sha256)
            self._digest.update(line.encode("utf-8", "surrogateescape"))
        return self._digest.hexdigest()


def _walk(top: str, most: int) -> Iterator[str]:
    count = 0
    for directory, names, files in os.walk(top):
        names[:] = sorted(name for name in names if name not in (".git", "__pycache__"))
        for name in files:
            count += 1
            if count > most:
                return
            yield os.path.join(directory, name)


def dvc_hash(path: str) -> str:
    """Return ``md5:<hash>`` of a file or directory that DVC tracks, by its ``.dvc`` file or a ``dvc.lock``; else ``""``.

    Source: https://dvc.org/doc/user-guide/project-structure (fields ``outs``, ``md5``, ``path``).
    """
    text = _text(path + ".dvc")
    if text:
        found = _MD5.search(text)
        return "md5:" + found.group(1) if found else ""
    directory = os.path.dirname(path)
    while True:
        lock = os.path.join(directory, "dvc.lock")
        text = _text(lock)
        if text:
            return _locked(text, os.path.relpath(path, directory))
        parent = os.path.dirname(directory)
        if parent == directory or os.path.exists(os.path.join(directory, ".git")):
            return ""
        directory = parent


def _locked(text: str, name: str) -> str:
    """Return the hash that a ``dvc.lock`` has of a path: of the item whose ``path:`` it is."""
    item = re.compile(r"^\s*-\s+path:\s*%s\s*$" % re.escape(name), re.MULTILINE).search(text)
    if item is None:
        return ""
    rest = text[item.end() :]
    end = re.search(r"^\s*-\s", rest, re.MULTILINE)
    found = _MD5.search(rest[: end.start()] if end else rest)
    return "md5:" + found.group(1) if found else ""


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(DVC_BYTES)
    except OSError:
        return ""
