"""Several ranks of one program, started by the real torchrun: its numbers and parameters are those of rank 0, once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.harness import Cli

RANK = """
import argparse, os, runyard
SEED = 7
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--rank", type=int, default=int(os.environ["RANK"]))
args = parser.parse_args()
runyard.params(world=int(os.environ["WORLD_SIZE"]))
for step in range(20):
    runyard.log({"loss": step + 100 * args.rank}, step=step)
runyard.summary(best=args.rank)
open("part%d.bin" % args.rank).close()
open("all.bin").close()
"""


@pytest.mark.parametrize("launcher", [["torchrun"], ["python", "-m", "torch.distributed.run"]])
def test_ranks(cli: Cli, require: Callable[[str], None], launcher: list[str]) -> None:
    require("package torch")
    (cli.cwd / "rank.py").write_text(RANK)
    for name in ("part0.bin", "part1.bin", "all.bin"):
        (cli.cwd / name).write_text(name)
    run_id = cli.submit(*launcher, "--nproc_per_node", "2", "rank.py", "--lr", "0.5")
    run = cli.until(run_id, "finished", "failed", deadline_s=90)
    assert run["state"] == "finished", cli.out("logs", run_id)
    assert run["params"] == {"lr": 0.5, "rank": 0, "SEED": 7, "world": 2}
    assert {name: item for name, item in run["metrics"].items() if not name.startswith("system")}.keys() == {
        "loss",
        "best",
    }
    assert (run["metrics"]["loss"]["count"], run["metrics"]["loss"]["max"], run["metrics"]["best"]["last"]) == (
        20,
        19,
        0,
    )
    found = cli.api("GET", f"/api/v1/runs/{run_id}/series?metric=loss&points=0")
    assert found["values"] == [float(step) for step in range(20)]
    assert sorted(item["path"] for item in run["data"]) == ["all.bin", "part0.bin", "part1.bin"]  # of every rank, once
