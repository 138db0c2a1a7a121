"""The repository that submits are measured with, and what a queue without a store of snapshots does at a submit."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

FILES, SIZE = 500, 20_000
ABOUT = f"{FILES} files, {FILES * SIZE // 10**6} MB"


def make(path: Path, environ: Mapping[str, str]) -> None:
    """Make a repository of source-like text with one commit: 500 files of 20 kB in 40 directories."""
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz_", k=rng.randint(2, 12))) for _ in range(3000)]
    for number in range(FILES):
        file = path / f"package{number % 40}" / f"module{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        text = " ".join(rng.choices(words, k=SIZE // 6)) + "\n"
        file.write_text(text[:SIZE].ljust(SIZE, "#"))
    git(["init", "-q", "-b", "main"], path, environ)
    git(["add", "-A"], path, environ)
    git(["-c", "user.name=bench", "-c", "user.email=bench@example.org", "commit", "-qm", "x"], path, environ)
    git(["gc", "-q"], path, environ)  # as repositories in use are: a clone then copies the pack as it is


def clone_and_copy(repository: Path, clone: Path, environ: Mapping[str, str]) -> None:
    """Clone the last commit, then copy every tracked file over it."""
    git(["clone", "-q", "--depth=1", f"file://{repository}", str(clone)], repository, environ)
    for name in git(["ls-files", "-z"], repository, environ).split(b"\0")[:-1]:
        shutil.copy2(repository / os.fsdecode(name), clone / os.fsdecode(name))


def git(words: list[str], directory: Path, environ: Mapping[str, str]) -> bytes:
    """Run git and return what it prints; raises CalledProcessError."""
    return subprocess.run(["git", *words], cwd=directory, env=environ, check=True, capture_output=True).stdout
