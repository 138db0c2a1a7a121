"""What `runyard run` adds to a trivial script, everything captured, in processor time of all processes together.

The script parses an argument and prints a metric. Counted are the command, the server, the agent, the supervisor and the
collector, over many runs; from it goes what the script alone takes. A repository of 503 files and 10 MB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from bench import peers
from bench.common import Report, Target, arguments, runyard
from bench.processes import ProgramError, tree
from bench.repository import make
from bench.yard import Yard, running

SCRIPT = """import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
args = parser.parse_args()
print("loss: 0.5")
"""


def main() -> int:
    options = arguments(__doc__)
    report = Report("wrapper", quick=options.quick)
    rounds = 3 if options.quick else 20
    with running(1) as yard:
        top = yard.home.parent / "repository"
        make(top, yard.environ)
        (top / "train.py").write_text(SCRIPT)
        for extra in ([], ["--no-capture"]):
            submit(yard, top, extra)
        alone = [children_cpu([sys.executable, "train.py", "--lr", "0.2"], top, yard.env) for _ in range(rounds)]
        plain = sorted(alone)[rounds // 2]
        report.row("the script alone", plain, "s")
        more = {}
        for what, extra in (("all captured", []), ("--no-capture", ["--no-capture"])):
            before, mine = sum(yard.cpu_s().values()), 0.0
            begun = time.perf_counter()
            for _ in range(rounds):
                mine += submit(yard, top, extra)
            wall = (time.perf_counter() - begun) / rounds
            settle(yard)
            cpu = (sum(yard.cpu_s().values()) - before + mine) / rounds
            target = Target(number=0.2, of="value", unit="s") if not extra else None
            more[what] = cpu - plain
            report.row(
                f"runyard run, {what}: more than that",
                more[what],
                "s",
                baseline=plain,
                against="the script",
                target=target,
            )
            report.row("  until it had ended, on the clock", wall, "s")
        beside_guild(report, top, plain, more["all captured"], 2 if options.quick else 5)
    return report.finish()


def beside_guild(report: Report, top: Path, plain: float, ours: float, rounds: int) -> None:
    """The same script in the same repository with Guild AI, which finds its flag and its metric as well."""
    what = "guild run: more than the script alone"
    try:
        with peers.directory("guild") as (env, home):
            words = ["guild", "run", "train.py", "lr=0.2", "-y"]
            taken = [tree(words, {**env, "HOME": str(home)}, top, peers.RUN_S) for _ in range(rounds + 1)][1:]
    except (peers.PeerError, ProgramError, subprocess.TimeoutExpired) as exc:
        report.not_measured(what, str(exc).strip().splitlines()[-1])
        return
    cpu = sorted(item.cpu for item in taken)[rounds // 2] - plain
    report.row(f"{what}, processor time", cpu, "s", baseline=ours, against="runyard run")
    report.row("  on the clock", sorted(item.wall for item in taken)[rounds // 2], "s")


def submit(yard: Yard, top: Path, extra: list[str]) -> float:
    """Submit, wait for the end, check what was captured; return the processor time of the command."""
    before = os.times()
    words = [*runyard(), "run", "--json", "--wait", "--gpus", "0", *extra, sys.executable, "train.py", "--lr", "0.2"]
    done = subprocess.run(words, env=yard.environ, cwd=top, capture_output=True, text=True, check=True)
    after = os.times()
    run = json.loads(done.stdout)
    if not extra and run["params"].get("lr") != 0.2:
        raise SystemExit(f"the parameter was not captured: {run['params']}")
    return after.children_user + after.children_system - before.children_user - before.children_system


def settle(yard: Yard) -> None:
    """Wait until nothing of the runs is left to do."""
    deadline = time.monotonic() + 30.0
    while any(yard.home.glob("hosts/*/attempts/*")) and time.monotonic() < deadline:
        time.sleep(0.05)


def children_cpu(words: list[str], top: Path, env: dict[str, str]) -> float:
    """Return the processor time of a program."""
    before = os.times()
    subprocess.run(words, env=env, cwd=top, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    sys.exit(main())
