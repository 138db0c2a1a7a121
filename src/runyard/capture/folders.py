"""Files by directory: of a directory with very many, only how many they are is said."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_ENTRIES = 100
"""Files and directories directly in one directory that are said one by one."""


class _Folder:
    __slots__ = ("count", "entries", "size", "whole")

    def __init__(self) -> None:
        self.entries: set[str] = set()
        self.count = self.size = 0
        """Files here and below, and their bytes."""
        self.whole = False


class Folders:
    """Collects files until they are taken. A directory with more than `MAX_ENTRIES` entries stands for all that is below it."""

    def __init__(self) -> None:
        self._folders: dict[str, _Folder] = {}
        self._files: dict[str, dict[str, Any]] = {}
        self._changed: set[str] = set()

    def add(self, directory: str, name: str, entry: dict[str, Any]) -> None:
        """Add a file that has not been added before; ``entry`` is what is said of it, with its ``path`` and ``size``."""
        whole = None
        child = name
        path = directory
        while True:
            folder = self._folders.get(path)
            if folder is None:
                folder = self._folders[path] = _Folder()
            folder.count += 1
            folder.size += entry["size"]
            if not folder.whole:
                folder.entries.add(child)
                folder.whole = len(folder.entries) > MAX_ENTRIES
                if folder.whole:
                    folder.entries.clear()
                    self._gather(path)
            if folder.whole:
                whole = path
            if path in ("", "/"):
                break
            parent, _, child = path.rpartition("/")
            path = parent or ("/" if path[0] == "/" else "")
        if whole is None:
            self._files[entry["path"]] = entry
        else:
            self._changed.add(whole)

    def _gather(self, path: str) -> None:
        """Drop what is below a directory that stands for it from now on."""
        start = path.rstrip("/") + "/" if path else ""
        for name in [name for name in self._files if name.startswith(start) and (start or name[0] != "/")]:
            del self._files[name]
        self._changed = {
            name for name in self._changed if not name.startswith(start) or (not start and name[:1] == "/")
        }

    def take(self) -> list[dict[str, Any]]:
        """Return what has been added since the last time: files, and directories with ``count`` and ``size`` of all below."""
        found = list(self._files.values())
        for path in sorted(self._changed):
            folder = self._folders[path]
            found.append({"path": path or ".", "count": folder.count, "size": folder.size, "via": "open"})
        self._files.clear()
        self._changed.clear()
        return found
