"""A notebook that logs: a run of its own, with the code of its cells."""

from __future__ import annotations

import subprocess
import sys

from tests.e2e.harness import Cli, wait_for

RUN = """
import nbformat, sys
from nbclient import NotebookClient
book = nbformat.v4.new_notebook()
book.cells = [nbformat.v4.new_code_cell(cell) for cell in (
    "import runyard\\nrun = runyard.init(project='study', params={'lr': 0.1})",
    "for step in range(5):\\n    runyard.log({'loss': 1.0 / (step + 1)})",
    "runyard.finish()",
    "runyard.init(name='second')\\nrunyard.log({'loss': 7.0})",
)]
nbformat.write(book, "study.ipynb")
NotebookClient(book, timeout=60, kernel_name="python3").execute()
"""


def test_a_notebook_makes_runs_of_its_own(cli: Cli) -> None:
    cli.call("start")
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=cli.cwd,
        env={**cli.env, "JPY_SESSION_NAME": str(cli.cwd / "study.ipynb")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    run = cli.until(wait_for(lambda: cli.json("ls", "-p", "study"), "the run")[0]["id"], "finished")
    assert run["params"] == {"lr": 0.1}
    assert run["command"] == ["jupyter", "execute", "study.ipynb"]  # as Jupyter's server tells the kernel
    assert run["metrics"]["loss"]["count"] == 5
    cells = cli.out("get", run["id"], "cells.py", "-o", "-")
    assert "# In [2]:\nfor step in range(5):" in cells and "second" not in cells
    cli.call("checkout", run["id"], "copy")
    assert "runyard.init" in (cli.cwd / "copy" / "study.ipynb").read_text()
    second = cli.until(wait_for(lambda: cli.json("ls", "--name", "second"), "the second run")[0]["id"], "finished")
    assert second["metrics"]["loss"]["last"] == 7.0
