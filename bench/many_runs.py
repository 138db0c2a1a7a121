"""1,000 runs of 20 parameters and 5 metrics of 100 steps each, made by one program with the SDK, until all are found.

Counted is processor time of everything: the program, the processes that freeze its code, and server and agent until a query
for all of them answers with all of them. Once with the yard up, as it usually is, and once with no yard, which is started
afterwards and takes them in. Other trackers make fewer runs, one after the other in one process as their documentation shows;
what these take beyond the import is multiplied. That their runs can be found is not checked.
"""

from __future__ import annotations

import sys
import time

from bench import peers
from bench.common import SOURCE, Report, Target, arguments
from bench.processes import Taken, tree
from bench.yard import Yard, running, small_repository

PARAMS, METRICS, STEPS = 20, 5, 100
RUNS = 1000
WITHIN_S = 300.0
FOUND = f'run.project == "many" and metrics.metric4.count == {STEPS} and has(params.p19)'
TARGET = Target(number=15, of="value", unit="s")
DRAW = f"""
import json, random, sys, time
draw = random.Random(1)
def params():
    return {{"p%d" % n: draw.random() if n % 2 else "v%d" % draw.randrange(10) for n in range({PARAMS})}}
def values():
    return {{"metric%d" % n: draw.gauss(0.5, 0.1) for n in range({METRICS})}}
"""
PROGRAM = f"""
import runyard
{DRAW}
for number in range(int(sys.argv[1])):
    with runyard.init(project="many", params=params()):
        for step in range({STEPS}):
            runyard.log(values(), step=step)
"""
PLAIN = f"""
{DRAW}
for number in range(int(sys.argv[1])):
    with open("%d.jsonl" % number, "w", buffering=1) as file:
        file.write(json.dumps(params()) + "\\n")
        for step in range({STEPS}):
            file.write(json.dumps({{"step": step, "time": time.time(), **values()}}) + "\\n")
"""
PEERS = {
    "tensorboardX": ("tensorboardX", 50, f"""
from tensorboardX import SummaryWriter
def one(number):
    with SummaryWriter("runs/%d" % number) as writer:
        writer.add_text("params", json.dumps(params()))
        for step in range({STEPS}):
            for name, value in values().items():
                writer.add_scalar(name, value, step)
"""),
    "Trackio": ("trackio", 50, f"""
import trackio
def one(number):
    trackio.init(project="many", name="run%d" % number, config=params(), embed=False)
    for step in range({STEPS}):
        trackio.log(values(), step=step)
    trackio.finish()
"""),
    "MLflow, log_batch": ("mlflow", 50, f"""
import mlflow
from mlflow.entities import Metric, Param
client = mlflow.MlflowClient("sqlite:///mlflow.db")
experiment = client.create_experiment("many")
def one(number):
    run = client.create_run(experiment).info.run_id
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, step) for step in range({STEPS}) for name, value in values().items()]
    client.log_batch(run, metrics=metrics, params=[Param(name, str(value)) for name, value in params().items()])
    client.set_terminated(run)
"""),
    "MLflow, log_metrics": ("mlflow", 5, f"""
import mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.set_experiment("many")
def one(number):
    with mlflow.start_run():
        mlflow.log_params(params())
        for step in range({STEPS}):
            mlflow.log_metrics(values(), step=step)
"""),
}  # fmt: skip
"""The peer, how many runs, and what makes one."""
MANY = """
import os
def spent():
    return sum(os.times()[:4])
cpu, wall = spent(), time.perf_counter()
for number in range(int(sys.argv[1])):
    one(number)
print(json.dumps({"cpu": spent() - cpu, "wall": time.perf_counter() - wall, "before": cpu}))
"""


def main() -> int:
    options = arguments(__doc__)
    report = Report("many_runs", quick=options.quick)
    runs = 100 if options.quick else RUNS
    cpu = with_yard(report, runs)
    without_yard(report, runs)
    beside_peers(report, runs, cpu, 3 if options.quick else 50)
    return report.finish()


def made(yard: Yard, runs: int) -> Taken:
    """Let the program make runs, in a repository; return what it took with the processes that it started."""
    top = yard.home.parent / "repository"
    if not top.exists():
        small_repository(top)
    env = {**yard.environ, "PYTHONPATH": SOURCE}
    return tree([sys.executable, "-c", PROGRAM, str(runs)], env, top, WITHIN_S)


def found(yard: Yard, runs: int) -> float:
    """Wait until a query finds them all; return the processor time of server and agent by then."""
    deadline = time.monotonic() + WITHIN_S
    with yard.connect() as api:
        while api.status()["counts"]["finished"] < runs:
            if time.monotonic() > deadline:
                raise SystemExit(f"only {api.status()['counts']} have been taken in")
            time.sleep(0.1)
        ids = api.table(q=FOUND, columns="id", limit=2 * runs)["data"][0]
    if len(set(ids)) != runs:
        raise SystemExit(f"{len(ids)} of {runs} runs were found")
    return sum(yard.cpu_s().values())


def with_yard(report: Report, runs: int) -> float:
    with running(1) as yard:
        made(yard, 1)
        before = found(yard, 1)
        begun = time.perf_counter()
        program = made(yard, runs)
        yards = found(yard, runs + 1) - before
        wall = time.perf_counter() - begun
    rows(report, f"{runs:,} runs, the yard is up", runs, program, yards, wall)
    return program.cpu + yards


def without_yard(report: Report, runs: int) -> None:
    with running(1) as yard:
        yard.call("stop")
        begun = time.perf_counter()
        program = made(yard, runs)
        yard.call("start")
        yards = found(yard, runs)
        wall = time.perf_counter() - begun
    rows(report, f"{runs:,} runs, no yard until they are over", runs, program, yards, wall)


def rows(report: Report, what: str, runs: int, program: Taken, yards: float, wall: float) -> None:
    target = TARGET if runs == RUNS else None
    report.row(f"{what}: until all are found, processor time", program.cpu + yards, "s", target=target)
    report.row("  of the program, with what freezes its code", program.cpu, "s")
    report.row("  of server and agent", yards, "s")
    report.row("  on the clock", wall, "s")
    report.row("  until the program has ended, on the clock", program.wall, "s")


def beside_peers(report: Report, runs: int, cpu: float, most: int) -> None:
    """The same with other trackers: some runs each, the rest reckoned."""
    for what, (name, number, code) in PEERS.items():
        some = min(number, most)
        try:
            said = peers.run(name, DRAW + code + MANY, str(some))
        except peers.PeerError as exc:
            report.not_measured(f"{what}: {runs:,} runs", str(exc))
            continue
        times = runs / some
        taken = said["before"] + (said["tree_cpu"] - said["before"]) * times
        report.row(
            f"{what}: {runs:,} runs, reckoned from {some}, processor time", taken, "s", baseline=cpu, against="runyard"
        )
        report.row("  on the clock", said["wall"] * times, "s")


if __name__ == "__main__":
    sys.exit(main())
