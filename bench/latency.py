"""From queued to started on an idle yard: the program says itself when it began, and files and events say what went before.

The program is ``date +%s%N``, whose log holds the time of its start. Each run has a supervisor of its own, in Python, so
the baseline is a bare Python that executes the program; filling the tree stands beside ``tar -xf`` of the same files.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from bench.common import Report, Sample, Target, arguments
from bench.repository import ABOUT, make
from bench.yard import Json, Yard, new, running, small_repository
from runyard.client.api import Api

PROGRAM = ("date", "+%s%N")
STEPS = ("submit", "assign", "poll and stage", "grant", "launch", "exec")
STEP_NOTES = {
    "submit": "the request until its transaction begins",
    "assign": "commit, then the scheduler's round",
    "poll and stage": "commit, the agent's poll, journal, filling the tree",
    "grant": "leave to execute asked for",
    "launch": "commit, launch file, start of the supervisor",
    "exec": "the supervisor's fork until the program runs",
}


def main() -> int:
    options = arguments(__doc__)
    report = Report("latency", quick=options.quick)
    rounds = 10 if options.quick else 200
    with running(2) as yard:
        top = yard.home.parent
        small_repository(top / "small")
        make(top / "large", {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})
        measure_yard(report, yard, top / "small", "1 file", rounds, Target(number=0.1, of="value", unit="s"))
        measure_yard(report, yard, top / "large", ABOUT, rounds, Target(number=0.1, of="value", unit="s"))
    return report.finish()


def measure_yard(report: Report, yard: Yard, repository: Path, about: str, rounds: int, target: Target) -> None:
    spec = yard.first_run(repository, *PROGRAM)
    tar = next(yard.home.glob(f"hosts/*/trees/{spec['snapshot']['tree']}.tar"))
    bare, unpacked = list[float](), list[float]()
    queued, steps = list[float](), {name: list[float]() for name in STEPS}
    with yard.connect() as api:
        for number in range(-3, rounds):
            alone, unpacking = by_python(), unpack(tar, yard.home.parent / "unpacked")
            found = one_run(api, yard, spec)
            if number >= 0:
                bare.append(alone)
                unpacked.append(unpacking)
                queued.append(sum(found.values()))
                for name, seconds in found.items():
                    steps[name].append(seconds)
    base, whole = Sample(tuple(bare)), Sample(tuple(queued))
    report.row(f"started by a bare Python ({about})", base.median, "s", sample=base)
    what = f"queued to started ({about})"
    report.row(f"{what}, median", whole.median, "s", baseline=base.median, against="a bare Python",
               target=target, sample=whole)  # fmt: skip
    report.row(f"{what}, p99", whole.p99, "s", baseline=base.p99, against="its p99",
               target=Target(number=0.3, of="value", unit="s"))  # fmt: skip
    for name in STEPS:
        sample, against = (
            Sample(tuple(steps[name])),
            Sample(tuple(unpacked)).median if name == "poll and stage" else None,
        )
        report.row(f"  {name}: {STEP_NOTES[name]}", sample.median, "s", baseline=against,
                   against="" if against is None else "tar -xf", sample=sample)  # fmt: skip


def by_python() -> float:
    """Return the seconds from the spawn of a Python that executes the program to what that says of its start."""
    program = shutil.which(PROGRAM[0])
    if program is None:
        raise SystemExit(f"{PROGRAM[0]} is not installed")
    code = f"import os; os.execv({program!r}, {list(PROGRAM)!r})"
    before = time.time()
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, check=True)
    return int(done.stdout) / 1e9 - before


def unpack(tar: Path, place: Path) -> float:
    """Return the seconds that tar takes to unpack the code."""
    place.mkdir()
    before = time.time()
    subprocess.run(["tar", "-xf", str(tar), "-C", str(place)], check=True)
    after = time.time()
    shutil.rmtree(place)
    return after - before


def one_run(api: Api, yard: Yard, spec: Json) -> dict[str, float]:
    """Queue one run on the idle yard and return the seconds of each step until its program ran."""
    body = new(spec)
    sent = time.time()
    api.submit({**body, "env": yard.env})
    run = yard.until_ended(api, body["id"])
    if run["state"] != "finished":
        raise SystemExit(f"run {run['id']} {run['state']}: {run['end']}")
    began = int(api.log(run["id"])[0]) / 1e9
    at = {event["kind"]: seconds(event["at"]) for event in api.events(run["id"])}
    staged = (Path(run["run_dir"]).parent / ".runyard" / "manifest").stat().st_mtime
    times = [sent, at["submitted"], at["assigned"], staged, at["running"], seconds(run["attempts"][0]["started_at"]),
             began]  # fmt: skip
    return dict(zip(STEPS, (after - before for before, after in itertools.pairwise(times)), strict=True))


def seconds(text: str) -> float:
    """Return an ISO 8601 time as seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    sys.exit(main())
