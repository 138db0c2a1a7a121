"""Other trackers, each in a virtual environment of its own, for the workloads that they are compared in.

An environment is made at the first use, in ``build/peers``, and kept. A peer that cannot be installed is not measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

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
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        words = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *REQUIREMENTS[name]]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        except subprocess.TimeoutExpired as exc:
            raise PeerError(f"{name} was not installed within {INSTALL_S} s") from exc
        if done.returncode:
            raise PeerError(f"{name} does not install: {done.stderr.strip().splitlines()[-1:]}")
        ready.touch()
    return python


def run(name: str, code: str, *args: str) -> Any:
    """Run a program with a peer, in an empty directory, and return the JSON on the last line that it prints.

    Raises:
        PeerError: it cannot be installed, fails, or takes too long.
    """
    python = python_of(name)
    with tempfile.TemporaryDirectory(prefix="ry-peer-") as top:
        env = {"PATH": f"{python.parent}:{os.environ['PATH']}", "HOME": top, "LANG": "C.UTF-8", **QUIET}
        try:
            done = subprocess.run(
                [str(python), "-W", "ignore", "-c", code, *args], cwd=top, env=env, capture_output=True, text=True,
                timeout=RUN_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as exc:
            raise PeerError(f"{name} took more than {RUN_S} s") from exc
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise PeerError(f"{name} failed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    return json.loads(lines[-1])
