"""A disk that is full while a program logs: under its spool, and under the server."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Cli, wait_for
from tests.e2e.test_agents import far_home, start_far_agent, stop  # noqa: F401 - a fixture
from tests.e2e.test_full_disk import fill, small  # noqa: F401 - a fixture
from tests.e2e.test_tracking import points

LOGGER = """
import os, time, runyard
step = 0
def log(count):
    global step
    for step in range(step, step + count):
        runyard.log({"m%d" % number: float(step) for number in range(10)}, step=step)
    step += 1
def meet(name):
    open(name, "w").close()
    while not os.path.exists(name + "-go"):
        time.sleep(0.01)
"""


@pytest.fixture
def journal(cli: Cli, require: Callable[[str], None]) -> Iterator[Path]:
    """A disk of 12 MB for what the agent has of runs, their spools among it."""
    require("root")
    cli.call("start")
    place = wait_for(lambda: next(cli.home.glob("hosts/*/agent.json"), None), "the agent").with_name("attempts")
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", place], check=False).returncode:
        pytest.skip("may not mount")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


class Program:
    """A run of `LOGGER` and more code, which stops at places and goes on when it is told to."""

    def __init__(self, cli: Cli, code: str, *options: str, home: Path | None = None) -> None:
        (cli.cwd / "log.py").write_text(LOGGER + code)
        self.cli = cli
        self.id = cli.submit(*options, "python", "log.py")
        self._runs = (home or cli.home) / "runs"

    def met(self, name: str) -> Path:
        """Wait until the program has got to a place; return what lets it go on."""
        return wait_for(lambda: next(self._runs.glob(f"*/*/*/{name}"), None), name).with_name(name + "-go")

    def whole(self, journal: Path) -> dict[str, Any]:
        """Return the run, once it has ended well and all of it was sent."""
        self.cli.until(self.id, "finished", deadline_s=90)
        wait_for(lambda: not any(path.is_dir() for path in journal.iterdir()), "all to be sent", 60)
        return dict(self.cli.show(self.id))


def check_missing(cli: Cli, run: dict[str, Any], logged: int) -> list[int]:
    """The run says how many records are missing, and the program said so once; return the steps that are there."""
    found = points(cli, run["id"], "m9")
    steps = [step for step, _ in found]
    assert found == [(step, float(step)) for step in sorted(set(steps))], "nothing twice, nothing false"
    assert run["metrics"]["m9"]["count"] == len(steps)
    check_said(cli, run, logged - len(steps))
    return steps


def check_said(cli: Cli, run: dict[str, Any], missing: int) -> None:
    """The run says that so many records are missing, and perhaps some that it did not log itself."""
    said = run["capture"]["missing"]
    assert 0 < missing <= said <= missing + 5 and run["capture"]["missing_why"] == "disk full"
    assert f"{said} records of what it logged is missing: disk full" in " ".join(cli.out("show", run["id"]).split())
    assert cli.out("logs", run["id"]).count("runyard:") == 1
    assert "No space left on device" in cli.out("logs", run["id"])


def test_a_spool_whose_disk_is_full_for_a_while(cli: Cli, journal: Path) -> None:
    program = Program(cli, 'log(2000); meet("one"); log(40_000); meet("two"); time.sleep(1.2); log(3000)')
    go = program.met("one")
    fill(journal / "ballast")
    go.touch()
    go = program.met("two")
    os.unlink(journal / "ballast")
    go.touch()
    steps = check_missing(cli, program.whole(journal), 45_000)
    assert steps[:2000] == list(range(2000)) and steps[-3000:] == list(range(42_000, 45_000))


def test_what_was_lost_is_known_to_an_agent_that_starts_later(cli: Cli, journal: Path) -> None:
    """The segment that counted it has been sent and removed by then."""
    program = Program(
        cli, 'log(2000); meet("one"); log(40_000); meet("two"); time.sleep(1.2); log(30_000); meet("three")'
    )
    go = program.met("one")
    fill(journal / "ballast")
    go.touch()
    go = program.met("two")
    os.unlink(journal / "ballast")
    go.touch()
    go = program.met("three")
    wait_for(lambda: (points(cli, program.id, "m9") or [(0, 0)])[-1][0] > 71_000, "what came later to be sent")
    cli.kill("agent")
    cli.call("ls")
    go.touch()
    check_missing(cli, program.whole(journal), 72_000)


def test_a_spool_that_has_no_room_at_first(cli: Cli, journal: Path) -> None:
    program = Program(cli, 'meet("one"); log(500); meet("two"); time.sleep(1.2); log(10)')
    go = program.met("one")
    fill(journal / "ballast")
    go.touch()
    go = program.met("two")
    os.unlink(journal / "ballast")
    go.touch()
    assert check_missing(cli, program.whole(journal), 510) == list(range(500, 510))


def test_a_spool_that_never_has_room(cli: Cli, journal: Path) -> None:
    program = Program(cli, 'meet("one"); log(500)')
    go = program.met("one")
    fill(journal / "ballast")
    go.touch()
    run = program.whole(journal)
    assert run["metrics"] == {} and run["end"]["exit_code"] == 0
    check_said(cli, run, 500)


def test_a_server_whose_disk_is_full_while_it_takes_in_what_is_logged(
    small: Cli,  # noqa: F811
    far_home: Path,  # noqa: F811
) -> None:
    process = start_far_agent(small, far_home)
    program = Program(small, 'log(2000); meet("one"); log(60_000); meet("two")', "--host", "far", home=far_home)
    go = program.met("one")
    wait_for(lambda: (small.show(program.id)["metrics"].get("m9") or {"count": 0})["count"] == 2000, "the first part")
    fill(small.home / "ballast")
    go.touch()
    go = program.met("two")
    wait_for(
        lambda: "disk is full" in (far_home / "err").read_text() or "disk is full" in small.server_log(), "trouble"
    )
    before = small.show(program.id)["metrics"]["m9"]["count"]
    assert before < 62_000
    go.touch()
    os.unlink(small.home / "ballast")
    run = program.whole(next(far_home.glob("hosts/*/attempts")))
    assert points(small, program.id, "m9") == [(step, float(step)) for step in range(62_000)]
    assert run["metrics"]["m9"]["count"] == 62_000 and "missing" not in run["capture"]
    stop(process)
