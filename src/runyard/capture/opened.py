"""Which of the files that a program opens are data or configuration of its run, and how much of them is said."""

from __future__ import annotations

import os
import stat
import sys
import time

from runyard.capture import program
from runyard.capture.folders import Folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.capture.session import Session

CODE = frozenset(
    "py pyc pyi pyx pyd pxd so dll dylib c cc cpp cxx h hpp cu cuh o a sh bash R jl ipynb pyz whl egg-link ptx cubin".split()
)
CONFIGS = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml", ".ini": "ini", ".cfg": "ini"}
MAX_CONFIG = 256 * 1024
"""Bytes of a configuration file; a larger one is data."""
MAX_CONFIGS = 100
OF_TOOLS = frozenset(
    "pyproject.toml setup.cfg tox.ini pytest.ini mypy.ini ruff.toml .ruff.toml package.json package-lock.json "
    "tsconfig.json runyard.toml".split()
)
ELSEWHERE = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/", "/lib/", "/lib64/", "/bin/", "/sbin/", "/run/", "/snap/")
NOT_DATA = frozenset(
    "site-packages dist-packages __pycache__ .git .runyard .config .local .ipython .jupyter .triton .nv .conda .matplotlib "
    ".fontconfig .mypy_cache .pytest_cache .ipynb_checkpoints node_modules".split()
)
"""Directories of code and settings of programs; so is ``.cache``, but for what libraries download there:"""
DOWNLOADS = frozenset("huggingface torch kagglehub tensorflow_datasets openml pooch".split())
MAX_KNOWN = 10000
"""Files of which a process remembers that it has seen them."""
AT_ONCE = 100
"""The first so many files are said at once, what follows once a second: a program may be killed at any time."""
LINKS = "RUNYARD_CAPTURE_LINKS"
"""Set by the agent: the names of links of the run, by where they lead, as JSON."""
BATCH_S = 1.0


class _Place:
    """A directory: ``path``; ``said``: the same, relative within the run's tree; ``real``: without links."""

    __slots__ = ("ignored", "path", "real", "said")

    def __init__(self, path: str, said: str, real: str, ignored: bool) -> None:
        self.path = path
        self.said = said
        self.real = real
        self.ignored = ignored


