"""Data that a run reads, as far as it can be seen from outside: open files and maps of its processes, by /proc.

What C libraries open without Python's `open` is found this way while it is open; what is open for less than a turn is not.
Everything that the run said it read (by `open` in Python, or by itself) is hashed here too, at the lowest priority.
"""

from __future__ import annotations

import os
import stat

from runyard.agent.sources import Source, pids_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.agent.fingerprints import Cache, Manifest
    from runyard.client.spool import Message, Row
    from runyard.wire.spool import StreamReader

TURN_BYTES = 64 << 20
"""Hashed in one turn after the end, at most."""
OVERHEAD = 1 << 16
MAX_FILES = 1000
DIRECTORY_FILES = 50
"""A directory of which more files are read is one entry, with how many were read."""
NO_DATA = (
    "/proc/", "/sys/", "/dev/", "/usr/", "/lib", "/bin/", "/sbin/", "/etc/", "/run/", "/var/lib/", "/var/cache/", "/snap/",
)  # fmt: skip
CODE = frozenset(
    ".py .pyc .pyi .pyx .so .a .o .dll .dylib .egg .whl .pth .h .c .cc .cpp .cu .ptx .cubin .sh .js .r .jl .lua".split()
)
PACKAGES = (
    "/site-packages/",
    "/dist-packages/",
    "/.git/",
    "/.runyard/",
    "/__pycache__/",
    "/node_modules/",
    "/.cache/pip/",
)
O_ACCMODE = 3


