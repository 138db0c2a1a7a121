"""Editable installs: which directories of the tree must come first on PYTHONPATH so that the frozen code is imported.

Found by reading the interpreter's site directories, without starting it: ``.pth`` files (site), setuptools' finders
(``__editable___*_finder.py``: a literal ``MAPPING``), ``.egg-link`` files, and ``direct_url.json`` (PEP 610) for those
that a hook of another build system finds. PYTHONPATH entries of the caller that lie in the tree count too.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_SYSTEM = ("/usr/lib/python3/dist-packages", "/usr/local/lib/python3/dist-packages")


class Editable:
    """What is installed as editable.

    ``pythonpath``: directories of the tree, relative, in order; ``elsewhere``: (name, path) of installs outside of it;
    ``unmapped``: names of installs from the tree that PYTHONPATH cannot express: they load the live code.
    """

    def __init__(self) -> None:
        self.pythonpath: list[str] = []
        self.elsewhere: list[tuple[str, str]] = []
        self.unmapped: list[str] = []


def find_interpreter(program: str, environ: Mapping[str, str], top: str) -> str | None:
    """Return the Python that a program will most likely run: itself, its ``#!`` line, the active or project venv."""
    if os.path.basename(program).startswith("python"):
        return program
    try:
        with open(program, "rb") as file:
            line = file.read(256).partition(b"\n")[0]
    except OSError:
        line = b""
    if line.startswith(b"#!"):
        words = os.fsdecode(line[2:]).split()
        if words and os.path.basename(words[0]).startswith("python"):
            return words[0]
    prefixes = [environ.get("VIRTUAL_ENV"), os.path.join(top, ".venv"), environ.get("CONDA_PREFIX")]
    if os.path.basename(program) in ("uv", "poetry", "pdm", "hatch", "rye"):
        prefixes[:2] = prefixes[1::-1]
    for prefix in prefixes:
        if prefix and os.path.exists(os.path.join(prefix, "bin", "python")):
            return os.path.join(prefix, "bin", "python")
    for directory in environ.get("PATH", "").split(os.pathsep):
        path = os.path.join(directory, "python3")
        if directory and os.access(path, os.X_OK):
            return path
    return None


def site_directories(interpreter: str, environ: Mapping[str, str]) -> list[str]:
    """Return the site directories of an interpreter that exist, nearest first (rules of the ``site`` module)."""
    prefix = os.path.dirname(os.path.dirname(os.path.abspath(interpreter)))
    found: list[str] = []
    config = _venv_config(os.path.join(prefix, "pyvenv.cfg"))
    if config is None:
        prefix = os.path.dirname(os.path.dirname(os.path.realpath(interpreter)))
        _add_global(prefix, environ, found)
        return found
    _add_versions(os.path.join(prefix, "lib"), "site-packages", found)
    if config.get("include-system-site-packages", "").lower() == "true" and config.get("home"):
        _add_global(os.path.dirname(config["home"]), environ, found)
    return found


def _add_global(prefix: str, environ: Mapping[str, str], found: list[str]) -> None:
    if environ.get("HOME") and not environ.get("PYTHONNOUSERSITE"):
        base = environ.get("PYTHONUSERBASE") or os.path.join(environ["HOME"], ".local")
        _add_versions(os.path.join(base, "lib"), "site-packages", found)
    _add_versions(os.path.join(prefix, "lib"), "site-packages", found)
    if prefix == "/usr":
        _add_versions("/usr/local/lib", "dist-packages", found)
        found.extend(path for path in _SYSTEM if os.path.isdir(path))


def _add_versions(lib: str, name: str, found: list[str]) -> None:
    try:
        versions = sorted(entry for entry in os.listdir(lib) if entry.startswith("python3."))
    except OSError:
        return
    paths = (os.path.join(lib, version, name) for version in versions)
    found.extend(path for path in paths if os.path.isdir(path) and path not in found)


def _venv_config(path: str) -> dict[str, str] | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            pairs = (line.partition("=") for line in file)
            return {key.strip().lower(): value.strip() for key, _, value in pairs}
    except OSError:
        return None