class Opened:
    """What one process has opened. ``known``: file arguments of which nothing more is to be said."""

    def __init__(self, session: Session, known: set[Any]) -> None:
        self._session = session
        self._known = known
        self._tree = session.tree
        self._real_tree = os.path.realpath(session.tree)
        self._ignored = tuple(
            os.path.join(directory, "") for directory in {sys.prefix, sys.base_prefix, os.path.dirname(os.__file__)}
            if directory not in ("/", "/usr", self._tree) and not self._tree.startswith(os.path.join(directory, ""))
        )  # fmt: skip
        self._links = _links(os.environ.get(LINKS, ""))
        self._written: set[str] = set()
        self._folders = Folders()
        self._places: dict[str, _Place] = {}
        self._configs = 0
        self._said = 0
        self._said_at = 0.0
        self._in_child = session.child

    def note(self, file: Any, mode: str, opened: Any) -> None:
        """Take note of a file that was opened; raises what looking at it raises.

        ``opened``: the file object; None where a library has opened the file, and ``file`` may be anything that it takes.
        """
        name = file if type(file) is str else _name(file, opened)
        if not name or (type(file) is not str and name in self._known):
            return
        directory, _, base = (name if name[:1] == "/" else os.getcwd() + "/" + name).rpartition("/")
        place = self._places.get(directory)
        if len(self._known) < MAX_KNOWN:
            self._known.add(name)
        elif place is not None or len(self._places) >= MAX_KNOWN:
            self._session.remark("only the first %d files that a process opened are looked at" % MAX_KNOWN)
            return
        if place is None:
            place = self._places[directory] = self._place(os.path.normpath(directory))
        path = place.path + "/" + base
        if "r" not in mode:
            if len(self._written) < MAX_KNOWN:
                self._written.add(path)
            return
        if place.ignored or base.rpartition(".")[2] in CODE or path in self._written:
            return
        facts = _facts(path, opened)
        if facts is None or not stat.S_ISREG(facts.st_mode) or facts.st_ctime >= self._session.began:
            return
        if not self._config(path, base, place.said, facts.st_size) and "data" in self._session.kinds:
            self._data(path, base, place, facts)

    def _place(self, directory: str) -> _Place:
        real = os.path.realpath(directory)
        directory = directory.rstrip("/")
        said = directory or "/"
        for path, tree in ((real, self._real_tree), (directory, self._real_tree), (directory, self._tree)):
            if path == tree:
                said = ""
            elif program.inside(path, tree):
                said = path[len(tree) + 1 :]
        if said[0:1] == "/":
            for target, name in self._links.items():
                if real == target or program.inside(real, target):
                    said = name + real[len(target) :]
        return _Place(directory, said, real, self._is_ignored(directory) or self._is_ignored(real))

    def _is_ignored(self, directory: str) -> bool:
        parts = directory.split("/")
        if (directory + "/").startswith(ELSEWHERE + self._ignored) or NOT_DATA.intersection(parts):
            return True
        return ".cache" in parts and not DOWNLOADS.intersection(parts)

    # -- configuration

    def _config(self, path: str, base: str, place: str, size: int) -> bool:
        kind = CONFIGS.get(os.path.splitext(base)[1].lower())
        if kind is None or size > MAX_CONFIG or base in OF_TOOLS or not self._session.takes_configs():
            return False
        if place.startswith("/") and not self._is_named(path):
            return False
        with open(path, "rb") as file:
            text = file.read(MAX_CONFIG + 1)
        if len(text) > MAX_CONFIG or (kind == "json" and text.lstrip()[:1] != b"{"):
            return False
        if self._configs < MAX_CONFIGS:
            self._configs += 1
            said = os.path.join(place, base)
            self._session.write(
                {"type": "config", "path": said, "format": kind, "text": text.decode("utf-8", "replace")}
            )
        return True

    @staticmethod
    def _is_named(path: str) -> bool:
        """Tell whether an argument of the program is this path."""
        words = [word.rpartition("=")[2] for word in sys.argv[1:]]
        return any(path == os.path.abspath(word) for word in words if word)

    # -- data

    def _data(self, path: str, base: str, place: _Place, facts: os.stat_result) -> None:
        said = place.said
        target = os.path.realpath(path) if os.path.islink(path) else place.real + "/" + base
        if said[0:1] == "/" and target in self._links:
            said, _, base = self._links[target].rpartition("/")
        entry = {
            "path": said.rstrip("/") + "/" + base if said else base,
            "size": facts.st_size, "mtime_us": facts.st_mtime_ns // 1000, "via": "open",
        }  # fmt: skip
        if target != path and not program.inside(target, self._real_tree):
            entry["real"] = target
        self._folders.add(said, base, entry)
        if self._in_child:
            self._end_with_worker()
        if self._said < AT_ONCE or time.monotonic() - self._said_at >= BATCH_S:
            self.flush()

    def flush(self) -> None:
        """Write what has been opened since the last time."""
        files = self._folders.take()
        if files:
            self._said += len(files)
            self._said_at = time.monotonic()
            self._session.write({"type": "data", "files": files})

    def forget(self) -> None:
        """In the child after a fork: what has not been written yet is the parent's to write."""
        self._folders.take()
        self._said = 0
        self._in_child = True

    def _end_with_worker(self) -> None:
        """Workers of multiprocessing end without what `atexit` holds, but not without this."""
        self._in_child = False
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            util.Finalize(None, self._session.end, exitpriority=0)


def _links(text: str) -> dict[str, str]:
    if not text:
        return {}
    import json

    found: dict[str, str] = json.loads(text)
    return found


def _name(file: Any, opened: Any) -> str:
    if opened is not None:
        return os.fsdecode(opened.name)  # a path-like object is asked for its path once, by `open`
    return os.fsdecode(file) if isinstance(file, (str, bytes, os.PathLike)) else ""


def _facts(path: str, opened: Any) -> os.stat_result | None:
    if opened is not None:
        return os.fstat(opened.fileno())
    try:
        return os.stat(path)
    except OSError:  # the name of something else: a URL, a file in memory
        return None
