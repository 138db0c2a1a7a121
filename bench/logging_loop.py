"""The logging loop: 10 numbers at each of 10,000 steps by `runyard.log`, against a plain file of JSON lines.

Also what it costs in all (processor time, peak memory, disk once the server has it), and whether a SIGKILL loses any of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import peers
from bench.common import SOURCE, Report, Target, arguments, measure
from bench.ingest import Spool, opened

STEPS, METRICS = 10_000, 10
COMMON = f"""
import json, os, random, sys, time
draw = random.Random(1).gauss
names = ["metric%d" % n for n in range({METRICS})]
"""
LOOP = """
taken = []
clock = time.perf_counter
for step in range(STEPS):
    values = {name: draw(0.5, 0.1) for name in names}
    begun = clock()
    LOG
    taken.append(clock() - begun)
END
taken.sort()
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"median": taken[len(taken) // 2], "mean": sum(taken) / len(taken), "cpu": sum(os.times()[:2]),
                  "rss": peak * 1024}), flush=True)
if KILL:
    os.kill(os.getpid(), 9)
"""
WAYS = {
    "plain JSON lines, flushed each step": (
        "file = open(sys.argv[1] + '/log.jsonl', 'w', buffering=1)\n",
        "file.write(json.dumps({'step': step, 'time': time.time(), **values}) + '\\n')",
        "file.close()",
    ),
    "runyard.log": ("import runyard\n", "runyard.log(values, step=step)", "runyard.finish()"),
}


PEERS = {
    "sacred": """
from sacred import Experiment
from sacred.observers import FileStorageObserver
experiment = Experiment("bench", save_git_info=False)
experiment.observers.append(FileStorageObserver("runs"))
@experiment.main
def main(_run):
    loop(lambda values, step: [_run.log_scalar(name, value, step) for name, value in values.items()])
experiment.run()
""",
    "trackio": """
import trackio
trackio.init(project="bench", embed=False)
loop(lambda values, step: trackio.log(values, step=step))
trackio.finish()
""",
    "wandb": """
import wandb
wandb.init(project="bench", mode="offline")
loop(lambda values, step: wandb.log(values, step=step))
wandb.finish()
""",
    "tensorboardX": """
from tensorboardX import SummaryWriter
writer = SummaryWriter("runs")
loop(lambda values, step: [writer.add_scalar(name, value, step) for name, value in values.items()])
writer.close()
""",
    "mlflow": """
import mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.set_experiment("bench")
with mlflow.start_run():
    loop(lambda values, step: mlflow.log_metrics(values, step=step))
""",
}
"""What each peer's documentation shows, with its defaults."""
FEWER = {"mlflow": 20}
"""Peers that are so slow that they are given a part of the steps, and what the rest takes is reckoned."""
PEER_LOOP = """
def loop(log):
    global before
    before = sum(os.times()[:4])
    for step in range(int(sys.argv[1])):
        values = {name: draw(0.5, 0.1) for name in names}
        begun = time.perf_counter()
        log(values, step)
        taken.append(time.perf_counter() - begun)
taken = []
"""
PEER_END = """
taken.sort()
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"median": taken[len(taken) // 2], "before": before, "rss": peak * 1024}), flush=True)
"""


def program(way: str, steps: int, kill: bool = False) -> str:
    """Return a program that logs in that way."""
    begin, log, end = WAYS[way]
    loop = LOOP.replace("STEPS", str(steps)).replace("LOG", log).replace("END", "" if kill else end)
    return COMMON + begin + loop.replace("KILL", str(kill))


def run(code: str, directory: Path) -> tuple[dict[str, float], int]:
    """Run a program; return what it said of itself, and its exit status."""
    env = {
        "PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, "RUNYARD_SPOOL": str(directory / "spool"),
        "RUNYARD_RUN_ID": "a" * 12, "RUNYARD_RUN_DIR": str(directory),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory)], env=env, capture_output=True, text=True, check=False
    )
    return json.loads(done.stdout), done.returncode


