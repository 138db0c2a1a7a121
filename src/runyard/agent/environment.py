"""The environment of a run: the submitter's, minus what belongs to Runyard or to a scheduler, plus what the run gets.

Also the program and its arguments as they are executed. Nothing here is logged or stored but in the 0600 launch file.
"""

from __future__ import annotations

import json
import os
import socket
import time

from runyard.wire.settings import CAPTURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from runyard.agent.stage import Staged
    from runyard.agent.state import Attempt

SCHEDULER_PREFIXES = (
    "RUNYARD_", "SLURM_", "SLURMD_", "SBATCH_", "SALLOC_", "SRUN_", "PMI_", "PMIX_", "PBS_", "LSB_", "OMPI_",
)  # fmt: skip
"""Of Runyard itself, and of a job from within which somebody submitted: the run is not part of that job."""
DROPPED = frozenset(
    "OLDPWD CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_PREFIX GIT_COMMON_DIR "
    "GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES".split()
)
"""GIT_*: submitting from a git hook must not make git in the run speak of the submitter's repository."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
FIRST_PORT, LAST_PORT = 20000, 31999
"""Below the range from which Linux takes ports for outgoing connections (32768 and up)."""


def kinds(spec: dict[str, Any]) -> list[str]:
    """Return what is captured of a run."""
    wanted = (spec.get("tracking") or {}).get("capture")
    return [kind for kind in CAPTURE if wanted is None or kind in wanted]


def free_port(taken: Iterable[int] = ()) -> int:
    """Return a TCP port that nobody listens on and that no other run of this agent was given; 0 if there is none."""
    avoid = set(taken)
    first = int.from_bytes(os.urandom(2), "little")
    for step in range(200):
        port = FIRST_PORT + (first + step) % (LAST_PORT - FIRST_PORT + 1)
        if port in avoid:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        return port
    return 0


def gpu_variables(slots: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return what makes exactly the GPUs of these slots visible: indices in PCI order, UUIDs for MIG instances only.

    Nothing at all is visible to a run without a GPU.
    """
    gpus = [slot for slot in slots if slot["kind"] == "gpu"]
    shown = [slot["uuid"] if slot["uuid"].startswith("MIG-") else str(slot["index"]) for slot in gpus]
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(shown)}


def python_path(given: str | None, tree: str, cwd: str, source: str, first: Sequence[str]) -> str | None:
    """Return PYTHONPATH: directories of the frozen tree first, then the submitter's, never with an empty entry.

    An entry that lies in the submitter's source tree is replaced by its frozen counterpart where there is one. An empty
    entry means the working directory to Python, and is written out as such. None when there is nothing to set.
    """
    entries = [os.path.normpath(os.path.join(tree, part)) for part in first]
    entries += [
        (frozen(entry, source, tree) if os.path.isabs(entry) else entry) or cwd
        for entry in (given.split(":") if given else [])
    ]
    return ":".join(dict.fromkeys(entries)) or None


def frozen(path: str, source: str, tree: str) -> str:
    """Return where a path of the source tree is in the working tree, or the path itself if it is not frozen there."""
    if not source or not tree or not (path + "/").startswith(source.rstrip("/") + "/"):
        return path
    inside = os.path.join(tree, path[len(source.rstrip("/")) :].strip("/"))
    return os.path.normpath(inside) if os.path.exists(inside) and not _leaves(inside, tree) else path


def _leaves(path: str, tree: str) -> bool:
    real, top = os.path.realpath(path), os.path.realpath(tree)
    return real != top and not real.startswith(top + "/")


def argv(spec: dict[str, Any], tree: str) -> tuple[str, list[str]]:
    """Return the program to execute and its argument list. No shell, unless the user asked for one."""
    command = list(spec["command"])
    if spec.get("shell"):
        return "/bin/sh", ["/bin/sh", "-c", command[0] if len(command) == 1 else " ".join(command)]
    program = spec["program"] or command[0]
    if "/" in program:
        moved = frozen(program, spec["source"], tree)
        if moved == program:
            # .venv/bin/python: Python finds its environment by this word, and in the tree there is no such file.
            if tree and "/" in command[0]:
                command[0] = program
        elif command[0] == program:
            command[0] = moved
        program = moved
    return program, command


def build(
    attempt: Attempt, slots: Sequence[dict[str, Any]], staged: Staged, server: str, home: str, lib: str, port: int
) -> dict[str, str]:
    """Return the whole environment of a run.

    ``home``: the server's, if that is on this host; ``lib``: the copy of the client half, whose hooks come first in every
    Python of the run.
    """
    tree, cwd = staged.tree, staged.cwd
    spec, record = attempt.spec, attempt.record
    env = {
        name: value
        for name, value in (attempt.env or {}).items()
        if name and "=" not in name and name not in DROPPED and not name.startswith(SCHEDULER_PREFIXES)
    }
    source = "" if spec.get("in_place") else spec["source"]
    path = python_path(env.pop("PYTHONPATH", None), tree, cwd, source, spec.get("pythonpath") or [])
    inject = os.path.join(lib, "runyard", "capture", "inject")
    env["PYTHONPATH"] = inject + (":" + path if path else "")
    threads = sum(slot["threads"] for slot in slots if slot["kind"] == "cpu")
    if threads and not any(slot["kind"] == "gpu" for slot in slots):
        for name in THREAD_VARIABLES:
            env.setdefault(name, str(threads))
    env.setdefault("PYTHONUNBUFFERED", "1")
    if port:
        env.setdefault("MASTER_PORT", str(port))
    env.update(gpu_variables(slots))
    env.update(
        PWD=cwd,
        RUNYARD_RUN_ID=attempt.run,
        RUNYARD_ATTEMPT=attempt.id,
        RUNYARD_PROJECT=str(spec.get("project") or ""),
        RUNYARD_SERVER=server,
        RUNYARD_TOKEN=str(record.get("token") or ""),
        RUNYARD_RUN_DIR=tree,
        RUNYARD_SPOOL=attempt.path("spool"),
        RUNYARD_CAPTURE=",".join(kinds(spec)) or "none",
        RUNYARD_CAPTURE_SINCE="%.6f" % time.time(),
    )
    links = {os.path.realpath(link["target"]): link["path"] for link in spec.get("links") or []}
    if links:  # what leads deeper comes first
        env["RUNYARD_CAPTURE_LINKS"] = json.dumps(dict(sorted(links.items(), reverse=True)))
    if home:
        env["RUNYARD_HOME"] = home
    if staged.resumed:
        env["RUNYARD_RESUMED"] = "1"
    return env
