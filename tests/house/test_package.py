"""What `pip install .` installs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
PACKAGE = TOP / "src" / "runyard"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the working tree."""
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(target), str(TOP)], check=True, timeout=100)
    (path,) = target.glob("runyard-*.whl")
    return path


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("runyard/")}
    files = {path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*") if path.is_file()}
    assert names == {str(path) for path in files if "__pycache__" not in path.parts}


def test_the_wheel_has_licence_and_commands(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    info = {name.partition(".dist-info/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
    assert "Apache License" in archive.read(info["licenses/LICENSE"]).decode()
    assert "License-Expression: Apache-2.0" in archive.read(info["METADATA"]).decode()
    assert set(archive.read(info["entry_points.txt"]).decode().split("\n")) >= {
        "runyard = runyard.cli.main:main",
        "ry = runyard.cli.main:main",
    }


def test_the_package_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "import runyard, runyard.cli.main as main; print(runyard.__file__); main.main(['--version'])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert str(tmp_path) in done.stdout