def main() -> int:
    options = arguments(__doc__)
    report = Report("logging_loop", quick=options.quick)
    steps, rounds = (1000, 2) if options.quick else (STEPS, 7)
    said: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}

    def one(way: str) -> None:
        with tempfile.TemporaryDirectory(prefix="ry-bench-") as top:
            said[way].append(run(program(way, steps), Path(top))[0])

    measure({way: (lambda way=way: one(way)) for way in WAYS}, rounds)  # type: ignore[misc]
    plain, ours = ({key: min(item[key] for item in said[way]) for key in said[way][0]} for way in WAYS)
    medians = [sorted(item["median"] for item in said[way])[len(said[way]) // 2] * 1e6 for way in WAYS]
    name = "runyard.log"
    report.row(f"{METRICS} numbers a step, median: JSON lines", medians[0], "µs")
    report.row(
        f"{METRICS} numbers a step, median: {name}", medians[1], "µs", target=Target(number=4, of="value", unit="µs")
    )
    report.row("  the same", medians[1], "µs", baseline=medians[0], against="JSON lines", target=Target(number=0.5))
    report.row("  mean", ours["mean"] * 1e6, "µs", baseline=plain["mean"] * 1e6, against="JSON lines")
    totals(report, ours, plain, steps)
    killed(report, steps)
    if not options.quick:
        beside_peers(report, medians[1], ours, steps)
    return report.finish()


def beside_peers(report: Report, median_us: float, ours: dict[str, float], steps: int) -> None:
    """The same loop with other trackers, in this very run; processor time is that of all their processes."""
    for name, code in PEERS.items():
        fewer = FEWER.get(name, 1)
        try:
            said = peers.run(name, COMMON + PEER_LOOP + code + PEER_END, str(steps // fewer))
        except peers.PeerError as exc:
            report.not_measured(f"a step with {name}", str(exc))
            continue
        cpu = said["before"] + (said["tree_cpu"] - said["before"]) * fewer
        report.row(f"a step with {name}, median", said["median"] * 1e6, "µs", baseline=median_us, against="runyard.log")
        what = f", reckoned from {steps // fewer:,} steps" if fewer > 1 else ""
        report.row(f"  processor time of it all{what}", cpu, "s", baseline=ours["cpu"], against="runyard.log")
        report.row(
            "  peak memory of the program", said["rss"] / 1e6, "MB", baseline=ours["rss"] / 1e6, against="runyard.log"
        )
        if fewer == 1:
            report.row("  on disk", said["disk"] / 1e6, "MB")


def totals(report: Report, ours: dict[str, float], plain: dict[str, float], steps: int) -> None:
    report.row("processor time of the whole program", ours["cpu"], "s", baseline=plain["cpu"], against="JSON lines",
               target=Target(number=0.5, of="value", unit="s"))  # fmt: skip
    report.row("its peak memory", ours["rss"] / 1e6, "MB", baseline=plain["rss"] / 1e6, against="JSON lines",
               target=Target(number=25, of="value", unit="MB"))  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="ry-bench-") as top, opened(Path(top) / "home") as yard:
        run(program("runyard.log", steps), Path(top))
        attempt = yard.attempt()
        before = yard.disk()
        spool = Spool(Path(top) / "spool")
        begun = time.process_time()
        spool.send(yard, attempt)
        taken = time.process_time() - begun
        yard.finish(attempt)
        report.row("taking it in, processor time of the server", taken, "s")
        report.row("on disk once it is in and the run has ended", (yard.disk() - before) / 1e6, "MB",
                   target=Target(number=1.5, of="value", unit="MB"))  # fmt: skip


def killed(report: Report, steps: int) -> None:
    """SIGKILL right after the last call."""
    with tempfile.TemporaryDirectory(prefix="ry-bench-") as top:
        _, status = run(program("runyard.log", steps, kill=True), Path(top))
        if status != -signal.SIGKILL:
            raise SystemExit(f"the program ended with {status}")
        lost = steps - Spool(Path(top) / "spool").rows
    report.row("steps lost by SIGKILL", lost, "", target=Target(number=0, of="value"))


if __name__ == "__main__":
    sys.exit(main())
