"""Finding the files in a run's directory that hold metrics, images and parameters, and reading them as they grow."""

from __future__ import annotations

import os
import stat
import time

from runyard.capture.documents import SummaryReader, TrainerStateReader
from runyard.capture.events import EventsReader
from runyard.capture.found import Found as Found
from runyard.capture.found import Ledger, Sink
from runyard.capture.tables import CsvReader, JsonLinesReader
from runyard.capture.tail import SETTLED_NS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Protocol

    class Reader(Protocol):
        """What reads one file."""

        def turn(self, sink: Sink, final: bool = False) -> bool:
            """Give what is new to the sink; return whether the turn ended before all was read."""

        def state(self) -> dict[str, Any]:
            """Return what `restore` needs, as JSON."""

        def restore(self, state: dict[str, Any]) -> None:
            """Go on where a state was taken."""


SKIPPED = frozenset(".git .hg .svn .runyard .venv venv __pycache__ node_modules site-packages".split())
MAX_DIRECTORIES = 20_000
MAX_FILES = 2000
LARGE_S, REST = 0.01, 20
"""A directory that took so long to list is not listed again before so many times as long has passed."""
VERSION = 1


def reader_of(name: str) -> Callable[[str, str], Reader] | None:
    """Return what reads a file of that path in the run's directory; None when it is of no kind that is read."""
    last = name.rpartition("/")[2].lower()
    if "tfevents" in last:
        return EventsReader
    if last == "trainer_state.json":
        return TrainerStateReader
    if name == ".last_summary.json":
        return SummaryReader
    if last.endswith((".jsonl", ".ndjson", ".log.json")) or last in (
        "log.txt",
        "metrics.json",
        "progress.json",
        "result.json",
    ):
        return JsonLinesReader
    if last.endswith((".csv", ".tsv")) or last == "training.log":
        return CsvReader
    return None


class FileWatcher:
    """Reads files of metrics below ``tree`` (docs/capture.md says which), without a thread of its own.

    ``ignore``: paths in it, relative, that are not looked at: the code. Links are never followed. ``behind``: whether the
    last turn left something for the next one.
    """

    def __init__(self, tree: str, ignore: Iterable[str] = ()) -> None:
        self.behind = False
        self._tree = tree
        self._ignore = frozenset(ignore)
        self._ledger = Ledger()
        self._listed: dict[str, tuple[int, float]] = {"": (-1, 0.0)}
        """Known directories, relative: their time (ns) when they were listed, and when that may be done again."""
        self._to_list: list[str] = []
        """Those that are still to be looked at before it begins again with all."""
        self._readers: dict[str, Reader] = {}
        self._to_read: list[str] = []
        self._more = self._full = self._final = False

    def turn(self, budget_s: float = 0.5, final: bool = False) -> Found:
        """Return what is new, after about ``budget_s`` seconds at most; what is left comes in the next turn.

        ``final``: the run has ended, so that a line without an end is whole; to be repeated until ``behind`` is false.
        Raises nothing that files can cause: one that cannot be read is named in a message ``refused``.
        """
        started = time.monotonic()
        if final and not self._final:
            # What was looked at before the end has to be looked at again.
            self._final, self._to_list, self._to_read = True, [], []
        if not self._to_read:
            self._begin_round()
        sink = Sink(self._ledger, started + budget_s)
        # Half of it, so that a tree of a million files does not keep those that are known from being read.
        listed = self._list(sink, started + budget_s / 2, final)
        read = self._read(sink, final)
        self.behind = not (listed and read)
        return sink.finish()

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON: to be kept together with what was found up to here."""
        files = {name: reader.state() for name, reader in self._readers.items()}
        return {"version": VERSION, "ledger": self._ledger.state(), "files": files}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken; raises ValueError for what is none."""
        try:
            if state["version"] != VERSION:
                raise ValueError("the state is of another version")
            self._ledger.restore(state["ledger"])
            for name, saved in state["files"].items():
                make = reader_of(name)
                if make is not None:
                    reader = make(os.path.join(self._tree, name), name)
                    reader.restore(saved)
                    self._readers[name] = reader
        except (KeyError, TypeError, AttributeError, IndexError) as exc:
            raise ValueError("this is no state of a FileWatcher") from exc

    def _list(self, sink: Sink, until: float, final: bool) -> bool:
        """Look for new files in directories that have changed; return whether all were looked at."""
        if not self._to_list:
            self._to_list = list(reversed(self._listed))
        while self._to_list:
            below = self._to_list.pop()
            started = time.monotonic()
            seen, wait = self._listed.get(below, (-1, 0.0))
            if final or started >= wait:
                self._look(below, seen, sink, started)
            if time.monotonic() >= until:
                return not self._to_list
        return True

    def _look(self, below: str, seen: int, sink: Sink, started: float) -> None:
        """List one directory if its time is another one than ``seen``."""
        try:
            info = os.lstat(os.path.join(self._tree, below))
            changed = info.st_mtime_ns
            if changed == seen:
                return
            if not stat.S_ISDIR(info.st_mode):
                raise NotADirectoryError(below)  # a link has taken its place
            directories, files = self._entries(below)
        except OSError:
            self._listed.pop(below, None)  # removed, or not for us to read
            if not below:
                self._listed[""] = (-1, 0.0)
            return
        if changed > time.time_ns() - SETTLED_NS:
            changed = -1  # it may change again without another time
        took = time.monotonic() - started
        self._listed[below] = (changed, started + took * REST if took > LARGE_S else 0.0)
        self._add(directories, files, sink)

    def _entries(self, below: str) -> tuple[list[str], list[str]]:
        """Return new directories in a directory, and new files of kinds that are read; raises OSError."""
        directories, files = [], []
        with os.scandir(os.path.join(self._tree, below)) as entries:
            for entry in entries:
                path = below + "/" + entry.name if below else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in SKIPPED and path not in self._listed:
                        directories.append(path)
                elif (
                    reader_of(path) is not None
                    and path not in self._readers
                    and path not in self._ignore
                    and entry.is_file(follow_symlinks=False)
                ):
                    files.append(path)
        return sorted(directories), sorted(files)

    def _add(self, directories: list[str], files: list[str], sink: Sink) -> None:
        """Remember what was found, as far as there is room."""
        room = max(0, MAX_DIRECTORIES - len(self._listed))
        for path in directories[:room]:
            self._listed[path] = (-1, 0.0)
        self._to_list += reversed(directories[:room])
        full = len(directories) > room
        room = max(0, MAX_FILES - len(self._readers))
        for path in files[:room]:
            make = reader_of(path)
            if make is not None:
                self._readers[path] = make(os.path.join(self._tree, path), path)
                self._to_read.insert(0, path)
        if (full or len(files) > room) and not self._full:
            self._full = True
            sink.refuse("files", "more than %d directories, or %d files with metrics" % (MAX_DIRECTORIES, MAX_FILES))

    def _read(self, sink: Sink, final: bool) -> bool:
        """Have the readers read in turn; return whether each of them has been found at the end of its file."""
        while self._to_read:
            name = self._to_read.pop()
            try:
                self._more = self._readers[name].turn(sink, final) or self._more
            except OSError as exc:
                sink.refuse(name, exc.strerror or "it cannot be read")
            if sink.over():
                break
            if not self._to_read and self._more:
                self._begin_round()
        return not self._to_read and not self._more

    def _begin_round(self) -> None:
        self._to_read = list(reversed(self._readers))
        self._more = False
