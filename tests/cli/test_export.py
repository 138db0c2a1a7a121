from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.cli.conftest import Cli
from tests.cli.fake import NOW, FakeYard

TABLE: dict[str, Any] = {
    "columns": ["run.id", "id", "created_at", "params.lr", "metrics.loss"], "next": None, "hints": [],
    "data": [["aaaaaaaaaaaa", "aaaaaaaaaaab"], ["aaaaaaaaaaaa", "aaaaaaaaaaab"], [NOW, NOW], [0.1, "auto"], ["NaN", None]],
}  # fmt: skip
GROUPS: dict[str, Any] = {
    "columns": ["run.id", "run.state", "run.goal", "params.model", "params.seed", "metrics.acc"], "next": None, "hints": [],
    "data": [["aaaaaaaaaaaa", "aaaaaaaaaaab", "aaaaaaaaaaac"], ["finished"] * 3, [None] * 3, ["a_b", "a_b", "c"], [1, 2, 1],
             [0.5, 0.75, 0.5]],
}  # fmt: skip


def asked(yard: FakeYard) -> dict[str, list[str]]:
    """Return the parameters of the last request for a table."""
    return parse_qs(urlsplit([path for _, path in yard.requests if "/table" in path][-1]).query)


def test_csv(cli: Cli, yard: FakeYard, tmp_path: Path) -> None:
    yard.table = TABLE
    done = cli("export", "metrics.loss < 1", "-o", "runs.csv", "--order", "-metrics.loss", "-n", "9")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    rows = list(csv.reader(io.StringIO((tmp_path / "runs.csv").read_text())))
    assert rows == [
        ["id", "created_at", "params.lr", "metrics.loss"],
        ["aaaaaaaaaaaa", NOW, "0.1", "NaN"],
        ["aaaaaaaaaaab", NOW, "auto", ""],
    ]
    sent = asked(yard)
    assert (sent["q"], sent["order"], sent["limit"]) == (["metrics.loss < 1"], ["-metrics.loss"], ["9"])


def test_json_on_stdout(cli: Cli, yard: FakeYard) -> None:
    yard.table = TABLE
    done = cli("export", "-o", "-", "--format", "json", "--columns", 'params.lr,metrics["a,b"]')
    assert asked(yard)["columns"] == ["run.id", "params.lr", 'metrics["a,b"]']
    assert json.loads(done.stdout)[0]["params.lr"] == 0.1


def test_latex_says_how_it_was_made(cli: Cli, yard: FakeYard, tmp_path: Path) -> None:
    yard.table = GROUPS
    words = ["export", "a b", "-o", "t.tex", "--rows", "params.model", "--over", "params.seed", "--digits", "2"]
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "t.tex").read_text()
    made = "% Written by: runyard export 'a b' -o t.tex --rows params.model --over params.seed --digits 2\n"
    assert text.startswith(made)
    assert r"a\_b & $\mathbf{0.62} \pm 0.18$ & 2 \\" in text and r"c & $0.50$ & 1 \\" in text
    assert cli(*words).returncode == 0
    assert (tmp_path / "t.tex").read_text() == text, "the same again: nothing for git to see"
    yard.table = {**GROUPS, "data": [GROUPS["data"][0], ["failed"] * 3, *GROUPS["data"][2:]]}
    assert "note: 3 of the runs have not finished" in cli(*words).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "runs.xls"], "not clear from the name runs.xls"),
        (["-o", "-"], "--format"),
        ([], "Missing option '-o'"),
        (["-o", "a.csv", "--over", "params.seed"], "--over is for LaTeX tables"),
        (["-o", "a.csv", "--columns", ","], "--columns names nothing"),
        (["-o", "a.tex", "--over", "params.seed"], "--over needs --rows"),
        (["-o", "a.tex", "--history", "loss"], "no LaTeX table"),
        (["-o", "a.csv", "--history", "loss", "--columns", "id"], "exclude each other"),
        (["-o", "a.tex", "--digits", "0"], "not in the range"),
    ],
)
def test_what_does_not_go_together(cli: Cli, yard: FakeYard, tmp_path: Path, words: list[str], said: str) -> None:
    yard.table = TABLE
    done = cli("export", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert not list(tmp_path.glob("a.*"))


def test_no_runs(cli: Cli, yard: FakeYard, tmp_path: Path) -> None:
    yard.table = {"columns": ["run.id", "id"], "data": [[], []], "next": None, "hints": []}
    yard.hints = ["no run has metrics.los; did you mean metrics.loss?"]
    done = cli("export", "metrics.los < 1", "-o", "a.csv")
    assert done.returncode == 0 and (tmp_path / "a.csv").read_text() == "id\n"
    assert done.stderr == "no runs fit\n  no run has metrics.los; did you mean metrics.loss?\n"
    done = cli("export", "metrics.los < 1", "-o", "a.tex")
    assert done.returncode == 1 and "no runs fit" in done.stderr and not (tmp_path / "a.tex").exists()


def test_a_link_and_a_pipe_are_written_to(cli: Cli, yard: FakeYard, tmp_path: Path) -> None:
    yard.table = TABLE
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("real.csv")
    assert cli("export", "-o", "link.csv").returncode == 0
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "real.csv").read_text().startswith("id,")
    assert cli("export", "-o", "/dev/null", "--format", "csv").returncode == 0
    done = cli("export", "-o", "nowhere/a.csv")
    assert done.returncode == 1
    assert done.stderr.startswith("runyard: nowhere/a.csv cannot be written: No such file or directory\n")


def test_lists_are_texts_in_latex(cli: Cli, yard: FakeYard, tmp_path: Path) -> None:
    yard.table = {**GROUPS, "columns": [*GROUPS["columns"][:4], "params.l", "metrics.acc"],
                  "data": [*GROUPS["data"][:4], [[1, 2], [1, 2], "[1, 3]"], GROUPS["data"][5]]}  # fmt: skip
    done = cli("export", "-o", "t.tex")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "t.tex").read_text().count("{[}1, 2{]}") == 2
    assert cli("export", "-o", "t.tex", "--rows", "params.l").returncode == 0


def test_points(cli: Cli, yard: FakeYard, tmp_path: Path) -> None:
    from tests.cli.test_compare import logged

    a, b, c = logged(yard)
    yard.table = {
        "columns": ["run.id", 'metrics["loss"].count'], "data": [[a, c], [3, None]], "next": None, "hints": [],
    }  # fmt: skip
    assert cli("export", "-o", "h.csv", "--history", "metrics.loss").returncode == 0
    assert (tmp_path / "h.csv").read_text() == (
        "run,metric,step,time,value\n"
        f"{a},loss,0,1970-01-01T00:00:00.000000Z,2.0\n"
        f"{a},loss,1,1970-01-01T00:00:00.000001Z,0.5\n"
        f"{a},loss,2,1970-01-01T00:00:00.000002Z,0.7\n"
    )
    pq = pytest.importorskip("pyarrow.parquet")
    assert cli("export", "-o", "h.parquet", "--history", "loss").returncode == 0
    assert [str(field.type) for field in pq.read_table(tmp_path / "h.parquet").schema] == [
        "string", "string", "int64", "timestamp[us, tz=UTC]", "double"
    ]  # fmt: skip


def test_a_missing_package_is_named(cli: Cli, yard: FakeYard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.table = TABLE
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    done = cli("export", "-o", "runs.parquet")
    assert done.returncode == 1
    assert "needs pyarrow" in done.stderr and "pip install 'runyard[pandas]'" in done.stderr
