"""What happens before a program of a run starts: hooks are put in place, and nothing else; it has to be fast.

The hooks run from the immutable copy of the client half, under names of their own that the program never sees: its own
``runyard``, if it has one, is another and may be older or newer.
"""

from __future__ import annotations

import _frozen_importlib_external as machinery
import builtins
import os
import sys
import time
from _thread import RLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from importlib.machinery import ModuleSpec
    from typing import Any

SINCE = "RUNYARD_CAPTURE_SINCE"
"""When the run began, seconds since 1970; the first process that has hooks sets it for those that it starts."""


class Library:
    """Imports modules of ``runyard`` from one directory into a dictionary of its own, and not into ``sys.modules``.

    They see the builtin functions as they were, so what hooks or the program replace (``open``) is not theirs.
    """

    def __init__(self, package: str) -> None:
        self._package = package
        self._modules: dict[str, Any] = {}
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)
        self._builtins = dict(vars(builtins), __import__=self._import)

    def _renew(self) -> None:
        self._lock = RLock()  # another thread may have held it when the process was forked

    def module(self, name: str) -> Any:
        """Return ``runyard`` or a module of it; raises what its import raises."""
        with self._lock:
            if name not in self._modules:
                path = os.path.join(self._package, *name.split(".")[1:])
                path = os.path.join(path, "__init__.py") if os.path.isdir(path) else path + ".py"
                code = compiled(name, path)
                module = type(sys)(name)
                module.__dict__.update(__file__=path, __builtins__=self._builtins)
                self._modules[name] = module
                try:
                    exec(code, module.__dict__)  # noqa: S102 - this is what importing is
                except BaseException:
                    del self._modules[name]
                    raise
                parent, _, last = name.rpartition(".")
                if parent:
                    setattr(self.module(parent), last, module)
            return self._modules[name]

    def _import(self, name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if name.partition(".")[0] != "runyard":
            return builtins.__import__(name, globals, locals, fromlist, level)
        module = self.module(name)
        for item in fromlist or ():
            if not hasattr(module, item):
                self.module(name + "." + item)
        return module if fromlist else self.module("runyard")


def compiled(name: str, path: str) -> Any:
    """Return the code of a module; kept beside it as Python does, also where Python is told not to: it is our directory.

    Without that the hooks would be compiled anew in every process: containers often set PYTHONDONTWRITEBYTECODE.
    """
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    try:
        return machinery.SourceFileLoader(name, path).get_code(name)
    finally:
        sys.dont_write_bytecode = kept


class Offer:
    """The last in ``sys.meta_path``: ``import runyard`` works in every run, and what is installed goes first."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find the package, and nothing else."""
        if name != "runyard" or path is not None:
            return None
        start = os.path.join(self._package, "__init__.py")
        return machinery.spec_from_file_location(name, start, submodule_search_locations=[self._package])


def start(package: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """Offer the client half, and put the hooks of the kinds in RUNYARD_CAPTURE in place.

    ``package``: the directory of ``runyard`` in the copy of the client half.
    """
    try:
        began = float(environ.get(SINCE, ""))
    except ValueError:
        began = time.time()
        environ[SINCE] = "%.6f" % began
    sys.meta_path.append(Offer(package))
    kinds = frozenset(environ.get("RUNYARD_CAPTURE", "").split(",")) & {"params", "data"}
    spool, tree = environ.get("RUNYARD_SPOOL"), environ.get("RUNYARD_RUN_DIR")
    if kinds and spool and tree:
        Library(package).module("runyard.capture.hooks").install(kinds, spool, tree, began)


if "PACKAGE" in globals():  # executed by inject/sitecustomize.py, which is in the same copy
    start(globals()["PACKAGE"])
