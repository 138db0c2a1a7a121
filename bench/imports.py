"""What it costs to begin: importing the SDK, and listing runs, in processor time of the process; beside other trackers.

`import runyard` loads what is used when it is used, so importing everything that logging needs is measured, too. Each program
runs with the Python of its own environment, and what that takes for nothing is measured with each.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack

from bench import peers
from bench.common import SOURCE, Report, Sample, Target, arguments, runyard
from bench.many_runs import found, made
from bench.processes import ProgramError, cpu_in_turn
from bench.yard import running

RUNS = 50
BARE = "python -c pass"
IMPORT, ALL, LIST = "import runyard", "import runyard and what logging needs", "runyard ls"
MODULES = {"tensorboardX": "tensorboardX", "wandb": "wandb", "Trackio": "trackio", "MLflow": "mlflow"}
SCRIPT = "print('loss: 0.5')\n"


def main() -> int:
    options = arguments(__doc__)
    report = Report("imports", quick=options.quick)
    rounds = 3 if options.quick else 21
    with ExitStack() as stack:
        yard = stack.enter_context(running(1))
        made(yard, RUNS)
        found(yard, RUNS)
        env, top = {**yard.environ, "PYTHONPATH": SOURCE}, yard.home.parent
        programs = {
            BARE: ([sys.executable, "-c", "pass"], env, top),
            IMPORT: ([sys.executable, "-c", "import runyard"], env, top),
            ALL: ([sys.executable, "-c", "import runyard; runyard.log, runyard.finish"], env, top),
            LIST: ([*runyard(), "ls"], yard.environ, top),
        }
        for what, name in MODULES.items():
            try:
                peer, place = stack.enter_context(peers.directory(name))
            except peers.PeerError as exc:
                report.not_measured(f"import {name}", str(exc))
                continue
            programs[f"bare, {what}"] = (["python", "-c", "pass"], peer, place)
            programs[f"import {name}"] = (["python", "-W", "ignore", "-c", f"import {name}"], peer, place)
        try:
            peer, place = stack.enter_context(peers.directory("guild"))
            (place / "train.py").write_text(SCRIPT)
            for _ in range(3):
                subprocess.run(["guild", "run", "train.py", "-y"], env=peer, cwd=place, check=True, capture_output=True)
            programs["guild runs"] = (["guild", "runs"], peer, place)
        except (peers.PeerError, subprocess.CalledProcessError) as exc:
            report.not_measured("guild runs", str(exc))
        try:
            taken = cpu_in_turn(programs, rounds)
        except ProgramError as exc:
            raise SystemExit(str(exc)) from exc
    rows(report, taken)
    return report.finish()


def rows(report: Report, taken: dict[str, tuple[Sample, Sample]]) -> None:
    cpu = {name: sample.median for name, (sample, _) in taken.items()}
    report.row(BARE, cpu[BARE], "s", sample=taken[BARE][0])
    for name, limit in ((IMPORT, 0.03), (ALL, None)):
        target = None if limit is None else Target(number=limit, of="value", unit="s")
        report.row(
            f"{name}: more than that", max(cpu[name] - cpu[BARE], 0.0), "s", target=target, sample=taken[name][0]
        )
    for what, name in MODULES.items():
        if f"import {name}" in cpu:
            more = cpu[f"import {name}"] - cpu[f"bare, {what}"]
            report.row(f"import {name}: more than its python -c pass", more, "s", baseline=max(cpu[ALL] - cpu[BARE], 1e-4),
                       against=ALL, sample=taken[f"import {name}"][0])  # fmt: skip
    report.row(
        f"{LIST}, {RUNS} runs", cpu[LIST], "s", target=Target(number=0.12, of="value", unit="s"), sample=taken[LIST][0]
    )
    report.row("  on the clock", taken[LIST][1].median, "s", sample=taken[LIST][1])
    if "guild runs" in cpu:
        report.row(
            "guild runs, 3 runs",
            cpu["guild runs"],
            "s",
            baseline=cpu[LIST],
            against=LIST,
            sample=taken["guild runs"][0],
        )
        report.row("  on the clock", taken["guild runs"][1].median, "s", sample=taken["guild runs"][1])


if __name__ == "__main__":
    sys.exit(main())
