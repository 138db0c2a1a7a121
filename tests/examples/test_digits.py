"""The example with scikit-learn and matplotlib runs as its README says."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("sklearn", "matplotlib"):
        if importlib.util.find_spec(name) is None:
            assert os.environ.get("RUNYARD_CI") != "1", f"{name} is in the test extra"
            pytest.skip(f"{name} is not installed")
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    return Path(shutil.copytree(DIGITS, tmp_path / "digits"))


def train(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "train.py", *arguments],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_it_learns_and_writes_figures_and_model(repository: Path) -> None:
    done = train(repository, "--lr", "0.05", "--epochs", "4")
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^epoch (\d+) loss: ([\d.]+) acc: ([\d.]+)$", done.stdout, re.MULTILINE)
    assert [int(epoch) for epoch, _, _ in found] == [1, 2, 3, 4]
    assert float(found[-1][1]) < float(found[0][1])
    assert float(found[-1][2]) > 0.9
    for name in ("learning_curve.png", "confusion.png"):
        assert (repository / name).read_bytes().startswith(PNG)
    assert (repository / "model.pkl").stat().st_size > 0


def test_too_fast_fails_with_a_traceback(repository: Path) -> None:
    done = train(repository, "--lr", "1000")
    assert done.returncode == 1
    assert "non-finite" in done.stderr
