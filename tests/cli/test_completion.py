"""Completion, driven through the shells themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runyard.cli.completion import SCRIPTS
from tests.cli.conftest import SRC, Cli
from tests.cli.fake import FakeYard

Complete = Callable[[str], list[str]]

BASH = """
source "$1"
words=($2); [[ $2 == *' ' ]] && words+=('')
COMP_WORDS=("${words[@]}"); COMP_CWORD=$((${#words[@]} - 1)); COMP_LINE=$2
compopt() { echo "option $*"; }
_runyard_completion
printf '%s\\n' "${COMPREPLY[@]}"
"""
# zsh's own completion needs a terminal: its builtins are replaced by ones that print what they are given.
ZSH = """
compdef() { : }
source $1
words=(${(z)2}); [[ $2 == *' ' ]] && words+=('')
CURRENT=$#words
_describe() { local -a list; list=("${(@P)3}"); printf '%s\\n' "${(@)list%%:*}" }
_files() { echo 'option files' }
_runyard_completion
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A directory for PATH in which `runyard` and `ry` are this program."""
    directory = tmp_path / "programs"
    directory.mkdir()
    for name in ("runyard", "ry"):
        script = directory / name
        script.write_text('#!/bin/sh\nPYTHONPATH=%s exec %s -m runyard.cli "$@"\n' % (SRC, sys.executable))
        script.chmod(0o755)
    return directory


@pytest.fixture(params=["bash", "zsh", "fish"])
def complete(
    request: pytest.FixtureRequest, program: Path, tmp_path: Path, cli: Cli, environment: dict[str, str],
    require: Callable[[str], None],
) -> Complete:  # fmt: skip
    """Ask a shell for the completions of a line."""
    shell = request.param
    require(shell)
    script = tmp_path / "script"
    script.write_text(cli("completion", shell).stdout)
    assert script.read_text() == SCRIPTS[shell]
    env = {**environment, "PATH": "%s:%s" % (program, os.environ["PATH"]), "HOME": str(tmp_path)}

    def ask(line: str) -> list[str]:
        if shell == "fish":
            command = ["fish", "--no-config", "-c", "source %s; complete -C '%s'" % (script, line)]
        else:
            flags = ["--norc"] if shell == "bash" else ["-f"]
            command = [shell, *flags, "-c", BASH if shell == "bash" else ZSH, shell, str(script), line]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert done.stderr == ""
        return [row.split("\t")[0] for row in done.stdout.splitlines()]

    return ask


def test_commands_options_and_run_ids(complete: Complete, yard: FakeYard, cli: Cli, repository: Path) -> None:
    assert cli("--name", "best", "true", cwd=repository).returncode == 0
    (run_id,) = yard.runs
    assert "show" in complete("runyard sh")
    assert "server-logs" in complete("ry s")
    assert "--follow" in complete("runyard logs --f")
    assert "--time-limit" in complete("runyard --time")
    assert "--gpus" in complete("runyard run --gp")
    assert run_id in complete("runyard logs %s" % run_id[:3])
    assert {run_id, "best", "@last"} <= set(complete("runyard kill "))
    assert "best" in complete("runyard --after be")
    assert "create" in complete("runyard token c")


def test_metrics_and_fields(complete: Complete, yard: FakeYard, cli: Cli, repository: Path) -> None:
    assert cli("true", cwd=repository).returncode == 0
    (run,) = yard.runs.values()
    run.update(params={"lr": 1, "batch-size": 2}, metrics={"loss": {}, "val/acc": {}})
    assert set(complete("runyard compare --metric ")) == {"loss", "val/acc"}
    assert set(complete("runyard export --rows params.")) == {"params.lr"}
    assert complete("runyard export --rows params.lr,metrics.l") == ["params.lr,metrics.loss"]


def test_last_after_the_at_sign(complete: Complete, request: pytest.FixtureRequest, yard: FakeYard) -> None:
    line = "runyard show @la"
    if "bash" in request.node.name:
        line = "runyard show @ la"  # as bash cuts it
        assert complete(line) == ["last"]
    else:
        assert "@last" in complete(line)


def test_the_users_own_command_gets_files(complete: Complete, yard: FakeYard, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    for line in ("runyard python tr", "runyard run -m x python tr", "ry -- python tr"):
        found = complete(line)
        assert "option -o default -o bashdefault" in found or "option files" in found or "train.py" in found
        assert "show" not in found


def test_without_a_server_there_are_no_ids_and_no_complaints(complete: Complete, home: Path) -> None:
    assert "@last" in complete("runyard logs ")
    assert not (home / "server.log").exists()


def test_programs_are_offered_for_the_first_word(complete: Complete, program: Path) -> None:
    (program / "mytrainer").write_text("#!/bin/sh\n")
    assert "mytrainer" in complete("runyard mytr")
