"""Every code block of README and of the quickstart does what the page says."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runyard.wire import settings
from tests.docs.blocks import code_blocks, console_steps, ids, matches
from tests.docs.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/quickstart.md")
LANGUAGES = {"console", "python", "toml", "json"}
PIP = """#!/bin/sh
# Installs without the network: what the package needs is there already.
command=$1
shift
exec "{python}" -m pip "$command" --quiet --disable-pip-version-check --no-index --no-build-isolation "$@"
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment without Runyard, but with what Runyard needs; returns its directory of programs."""
    path = tmp_path_factory.mktemp("machine") / "env"
    venv.create(path, symlinks=True, with_pip=False)
    python = path / "bin" / "python"
    packages = sysconfig.get_path("purelib", vars={"base": str(path)})
    # Found after its own packages; the outer environment's own runyard is hidden, since only .pth files lead to it.
    (Path(packages) / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    (path / "bin" / "pip").write_text(PIP.format(python=python), encoding="utf-8")
    (path / "bin" / "pip").chmod(0o755)
    return path / "bin"


def make_repository(path: Path) -> None:
    """Make the reader's repository: a training script with its data, committed."""
    (demo,) = (TOP / "src" / "runyard").glob("**/train.py")
    shutil.copytree(demo.parent, path, ignore=shutil.ignore_patterns("__pycache__", "__init__.py"))
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "Start"]):
        subprocess.run(["git", *command], cwd=path, check=True)


@pytest.fixture
def reader(tmp_path: Path, home: Path, machine: Path) -> Iterator[Session]:
    """A reader in the checkout, with a repository of theirs beside it."""
    user = tmp_path / "user"
    user.mkdir()
    make_repository(user / "your-repo")
    environ = {
        name: value
        for name, value in os.environ.items()
        if name in ("LANG", "LC_ALL", "TMPDIR") or name.startswith("GIT_")
    }
    environ.update(
        HOME=str(user),
        RUNYARD_HOME=str(home),
        RUNYARD_LISTEN="127.0.0.1:0",
        CDPATH=f".:{user}",
        PATH=f"{machine}:{os.environ['PATH']}",
    )
    yield Session(cwd=TOP, environ=environ)
    subprocess.run([machine / "runyard", "stop"], env=environ, cwd=user, check=False, capture_output=True, timeout=60)


def check_console(session: Session, page: str, block_text: str, block_line: int) -> None:
    """Run the commands of one block; each must succeed, or end as the page says, and print what the page shows."""
    from tests.docs.blocks import Block

    for step in console_steps(Block(language="console", line=block_line, text=block_text)):
        status, output = session.run(session.named(step.command))
        where = f"{page}:{step.line}: $ {step.command}"
        assert status == 0, f"{where}\nended with {status}:\n{output}"
        shown = [line for line in step.expected if line.strip()]
        if shown:
            printed = matches(step.expected, output)
            assert printed is not None, f"{where}\nprinted:\n{output}\nthe page says:\n" + "\n".join(shown)
            session.remember(ids("\n".join(shown)), printed)


def check_toml(where: str, text: str) -> None:
    """Parse a settings file; its first line says which: ``# runyard.toml`` or ``# config.toml``."""
    name = text.splitlines()[0].lstrip("# ").partition(" ")[0]
    kinds = {"runyard.toml": settings.PROJECT, "config.toml": settings.HOME}
    assert name in kinds, f"{where}: the first line must be a comment that names the file"
    settings.check(tomllib.loads(text), where, kinds[name])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES)
def test_every_code_block_works(page: str, reader: Session) -> None:
    for block in code_blocks((TOP / page).read_text(encoding="utf-8")):
        where = f"{page}:{block.line}"
        assert block.language in LANGUAGES, f"{where}: no test knows what to do with {block.language!r}"
        if block.language == "console":
            check_console(reader, page, block.text, block.line)
        elif block.language == "toml":
            check_toml(where, block.text)
        elif block.language == "json":
            json.loads(block.text)
        else:
            ast.parse(block.text, where)
            script = reader.environ["HOME"] + "/block.py"
            Path(script).write_text(block.text, encoding="utf-8")
            status, output = reader.run(f"python {script}")
            assert status == 0, f"{where}\n{output}"


def test_make_demo_leaves_the_users_yard_alone(tmp_path: Path, home: Path) -> None:
    if Path(sys.prefix) != TOP / ".venv":
        if os.environ.get("RUNYARD_CI") == "1":
            pytest.fail("needs .venv: run `make test`")
        pytest.skip("needs .venv: run `make test`")
    environ = dict(os.environ, HOME=str(tmp_path / "user"), RUNYARD_LISTEN="127.0.0.1:0")
    target = f"DEMO_HOME={home}/demo"
    try:
        done = subprocess.run(
            ["make", "--no-print-directory", "demo", target],
            cwd=TOP, env=environ, capture_output=True, text=True, check=False, timeout=110,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "http://127.0.0.1:" in done.stdout + done.stderr
        assert not (tmp_path / "user" / ".runyard").exists()
        assert list((home / "demo" / "runs").iterdir())
    finally:
        subprocess.run(
            ["make", "demo-stop", target], cwd=TOP, env=environ, check=False, capture_output=True, timeout=60
        )
