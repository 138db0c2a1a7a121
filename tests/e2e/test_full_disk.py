"""A home on a disk that is full: every command says so, nothing is half made, and with room again all goes on."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Cli, end_all, write_repository


@pytest.fixture
def small(home: Path, tmp_path: Path, require: Callable[[str], None]) -> Iterator[Cli]:
    """The command line with a home on a disk of 24 MB."""
    require("root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", home], check=False).returncode:
        pytest.skip("may not mount")
    repository = write_repository(tmp_path / "digits", {"train.py": "print('ran')\n"})
    cli = Cli(home, repository, RUNYARD_CPU_SLOTS="1", RUNYARD_MIN_FREE="0")
    yield cli
    end_all(home)
    subprocess.run(["umount", "-l", home], check=True)


def fill(path: Path) -> None:
    """Write a file until there is no byte left."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError as exc:
                if exc.errno != errno.ENOSPC:
                    raise


def test_a_submit_to_a_full_disk_says_so_and_leaves_nothing(small: Cli) -> None:
    first = small.until(small.submit("python", "train.py"), "finished")
    ballast = small.home / "ballast"
    fill(ballast)
    before = sorted(path for path in (small.home / "runs").rglob("*"))
    refused = []
    # The snapshot has no room; without one, the environment's file has none, or the database.
    for words in (["python", "train.py"], ["--in-place", "python", "train.py"], ["--in-place", "--hold", "true"]):
        (small.cwd / "new.py").write_text("x")
        done = small.call("run", *words, code=None)
        if done.returncode:
            refused.append(done.stderr)
    assert refused, "the disk was not full"
    for said in refused:
        assert "full" in said.lower() or "no space left" in said.lower(), said
        assert "runyard gc" in said
        assert "server failed" not in said
    os.unlink(ballast)
    listed = small.json("ls")
    assert len(listed) == 1 + 3 - len(refused)
    after = sorted(path for path in (small.home / "runs").rglob("*"))
    assert len(refused) < 3 or after == before
    again = small.submit("python", "train.py")
    assert small.until(again, "finished")["end"]["exit_code"] == 0
    assert small.show(first["id"])["state"] == "finished"
