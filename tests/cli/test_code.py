from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.cli.fake import FakeYard
from tests.snapshot.trees import verify


def test_diff_of_two_runs(cli: Cli, yard: FakeYard, repository: Path) -> None:
    assert cli("python", "train.py", "--lr", "1", cwd=repository).returncode == 0
    (repository / "train.py").write_text("print('newer')\n")
    assert cli("python", "train.py", "--lr", "2", cwd=repository, env={"OMP_NUM_THREADS": "3"}).returncode == 0
    one, two = yard.runs
    done = cli("diff", one, two)
    assert done.returncode == 0, done.stderr
    assert "- python train.py --lr 1\n+ python train.py --lr 2\n" in done.stdout
    assert "+ variables.OMP_NUM_THREADS = 3" in done.stdout
    assert "-print('new')\n+print('newer')\n" in done.stdout
    value = json.loads(cli("diff", "--json", one, two).stdout)
    assert [change["path"] for change in value["code"]] == ["train.py"]
    assert value["environment"]["variables.OMP_NUM_THREADS"] == [None, "3"]
    assert "changed  train.py  +1 -1" in cli("diff", "--stat", one, two).stdout
    assert "code: the same" in cli("diff", one, one).stdout


def test_diff_against_the_working_tree(cli: Cli, yard: FakeYard, repository: Path) -> None:
    assert cli("true", cwd=repository).returncode == 0
    (repository / "train.py").unlink()
    (repository / "more.py").write_text("1\n")
    (run_id,) = yard.runs
    stat = cli("diff", "--stat", run_id, ".", cwd=repository).stdout
    assert "deleted  train.py" in stat
    assert "added    more.py" in stat
    back = cli("diff", "--stat", ".", run_id, cwd=repository).stdout
    assert "added    train.py" in back
    assert cli("diff", ".", ".", cwd=repository).returncode == 2


def test_diff_compares_what_was_frozen_beside_the_code(
    cli: Cli, yard: FakeYard, repository: Path, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    for text in ("V = 1\n", "V = 2\n"):
        (library / "m.py").write_text(text)
        assert cli("run", "--also", "../library", "true", cwd=repository).returncode == 0
    assert cli("true", cwd=repository).returncode == 0
    one, two, without = yard.runs
    done = cli("diff", one, two)
    assert done.returncode == 0, done.stderr
    assert "--- a/../library/m.py\n+++ b/../library/m.py\n" in done.stdout
    assert "-V = 1\n+V = 2\n" in done.stdout
    assert "code: the same" not in done.stdout
    (change,) = json.loads(cli("diff", "--json", one, two).stdout)["code"]
    assert (change["path"], change["kind"]) == ("../library/m.py", "changed")
    assert "deleted  ../library/m.py  +0 -1" in cli("diff", "--stat", one, without).stdout
    assert "code: the same" in cli("diff", two, ".", cwd=repository).stdout
    assert "+V = 2" in cli("diff", one, ".", cwd=repository).stdout
    (library / "m.py").unlink()
    library.rmdir()
    assert "deleted  ../library/m.py  +0 -1" in cli("diff", "--stat", two, ".", cwd=repository).stdout


def test_diff_of_what_was_logged(cli: Cli, yard: FakeYard, repository: Path) -> None:
    for _ in range(2):
        assert cli("python", "train.py", cwd=repository).returncode == 0
    one, two = yard.runs
    assert cli("diff", one, two).stdout.splitlines() == [
        "command: the same", "parameters: none", "environment: the same", "data: none", "metrics: none", "code: the same",
    ]  # fmt: skip
    logged: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        (one, {"lr": 0.1, "on": 1, "old": "x", "same": 3},
         {"loss": 0.5, "acc": 0.9, "gone": 1.0, "same": 2.0, "odd": "NaN", "reward": -2.0}),
        (two, {"lr": 0.2, "on": True, "same": 3},
         {"loss": 0.4, "acc": 0.8, "same": 2.0, "time": 3.0, "odd": 1.0, "reward": -3.0}),
    ]  # fmt: skip
    for run_id, params, metrics in logged:
        yard.runs[run_id].update(
            params=params, param_sources=dict.fromkeys(params, "argparse"), tracking={"goal": "min acc"},
            metrics={name: {"last": last} for name, last in metrics.items()},
            data=[
                {"path": "a.csv", "size": 1024, "sha256": run_id * 5, "modified_at": "1"},
                {"path": "b.csv", "size": 7, "sha256": None if run_id == one else "0" * 64, "modified_at": "1"},
                {"path": run_id, "size": 7, "sha256": "f" * 64, "modified_at": "1"},
            ],
        )  # fmt: skip
    lines = cli("diff", one, two).stdout.splitlines()
    assert [line.split() for line in lines[1:6]] == [
        ["parameters"], ["PARAMETER", "OLD", "NEW", "FROM"], ["lr", "0.1", "0.2", "argparse"], ["old", "x", "-", "argparse"],
        ["on", "1", "true", "argparse"],
    ]  # fmt: skip
    at = lines.index("data")
    assert sorted(line.split("  ")[-1].strip() for line in lines[at + 2 : at + 5]) == [
        "changed", "only in the new run", "only in the old run"
    ]  # fmt: skip
    at = lines.index("metrics")
    assert [line.split() for line in lines[at + 2 : at + 8]] == [
        ["acc", "0.9", "0.8", "-0.1", "-11.1%", "better"], ["gone", "1", "-", "-", "-"],
        ["loss", "0.5", "0.4", "-0.1", "-20.0%", "better"], ["odd", "NaN", "1", "-", "-"],
        ["reward", "-2", "-3", "-1", "-50.0%", "worse"], ["time", "-", "3", "-", "-"],
    ]  # fmt: skip
    value = json.loads(cli("diff", "--json", one, two).stdout)
    assert value["parameters"]["on"] == {"old": 1, "new": True, "source": "argparse"}
    assert "old" in value["parameters"] and "new" not in value["parameters"]["old"]
    assert value["data"][one] == {"old": {"size": 7, "sha256": "f" * 64, "modified_at": "1"}, "new": None}
    assert value["metrics"]["loss"]["relative"] == pytest.approx(-0.2)
    assert value["metrics"]["loss"]["verdict"] == "better" and value["metrics"]["gone"]["new"] is None


