"""What is said of programs that no hook was in."""

from __future__ import annotations

from pathlib import Path

import pytest

from runyard.agent.typed import out_of_reach


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("python train.py -I -S", ""), ("python -u -X dev -W ignore train.py -E", ""), ("bash -E x.sh", ""),
        ("python -m train -I", ""), ("python -c 1 -I", ""), ("python -ccode -I", ""), ("python", ""), ("python - -I", ""),
        ("python -I train.py", "its Python was started with -I"), ("python3.11 -uEs x.py", "its Python was started with -E"),
        ("python -W ignore -S x.py", "its Python was started with -S"),
        ("pypy3 -Wignore -I x.py", "its Python was started with -I"),
        ("python2 x.py", "its Python is older than 3.8"), ("/nix/bin/python3.6 x.py", "its Python is older than 3.8"),
        ("python3.13 x.py", ""), ("python3 x.py", ""),
    ],
)  # fmt: skip
def test_why_no_hook_can_be_in_a_program(command: str, why: str) -> None:
    assert out_of_reach(command.split(), "") == why


def test_the_version_is_that_of_the_file_behind_links(tmp_path: Path) -> None:
    (tmp_path / "python3.7").touch()
    (tmp_path / "python").symlink_to("python3.7")
    assert out_of_reach(["python", "x.py"], str(tmp_path / "python")) == "its Python is older than 3.8"
