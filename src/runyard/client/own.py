"""Runs that a program begins by itself, outside of `runyard run`: a script started by hand, a notebook.

What it logs lies in a directory of the home until an agent of this host takes it in; no server need be there.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from runyard.client.run import Run, warn
from runyard.wire import files, hosts, ids, paths, procs
from runyard.wire.ranks import rank

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

RECORD = "run.json"
"""Describes the run; written whole before anything is logged."""
CODE = "code.json"
"""What was found of its code and environment, by a process in the background: ``{"spec", "project"}``."""
JOIN = "RUNYARD_OWN_RUN"
"""Set while a run is in progress, to its directory, for the workers of the program."""
FINISHED = "finished.json"
"""How it ended: ``{"exit_code", "ended_us"}``."""
AFTERWARDS = "this run is finished, and what is logged to it from now on is lost; runyard.init() begins another"
MESSAGE_MAX = 1 << 20
NAME_BYTES = 200


def directory(home: paths.Home) -> str:
    """Return where the runs of this host are that were begun outside of the yard."""
    return os.path.join(home.host_dir(), "own")


def begin(project: str | None, name: str | None, message: str | None, all_ranks: bool) -> Run:
    """Begin a run of this process, or join the one of the process that it is a worker of (`multiprocessing`).

    Raises OSError when the home cannot be written.
    """
    joined = _joined(all_ranks)
    if joined is not None:
        return joined
    if rank(os.environ) and not all_ranks:
        return nowhere()
    place = paths.home(os.environ)
    home = paths.Home(place, hosts.known_as(place))
    run_id = ids.new_run_id()
    top = os.path.join(directory(home), run_id)
    tree = os.path.join(top, "files")
    os.makedirs(tree, 0o700)
    pid = os.getpid()
    python = _whole(home)
    scene = (pid, os.getcwd(), {name: text for name, text in os.environ.items() if name != JOIN})
    describer = _describer.name if _describer.scene == scene else run_id
    facts = {
        "id": run_id, "project": _said("project", project or os.environ.get("RUNYARD_PROJECT") or ""),
        "name": _said("name", name or "") or None, "message": str(message or "").replace("\0", "")[:MESSAGE_MAX],
        "command": _command(), "cwd": os.getcwd(), "pid": pid,
        "pid_start": procs.start_time(pid), "boot_id": procs.boot_id(), "created_us": time.time_ns() // 1000,
        "describer": describer if python else "",
    }  # fmt: skip
    files.write_json(os.path.join(top, RECORD), facts)
    if python and (describer == run_id or not _describer.goes_on()):
        _describer.start(python, run_id, scene, top)
    run = Run(run_id, tree, os.path.join(top, "spool"), all_ranks)
    run.on_finish(_Finisher(top))
    run.on_finish(lambda exit_code: run.silence(AFTERWARDS))
    os.environ[JOIN] = top
    return run


def _joined(all_ranks: bool) -> Run | None:
    """Return the run of the process that has started this one by `multiprocessing`, if that is in progress."""
    parent = getattr(sys.modules.get("multiprocessing.process"), "parent_process", lambda: None)()
    top = os.environ.get(JOIN, "")
    if parent is None or not os.path.exists(os.path.join(top, RECORD)) or os.path.exists(os.path.join(top, FINISHED)):
        return None
    return Run(os.path.basename(top), os.path.join(top, "files"), os.path.join(top, "spool"), all_ranks)


def as_name(text: str) -> str:
    """Return a text as it can be the name of a run or of a project; ``""`` where nothing is left of it."""
    name = "".join(char if char.isprintable() and char != "/" else "_" for char in text)
    name = name.encode("utf-8")[:NAME_BYTES].decode("utf-8", "ignore").strip().lstrip("@-").lstrip()
    return "" if name in (".", "..") else name + "_" if ids.is_run_id(name) else name


def _said(what: str, given: object) -> str:
    text = str(given)
    name = as_name(text)
    if name != text:
        warn("%.60r cannot be the %s of a run; it is %r" % (text, what, name or "left out"))
    return name


def _command() -> list[str]:
    """Return what would run this program again; of a notebook, whose file Jupyter or VS Code names, `jupyter execute`."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None and "ipykernel" in sys.modules:
        book = os.environ.get("JPY_SESSION_NAME") or getattr(shell, "user_ns", {}).get("__vsc_ipynb_file__")
        if isinstance(book, str) and book.endswith(".ipynb"):
            return ["jupyter", "execute", os.path.basename(book)]
    return [str(word).replace("\0", "") for word in (sys.executable or "python", *sys.argv)]


