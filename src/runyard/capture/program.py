"""Whose parameters are the run's: those of its programs, and not of every process that they start."""

from __future__ import annotations

import os

from runyard.wire.ranks import rank

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

MARK = "RUNYARD_CAPTURE_PROGRAM"
"""Set by a process whose parameters count, to its pid, for the processes that it starts."""
TOOLS = frozenset(
    "pip pip3 uv pipx pytest py.test _pytest unittest nose2 tox nox torchrun torch.distributed.run torch.distributed.launch "
    "torch.distributed.elastic accelerate deepspeed horovod horovodrun ray jupyter jupyter_core nbconvert nbclient notebook "
    "jupyterlab papermill IPython ipython ipython3 ipykernel ipykernel_launcher traitlets tensorboard wandb mlflow aim "
    "dvc joblib multiprocessing concurrent hydra ninja cmake meson setuptools wheel build black ruff mypy flake8 pylint "
    "http venv ensurepip compileall py_compile timeit runyard".split()
)
"""What they parse are options of their own: launchers, test runners, package managers, servers."""
RUNNERS = frozenset(
    "pdb cProfile profile trace coverage kernprof line_profiler memory_profiler debugpy viztracer scalene memray "
    "pyinstrument runpy bdb".split()
)
"""They run a script in their own process; what it parses counts, and not what they parse."""


class Program:
    """The main script of a process. ``counts``: its parameters are the run's. ``script``: its path, if it is of the tree."""

    __slots__ = ("counts", "runner", "script")

    def __init__(self, counts: bool, script: str, runner: bool) -> None:
        self.counts = counts
        self.script = script
        self.runner = runner


def main_file(main: Any, argv: Sequence[str]) -> str:
    """Return the path of the main script; ``""`` where there is none, or Python has not found it yet.

    ``__main__.__file__`` is there while a script runs, and gone at exit.
    """
    path = getattr(main, "__file__", None)
    if argv[:1] == ["-c"] or getattr(main, "__name__", "") == "__mp_main__":
        return ""  # workers of multiprocessing execute the script of their parent
    if isinstance(path, str):
        return path
    return argv[0] if argv and argv[0] not in ("-", "-m") else ""


def identify(path: str, main: Any, environ: Mapping[str, str], tree: str, prefix: str) -> Program:
    """Return what the main script is: the first program of the run, or one whose script lies in the run's tree.

    ``path``, ``main``: as of `main_file`. ``prefix``: ``sys.prefix``; what lies in the environment of the interpreter is not of
    the tree. Programs without a script (``-c``, stdin, an interactive Python, workers of multiprocessing), and all ranks but
    the first, do not count.
    """
    if not path or rank(environ):
        return Program(False, "", False)
    spec = getattr(main, "__spec__", None)
    name = spec.name if spec is not None else os.path.splitext(os.path.basename(path))[0]
    path = os.path.abspath(path)
    script = path if in_tree(path, tree) and not inside(path, prefix) else ""
    if not script and is_of(name, RUNNERS):
        return Program(True, "", True)
    first = environ.get(MARK, "") in ("", str(os.getpid()))
    return Program(bool(script) or (first and not is_of(name, TOOLS)), script, False)


def is_of(name: str, names: frozenset[str]) -> bool:
    """Tell whether a module or one of its packages is in a set of names."""
    parts = name.split(".")
    return any(".".join(parts[:count]) in names for count in range(1, len(parts) + 1))


def inside(path: str, directory: str) -> bool:
    """Tell whether a path is below a directory."""
    return path.startswith(directory.rstrip("/") + "/")


def in_tree(path: str, tree: str) -> bool:
    """Tell whether an absolute path is below the run's working tree, and not in an environment that lies there."""
    if "/site-packages/" in path or "/dist-packages/" in path:
        return False
    return inside(path, tree) or inside(os.path.realpath(path), os.path.realpath(tree))
