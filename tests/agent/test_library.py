"""The copy of the client half that agents and runs work from."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runyard.wire import library


def _package(tmp_path: Path, version: str) -> str:
    package = tmp_path / ("p" + version) / "runyard"
    for part in ("wire", "agent", "server"):
        (package / part).mkdir(parents=True)
        (package / part / "__init__.py").write_text("VALUE = %r\n" % version)
    (package / "__init__.py").write_text('__version__ = "%s"\n' % version)
    (package / "agent" / "main.py").write_text("def main(words=None):\n    print('agent', __file__)\n    return 0\n")
    return str(package)


def test_the_copy_holds_the_client_half_and_nothing_else(tmp_path: Path) -> None:
    lib = library.install(str(tmp_path / "home"), _package(tmp_path, "1.0"))
    found = {str(path.relative_to(lib)) for path in Path(lib).rglob("*.py")} - {"pynvml.py"}
    assert found == {
        "__main__.py", "runyard/__init__.py", "runyard/wire/__init__.py", "runyard/agent/__init__.py",
        "runyard/agent/main.py",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-I", "-S", lib], stdout=subprocess.PIPE, check=True)
    assert lib.encode() in done.stdout
    assert library.install(str(tmp_path / "home"), _package(tmp_path / "again", "1.0")) == lib
    with open(os.path.join(lib, "runyard", "__init__.py")) as file, pytest.raises(io.UnsupportedOperation):
        file.write("")
    assert not os.stat(os.path.join(lib, "runyard", "__init__.py")).st_mode & 0o222


def test_another_content_of_the_same_version_is_another_copy(tmp_path: Path) -> None:
    package = _package(tmp_path, "1.0")
    first = library.install(str(tmp_path / "home"), package)
    Path(package, "wire", "__init__.py").write_text("VALUE = 2\n")
    assert library.install(str(tmp_path / "home"), package) != first
    assert os.path.isdir(first)


def test_a_damaged_copy_is_made_again(tmp_path: Path) -> None:
    package = _package(tmp_path, "1.0")
    lib = Path(library.install(str(tmp_path / "home"), package))
    victim = lib / "runyard" / "agent" / "main.py"
    victim.chmod(0o644)
    victim.write_text("")
    assert library.install(str(tmp_path / "home"), package) == str(lib)
    assert victim.read_text() != ""


def test_the_two_versions_before_are_kept(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    made = []
    for number in range(4):
        made.append(library.install(home, _package(tmp_path, "1.%d" % number)))
        os.utime(made[-1], (1000.0 + number, 1000.0 + number))
    assert [os.path.exists(lib) for lib in made] == [False, True, True, True]


def test_many_install_at_once(tmp_path: Path) -> None:
    package, made = _package(tmp_path, "1.0"), []
    threads = [
        threading.Thread(target=lambda: made.append(library.install(str(tmp_path / "home"), package))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6
    assert len(set(made)) == 1
    assert os.listdir(tmp_path / "home" / "lib") == [os.path.basename(made[0])]