class _Finisher:
    """Writes down how the run of this process ended. A child after a fork has no say in it."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, FINISHED)
        self._files = os.path.join(directory, "files")
        self._pid = os.getpid()
        self._code = 0
        self._before, self._exit = sys.excepthook, sys.exit
        sys.excepthook = self._hook
        if "ipykernel" not in sys.modules:  # there it ends nothing
            sys.exit = self._leave

    def _hook(self, kind: Any, value: Any, trace: Any) -> None:
        self._code = 1
        self._before(kind, value, trace)

    def _leave(self, status: Any = None, /) -> NoReturn:
        """Remember what the program leaves with, which nothing says later."""
        if threading.current_thread() is threading.main_thread():
            self._code = status if isinstance(status, int) else int(status is not None)
        self._exit(status)

    def __call__(self, exit_code: int) -> None:
        if os.getpid() != self._pid:
            return
        if sys.excepthook == self._hook:
            sys.excepthook = self._before
        if sys.exit == self._leave:
            sys.exit = self._exit
        if os.environ.get(JOIN) == os.path.dirname(self._path):
            del os.environ[JOIN]
        _keep_cells(self._files)
        files.write_json(self._path, {"exit_code": exit_code or self._code & 0xFF, "ended_us": time.time_ns() // 1000})


def _keep_cells(directory: str) -> None:
    """In a notebook: keep the code of the cells as they were executed."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    cells = getattr(shell, "user_ns", {}).get("In") if shell is not None else None
    if cells:
        text = "".join("# In [%d]:\n%s\n\n" % (number, cell) for number, cell in enumerate(cells) if cell)
        with open(os.path.join(directory, "cells.py"), "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)


def _whole(home: paths.Home) -> str:
    """Return an interpreter that has all of Runyard, to describe runs with; ``""`` when none is known."""
    import runyard

    whole = os.path.join(os.path.dirname(os.path.abspath(runyard.__file__)), "cli", "own.py")
    if os.path.exists(whole) and sys.version_info >= (3, 11):
        return sys.executable
    try:
        with open(home.interpreter, encoding="utf-8") as file:
            python = file.read().strip()
    except OSError:
        return ""
    return python if os.access(python, os.X_OK) else ""


class _Describer:
    """The process that freezes code for this one. Runs that begin while it works are described by it, too.

    It holds the other end of a pipe. It lets go of it first, and then looks for runs a last time: who finds it open after
    the record of a run was written need not start another.
    """

    name = ""
    """The first run that it was started for; the records of the others say it."""
    scene: object = None
    """What its runs have in common."""
    pipe = -1
    process: Any = None

    def goes_on(self) -> bool:
        """Tell whether it will find a run whose record is there."""
        if self.process is None or self.process.poll() is not None:
            return False
        try:
            os.read(self.pipe, 1)
        except BlockingIOError:
            return True
        return False

    def start(self, python: str, name: str, scene: object, directory: str) -> None:
        """Start it for a run; without it the agent takes the run in without its code."""
        import subprocess

        env = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        if python == sys.executable and os.environ.get("PYTHONPATH"):
            env["PYTHONPATH"] = os.environ["PYTHONPATH"]
        if self.pipe >= 0:
            os.close(self.pipe)
        self.pipe, its = os.pipe()
        os.set_blocking(self.pipe, False)
        words = [python, "-m", "runyard.cli.own", directory, sys.executable, name, str(its)]
        try:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True, env=env, pass_fds=[its],
            )  # fmt: skip
            self.name, self.scene = name, scene
        except OSError:
            self.process = None
        finally:
            os.close(its)


_describer = _Describer()


def nowhere() -> Run:
    """Return a run that takes everything and keeps nothing: there is no place to keep it."""
    run = Run("", os.getcwd(), os.devnull)
    run.silence()
    return run
