from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.fake import FakeYard


@pytest.fixture
def two(cli: Cli, yard: FakeYard, repository: Path) -> list[str]:
    """Two queued runs: true and sleep."""
    assert cli("true", cwd=repository).returncode == 0
    assert cli("sleep", "9", cwd=repository).returncode == 0
    return list(yard.runs)


def test_kill_several_and_by_query(cli: Cli, yard: FakeYard, two: list[str]) -> None:
    done = cli("kill", "--query", "sleep")
    assert (done.returncode, done.stdout) == (0, "%s killed\n" % two[1])
    assert cli("kill", "--now", two[0]).returncode == 0
    assert [yard.runs[run_id]["end"]["signal"] for run_id in two] == [9, 15]


def test_a_query_means_only_runs_that_the_command_can_change(cli: Cli, yard: FakeYard, two: list[str]) -> None:
    yard.end(two[0])
    done = cli("kill", "--query", "e")
    assert (done.returncode, done.stdout, done.stderr) == (0, "%s killed\n" % two[1], "")
    again = cli("kill", "--query", "e")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "no run fits\n")
    for words in ("hold", "release"):
        assert cli(words, "--query", "e").stderr == "no run fits\n"


def test_an_empty_query_does_not_mean_all_runs(cli: Cli, yard: FakeYard, two: list[str]) -> None:
    for words in (["kill"], ["rm", "--now"], ["hold"]):
        done = cli(*words, "--query", " ")
        assert (done.returncode, done.stdout) == (2, "")
        assert "would mean every run" in done.stderr
    assert [run["state"] for run in yard.runs.values()] == ["queued", "queued"]


def test_a_wrong_name_among_several_changes_nothing(cli: Cli, yard: FakeYard, two: list[str]) -> None:
    done = cli("kill", two[0], "nobody")
    assert done.returncode == 1
    assert [run["state"] for run in yard.runs.values()] == ["queued", "queued"]


@pytest.mark.parametrize(
    "words", [["kill"], ["hold"], ["rm"], ["rm", "--undo"], ["tag", "-t", "x"], ["move", "-p", "x"]]
)
def test_no_run_is_bad_usage(cli: Cli, yard: FakeYard, words: list[str]) -> None:
    done = cli(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no run was given" in done.stderr


def test_hold_and_release(cli: Cli, yard: FakeYard, two: list[str]) -> None:
    assert cli("hold", *two).returncode == 0
    assert {run["state"] for run in yard.runs.values()} == {"held"}
    assert cli("release", "@last").returncode == 0
    assert yard.runs[two[1]]["state"] == "queued"


def test_rm_goes_to_the_trash_and_comes_back(cli: Cli, yard: FakeYard, two: list[str]) -> None:
    done = cli("rm", two[0])
    assert done.stdout == "%s in the trash (back: runyard rm --undo %s)\n" % (two[0], two[0])
    assert cli("ls", "-q").stdout.split() == [two[1]]
    assert cli("ls", "-q", "--trash").stdout.split() == [two[0]]
    assert cli("rm", "--undo", two[0]).returncode == 0
    assert cli("ls", "-q").stdout.split() == [two[1], two[0]]
    assert cli("rm", "--undo", "--now", two[0]).returncode == 2


def test_one_that_runs_cannot_be_removed_but_the_others_are(cli: Cli, yard: FakeYard, two: list[str]) -> None:
    yard.runs[two[0]]["state"] = "running"
    done = cli("rm", *two)
    assert done.returncode == 1
    assert "%s is running" % two[0] in done.stderr
    assert [run["trashed"] for run in yard.runs.values()] == [False, True]


def test_note_tag_rename_move(cli: Cli, yard: FakeYard, two: list[str]) -> None:
    assert cli("note", two[0], "a note").returncode == 0
    assert cli("tag", *two, "-t", "a", "-t", "b").returncode == 0
    assert cli("tag", two[0], "-d", "a").returncode == 0
    assert cli("rename", two[0], "best").returncode == 0
    assert cli("move", "best", "-p", "elsewhere").returncode == 0
    run = yard.runs[two[0]]
    assert (run["message"], run["tags"], run["name"], run["project"]) == ("a note", ["b"], "best", "elsewhere")
    assert cli("rename", "best", "").returncode == 0
    assert run["name"] is None
    assert cli("tag", two[0]).returncode == 2


def test_tokens(cli: Cli, yard: FakeYard) -> None:
    assert json.loads(cli("token", "create", "laptop", "--json").stdout)["token"] == "ryt_secret"
    done = cli("token", "create", "box", "--scope", "agent", "--expires", "30d")
    assert done.stdout == "ryt_secret\n"
    assert [token["scope"] for token in yard.tokens] == ["owner", "agent"]
    listed = cli("token", "ls").stdout
    assert "laptop" in listed
    assert "ryt_secret" not in listed
    assert cli("token", "revoke", "laptop").returncode == 0
    assert [token["name"] for token in yard.tokens] == ["box"]
    assert cli("token", "create", "x", "--expires", "soon").returncode == 2


def test_open(cli: Cli, yard: FakeYard) -> None:
    assert cli("open", "--print").stdout == "http://127.0.0.1:8086/open#secret\n"
    done = cli("open", env={"SSH_CONNECTION": "1 2 3 4", "DISPLAY": ""})
    assert "ssh -N -L 8086:127.0.0.1:8086" in done.stderr
    assert done.stdout == "http://127.0.0.1:8086/open#secret\n"


def test_gc_says_first_what_it_would_free(cli: Cli, yard: FakeYard) -> None:
    done = cli("gc")
    assert "would free 5.0 MB: unchanged code of 2 runs" in done.stdout
    assert "would free 3.0 MB: 1 snapshot that no run needs" in done.stdout
    assert "Nothing was removed" in done.stderr
    assert json.loads(cli("gc", "--json").stdout)["done"] is False
    assert "\nfreed" in "\n" + cli("gc", "--yes").stdout
    assert [what for what in yard.requests if what[1].endswith("/gc")]


def test_backup_never_overwrites(cli: Cli, yard: FakeYard, tmp_path: Path) -> None:
    done = cli("backup", "b.tar", cwd=tmp_path)
    assert done.stdout == "%s (2.0 kB)\n" % (tmp_path / "b.tar")
    assert cli("backup", "b.tar", cwd=tmp_path).returncode == 1


def test_restore_needs_a_stopped_server_and_a_file(cli: Cli, yard: FakeYard, tmp_path: Path) -> None:
    assert "is no file" in cli("restore", "nothing.tar").stderr
    (tmp_path / "b.tar").write_bytes(b"")
    done = cli("restore", "b.tar", cwd=tmp_path)
    assert done.returncode == 1
    assert "runyard stop" in done.stderr