def find_editable(interpreter: str | None, roots: Sequence[tuple[str, str]], environ: Mapping[str, str]) -> Editable:
    """Return what must come first on PYTHONPATH, and what cannot be frozen that way.

    ``roots``: (directory of the user, the same place relative to the run's working tree): ``(top, "")`` and those
    frozen beside it, such as ``("/home/u/lib", "../lib")``. ``interpreter`` None: only PYTHONPATH is looked at.
    """
    result = Editable()
    places = [(os.path.realpath(root), relative) for root, relative in roots]
    for entry in environ.get("PYTHONPATH", "").split(os.pathsep):
        if os.path.isabs(entry):
            _place(os.path.realpath(entry), places, result.pythonpath)
    if interpreter is None:
        return result
    prefix = os.path.realpath(os.path.dirname(os.path.dirname(os.path.abspath(interpreter)))) + os.sep
    for directory in site_directories(interpreter, environ):
        for name, path in _installs(directory, result.unmapped, places):
            real = os.path.realpath(path)
            if (real + os.sep).startswith(prefix) or not os.path.isdir(real):
                continue
            if not _place(real, places, result.pythonpath) and (name, real) not in result.elsewhere:
                result.elsewhere.append((name, real))
        _note_hooks(directory, places, result)
    return result


def _place(real: str, places: Iterable[tuple[str, str]], into: list[str]) -> bool:
    for root, relative in places:
        if real == root or real.startswith(root + os.sep):
            path = os.path.normpath(os.path.join(relative or ".", os.path.relpath(real, root)))
            if path not in into:
                into.append(path)
            return True
    return False


def _installs(directory: str, unmapped: list[str], places: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield (name, import directory) of everything that a site directory adds to the path."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return
    for name in names:
        full = os.path.join(directory, name)
        if name.endswith((".pth", ".egg-link")):
            for line in _lines(full):
                if line and not line.startswith(("#", "import ", "import\t", ".")):
                    yield name.rpartition(".")[0], os.path.join(directory, line)
        elif name.startswith("__editable__") and name.endswith("_finder.py"):
            label = name[len("__editable__") : -len("_finder.py")].strip("_")
            for module, path in _mapping(full):
                root = _import_root(module, path)
                if root is not None:
                    yield label, root
                elif any(_place(os.path.realpath(path), [place], []) for place in places):
                    unmapped.append(module)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return [line.strip() for line in file.read(1 << 20).splitlines()]
    except OSError:
        return []


def _mapping(path: str) -> list[tuple[str, str]]:
    """Return (module, path) of the ``MAPPING`` and ``NAMESPACES`` literals of a setuptools finder."""
    import ast  # only where there is such a finder

    found: list[tuple[str, str]] = []
    for line in _lines(path):
        head, _, literal = line.partition("=")
        if head.split(":")[0].strip() not in ("MAPPING", "NAMESPACES"):
            continue
        try:
            value = ast.literal_eval(literal.strip())
        except (ValueError, SyntaxError):
            continue
        if isinstance(value, dict):
            for module, where in value.items():
                places = where if isinstance(where, list) else [where]
                found.extend((str(module), str(place)) for place in places)
    return found


def _import_root(module: str, path: str) -> str | None:
    """Return the directory from which ``module`` is found at ``path``, None when the names differ."""
    path = path.removesuffix(".py")
    tail = os.sep + module.replace(".", os.sep)
    return path[: -len(tail)] or os.sep if path.endswith(tail) else None


def _note_hooks(directory: str, places: Sequence[tuple[str, str]], result: Editable) -> None:
    """Add editable installs that only ``direct_url.json`` tells of: they are found by an import hook."""
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".dist-info"))
    except OSError:
        return
    for name in names:
        path = _editable_project(os.path.join(directory, name, "direct_url.json"))
        if path is None:
            continue
        label, real = name.partition("-")[0], os.path.realpath(path)
        inside: list[str] = []
        if _place(real, places, inside):
            within = "" if inside[0] == "." else inside[0] + os.sep
            if not any(entry == inside[0] or entry.startswith(within) for entry in result.pythonpath):
                result.unmapped.append(label)
        elif not any(other == real or other.startswith(real + os.sep) for _, other in result.elsewhere):
            result.elsewhere.append((label, real))


def _editable_project(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            data = file.read(1 << 16)
    except OSError:
        return None
    if b'"editable"' not in data:
        return None
    import json

    try:
        record = json.loads(data)
        url = record["url"] if record["dir_info"]["editable"] is True else ""
    except (ValueError, KeyError, TypeError):
        return None
    if not url.startswith("file://"):
        return None
    if "%" in url:
        from urllib.parse import unquote

        url = unquote(url, errors="surrogateescape")
    return str(url[len("file://") :])
