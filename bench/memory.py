"""Resident memory of server, agent, supervisor and collector, idle after a warm-up, against a bare Python that waits."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bench.common import Report, Target, arguments
from bench.yard import Yard, children, command_line, resident_mb, running, small_repository

LIMITS = {"server": 150, "agent": 40, "supervisor": 15, "collector": 25, "what collectors are forked from": 25}
SLOTS = 8
SETTLE_S = 3.0


def main() -> int:
    options = arguments(__doc__)
    report = Report("memory", quick=options.quick)
    number = 40 if options.quick else 200
    with running(SLOTS) as yard:
        repository = small_repository(yard.home.parent / "small")
        spec = yard.first_run(repository, "true")
        with yard.connect() as api:
            fresh = {name: resident_mb(pid) for name, pid in yard.pids().items()}
            yard.submit_many(api, spec, number)
            yard.all_ended(api)
            time.sleep(SETTLE_S)
            found = {name: resident_mb(pid) for name, pid in yard.pids().items()}
            found.update(beside_mb(yard, repository))
    bare = bare_python_mb()
    report.row("python -I -S that waits", bare, "MB")
    for name, limit in LIMITS.items():
        what = f"{name}, idle after {number} runs" if name in fresh else f"{name} of a run that sleeps"
        report.row(what, found[name], "MB", baseline=bare, against="a bare Python",
                   target=Target(number=limit, of="value", unit="MB"))  # fmt: skip
        if name in fresh:
            report.row(f"  {name} after its first run", fresh[name], "MB", baseline=bare, against="a bare Python")
    return report.finish()


def beside_mb(yard: Yard, repository: Path) -> dict[str, float]:
    """Return the resident memory of the supervisor and the collector of a run that sleeps."""
    with yard.connect() as api:
        spec = {**yard.first_run(repository, "true"), "command": ["sleep", "600"], "program": "/bin/sleep"}
        run = yard.submit_many(api, spec, 1)[0]
        while api.run(run)["phase"] != "running":
            time.sleep(0.05)
        time.sleep(SETTLE_S)
        value = {}
        for child in children(yard.pids()["agent"]):
            name = next(Path(word.decode()).stem for word in command_line(child).split(b"\0") if word.endswith(b".py"))
            if name == "collector":  # forked from the first one, so most of it is shared
                value["what collectors are forked from"] = resident_mb(child)
                value[name] = resident_mb(children(child)[0])
            else:
                value[name] = resident_mb(child)
        api.kill(run, now=True)
        yard.until_ended(api, run)
    return value


def bare_python_mb() -> float:
    """Return the resident memory of a Python that has imported nothing and waits."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "print(1, flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        if process.stdout is None or process.stdin is None:
            raise SystemExit("no pipes")
        process.stdout.readline()
        value = resident_mb(process.pid)
        process.stdin.write(b"\n")
        process.stdin.close()
    return value


if __name__ == "__main__":
    sys.exit(main())
