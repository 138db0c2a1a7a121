"""What is recorded of a run's environment: interpreter, packages, system, and variables from an allow-list.

Nothing is imported and pip is not called: packages are the names of their metadata directories. The interpreter is
asked once for its version and paths; the answer is kept in the home and used until the program's file changes.
"""

from __future__ import annotations

import os

from runyard.snapshot.editable import find_interpreter
from runyard.wire import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

VARIABLES = (
    "CONDA_DEFAULT_ENV CONDA_PREFIX CUBLAS_WORKSPACE_CONFIG CUDA_DEVICE_ORDER CUDA_HOME CUDA_LAUNCH_BLOCKING "
    "CUDA_VISIBLE_DEVICES HF_HOME HF_HUB_OFFLINE KMP_AFFINITY LANG LC_ALL LD_LIBRARY_PATH MKL_NUM_THREADS "
    "NCCL_DEBUG NCCL_P2P_DISABLE NCCL_SOCKET_IFNAME OMP_NUM_THREADS OPENBLAS_NUM_THREADS PYTHONHASHSEED PYTHONPATH "
    "PYTORCH_CUDA_ALLOC_CONF PYTORCH_ALLOC_CONF TF_CPP_MIN_LOG_LEVEL TF_DETERMINISTIC_OPS TF_ENABLE_ONEDNN_OPTS "
    "TORCH_CUDA_ARCH_LIST TORCH_HOME TRANSFORMERS_OFFLINE TZ VIRTUAL_ENV XLA_FLAGS XLA_PYTHON_CLIENT_MEM_FRACTION "
    "XLA_PYTHON_CLIENT_PREALLOCATE"
).split()
"""Variables whose values are recorded: they change results and hold no secrets. All others are left out."""
ENVIRONMENT_FILES = (
    "*.lock Pipfile pylock*.toml conda-lock.y*ml pixi.toml environment*.y*ml requirements*.txt constraints*.txt "
    "pyproject.toml setup.py setup.cfg .python-version Dockerfile* *.Dockerfile Containerfile* docker-compose*.y*ml "
    "compose.y*ml *.def .devcontainer.json renv.lock Project.toml Manifest.toml package-lock.json"
).split()
"""Files at the top of the tree that say what a run's environment is to be; they are frozen with the code."""
ASK = """
import sys
if sys.path and not sys.path[0]:
    del sys.path[0]  # a json.py of the user's directory is not the module
import json, os
dirs = [p for p in sys.path if os.path.basename(p) in ("site-packages", "dist-packages")]
print(json.dumps({"version": "%d.%d.%d" % sys.version_info[:3], "implementation": sys.implementation.name,
                  "prefix": sys.prefix, "base_prefix": sys.base_prefix, "site": dirs}))
"""
ASK_TIMEOUT_S = 20
CACHE_ENTRIES = 64
_CACHE_FORM = 1


def _stamp(path: str) -> list[Any]:
    try:
        status = os.stat(path)
    except OSError:
        return [path, 0, 0]
    return [path, status.st_mtime_ns, status.st_size]


