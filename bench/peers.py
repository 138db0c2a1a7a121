"""Other trackers, each in a virtual environment of its own, for the workloads that they are compared in.

An environment is made at the first use, in ``build/peers``, and kept. A peer that cannot be installed is not measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.processes import ProgramError, tree

PLACE = Path(__file__).resolve().parent.parent / "build" / "peers"
REQUIREMENTS = {
    "sacred": ["sacred", "setuptools<81", "numpy"],
    "trackio": ["trackio"],
    "wandb": ["wandb"],
    "tensorboardX": ["tensorboardX"],
    "mlflow": ["mlflow"],
    "guild": ["guildai", "setuptools<81", "pip"],
}
INSTALL_S = 900
RUN_S = 900
QUIET = {
    "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "HF_HUB_OFFLINE": "1",
    "TRACKIO_DISABLE_TELEMETRY": "1", "GRADIO_ANALYTICS_ENABLED": "False", "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1", "NO_PIP_FREEZE": "1",
}  # fmt: skip
"""Nothing is sent anywhere, and nothing is asked."""


class PeerError(Exception):
    """A peer cannot be installed, or did not do what it was asked to; the text says why."""


def python_of(name: str) -> Path:
    """Return the interpreter that has a peer installed, which may take minutes; raises PeerError."""
    place = PLACE / name
    python = place / "bin" / "python"
    ready = place / "ready"
    if not ready.exists():
        print(f"installing {name} into {place}", file=sys.stderr, flush=True)
        words = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *REQUIREMENTS[name]]
        try:
            for step in ([sys.executable, "-m", "venv", "--clear", str(place)], words):
                subprocess.run(step, capture_output=True, text=True, timeout=INSTALL_S, check=True)
        except subprocess.TimeoutExpired as exc:
            raise PeerError(f"{name} was not installed within {INSTALL_S} s") from exc
        except subprocess.CalledProcessError as exc:
            raise PeerError(f"{name} does not install: {last_line(exc.stderr or exc.stdout)}") from exc
        ready.touch()
    return python


def last_line(text: str) -> str:
    """Return the last line of what a program said, which is what went wrong."""
    return text.strip().rpartition("\n")[2] or "it does not say why"


def run(name: str, code: str, *args: str) -> dict[str, Any]:
    """Run a program with a peer, in an empty directory; return the JSON on the last line that it prints.

    Added are ``tree_cpu`` and ``tree_wall``, seconds that it took with all processes that it started, and ``disk``, bytes
    of the files that it left in its directory and home.

    Raises:
        PeerError: it cannot be installed, fails, or takes too long.
    """
    with directory(name) as (env, top):
        (top / "program.py").write_text(code)
        try:
            taken = tree(["python", "-W", "ignore", "program.py", *args], env, top, RUN_S)
        except subprocess.TimeoutExpired as exc:
            raise PeerError(f"{name} took more than {RUN_S} s") from exc
        except ProgramError as exc:
            raise PeerError(f"{name} failed: {last_line(str(exc))}") from exc
        disk = sum(path.stat().st_size for path in top.rglob("*") if path.is_file()) - len(code)
    lines = [line for line in taken.output.splitlines() if line.startswith("{")]
    if not lines:
        raise PeerError(f"{name} printed no result")
    return {**json.loads(lines[-1]), "tree_cpu": taken.cpu, "tree_wall": taken.wall_all, "disk": disk}


@contextmanager
def directory(name: str) -> Iterator[tuple[dict[str, str], Path]]:
    """Give an empty directory and the environment in which a peer's commands are found; raises PeerError."""
    place = python_of(name).parent
    with tempfile.TemporaryDirectory(prefix="ry-peer-", ignore_cleanup_errors=True) as top:
        env = {"PATH": f"{place}:{os.environ['PATH']}", "VIRTUAL_ENV": str(place.parent), "LANG": "C.UTF-8", **QUIET}
        yield {**env, "HOME": top}, Path(top)
