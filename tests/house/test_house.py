"""Rules that hold for every file of the project."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
MAX_LINES = 500
PACKAGE_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"), ("pythonhosted", "org"), ("python", "org/simple"), ("anaconda", "org"), ("conda", "io"),
        ("npmjs", "org"), ("npmjs", "com"), ("yarnpkg", "com"), ("debian", "org"), ("ubuntu", "com"), ("ghcr", "io"),
        ("docker", "io"), ("crates", "io"), ("rubygems", "org"),
    )
)  # fmt: skip


def tracked() -> list[Path]:
    """Return the files of the project: those that git knows or would add; all but build products without git."""
    command = ["git", "-C", str(TOP), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode == 0:
        paths = [TOP / name.decode() for name in done.stdout.split(b"\0") if name]
    else:
        skip = {".git", ".venv", "build", "dist", "__pycache__", "node_modules", "shared"}
        paths = [path for path in TOP.rglob("*") if not skip.intersection(path.relative_to(TOP).parts)]
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def texts() -> list[tuple[Path, str]]:
    """Return path and content of every text file of the project."""
    found = []
    for path in tracked():
        data = path.read_bytes()
        if b"\0" not in data:
            found.append((path, data.decode("utf-8", "replace")))
    return found


def test_no_file_names_a_package_host() -> None:
    named = [f"{path}: {host}" for path, text in texts() for host in PACKAGE_HOSTS if host in text]
    assert named == []


def test_no_file_names_a_path_of_this_machine() -> None:
    # The directories of the checkout, the home and the interpreter: wherever the tests run, none may be in a file.
    places = {str(TOP), str(Path.home()), sys.prefix, sys.base_prefix}
    if len(TOP.parent.parts) == 2:
        places.add(str(TOP.parent))
    places -= {"/", "/usr", "/usr/local", "/tmp", "/home", "/nonexistent"}
    pattern = re.compile("(?<![\\w.-])(?:" + "|".join(map(re.escape, sorted(places))) + ")(?=/[\\w.])")
    named = [f"{path}: {found.group()}" for path, text in texts() for found in pattern.finditer(text)]
    assert named == []


@pytest.mark.parametrize("folder", ["src", "tests", "tools", "bench"])
def test_modules_stay_small(folder: str) -> None:
    large = {
        str(path.relative_to(TOP)): count
        for path, text in texts()
        if path.suffix == ".py" and path.is_relative_to(TOP / folder) and (count := text.count("\n")) > MAX_LINES
    }
    assert large == {}


def _pins() -> dict[str, str]:
    lines = (TOP / "requirements" / "lock.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_the_lock_pins_every_direct_dependency() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    names = {re.match(r"[\w.-]+", item).group().lower() for item in wanted} - {"runyard"}  # type: ignore[union-attr]
    assert names <= set(_pins()), "run `make lock`"


def test_the_lock_is_what_is_installed() -> None:
    from importlib import metadata

    if not (TOP / ".venv" / ".installed").exists() or Path(sys.prefix) != TOP / ".venv":
        pytest.skip("only where .venv was made with the lock")
    installed = {re.sub(r"[-_.]+", "-", item.name).lower(): item.version for item in metadata.distributions()}
    assert {name: installed[name] for name in _pins() if name in installed} == {
        name: version for name, version in _pins().items() if name in installed
    }


def test_the_changelog_has_the_current_version_or_unreleased_changes() -> None:
    from runyard import __version__

    text = (TOP / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in text or f"## [{__version__}]" in text
