"""Freezing a repository of 500 files and 10 MB a second time, against bare Python and against a shallow clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.common import SOURCE, Case, Report, arguments, measure
from bench.repository import ABOUT, clone_and_copy, make
from runyard.snapshot.freeze import freeze

PYTHON, IMPORT, AGAIN, INSIDE, CLONE = (
    "python -c pass", "python: import freeze", "python: freeze again", "freeze again, in process",
    "git clone --depth=1 + copy",
)  # fmt: skip
FREEZE = "from runyard.snapshot.freeze import freeze; freeze({!r}, {!r})"


def main() -> int:
    options = arguments(__doc__)
    report = Report("snapshot", quick=options.quick)
    with tempfile.TemporaryDirectory(prefix="ry-bench-") as directory:
        top = Path(directory)
        repository, home, clone = top / "repository", str(top / "home"), top / "clone"
        make(repository, os.environ)
        started = time.perf_counter()
        freeze(str(repository), home)
        report.row(f"freeze the first time, in process ({ABOUT})", time.perf_counter() - started, "s")
        time.sleep(0.1)  # beyond one tick of the clock the files count as settled
        freeze(str(repository), home)
        found = measure(
            {
                PYTHON: lambda: python("pass"),
                IMPORT: lambda: python("import runyard.snapshot.freeze"),
                AGAIN: lambda: python(FREEZE.format(str(repository), home)),
                INSIDE: lambda: freeze(str(repository), home),
                CLONE: Case(
                    run=lambda: clone_and_copy(repository, clone, os.environ), after=lambda: shutil.rmtree(clone)
                ),
            },
            3 if options.quick else 15,
        )  # fmt: skip
    bare, cloned = found[PYTHON].median, found[CLONE].median
    for name, sample in found.items():
        report.row(name, sample.median, "s", baseline=bare, against=PYTHON, sample=sample)
    for name in (AGAIN, INSIDE):
        report.row(
            name, found[name].median, "s", baseline=cloned, against="faster than clone + copy", inverse=True
        )  # fmt: skip
    return report.finish()


def python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": SOURCE})


if __name__ == "__main__":
    sys.exit(main())