class Seen(Source):
    """Files that are open for reading, or mapped, and are neither code, nor the system's, nor written by the run."""

    name = "data"

    def __init__(self, directory: str, facts: dict[str, Any]) -> None:
        self._directory = directory
        self._tree = os.path.realpath(facts["tree"])
        self._spool = facts["spool"]
        self._started_ns = int(facts["started_us"]) * 1000
        self._links: list[tuple[str, str]] = sorted(
            ((os.path.realpath(link["target"]), link["path"]) for link in facts["links"]),
            key=lambda item: -len(item[0]),
        )
        self._asked = {link["path"] for link in facts["links"] if link.get("why") == "asked for"}
        self._linked_said = False
        self._known: dict[str, tuple[int, int]] = {}
        self._crowds: dict[str, int] = {}
        self._readers: dict[str, StreamReader] = {}
        self._to_hash: list[tuple[str, str]] = []
        """Name and path of what has to be fingerprinted still."""
        self._hashed: set[str] = set()
        self._manifest: Manifest | None = None
        self._cache_path = facts["hashes"]
        self._cache: Cache | None = None

    def state(self) -> Any:
        """Return the paths that were reported and those that were hashed."""
        return {"known": sorted(self._known), "hashed": sorted(self._hashed)}

    def restore(self, value: Any) -> None:
        """Report them no more, and hash what is left."""
        if isinstance(value, dict):
            self._linked_said = True
            self._known = dict.fromkeys(value.get("known") or [], (0, 0))
            self._hashed = set(value.get("hashed") or [])
            done = self._hashed | ({name for _, name in self._links} - self._asked)
            self._to_hash = [(name, os.path.join(self._tree, name)) for name in self._known if name not in done]

    def turn(self, over: bool) -> tuple[list[Row], list[Message]]:
        """Return new files; after the end, hashes of some."""
        found: list[dict[str, Any]] = []
        if not self._linked_said:
            self._linked_said = True
            self._say_links(found)
        self._read_spool(over)
        if not over:
            for pid in pids_of(self._directory):
                self._look_at(pid, found)
        found += self._hash(TURN_BYTES) if over else []
        return [], [({"type": "data", "files": found}, b"")] if found else []

    def has_more(self) -> bool:
        """Tell whether something is still to be hashed."""
        return bool(self._to_hash)

    # -- by /proc

    def _look_at(self, pid: int, found: list[dict[str, Any]]) -> None:
        for path in _open_files(pid):
            self._add(path, "fd", found)
        for path in _mapped_files(pid):
            self._add(path, "map", found)

    def _add(self, path: str, via: str, found: list[dict[str, Any]]) -> None:
        name = self.data_name(path)
        if name is None or name in self._known or len(self._known) >= MAX_FILES:
            return
        try:
            info = os.stat(path)
        except OSError:
            return
        inside = path.startswith(self._tree + "/")
        if not stat.S_ISREG(info.st_mode) or (inside and info.st_mtime_ns >= self._started_ns):
            return
        parent = os.path.dirname(name)
        self._crowds[parent] = self._crowds.get(parent, 0) + 1
        if self._crowds[parent] > DIRECTORY_FILES:
            return
        self._known[name] = (info.st_size, info.st_mtime_ns // 1000)
        size, mtime_us = self._known[name]
        found.append({"path": name, "size": size, "mtime_us": mtime_us, "via": via})
        self._to_hash.append((name, path))

    def _say_links(self, found: list[dict[str, Any]]) -> None:
        """Report what is linked into the run; only what was asked for is fingerprinted."""
        for target, name in self._links:
            try:
                info = os.stat(target)
            except OSError:
                continue
            item = {"path": name, "size": 0, "mtime_us": info.st_mtime_ns // 1000, "via": "linked"}
            if stat.S_ISREG(info.st_mode):
                item["size"] = info.st_size
            found.append(item)
            self._known[name] = (info.st_size, info.st_mtime_ns // 1000)
            if name in self._asked:
                self._to_hash.append((name, target))

    def data_name(self, path: str) -> str | None:
        """Return how a file is called among the data of the run: by its place in the tree; None for what is no data."""
        if not path.startswith("/") or path.startswith(NO_DATA) or any(part in path for part in PACKAGES):
            return None
        if os.path.splitext(path)[1].lower() in CODE:
            return None
        for target, name in self._links:
            if path == target or path.startswith(target + "/"):
                return name + path[len(target) :]
        return path[len(self._tree) + 1 :] if path.startswith(self._tree + "/") else path

    # -- what the run says that it read

    def _read_spool(self, over: bool) -> None:
        from runyard.wire import spool

        for stream in spool.streams(self._spool):
            reader = self._readers.get(stream)
            if reader is None:
                reader = self._readers[stream] = spool.StreamReader(self._spool, stream)
            reader.dead = over
            reader.skip_missing()
            for records in iter(reader.read, []):
                for record in records:
                    for message in spool.messages(record, "data"):
                        self._take(message.get("files"))

    def _take(self, files: Any) -> None:
        for item in files if isinstance(files, list) else []:
            name = item.get("path") if isinstance(item, dict) else None
            if not isinstance(name, str) or "\0" in name or name in self._known or item.get("sha256"):
                continue
            if isinstance(item.get("size"), int):
                self._known[name] = (item["size"], item.get("mtime_us") or 0)
                self._to_hash.append((name, os.path.join(self._tree, name)))

    # -- fingerprints

    def _hash(self, budget: int) -> list[dict[str, Any]]:
        """Fingerprint what is left, about ``budget`` bytes of it."""
        found: list[dict[str, Any]] = []
        if not self._to_hash:
            return found
        from runyard.agent.fingerprints import Cache, Manifest, dvc_hash, sha256_of

        if self._cache is None:
            self._cache = Cache(self._cache_path)
        while self._to_hash and budget > 0:
            name, path = self._to_hash[0]
            item: dict[str, Any] = {"path": name, "via": None, "sha256": dvc_hash(path)}
            if item["sha256"]:
                pass
            elif os.path.isdir(path):
                if self._manifest is None:
                    self._manifest = Manifest(path, self._cache)
                item["sha256"] = self._manifest.go_on(budget)
                if item["sha256"] is None:
                    return found
                item.update(size=self._manifest.size, mtime_us=self._manifest.mtime_us, files=self._manifest.files)
                self._manifest = None
            else:
                item["sha256"], read = sha256_of(path, self._cache)
                budget -= read
            budget -= OVERHEAD
            self._to_hash.pop(0)
            if item["sha256"] and name not in self._hashed:
                found.append(item)
            self._hashed.add(name)
        return found


def _open_files(pid: int) -> list[str]:
    """Return the regular files that a process has open for reading only. Source: proc(5), fd and fdinfo."""
    found: list[str] = []
    top = "/proc/%d/fd" % pid
    try:
        names = os.listdir(top)
    except OSError:
        return found
    for name in names:
        try:
            path = os.readlink(top + "/" + name)
            if not path.startswith("/") or path.endswith(" (deleted)"):
                continue
            with open("/proc/%d/fdinfo/%s" % (pid, name), encoding="ascii") as file:
                flags = next((int(line.split()[1], 8) for line in file if line.startswith("flags:")), 0)
        except (OSError, ValueError, IndexError):
            continue
        if flags & O_ACCMODE == os.O_RDONLY:
            found.append(path)
    return found


def _mapped_files(pid: int) -> list[str]:
    """Return the files that a process has mapped, but for those that it executes. Source: proc(5), maps."""
    found: dict[str, bool] = {}
    try:
        with open("/proc/%d/maps" % pid, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                fields = line.rstrip("\n").split(None, 5)
                if len(fields) == 6 and fields[5].startswith("/") and not fields[5].endswith(" (deleted)"):
                    found[fields[5]] = found.get(fields[5], False) or "x" in fields[1] or fields[1][1] == "w"
    except OSError:
        return []
    return [path for path, other in found.items() if not other]