def test_diff_with_the_tree_says_nothing_of_what_it_has_not(cli: Cli, yard: FakeYard, repository: Path) -> None:
    assert cli("true", cwd=repository).returncode == 0
    lines = cli("diff", "@last", ".", cwd=repository).stdout.splitlines()
    assert lines[0] == "command: the same" and lines[-1] == "code: the same"
    assert not {"parameters", "metrics", "data"}.intersection(line.split(":")[0] for line in lines)


def test_diff_of_a_run_in_place_has_no_code(cli: Cli, yard: FakeYard, repository: Path) -> None:
    assert cli("--in-place", "true", cwd=repository).returncode == 0
    done = cli("diff", "@last", ".", cwd=repository)
    assert done.returncode == 1
    assert "was not frozen" in done.stderr
    assert cli("true", cwd=repository).returncode == 0
    one, two = yard.runs
    done = cli("diff", one, two)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == f"code: that of {one} was not frozen"
    assert json.loads(cli("diff", "--json", one, two).stdout)["code"] is None


def test_checkout_gives_the_exact_tree_and_its_commit(
    cli: Cli, yard: FakeYard, repository: Path, tmp_path: Path
) -> None:
    assert cli("true", cwd=repository).returncode == 0
    (run_id,) = yard.runs
    done = cli("checkout", run_id, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    tree = yard.specs[run_id]["snapshot"]["tree"]
    assert verify(str(tmp_path / run_id)) == tree
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tmp_path / run_id, capture_output=True, text=True, check=True
    )
    assert head.stdout.strip() == yard.specs[run_id]["snapshot"]["commit"]


def test_checkout_never_writes_into_a_directory_that_holds_something(
    cli: Cli, yard: FakeYard, repository: Path, tmp_path: Path
) -> None:
    assert cli("true", cwd=repository).returncode == 0
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("x")
    done = cli("checkout", "@last", "full", cwd=tmp_path)
    assert done.returncode == 1
    assert "not empty" in done.stderr
    assert [path.name for path in full.iterdir()] == ["mine"]


def test_checkout_writes_nothing_when_the_place_beside_the_code_is_taken(
    cli: Cli, yard: FakeYard, repository: Path, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "m.py").write_text("V = 1\n")
    assert cli("run", "--also", "../library", "true", cwd=repository).returncode == 0
    (library / "m.py").write_text("V = 2\n")
    done = cli("checkout", "@last", "../as-it-was", cwd=repository)
    assert done.returncode == 1
    assert "../library is in the way" in done.stderr
    assert "new/code" in done.stderr
    assert not (tmp_path / "as-it-was").exists()
    assert (library / "m.py").read_text() == "V = 2\n"
    assert cli("checkout", "@last", "new/code", cwd=tmp_path).returncode == 0
    assert (tmp_path / "new" / "library" / "m.py").read_text() == "V = 1\n"


def test_a_diff_with_the_tree_says_when_that_is_another_one(
    cli: Cli, yard: FakeYard, repository: Path, tmp_path: Path
) -> None:
    assert cli("true", cwd=repository).returncode == 0
    assert cli("diff", "@last", ".", cwd=repository).stderr == ""
    other = tmp_path / "other"
    other.mkdir()
    done = cli("diff", "@last", ".", cwd=other)
    assert done.returncode == 0
    assert "%s is compared, and the run came from %s" % (other, repository) in done.stderr
