"""What other trackers take to read: runs found and put into pandas, the points of a metric. In processor time of the reader.

MLflow's 10,000 runs are inserted straight into the SQLite schema that it has made: by its API they would take an hour.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench import peers
from bench.common import Report
from bench.yard import Yard

TIMED = """
import json, sys, time
def timed(rounds, work, warm=1):
    taken = []
    for number in range(-warm, rounds):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        if number >= 0:
            taken.append((time.process_time() - cpu, time.perf_counter() - wall))
    return {"cpu": sorted(cpu for cpu, _ in taken)[len(taken) // 2], "wall": sorted(w for _, w in taken)[len(taken) // 2]}
"""
MLFLOW = f"""
{TIMED}
import os, random, sqlite3
import mlflow
uri = "sqlite:///mlflow.db"
client = mlflow.MlflowClient(uri)
mlflow.set_tracking_uri(uri)
experiment = client.create_experiment("bench")
"""
MLFLOW_RUNS = f"""
{MLFLOW}
RUNS, PARAMS, METRICS, STEPS = int(sys.argv[1]), 20, ("loss", "acc", "val/loss", "val/acc", "time"), 10
chance, now = random.Random(1), int(time.time() * 1000)
runs, params, metrics, latest, tags = [], [], [], [], []
for number in range(RUNS):
    run = "%032x" % chance.getrandbits(128)
    runs.append((run, "run-%d" % number, "LOCAL", "train.py", "", "ada", "FINISHED", now + number, now + number + 1, "",
                 "active", "./mlruns/1/%s/artifacts" % run, int(experiment)))
    params += [("p%d" % i, "v%d" % chance.randrange(10) if i % 2 else str(round(chance.random(), 6)), run) for i in range(PARAMS)]
    for name in METRICS:
        for step in range(STEPS):
            value = chance.random()
            metrics.append((name, value, now + step, run, step, 0))
        latest.append((name, value, now + step, step, 0, run))
    tags += [("mlflow.user", "ada", run), ("mlflow.source.name", "train.py", run), ("mlflow.source.type", "LOCAL", run),
             ("mlflow.runName", "run-%d" % number, run)]
with sqlite3.connect("mlflow.db") as db:
    def fill(table, names, rows):
        columns = names.split()
        db.executemany("INSERT INTO %s (%s) VALUES (%s)" % (table, ", ".join(columns), ", ".join("?" * len(columns))), rows)
    fill("runs", "run_uuid name source_type source_name entry_point_name user_id status start_time end_time source_version "
         "lifecycle_stage artifact_uri experiment_id", runs)
    fill("params", "key value run_uuid", params)
    fill("metrics", "key value timestamp run_uuid step is_nan", metrics)
    fill("latest_metrics", "key value timestamp step is_nan run_uuid", latest)
    fill("tags", "key value run_uuid", tags)
"""
MLFLOW_SEARCH = f"""
{MLFLOW_RUNS}
ACTIVE = mlflow.entities.ViewType.ACTIVE_ONLY
def check(filter, order):
    page = client.search_runs([experiment], filter, ACTIVE, 100, order)
    assert len(page) == 100, len(page)
print(json.dumps({{
    "filter": timed(5, lambda: check("metrics.loss < 0.5 and params.p3 = 'v2'", ["metrics.loss ASC"])),
    "order": timed(1, lambda: check("", ["metrics.acc DESC"]), warm=0),
    "newest": timed(5, lambda: check("", None)),
}}))
"""
MLFLOW_FRAME = f"""
{MLFLOW_RUNS}
def frame():
    assert mlflow.search_runs([experiment], max_results=RUNS).shape[0] == RUNS
print(json.dumps({{"frame": timed(1, frame, warm=0)}}))
"""
MLFLOW_SERIES = f"""
{MLFLOW}
run = client.create_run(experiment).info.run_id
draw = random.Random(1).gauss
with sqlite3.connect("mlflow.db") as db:
    db.executemany("INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES ('loss', ?, ?, ?, ?, 0)",
                   [(draw(0.5, 0.1), step, run, step) for step in range(int(sys.argv[1]))])
def read():
    assert len(client.get_metric_history(run, "loss")) == int(sys.argv[1])
print(json.dumps({{"all": timed(3, read)}}))
"""
TRACKIO_SERIES = f"""
{TIMED}
import random, trackio
draw = random.Random(1).gauss
trackio.init(project="bench", name="one", embed=False)
for step in range(int(sys.argv[1])):
    trackio.log({{"loss": draw(0.5, 0.1)}}, step=step)
trackio.finish()
from trackio.sqlite_storage import SQLiteStorage
def read():
    found = SQLiteStorage.get_logs("bench", "one")
    assert len(found) == int(sys.argv[1]), len(found)
print(json.dumps({{"all": timed(3, read)}}))
"""


def cpu_each(yard: Yard, work: Callable[[], object], rounds: int) -> float:
    """Return the processor time that each call takes here and in the server, seconds."""
    work()
    before = time.process_time() + yard.cpu_s()["server"]
    for _ in range(rounds):
        work()
    return (time.process_time() + yard.cpu_s()["server"] - before) / rounds


def beside(report: Report, name: str, code: str, number: int, rows: dict[str, tuple[str, float]]) -> None:
    """Add rows of a peer: by the key in what its program prints, what is said of it, and what ours took (seconds)."""
    said: dict[str, Any] | None = None
    why = ""
    try:
        said = peers.run(name, code, str(number))
    except peers.PeerError as exc:
        why = str(exc)
    for key, (what, ours) in rows.items():
        if said is None:
            report.not_measured(what, why)
            continue
        report.row(f"{what}, processor time", said[key]["cpu"], "s", baseline=ours, against="runyard")
        report.row("  on the clock", said[key]["wall"], "s")
