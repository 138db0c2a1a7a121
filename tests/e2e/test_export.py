"""Runs that logged something are compared, exported and read as data frames."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Cli, wait_for

TRAIN = """
import runyard, sys
model, seed = sys.argv[1], int(sys.argv[2])
mixed = seed if seed < 3 else "auto"
runyard.params({"model": model, "seed": seed, "lr": 0.1, "net": {"depth": 2}, "größe": "ü, x", "mixed": mixed})
for step in range(5):
    loss = 2.0 / (step + 1) + (seed / 10 if model == "a_b" else 0)
    runyard.log({"loss": loss, "val/acc": 0.5 + step / 10 + seed / 100}, step=step)
runyard.summary(odd=float("nan") if seed == 1 else float("inf"))
"""
ASK = """
import json, sys, runyard
found = runyard.runs('"train.py" in run.command', order="params.model, params.seed")
frame = found.df()
points = found.history("loss", "val/acc")
few = found.history("loss", points=3)
try:
    found.history("loss", "nix")
except runyard.RunyardError as exc:
    missing = str(exc)
print(json.dumps({
    "len": len(found), "ids": found.ids, "first": found[0]["params"]["seed"], "iterated": [run["id"] for run in found],
    "columns": list(frame.columns), "kinds": {name: str(kind) for name, kind in frame.dtypes.items()},
    "means": frame.groupby("params.model")["metrics.loss"].mean().to_dict(),
    "points": [points.shape, list(points.columns), {name: str(kind) for name, kind in points.dtypes.items()}],
    "last": points[(points["metric"] == "val/acc") & (points["step"] == 4)]["value"].tolist(), "few": len(few),
    "csv": found.csv(columns="id,params.seed"), "tex": found.latex(rows="params.model", over="params.seed", columns="loss"),
    "missing": missing, "none": len(runyard.runs("params.seed == 99").history("nix")),
    "one": len(runyard.runs("params.seed == 2", limit=1)),
}))
"""


@pytest.fixture
def trained(cli: Cli) -> dict[tuple[str, int], str]:
    """The ids of finished runs of two models with three seeds each."""
    (cli.cwd / "train.py").write_text(TRAIN)
    (cli.cwd / "runyard.toml").write_text('goal = "max val/acc"\n')
    ids = {
        (model, seed): cli.submit("python", "train.py", model, str(seed))
        for model in ("a_b", "c")
        for seed in (1, 2, 3)
    }
    for run_id in ids.values():
        cli.until(run_id, "finished")

    def all_there() -> bool:
        runs = cli.json("ls", "-a")
        return all(run["metrics"].get("loss", {}).get("count") == 5 and "odd" in run["metrics"] for run in runs)

    wait_for(all_there, "all that was logged")
    return ids


def loss(model: str, seed: int) -> float:
    """Return the last loss that such a run logs."""
    return 2.0 / 5 + (seed / 10 if model == "a_b" else 0)


def test_files(cli: Cli, trained: dict[tuple[str, int], str]) -> None:
    cli.call("export", "-o", "all.csv", "--order", "params.model,params.seed")
    rows = list(csv.DictReader(io.StringIO((cli.cwd / "all.csv").read_text())))
    assert [row["id"] for row in rows] == list(trained.values())
    first = rows[0]
    assert first["params.größe"] == "ü, x" and first["params.net.depth"] == "2" and first["params.model"] == "a_b"
    assert float(first["metrics.loss"]) == loss("a_b", 1) and first["metrics.odd"] == "NaN"
    assert [row["params.mixed"] for row in rows] == ["1", "2", "auto"] * 2
    assert not [name for name in first if name.startswith("metrics.system/")], "what the host measured stands apart"
    found = json.loads(cli.out("export", "params.seed == 1", "-o", "-", "--format", "json", "--columns",
                               'params.model,metrics["val/acc"].max,metrics.loss.min,run.goal'))  # fmt: skip
    assert sorted(row["params.model"] for row in found) == ["a_b", "c"]
    assert {row['metrics["val/acc"].max'] for row in found} == {0.91} and {row["run.goal"] for row in found} == {
        "max val/acc"
    }
    cli.call("export", "-o", "all.parquet")
    cli.call("export", "-o", "loss.csv", "--history", "loss", "--history", "val/acc")
    lines = (cli.cwd / "loss.csv").read_text().splitlines()
    assert len(lines) == 1 + 6 * 2 * 5 and lines[0] == "run,metric,step,time,value"
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(cli.cwd / "all.parquet")
    kinds = {field.name: str(field.type) for field in table.schema}
    assert (kinds["params.seed"], kinds["params.lr"], kinds["params.mixed"]) == ("int64", "double", "string")
    assert kinds["created_at"].startswith("timestamp") and sum(map(math.isnan, table["metrics.odd"].to_pylist())) == 2


def test_a_latex_table(cli: Cli, trained: dict[tuple[str, int], str], tmp_path: Path) -> None:
    words = ["export", '"train.py" in run.command', "-o", "-", "--format", "tex", "--rows", "params.model", "--over"]
    text = cli.out(*words, "params.seed", "--columns", 'loss,metrics["val/acc"]')
    losses = {model: [loss(model, seed) for seed in (1, 2, 3)] for model in ("a_b", "c")}
    mean, deviation = statistics.mean(losses["a_b"]), statistics.stdev(losses["a_b"])
    assert rf"a\_b & ${mean:.3f} \pm {deviation:.3f}$ & $\mathbf{{0.920}} \pm 0.010$ & 3 \\" in text
    assert r"c & $\mathbf{0.400} \pm 0.000$ & $\mathbf{0.920} \pm 0.010$ & 3 \\" in text
    assert all(f" {run_id}" in text for run_id in trained.values())
    done = cli.call(*words, "params.lr", "--columns", "loss")
    assert "have the same params.lr and differ in params.mixed, params.seed; both count" in done.stderr


def test_runs_are_compared(cli: Cli, trained: dict[tuple[str, int], str]) -> None:
    value = cli.json("compare", '"train.py" in run.command')
    assert value["goal"] == "max val/acc" and value["params"] == ["mixed", "model", "seed"]
    assert {run["params"]["seed"] for run in value["runs"][:2]} == {3}, "the best first"
    assert [run["best"] for run in value["runs"]] == [["val/acc"]] * 2 + [[]] * 4
    a, b = trained["a_b", 1], trained["c", 3]
    lines = cli.out("compare", "-m", "loss", a, b).splitlines()
    assert lines[1].split()[0] == b and lines[1].endswith("0.4 *")
    assert lines[4].startswith("loss: 0.4 to 2.1, steps 0 to 4") and [line.split()[0] for line in lines[5:]] == [b, a]
    shown = cli.out("diff", a, b)
    for line in ("model      a_b", "loss     0.5", "environment: the same", "code: the same", "data: none"):
        assert line in shown
    assert [line.split()[-1] for line in shown.splitlines() if line.startswith(("loss ", "val/acc "))] == ["better"] * 2


def test_data_frames(cli: Cli, trained: dict[tuple[str, int], str]) -> None:
    pytest.importorskip("pandas")
    (cli.cwd / "ask.py").write_text(ASK)
    run_id = cli.submit("python", "ask.py")
    cli.until(run_id, "finished")
    found: dict[str, Any] = json.loads(cli.out("logs", run_id))
    ids = list(trained.values())
    assert found["ids"] == found["iterated"] == ids and (found["len"], found["first"], found["one"]) == (6, 1, 1)
    assert found["columns"][:5] == ["id", "project", "name", "state", "created_at"]
    assert {"params.net.depth", "params.größe", "metrics.val/acc"} <= set(found["columns"])
    kinds = found["kinds"]
    assert (kinds["params.seed"], kinds["params.mixed"], kinds["metrics.odd"]) == ("int64", "object", "float64")
    assert kinds["created_at"].startswith("datetime64")
    for model, mean in found["means"].items():
        assert mean == pytest.approx(statistics.mean(loss(model, seed) for seed in (1, 2, 3)))
    shape, names, types = found["points"]
    assert shape == [6 * 2 * 5, 5] and names == ["run", "metric", "step", "time", "value"]
    assert types["time"].startswith("datetime64") and (types["step"], types["value"]) == ("int64", "float64")
    assert found["last"] == pytest.approx([0.9 + seed / 100 for _, seed in trained]) and found["few"] == 6 * 3
    assert (found["missing"], found["none"]) == ("none of these runs has points of a metric nix", 0)
    assert found["csv"].splitlines() == ["id,params.seed", *(f"{i},{seed}" for (_, seed), i in trained.items())]
    assert r"\toprule" in found["tex"]


BY_HAND = """
import runyard
try:
    runyard.runs("metrics.loss <").runs
except runyard.RunyardError as exc:
    print(type(exc).__name__, exc.hint != "")
print(len(runyard.runs()), runyard.runs("x", limit=3))
"""


def test_a_program_by_hand_starts_the_server_where_it_may(cli: Cli) -> None:
    import subprocess
    import sys

    def ask(**env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", BY_HAND],
            cwd=cli.cwd,
            env={**cli.env, **env},
            capture_output=True,
            text=True,
            timeout=90,
        )

    done = ask(RUNYARD_AUTOSTART="0")
    assert done.returncode == 1 and "the server is not running" in done.stderr
    done = ask()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["InvalidError True", "0 runyard.runs('x', limit=3)"]
