"""Files by directory: of a directory in which very many are, only how many is said."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_ENTRIES = 100
"""Files and directories directly in one directory that are said one by one."""
MAX_LISTED = 500
"""The same, of all that is below one directory, but for the topmost."""

TOPS = ("", "/")


class _Folder:
    __slots__ = ("count", "entries", "listed", "size", "whole")

    def __init__(self) -> None:
        self.entries: set[str] = set()
        self.count = self.size = 0
        """Files here and below, and their bytes."""
        self.listed = 0
        """Files, and directories that stand for theirs, that are said here and below."""
        self.whole = False


class Folders:
    """Collects files until they are taken. A directory with too much in it stands for all that is below it."""

    def __init__(self) -> None:
        self._folders: dict[str, _Folder] = {}
        self._files: dict[str, dict[str, Any]] = {}
        self._changed: set[str] = set()

    def add(self, directory: str, name: str, entry: dict[str, Any]) -> None:
        """Add a file that has not been added before; ``entry`` is what is said of it, with its ``path`` and ``size``."""
        whole = None
        child = name
        path = directory
        more = 1
        """How many entries more, or less, are listed below."""
        while True:
            folder = self._folders.get(path)
            if folder is None:
                folder = self._folders[path] = _Folder()
            folder.count += 1
            folder.size += entry["size"]
            if folder.whole:
                more = 0
            else:
                folder.entries.add(child)
                listed, folder.listed = folder.listed, folder.listed + more
                folder.whole = len(folder.entries) > MAX_ENTRIES or (folder.listed > MAX_LISTED and path not in TOPS)
                if folder.whole:
                    more = 1 - listed
                    folder.entries.clear()
                    self._gather(path)
            if folder.whole:
                whole = path
            if path in TOPS:
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
