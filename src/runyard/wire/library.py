"""The immutable copy of the client half that agents and supervisors run from, whatever happens to the installation.

``lib/<version>-<hash>/`` in the home holds ``runyard/{__init__,wire,client,capture,agent}``, a ``__main__.py`` that is
the agent (``python -I -S LIB``), and the NVML binding (one module, nvidia-ml-py) where the installing Python has it.
"""

from __future__ import annotations

import hashlib
import os
import time

import runyard
from runyard.wire.tree import remove_tree

PARTS = ("wire", "client", "capture", "agent")
BINDING = "pynvml.py"
KEPT_VERSIONS = 3
"""The current one and the two before it."""
ABANDONED_S = 3600.0
"""Age after which a half-made copy is taken to be left by a process that was killed."""
_MAIN = b"""import sys

from runyard.agent.main import main

if __name__ == "__main__":
    sys.exit(main())
"""


def _sources(package: str) -> dict[str, bytes]:
    """Return the content of every module of the client half by its path in the copy."""
    found = {"__main__.py": _MAIN, "runyard/__init__.py": _read(os.path.join(package, "__init__.py"))}
    for part in PARTS:
        top = os.path.join(package, part)
        for directory, names, files in os.walk(top):
            names[:] = sorted(name for name in names if name != "__pycache__")
            for name in sorted(files):
                if name.endswith(".py"):
                    path = os.path.join(directory, name)
                    found["runyard/" + os.path.relpath(path, package)] = _read(path)
    binding = _binding(package)
    if binding:
        found[BINDING] = binding
    return found


def _binding(package: str) -> bytes:
    """Return the source of the NVML binding beside the package, or where this Python imports it from; else nothing."""
    beside = os.path.join(os.path.dirname(package), BINDING)
    if os.path.exists(beside):
        return _read(beside)
    import importlib.util

    spec = importlib.util.find_spec("pynvml")
    if spec is None or not spec.origin or os.path.basename(spec.origin) != BINDING:
        return b""
    return _read(spec.origin)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _version(content: dict[str, bytes]) -> str:
    """Return what the package says that its version is."""
    for line in str(content["runyard/__init__.py"], "utf-8").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "__version__":
            return value.strip().strip("\"'")
    return runyard.__version__


def _digest(content: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for path in sorted(content):
        digest.update(b"%d %s %d " % (len(path), path.encode("utf-8"), len(content[path])))
        digest.update(content[path])
    return digest.hexdigest()[:12]


def _is_whole(directory: str, content: dict[str, bytes]) -> bool:
    """Tell whether a copy holds what it should (a power loss can leave empty files)."""
    try:
        return all(_read(os.path.join(directory, path)) == data for path, data in content.items())
    except OSError:
        return False


def install(home: str, package: str = "") -> str:
    """Make the copy, unless it is there, and return its directory. Older versions but the last two are removed.

    ``package``: directory of the package to copy; default: the one that is running. Two processes may do this at once.
    Raises OSError when the home cannot be written.
    """
    content = _sources(package or os.path.dirname(os.path.abspath(runyard.__file__)))
    top = os.path.join(home, "lib")
    target = os.path.join(top, "%s-%s" % (_version(content), _digest(content)))
    if not _is_whole(target, content):
        os.makedirs(top, exist_ok=True)
        _write(top, target, content)
    os.utime(target)
    _forget_old(top, target)
    return target


def _write(top: str, target: str, content: dict[str, bytes]) -> None:
    partial = os.path.join(top, ".%s.%d.%s" % (os.path.basename(target), os.getpid(), os.urandom(4).hex()))
    try:
        for path, data in content.items():
            where = os.path.join(partial, path)
            os.makedirs(os.path.dirname(where), exist_ok=True)
            with open(where, "wb") as file:
                file.write(data)
                os.fchmod(file.fileno(), 0o444)
        _compile(partial, target, content)
        for _ in range(3):
            try:
                os.rename(partial, target)
                return
            except OSError:
                if _is_whole(target, content):
                    break  # another process was faster
                broken = partial + ".broken"
                os.rename(target, broken)
                remove_tree(os.fsencode(broken))
    finally:
        remove_tree(os.fsencode(partial))


def _compile(partial: str, target: str, content: dict[str, bytes]) -> None:
    """Compile for this Python, with no check against the source: the copy never changes, and starts are faster."""
    import py_compile

    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    for path in content:
        if path == BINDING:
            continue  # takes a second, and only hosts with a GPU import it
        where = os.path.join(partial, path)
        py_compile.compile(where, dfile=os.path.join(target, path), doraise=True, invalidation_mode=mode)


def _forget_old(top: str, current: str) -> None:
    found = []
    for name in os.listdir(top):
        path = os.path.join(top, name)
        try:
            modified = os.stat(path).st_mtime
        except FileNotFoundError:
            continue  # another process removes it
        if name.startswith("."):
            if modified < time.time() - ABANDONED_S:
                remove_tree(os.fsencode(path))
        elif path != current:
            found.append((modified, path))
    for _, path in sorted(found, reverse=True)[KEPT_VERSIONS - 1 :]:
        remove_tree(os.fsencode(path))
