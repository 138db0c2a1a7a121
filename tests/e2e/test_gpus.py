"""GPUs shared by whole yards; the GPUs are those of a fake NVIDIA library."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runyard.agent import gpulock
from runyard.testing.nvml import FakeNvml
from runyard.wire import ids
from tests.e2e.harness import Cli, end_all, write_repository

Require = Callable[[str], None]
OTHER_USER = 65534
AS_OTHER = [
    "setpriv", "--reuid=%d" % OTHER_USER, "--regid=%d" % OTHER_USER, "--clear-groups",
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
]  # fmt: skip
"""Another user, who may nevertheless read the interpreter and the code, wherever they are installed."""

# Two ranks that meet at MASTER_PORT, as torchrun's do; then one line for each: what it may use, and until when.
RANKS = """
import json, os, socket, sys, time
from multiprocessing.connection import Client, Listener
gpus, port = os.environ["CUDA_VISIBLE_DEVICES"].split(","), int(os.environ["MASTER_PORT"])
with Listener(("127.0.0.1", port), authkey=b"x") as listener:
    child = os.fork()
    if not child:
        with Client(("127.0.0.1", port), authkey=b"x") as mine:
            mine.send(gpus[1])
            mine.recv()
        os._exit(0)
    with listener.accept() as other:
        there, here = sys.argv[1:3]
        open(here, "w").close()
        while not os.path.exists(there):  # both runs are alive at the same time
            time.sleep(0.01)
        print(json.dumps([gpus[0], other.recv(), port]))
        other.send("done")
    sys.exit(os.waitpid(child, 0)[1])
"""
TOUCH = """printf + >> "$1"
sleep "$2"
printf - >> "$1"
"""


@pytest.fixture
def fake(tmp_path: Path, require: Require) -> Iterator[FakeNvml]:
    require("cc")
    made = FakeNvml(Path(tempfile.mkdtemp(prefix="nvml-", dir=os.environ.get("TMPDIR", "/tmp"))))
    made.directory.chmod(0o755)
    yield made
    shutil.rmtree(made.directory)
    for line in made.lines:
        Path(gpulock.lock_path(str(line["uuid"]))).unlink(missing_ok=True)


def show(fake: FakeNvml, number: int) -> dict[str, str]:
    """Let a host have GPUs with names of their own (their locks are the host's); return the variables for it."""
    base = ids.new_secret()[:12]
    fake.show(*({"uuid": f"GPU-{base}-{n}", "name": f"Fake{n}", "used": 10} for n in range(number)))
    return {"LD_LIBRARY_PATH": str(fake.directory), "RUNYARD_GPUS": "all"}


def test_two_runs_of_two_gpus_each_run_at_the_same_time(cli: Cli, fake: FakeNvml, tmp_path: Path) -> None:
    cli.env.update(show(fake, 4))
    marks = [str(tmp_path / "one"), str(tmp_path / "two")]
    runs = [cli.submit("--gpus", "2", "python", "-c", RANKS, *marks[::step]) for step in (1, -1)]
    said = []
    for run in runs:
        cli.until(run, "finished")
        said.append(json.loads(cli.out("logs", run)))
    assert sorted(gpu for first, second, _ in said for gpu in (first, second)) == ["0", "1", "2", "3"]
    assert said[0][2] != said[1][2], "each has a port of its own"


@pytest.fixture
def other(tmp_path: Path, require: Require) -> Iterator[Cli]:
    """The command line of another user in a home and a repository of theirs."""
    require("root")
    require("setpriv")
    place = Path(tempfile.mkdtemp(prefix="ryo-", dir=os.environ.get("TMPDIR", "/tmp")))
    repository = write_repository(place / "digits", {"touch.sh": TOUCH})
    home = place / "home"
    home.mkdir(mode=0o700)
    for path in (place, *place.rglob("*")):
        os.chown(path, OTHER_USER, OTHER_USER)
    cli = Cli(home, repository, RUNYARD_CPU_SLOTS="2")
    cli.prefix = AS_OTHER
    yield cli
    end_all(home)
    shutil.rmtree(place)


def test_two_yards_of_two_users_never_start_on_one_gpu(
    cli: Cli, other: Cli, fake: FakeNvml, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The programs touch the GPU only later, so nothing but the host's lock on it keeps them apart."""
    starts = int(request.config.getoption("--starts")) // 2
    environment = show(fake, 1)
    (tmp_path / "digits" / "touch.sh").write_text(TOUCH)
    record = fake.directory / "record"
    record.touch()
    record.chmod(0o666)
    for yard in (cli, other):
        yard.env.update(environment)
        yard.call("start")
    runs = [(yard, yard.submit("sh", "touch.sh", str(record), "0.1")) for _ in range(starts) for yard in (cli, other)]
    started = time.monotonic()
    for yard, run in runs:
        yard.until(run, "finished", deadline_s=60.0 + starts * 4)
    text = record.read_text()
    assert text == "+-" * len(runs), text
    owners = {os.stat(yard.show(run)["run_dir"]).st_uid for yard, run in runs}
    assert owners == {os.getuid(), OTHER_USER}
    print("%d starts in %.0f s" % (len(runs), time.monotonic() - started))
