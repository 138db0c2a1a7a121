from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.cli.rerun import merge, set_value
from tests.cli.conftest import Cli
from tests.cli.fake import FakeYard


@pytest.mark.parametrize(
    ("command", "name", "value", "result"),
    [
        ("p t.py", "lr", "1", "p t.py --lr 1"),
        ("p t.py --lr 0.1", "lr", "1", "p t.py --lr 1"),
        ("p t.py --lr=0.1 --b 2", "lr", "1", "p t.py --lr=1 --b 2"),
        ("p t.py --lr 0.1 --lr 0.2", "lr", "1", "p t.py --lr 0.1 --lr 1"),
        ("p t.py lr=0.1", "lr", "1", "p t.py lr=1"),
        ("p t.py model.lr=0.1", "model.lr", "1", "p t.py model.lr=1"),
        ("p t.py -lr 0.1", "lr", "1", "p t.py -lr 1"),
        ("p t.py --batch-size 4", "batch_size", "8", "p t.py --batch-size 8"),
        ("p t.py --x -5 y", "x", "-6", "p t.py --x -6 y"),
        ("p t.py --fast --lr 1", "fast", "no", "p t.py --fast no --lr 1"),
        ("p t.py --lr", "lr", "1", "p t.py --lr 1"),
        ("lr=1 t.py", "lr", "2", "lr=1 t.py --lr 2"),
    ],
)
def test_set_value(command: str, name: str, value: str, result: str) -> None:
    assert set_value(command.split(), name, value) == result.split()


@given(st.lists(st.text(min_size=1), min_size=1), st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.text())
def test_setting_twice_is_setting_once(command: list[str], name: str, value: str) -> None:
    once = set_value(command, name, value)
    if not value.startswith("-"):
        assert set_value(once, name, value) == once
    assert once[0] == command[0]


@pytest.mark.parametrize(
    ("command", "changed", "result"),
    [
        ("p t.py --lr 1 --b 2", "", "p t.py --lr 1 --b 2"),
        ("p t.py --lr 1 --b 2", "--lr 3", "p t.py --lr 3 --b 2"),
        ("p t.py --lr 1", "--new 3 --flag", "p t.py --lr 1 --new 3 --flag"),
        ("p t.py -l 1", "-l 2 --x=1", "p t.py -l 2 --x 1"),
        ("p t.py --flag", "--flag", "p t.py --flag"),
        ("p t.py --lr 1", "q u.py", "q u.py"),
        ("p t.py --lr 1", "--lr -2", "p t.py --lr -2"),
    ],
)
def test_merge(command: str, changed: str, result: str) -> None:
    assert merge(command.split(), changed.split()) == result.split()


def test_rerun_keeps_the_code_and_what_is_not_changed(cli: Cli, yard: FakeYard, repository: Path) -> None:
    first = cli("-m", "why", "-t", "a", "--mem", "1GB", "--retries", "2", "python", "train.py", "--lr", "0.1",
                cwd=repository)  # fmt: skip
    assert first.returncode == 0
    (old,) = yard.specs.values()
    (repository / "train.py").write_text("print('edited')\n")
    done = cli("rerun", "@last", "--set", "lr=0.2", "-t", "b", "--gpus", "0", "--", "--epochs", "3", env={"EXTRA": "1"})
    assert done.returncode == 0, done.stderr
    new = list(yard.specs.values())[1]
    assert new["command"] == ["python", "train.py", "--lr", "0.2", "--epochs", "3"]
    assert new["rerun_of"] == old["id"]
    assert new["tags"] == ["a", "b"]
    assert new["resources"] == {**old["resources"], "gpus": 0}
    for name in ("snapshot", "source", "cwd", "program", "project", "message"):
        assert new[name] == old[name]
    assert new["id"] != old["id"]
    assert yard.envs[new["id"]]["EXTRA"] == "1"


def test_rerun_with_the_code_of_now(cli: Cli, yard: FakeYard, repository: Path) -> None:
    assert cli("python", "train.py", cwd=repository).returncode == 0
    (repository / "train.py").write_text("print('edited')\n")
    assert cli("rerun", "@last", "--code", "now").returncode == 0
    old, new = yard.specs.values()
    assert new["snapshot"]["tree"] != old["snapshot"]["tree"]
    assert new["source"] == old["source"]


def test_rerun_with_another_link(cli: Cli, yard: FakeYard, repository: Path) -> None:
    assert cli("python", "train.py", cwd=repository).returncode == 0
    (repository / "big").mkdir()
    assert cli("rerun", "@last", "--link", "big", cwd=repository).returncode == 0
    new = list(yard.specs.values())[1]
    assert {"path": "big", "target": str(repository / "big"), "why": "asked for"} in new["links"]
    assert cli("rerun", "@last", "--link", "nothing", cwd=repository).returncode == 2


def test_rerun_of_a_run_in_place_needs_its_directory(cli: Cli, yard: FakeYard, repository: Path) -> None:
    assert cli("--in-place", "true", cwd=repository).returncode == 0
    assert cli("rerun", "@last").returncode == 0
    assert [spec["in_place"] for spec in yard.specs.values()] == [True, True]
    repository.rename(repository.parent / "away")
    done = cli("rerun", "@last")
    assert done.returncode == 1
    assert "is gone" in done.stderr


def test_set_without_a_value_is_bad_usage(cli: Cli, yard: FakeYard, repository: Path) -> None:
    assert cli("true", cwd=repository).returncode == 0
    assert cli("rerun", "@last", "--set", "lr").returncode == 2
    assert len(yard.specs) == 1


def test_names_of_env_options_are_kept_and_rerun_says_that_values_are_not(
    cli: Cli, yard: FakeYard, repository: Path
) -> None:
    cli("--env", "KEY=s3cret", "--env", "BATCH=3", "true", cwd=repository)
    (spec,) = yard.specs.values()
    assert spec["environment"]["set"] == ["BATCH", "KEY"]
    assert "s3cret" not in str(spec["environment"])
    assert "BATCH, KEY (--env)" in cli("show", "@last").stdout
    assert "had --env KEY; values are not kept" in cli("rerun", "@last", "--env", "BATCH=4", cwd=repository).stderr


def test_patterns_of_the_command_line_go_before_those_of_the_project(
    cli: Cli, yard: FakeYard, repository: Path
) -> None:
    (repository / "runyard.toml").write_text("pattern = ['M is (.*)']\n")
    one, two = r"(?#val/acc)best (\value)", "a{1,2} (.)"
    done = cli("run", "--pattern", one, "--pattern", two, "true", cwd=repository)
    assert done.returncode == 0, done.stderr
    first = next(iter(yard.runs))
    assert yard.specs[first]["tracking"]["pattern"] == [one, two, "M is (.*)"]
    yard.runs[first]["tracking"] = {"pattern": [one], "goal": ""}
    for words in (["rerun", first], ["rerun", first, "--pattern", two]):
        done = cli(*words, cwd=repository)
        assert done.returncode == 0, done.stderr
        assert list(yard.specs.values())[-1]["tracking"]["pattern"] == [*words[3:], one]
    done = cli("run", "--pattern", "x(", "true", cwd=repository)
    assert (done.returncode, len(yard.runs)) == (2, 3)
    assert "--pattern: x( is no regular expression: missing )" in done.stderr
