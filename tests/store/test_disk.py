"""Deleting the directories of runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from runyard.services.control import delete_directory

NOBODY = 65534
MAKE_AND_DELETE = f"""
import os, shutil, sys
from runyard.services.control import delete_directory
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
os.makedirs("run/a/b")
open("run/a/b/file", "w").close()
os.chmod("run/a/b", 0o500)
os.chmod("run/a", 0o100)
delete_directory("run")
sys.exit(os.path.exists("run"))
"""


def test_read_only_directories_are_deleted(require: Callable[[str], None]) -> None:
    require("root")  # whom permissions do not stop: the test is done by somebody else
    place = tempfile.mkdtemp(prefix="ry-", dir="/tmp")
    os.chown(place, NOBODY, NOBODY)
    command = [sys.executable, "-c", MAKE_AND_DELETE]
    done = subprocess.run(command, cwd=place, check=False, capture_output=True, text=True)
    shutil.rmtree(place)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir(0o755)
    (other / "file").touch()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "inner").symlink_to(other)
    (tmp_path / "link").symlink_to(other)
    delete_directory(str(tmp_path / "link"))
    delete_directory(str(tmp_path / "runs"))
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    assert (other.stat().st_mode & 0o777, [path.name for path in other.iterdir()]) == (0o755, ["file"])
