"""What a run uses of its GPUs, as the real collector reads it; the GPUs are those of a fake NVIDIA library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from runyard.testing.nvml import FakeNvml
from tests.e2e.harness import Cli, wait_for
from tests.e2e.test_gpus import fake, show  # noqa: F401 - a fixture

WAITS = """
import os, sys, time
with open("pid", "w") as file:
    file.write(str(os.getpid()))
while not os.path.exists("go"):
    print("step: 1 loss: 2", flush=True)
    time.sleep(0.05)
"""
MIB = 1 << 20


class Watched:
    """A run on some GPUs that goes on until it is told to end."""

    def __init__(self, cli: Cli, gpus: int) -> None:
        (cli.cwd / "wait.py").write_text(WAITS)
        self.cli = cli
        self.id = cli.submit("--gpus", str(gpus), "python", "wait.py")
        self.tree = wait_for(lambda: next(cli.home.glob("runs/*/*/*/pid"), None), "the program").parent
        self.pid = int(wait_for(lambda: (self.tree / "pid").read_text(), "its pid"))

    def readings(self) -> dict[str, dict[str, Any]]:
        return {name: item for name, item in self.cli.show(self.id)["system"].items() if name.startswith("gpu")}

    def looks(self, more: int) -> None:
        """Wait until the collector has looked so many times more."""

        def count() -> int:
            return int((self.cli.show(self.id)["system"].get("cpu") or {"count": 0})["count"])

        wanted = count() + more
        wait_for(lambda: count() >= wanted, "the collector to look", 60)

    def end(self) -> dict[str, Any]:
        (self.tree / "go").touch()
        self.cli.until(self.id, "finished")
        wait_for(lambda: not any(next(self.cli.home.glob("hosts/*/attempts")).iterdir()), "all to be sent")
        return dict(self.cli.show(self.id))


def test_the_readings_of_the_gpus_of_a_run_and_of_no_other(cli: Cli, fake: FakeNvml) -> None:  # noqa: F811
    """One process is on both GPUs; the second one offers less than the first."""
    cli.env.update(show(fake, 3))
    fake.change(0, util=30, memutil=20, power=125_000, temp=60)
    for number in (1, 2):
        fake.change(number, util=70 + number)
    run = Watched(cli, 2)
    fake.change(0, used=1500, procs=f"{run.pid}:1000,{os.getpid()}:400")
    fake.change(1, used=300, procs=f"{run.pid}:na")
    run.looks(2)
    found = {name: item["last"] for name, item in run.end()["system"].items() if name.startswith("gpu")}
    assert found == {
        "gpu0/utilization": 30.0, "gpu0/memory_utilization": 20.0, "gpu0/memory": 1500.0 * MIB,
        "gpu0/run_memory": 1000.0 * MIB, "gpu0/power_w": 125.0, "gpu0/temperature_c": 60.0, "gpu1/memory": 300.0 * MIB,
    }  # fmt: skip


def test_a_gpu_that_is_lost_while_the_run_goes_on(cli: Cli, fake: FakeNvml) -> None:  # noqa: F811
    cli.env.update(show(fake, 2))
    for number in (0, 1):
        fake.change(number, util=10 + number, memutil=1)
    run = Watched(cli, 2)
    run.looks(1)
    fake.change(1, error=15)
    run.looks(2)
    lost = run.readings()
    assert lost["gpu0/utilization"]["count"] > lost["gpu1/utilization"]["count"] > 0
    ended = run.end()
    (note,) = [note for note in ended["capture"]["notes"] if "gpu" in note]
    assert note.startswith(f"gpu1 ({fake.lines[1]['uuid']}) cannot be read: ")
    assert ended["metrics"]["loss"]["count"] > 0 and ended["system"]["memory"]["count"] >= 3


@pytest.mark.parametrize("trouble", ["gone", "hangs"])
def test_a_driver_that_goes_away_or_does_not_answer(cli: Cli, fake: FakeNvml, trouble: str) -> None:  # noqa: F811
    """What else is captured does not wait for it."""
    cli.env.update(show(fake, 1))
    fake.change(0, util=10, memutil=1)
    run = Watched(cli, 1)
    run.looks(1)
    if trouble == "gone":
        fake.write("init=9")
    else:
        fake.change(0, hang=30)
    run.looks(2)
    before = cli.show(run.id)["metrics"]["loss"]["count"]
    wait_for(lambda: cli.show(run.id)["metrics"]["loss"]["count"] > before, "what is printed to be seen", 5)
    ended = run.end()
    assert ended["system"]["gpu0/utilization"]["count"] >= 1
    notes = [note for note in ended["capture"]["notes"] if "gpu" in note.lower()]
    assert notes and all(("does not answer" in note) == (trouble == "hangs") for note in notes), notes


def test_a_host_without_the_library(cli: Cli) -> None:
    run = Watched(cli, 0)
    run.looks(1)
    ended = run.end()
    assert ended["capture"]["notes"] == [] and not [name for name in ended["system"] if name.startswith("gpu")]
    assert ended["system"]["cpu"]["count"] >= 1
    assert Path(ended["run_dir"]).is_dir()
