"""Data that a run reads, as far as it can be seen from outside: open files and maps of its processes, by /proc.

What C libraries open without Python's `open` is found this way while it is open; what is open for less than a turn is not.
Everything that the run said it read (by `open` in Python, or by itself) is hashed here too, at the lowest priority.
"""

from __future__ import annotations

import os
import stat

from runyard.agent.sources import Source, pids_of
from runyard.capture.folders import Folders

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
"""Files that are found by /proc."""
WORTH = 2
"""A directory is fingerprinted that holds at most so many times the files that were opened in it."""
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
        self._linked_said = False
        self._known: set[str] = set()
        self._declared = {link["path"] for link in facts["links"] if link.get("why") == "asked for"}
        self._folders = Folders()
        """What was seen file by file, in whichever process."""
        self._counted: dict[str, dict[str, tuple[int, int]]] = {}
        """Directories that stand for what was opened in them: its number and bytes, by stream."""
        self._readers: dict[str, StreamReader] = {}
        self._to_hash: list[tuple[str, str]] = []
        """Name and path of what has to be fingerprinted still."""
        self._hashed: set[str] = set()
        self._manifest: Manifest | None = None
        self._cache_path = facts["hashes"]
        self._cache: Cache | None = None

    def state(self) -> Any:
        """Return the paths that were reported and those that were hashed."""
        return {"linked": self._linked_said, "known": sorted(self._known), "hashed": sorted(self._hashed)}

    def restore(self, value: Any) -> None:
        """Report them no more, and hash what is left."""
        if isinstance(value, dict):
            self._linked_said = bool(value.get("linked"))
            self._hashed = set(value.get("hashed") or [])
            for name in value.get("known") or []:
                self._remember(name, os.path.join(self._tree, name))

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
        for item in self._folders.take():
            if "count" in item:
                found.append(item)
                self._count(item, "")
        found += self._hash(TURN_BYTES) if over else []
        return [], [({"type": "data", "files": found}, b"")] if found else []

    def has_more(self) -> bool:
        """Tell whether something is still to be hashed."""
        return bool(self._to_hash)

    def _remember(self, name: str, path: str) -> None:
        """Note that something need not be reported again, and that it is to be hashed."""
        if name not in self._known:
            self._known.add(name)
            if name not in self._hashed:
                self._to_hash.append((name, path))

    def _count(self, item: dict[str, Any], stream: str) -> None:
        """Take in how much was opened in a directory: by the process of a stream, or as far as single files were said."""
        name = item["path"]
        self._counted.setdefault(name, {})[stream] = (item["count"], item["size"])
        self._remember(name, os.path.join(self._tree, name))

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
        self._remember(name, path)
        self._place(name, info.st_size)
        found.append({"path": name, "size": info.st_size, "mtime_us": info.st_mtime_ns // 1000, "via": via})

    def _place(self, name: str, size: int) -> None:
        parent, slash, base = name.rpartition("/")
        self._folders.add(parent or slash, base, {"path": name, "size": size})

    def _say_links(self, found: list[dict[str, Any]]) -> None:
        """Report what is linked into the run; what was asked for is fingerprinted, the rest if it is read."""
        for target, name in self._links:
            try:
                info = os.stat(target)
            except OSError:
                continue
            item = {"path": name, "size": 0, "mtime_us": info.st_mtime_ns // 1000, "via": "linked"}
            if stat.S_ISREG(info.st_mode):
                item["size"] = info.st_size
            found.append(item)
            if name in self._declared:
                self._remember(name, target)

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
                        self._take(message.get("files"), stream)

    def _take(self, files: Any, stream: str) -> None:
        for item in files if isinstance(files, list) else []:
            name = item.get("path") if isinstance(item, dict) else None
            if not isinstance(name, str) or "\0" in name or item.get("sha256") or not isinstance(item.get("size"), int):
                continue
            if isinstance(item.get("count"), int):
                self._count(item, stream)
                continue
            if item.get("via") == "declared":
                self._declared.add(name)
            elif name not in self._known:
                self._place(name, item["size"])
            self._remember(name, os.path.join(self._tree, name))

    # -- fingerprints

    def _hash(self, budget: int) -> list[dict[str, Any]]:
        """Fingerprint what is left, about ``budget`` bytes of it."""
        found: list[dict[str, Any]] = []
        while self._to_hash and budget > 0:
            name, path = self._to_hash[0]
            item: dict[str, Any] | None = None
            if name in self._declared or not self._is_covered(name):
                item, read = self._fingerprint(name, path, budget)
                budget -= read + OVERHEAD
                if item is None:
                    break
            self._to_hash.pop(0)
            if item is not None and name not in self._hashed and len(item) > 2:
                found.append(item)
            self._hashed.add(name)
        if self._cache is not None:
            self._cache.write()
        return found

    def _is_covered(self, name: str) -> bool:
        """Tell whether a directory stands for a file."""
        above = name if self._counted else ""
        while above.strip("/."):
            above = os.path.dirname(above)
            if (above or ".") in self._counted:
                return True
        return False

    def _fingerprint(self, name: str, path: str, budget: int) -> tuple[dict[str, Any] | None, int]:
        """Return what is to be said of a file or directory, and the bytes read; None when there is more to be read."""
        from runyard.agent.fingerprints import Cache, dvc_hash, sha256_of

        if self._cache is None:
            self._cache = Cache(self._cache_path)
        item: dict[str, Any] = {"path": name, "via": None}
        sha256, read = dvc_hash(path), 0
        if not sha256 and os.path.isdir(path):
            return self._fingerprint_directory(item, path, budget, self._cache), 0
        if not sha256:
            sha256, read = sha256_of(path, self._cache)
        if sha256:
            item["sha256"] = sha256
        return item, read

    def _fingerprint_directory(
        self, item: dict[str, Any], path: str, budget: int, cache: Cache
    ) -> dict[str, Any] | None:
        from runyard.agent.fingerprints import Manifest

        name = item["path"]
        count, size = self._opened_in(name)
        whole = name in self._declared or not count
        if not whole:
            item.update(files=count, size=size)
            if name in (".", "/"):
                return item
        if self._manifest is None:
            self._manifest = Manifest(path, cache) if whole else Manifest(path, cache, WORTH * count, self._started_ns)
        manifest = self._manifest
        sha256 = manifest.go_on(budget) if whole or not manifest.too_many else ""
        if sha256 is None:
            return None
        self._manifest = None
        if sha256:
            item.update(sha256=sha256, size=manifest.size, mtime_us=manifest.mtime_us, files=manifest.files)
        if sha256 and not whole:  # what several processes opened counts once
            item.update(files=min(count, manifest.files), size=min(size, manifest.size))
        return item

    def _opened_in(self, name: str) -> tuple[int, int]:
        """Return number and bytes of the files opened in a directory, as well as is known."""
        streams = self._counted.get(name, {})
        counts = [value for stream, value in streams.items() if stream]
        summed = (sum(count for count, _ in counts), sum(size for _, size in counts))
        return max(summed, streams.get("", (0, 0)))


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
                    # A private map that may be written to (torch.load, numpy's mode "c") leaves the file as it is.
                    found[fields[5]] = found.get(fields[5], False) or "x" in fields[1] or fields[1][1::2] == "ws"
    except OSError:
        return []
    return [path for path, other in found.items() if not other]