def _ask(python: str, environ: Mapping[str, str], cwd: str) -> dict[str, Any]:
    """Ask an interpreter what it is; {} when it does not answer."""
    import json
    import subprocess

    try:
        answer = subprocess.run(
            [python, "-c", ASK], stdin=subprocess.DEVNULL, capture_output=True, env=dict(environ), cwd=cwd,
            timeout=ASK_TIMEOUT_S, check=True,
        )  # fmt: skip
        found = json.loads(answer.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {}
    return found if isinstance(found, dict) else {}


def packages(directories: list[str]) -> dict[str, str]:
    """Return ``{name: version}`` of the packages whose metadata lie in these directories; the first one wins."""
    found: dict[str, str] = {}
    for directory in directories:
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        for entry in names:
            stem, suffix = os.path.splitext(entry)
            if suffix in (".dist-info", ".egg-info") and "-" in stem:
                name, version = stem.split("-")[:2]
                found.setdefault(name.lower().replace("_", "-"), version)
    return dict(sorted(found.items()))


def _python(python: str, environ: Mapping[str, str], cwd: str, cache_path: str) -> dict[str, Any]:
    """Return version, prefix and packages of an interpreter, from the cache where nothing has changed."""
    cached = files.read_json(cache_path)
    if not isinstance(cached, dict) or cached.get("form") != _CACHE_FORM or not isinstance(cached.get("by"), dict):
        cached = {"form": _CACHE_FORM, "by": {}}
    # A shim (pyenv, asdf) chooses by directory and variables, so those are part of the key.
    key = "\0".join([python, cwd, environ.get("PYENV_VERSION", ""), environ.get("PYTHONPATH", "")])
    stamp = _stamp(python) + _stamp(os.path.join(os.path.dirname(os.path.dirname(python)), "pyvenv.cfg"))
    entry = cached["by"].get(key)
    if (
        not isinstance(entry, dict)
        or entry.get("stamp") != stamp
        or entry.get("sites") != [_stamp(path) for path in entry["about"].get("site", [])]
    ):
        about = _ask(python, environ, cwd)
        sites = about.get("site", [])
        entry = {"stamp": stamp, "about": about, "sites": [_stamp(p) for p in sites], "packages": packages(sites)}
        cached["by"].pop(key, None)
        cached["by"] = dict(list(cached["by"].items())[-CACHE_ENTRIES:])
        if about:
            cached["by"][key] = entry
            _save(cache_path, cached)
    about = entry["about"]
    kept = {name: about[name] for name in ("version", "implementation", "prefix", "base_prefix") if name in about}
    return {"python": dict(kept, path=python), "packages": entry["packages"]}


def _save(path: str, value: Any) -> None:
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        files.write_json(path, value)
    except OSError:
        pass  # only a cache: the next submit asks again


def _first_line(path: str, start: str = "") -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(start):
                    return line[len(start) :].strip().strip(':= \t"')
    except OSError:
        pass
    return ""


def _container(environ: Mapping[str, str]) -> str:
    for variable in ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"):
        if environ.get(variable):
            return environ[variable]
    return "docker" if os.path.exists("/.dockerenv") else "podman" if os.path.exists("/run/.containerenv") else ""


def environment_files(top: str) -> list[str]:
    """Return the names of the files at the top of a tree that describe an environment."""
    import fnmatch

    try:
        names = os.listdir(top)
    except OSError:
        return []
    return sorted(name for name in names if any(fnmatch.fnmatchcase(name, form) for form in ENVIRONMENT_FILES))


def gather(program: str, environ: Mapping[str, str], cwd: str, top: str, home: str) -> dict[str, Any]:
    """Return the environment to record for a program that runs with these variables.

    ``top``: the top of the tree, whose environment files are named. About 2 ms when the interpreter is known.
    """
    system = os.uname()
    record: dict[str, Any] = {
        "os": _first_line("/etc/os-release", "PRETTY_NAME=") or system.sysname,
        "kernel": "%s %s" % (system.sysname, system.release),
        "machine": system.machine,
        "host": system.nodename,
        "cpu": _first_line("/proc/cpuinfo", "model name"),
        "driver": _first_line("/proc/driver/nvidia/version", "NVRM version:"),
        "container": _container(environ),
        "variables": {name: environ[name] for name in VARIABLES if name in environ},
        "files": environment_files(top),
    }
    python = find_interpreter(program, environ, top)
    if python:
        record.update(_python(python, environ, cwd, os.path.join(home, "cache", "interpreters.json")))
        prefix = record["python"].get("prefix", "")
        if prefix and os.path.isdir(os.path.join(prefix, "conda-meta")):
            names = os.listdir(os.path.join(prefix, "conda-meta"))
            record["conda"] = sorted(name[:-5] for name in names if name.endswith(".json"))
    return {name: value for name, value in record.items() if value}
