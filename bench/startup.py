"""How long the commands that people wait for take, against a bare `python -c pass`, and against cloning the repository.

`runyard run` is timed up to its return, for a repository of 500 files and 10 MB that was submitted before; the peer
does what a queue without a store of snapshots does: a shallow clone, and a copy of every tracked file over it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.common import Case, Report, Target, arguments, measure, runyard
from bench.repository import ABOUT, clone_and_copy, make

PYTHON = "python -c pass"


def main() -> int:
    options = arguments(__doc__)
    report = Report("startup", quick=options.quick)
    with tempfile.TemporaryDirectory(prefix="ry-bench-") as directory:
        top = Path(directory)
        environ = {**os.environ, "RUNYARD_HOME": str(top / "home"), "GIT_CONFIG_GLOBAL": os.devnull}
        measure_version(report, environ, 5 if options.quick else 40)
        try:
            measure_run(report, top, environ, 3 if options.quick else 20)
        finally:
            call([*runyard(), "stop"], environ, top, check=False)
    return report.finish()


def measure_version(report: Report, environ: dict[str, str], rounds: int) -> None:
    found = measure(
        {
            PYTHON: lambda: call([sys.executable, "-c", "pass"], environ),
            "runyard --version": lambda: call([*runyard(), "--version"], environ),
        },
        rounds,
    )
    base, version = found[PYTHON], found["runyard --version"]
    report.row(PYTHON, base.median, "s", sample=base)
    report.row(
        "runyard --version", version.median, "s",
        baseline=base.median, against=PYTHON, target=Target(number=4), sample=version,
    )  # fmt: skip


def measure_run(report: Report, top: Path, environ: dict[str, str], rounds: int) -> None:
    repository, clone = top / "repository", top / "clone"
    make(repository, environ)
    submit = [*runyard(), "run", "--gpus", "0", "true"]
    call(submit, environ, repository)  # starts the server, and stores the files
    with idle_yard(environ) as wait:
        found = measure(
            {
                PYTHON: lambda: call([sys.executable, "-c", "pass"], environ),
                "run": Case(run=lambda: call(submit, environ, repository), after=wait),
                "clone": Case(
                    run=lambda: clone_and_copy(repository, clone, environ), after=lambda: shutil.rmtree(clone)
                ),
            },
            rounds,
        )
    run, what = found["run"], f"runyard run ({ABOUT}, again)"
    report.row(
        what, run.median, "s",
        baseline=found[PYTHON].median, against=PYTHON, target=Target(number=15), sample=run,
    )  # fmt: skip
    report.row("git clone --depth=1 + copy", found["clone"].median, "s", sample=found["clone"])
    report.row(
        what, run.median, "s", baseline=found["clone"].median, against="faster than clone + copy",
        inverse=True, target=Target(number=2, least=True),
    )  # fmt: skip


def call(command: list[str], environ: dict[str, str], directory: Path | None = None, *, check: bool = True) -> bytes:
    done = subprocess.run(command, env=environ, cwd=directory, capture_output=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(command[-4:])} failed:\n{done.stderr.decode(errors='replace')}")
    return done.stdout


@contextmanager
def idle_yard(environ: dict[str, str]) -> Iterator[Callable[[], None]]:
    """Give a function that waits until the last submitted run has ended."""
    from runyard.client import connect

    with connect.connect(environ) as api:

        def wait() -> None:
            deadline = time.monotonic() + 60
            while api.wait("@last", timeout=5.0)["ended_at"] is None:
                if time.monotonic() > deadline:
                    raise SystemExit("the yard did not get idle: a run of `true` has not ended after a minute")

        wait()
        yield wait


if __name__ == "__main__":
    sys.exit(main())
