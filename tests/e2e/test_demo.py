"""`runyard demo`, as a new user sees it."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

from tests.e2e.harness import Cli


def test_the_demo_shows_everything_in_under_a_minute(cli: Cli, tmp_path: Path) -> None:
    started = time.monotonic()
    said = cli.out("demo", cwd=tmp_path)
    assert time.monotonic() - started < 60
    runs = cli.json("ls", "-p", "iris-demo")
    assert sorted(run["state"] for run in runs) == ["failed", *["finished"] * 5]
    by_message = {run["message"]: run for run in runs}
    before, after = by_message["before the edit"], by_message["after the edit"]
    assert before["snapshot"]["tree"] == by_message["small steps"]["snapshot"]["tree"] != after["snapshot"]["tree"]
    assert "-MOMENTUM = 0.0" in said
    assert "+MOMENTUM = 0.9" in said
    assert cli.out("logs", before["id"]) != cli.out("logs", after["id"])
    assert {output["path"] for output in after["outputs"]} == {"learning_curve.svg", "model.json"}
    assert "No such file or directory" in cli.out("logs", by_message["missing data"]["id"])
    assert re.search(r"^ID +STATE", said, re.MULTILINE)
    assert "The page: http://127.0.0.1:" in said
    repository = re.search(r"The repository is (\S+):", said)
    assert repository
    shutil.rmtree(Path(repository[1]).parent)
