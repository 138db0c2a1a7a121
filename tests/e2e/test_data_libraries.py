"""What a run shows of the files that real libraries read: the table in docs/capture.md, line by line."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BINARIES
from tests.e2e.harness import TOP, Cli, end_all, write_repository
from tests.e2e.reading import (
    LINES,
    LOADING,
    MAKING,
    TORCH_LINES,
    TORCH_MAKING,
    Line,
    make_files,
    read_all,
    write_program,
)

Found = dict[str, Any]
PACKAGES = "cv2 h5py joblib openpyxl pandas pyarrow safetensors scipy tables".split()


@pytest.fixture(scope="session")
def of_libraries(tmp_path_factory: pytest.TempPathFactory, require: Callable[[str], None]) -> Found:
    """What two runs say that they read, with hooks and without."""
    for package in PACKAGES:
        require(f"package {package}")
    return once(tmp_path_factory, MAKING, LINES)


@pytest.fixture(scope="session")
def of_torch(tmp_path_factory: pytest.TempPathFactory, require: Callable[[str], None]) -> Found:
    """The same of PyTorch."""
    require("package torch")
    return once(tmp_path_factory, TORCH_MAKING, TORCH_LINES)


def once(factory: pytest.TempPathFactory, making: str, lines: dict[str, Line]) -> Found:
    """Have all processes of the tests share two runs."""
    shared = factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    result = shared / f"reading-{len(lines)}.json"
    with result.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            result.write_text(json.dumps(run_both(factory.mktemp("reading"), making, lines)))
    return dict(json.loads(result.read_text()))


def run_both(top: Path, making: str, lines: dict[str, Line]) -> Found:
    home = Path(tempfile.mkdtemp(prefix="ry-", dir=os.environ.get("TMPDIR", "/tmp")))
    paths = make_files(top / "files", making, lines)
    repository = write_repository(top / "repository", {"loading.py": LOADING})
    names = write_program(repository, paths, lines)
    cli = Cli(home, repository, RUNYARD_CPU_SLOTS="2", PATH=BINARIES + os.pathsep + os.environ["PATH"])
    said: Found = {"paths": {name: str(path) for name, path in paths.items()}}
    try:
        for how, command in (("seen", ["python"]), ("outside", ["python", "-E"])):
            held = {str(paths[name]) for name, line in lines.items() if getattr(line, how) is not None}
            said[how] = read_all(cli, top / how, command, names, held)
    finally:
        end_all(home)
        shutil.rmtree(home, ignore_errors=True)
    return said


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", LINES)
def test_a_file_is_shown_as_documented_or_not_at_all(of_libraries: Found, name: str) -> None:
    check(of_libraries, name, LINES[name])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", TORCH_LINES)
def test_so_is_one_that_pytorch_reads(of_torch: Found, name: str) -> None:
    check(of_torch, name, TORCH_LINES[name])


def check(found: Found, name: str, line: Line) -> None:
    path = Path(found["paths"][name])
    for how, via in (("seen", line.seen), ("outside", line.outside)):
        entry = found[how].get(str(path))
        assert (entry and entry["via"]) == via
        if entry:
            facts = (path.stat().st_size, 1, hashlib.sha256(path.read_bytes()).hexdigest())
            assert (entry["size"], entry["files"], entry["sha256"]) == facts


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["seen", "outside"])
def test_nothing_is_claimed_that_was_not_read(of_libraries: Found, how: str) -> None:
    read = {of_libraries["paths"][name] for name, line in LINES.items() if getattr(line, how)}
    assert set(of_libraries[how]) == read


def test_the_table_in_the_documentation_has_these_lines() -> None:
    text = (TOP / "docs" / "capture.md").read_text()
    rows = re.findall(
        r"^\| `(.+?)`(.*?) \| (.+?) \| (.+?) \|$", text.partition("### Library by library")[2], re.MULTILINE
    )
    words = {"open": "at once", "fd": "while it is open", "map": "while it is mapped", None: "no"}
    documented = {call + rest: (seen, outside) for call, rest, seen, outside in rows}
    assert documented == {name: (words[line.seen], words[line.outside]) for name, line in (LINES | TORCH_LINES).items()}
