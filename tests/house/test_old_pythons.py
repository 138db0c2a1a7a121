"""The client half runs in other people's environments: any Python from 3.8 on, standard library only."""

from __future__ import annotations

import ast
import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "runyard"
CLIENT_HALF = ("wire", "client", "capture", "agent")
ALLOWED_EXTRA = {"pynvml"}
IMPORT_ALL = """
import importlib, os, sys
lib = sys.argv[1]
sys.path.insert(0, lib)
names = []
for directory, _, files in os.walk(lib):
    for name in files:
        if name.endswith(".py"):
            path = os.path.join(directory, name)
            with open(path, "rb") as file:
                compile(file.read(), path, "exec")
            if name != "__main__.py":
                names.append(os.path.relpath(path, lib)[:-3].replace(os.sep, ".").replace(".__init__", ""))
for name in sorted(names):
    importlib.import_module(name)
print(len(names))
"""


def interpreters() -> dict[str, str]:
    """Return ``{"3.8": path}`` of the interpreters of this machine, 3.8 and later, one for each minor version."""
    names = [f"python3.{minor}" for minor in range(8, 20)] + ["python3"]
    candidates = [sys.executable, *(path for name in names if (path := shutil.which(name)))]
    candidates += sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/3.*/bin/python")))
    found: dict[str, str] = {}
    for path in candidates:
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([path, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=30, check=False)
        version = done.stdout.strip()
        if done.returncode == 0 and int(version.partition(".")[2]) >= 8:
            found.setdefault(version, path)
    return found


INTERPRETERS = interpreters()


@pytest.fixture(scope="module")
def lib(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a copy of the client half and nothing else, as it is sent to other hosts."""
    top = tmp_path_factory.mktemp("lib")
    (top / "runyard").mkdir()
    shutil.copy(PACKAGE / "__init__.py", top / "runyard")
    for part in CLIENT_HALF:
        if (PACKAGE / part).is_dir():
            shutil.copytree(PACKAGE / part, top / "runyard" / part, ignore=shutil.ignore_patterns("__pycache__"))
    return top


@pytest.mark.parametrize("version", INTERPRETERS)
def test_every_module_compiles_and_imports_without_site_packages_and_warnings(version: str, lib: Path) -> None:
    command = [INTERPRETERS[version], "-I", "-S", "-B", "-W", "error", "-c", IMPORT_ALL, str(lib)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert int(done.stdout) == len(list(lib.rglob("[!_]*.py"))) + len(list(lib.rglob("__init__.py")))


def _imports(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or ".")
    return names


@pytest.mark.parametrize("part", CLIENT_HALF)
def test_only_the_standard_library_is_imported(part: str) -> None:
    own = tuple("runyard." + name for name in CLIENT_HALF)
    for path in sorted((PACKAGE / part).rglob("*.py")):
        for name in _imports(ast.parse(path.read_text(encoding="utf-8"))):
            allowed = (
                name == "runyard"
                or name.startswith(own)
                or name.partition(".")[0] in sys.stdlib_module_names
                or name in ALLOWED_EXTRA
            )
            assert allowed, f"{path} imports {name}"
