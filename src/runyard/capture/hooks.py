"""Puts the hooks of a process in place: some at once, those for libraries when they are imported."""

from __future__ import annotations

import atexit
import os
import sys

from runyard.capture import files
from runyard.capture.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any

LIBRARIES = {
    "argparse": ("params", "runyard.capture.argparsing", "argparse"),
    "click.core": ("params", "runyard.capture.clicking", "click"),
    "typer._click.core": ("params", "runyard.capture.clicking", "typer"),
    "hydra._internal.hydra": ("params", "runyard.capture.composing", "hydra"),
    "absl.flags._flagvalues": ("params", "runyard.capture.abslflags", "absl"),
    "cv2": ("data", "runyard.capture.reading", "cv2"),
    "h5py._hl.files": ("data", "runyard.capture.reading", "h5py"),
    "pyarrow.dataset": ("data", "runyard.capture.reading", "pyarrow"),
    "pyarrow.parquet.core": ("data", "runyard.capture.reading", "pyarrow"),
    "safetensors.numpy": ("data", "runyard.capture.reading", "safetensors"),
    "safetensors.torch": ("data", "runyard.capture.reading", "safetensors"),
    "tables.file": ("data", "runyard.capture.reading", "tables"),
}
"""Module of the library: the kind of what is captured, ours with ``hook(session, module)``, and the name of the hook."""


class Watch:
    """The first in ``sys.meta_path``: sees what is imported for the first time, and finds nothing."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._finding = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Say how a program begins when it imports something, and have hooks put in place behind what `LIBRARIES` names."""
        if not self._session.begun and _by_main(sys._getframe(1)):
            self._session.begin()
            if name in sys.modules:  # we needed it, too
                return _again(name)
        if self._finding or not wanted(self._session.kinds, name):
            return None
        self._finding = True
        try:
            return self._followed(name, path, target)
        except Exception:  # noqa: BLE001 - then the others find it without us
            self._session.failed()
            return None
        finally:
            self._finding = False

    def _followed(self, name: str, path: Any, target: Any) -> ModuleSpec | None:
        """Find a module as the others do. Its loader stays what it is: our function is in front of its own for this one time."""
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec: Any = find(name, path, target) if find is not None and finder is not self else None
            if spec is not None:
                self._follow(name, spec.loader)
                return spec  # type: ignore[no-any-return]
        return None

    def _follow(self, name: str, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: Any) -> None:
            del loader.exec_module
            execute(module)
            hook(self._session, name, module)

        loader.exec_module = exec_module


def _by_main(frame: Any) -> bool:
    """Tell whether a statement of the main script imports: then no other module is only half executed."""
    while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    main = sys.modules.get("__main__")
    return frame is not None and main is not None and frame.f_globals is vars(main) and hasattr(main, "__file__")


class _Loaded:
    """Loads a module that is there already: it must not be executed a second time."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, spec: Any) -> Any:
        """Return it."""
        return self._module

    def exec_module(self, module: Any) -> None:
        """Undo what the import system has noted."""
        module.__spec__ = self._spec


def _again(name: str) -> ModuleSpec:
    """Return a spec that loads what is there already. It is the module's, too: that is the one that Python then takes."""
    module: Any = sys.modules[name]
    kind = type(module.__spec__)
    module.__spec__ = kind(name, _Loaded(module))
    return module.__spec__  # type: ignore[no-any-return]


def wanted(kinds: frozenset[str], name: str) -> bool:
    """Tell whether there is a hook for a module, of a kind that is on."""
    return name in LIBRARIES and LIBRARIES[name][0] in kinds


def hook(session: Session, name: str, module: Any) -> None:
    """Put the hook for a library in place that has just been imported."""
    _, ours, said = LIBRARIES[name]
    try:
        __import__(ours, None, None, ["hook"]).hook(session, module)
        if said not in session.hooks:
            session.hooks.append(said)
    except Exception:  # noqa: BLE001 - the program must not notice
        session.failed()


def _begin(session: Session) -> None:
    from runyard.capture import main

    main.begin(session)


def install(kinds: frozenset[str], spool: str, tree: str, began: float) -> None:
    """Put all hooks for the ``kinds`` in place; see `Session` for the arguments."""
    session = Session(kinds, spool, tree, began, _begin)
    files.hook(session)
    sys.meta_path.insert(0, Watch(session))
    for name in LIBRARIES:
        if name in sys.modules and wanted(kinds, name):
            hook(session, name, sys.modules[name])
    atexit.register(session.end)
    os.register_at_fork(after_in_child=session.forked)
