"""GPUs, seen by the real NVML binding through a fake library; none is needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runyard.agent import gpulock
from runyard.testing.nvml import FakeNvml
from runyard.wire import ids, library
from tests.agent.conftest import AgentBox
from tests.agent.fake_server import FakeServer, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROBE = Path(__file__).with_name("gpu_probe.py")


def four(**first: object) -> list[dict[str, object]]:
    """Four GPUs with names of their own (the locks are shared with the whole machine)."""
    base = ids.new_secret()[:12]
    gpus: list[dict[str, object]] = [{"uuid": f"GPU-{base}-{n}", "name": f"Fake{n}", "used": 10} for n in range(4)]
    gpus[0].update(first)
    return gpus


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, require: Callable[[str], None]) -> Path:
    require("cc")
    return FakeNvml(tmp_path_factory.mktemp("nvml")).directory


@pytest.fixture
def fake(built: Path, tmp_path: Path) -> FakeNvml:
    made = FakeNvml.__new__(FakeNvml)
    made.directory, made.lines = tmp_path / "nvml", []
    shutil.copytree(built, made.directory)
    return made


class Probe:
    """The GPU slots of a fake library, as the agent's code sees them."""

    def __init__(self, fake: FakeNvml, lib: str, choice: str, visible: str | None, owned: str, place: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PROBE), lib, choice, "-" if visible is None else visible, owned, place],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"LD_LIBRARY_PATH": str(fake.directory)},
        )  # fmt: skip

    def slots(self, *ours: str) -> list[dict[str, Any]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(",".join(ours).encode() + b"\n")
        self._process.stdin.flush()
        return list(json.loads(self._process.stdout.readline()))

    def free(self, *ours: str) -> dict[str, str]:
        """Return ``{name: why it is not free or ""}``."""
        return {slot["name"]: "" if slot["free"] else slot["why"] for slot in self.slots(*ours)}

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@pytest.fixture(scope="session")
def lib(tmp_path_factory: pytest.TempPathFactory) -> str:
    return library.install(str(tmp_path_factory.mktemp("lib")))


@pytest.fixture
def probe(fake: FakeNvml, lib: str, tmp_path: Path) -> Iterator[Callable[..., Probe]]:
    made: list[Probe] = []

    def make(choice: str = "all", visible: str | None = None, owned: str = "") -> Probe:
        made.append(Probe(fake, lib, choice, visible, owned, tmp_path))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Start a process that goes by a name; returns its pid."""
    started = []

    def start(name: str) -> int:
        program = tmp_path / name
        shutil.copy("/bin/sleep", program)
        started.append(subprocess.Popen([program, "60"]))
        wait_for(lambda: Path(f"/proc/{started[-1].pid}/comm").read_text().strip() == name)
        return started[-1].pid

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_inventory(fake: FakeNvml, probe: Callable[..., Probe]) -> None:
    fake.show(*four(total=81920))
    slots = probe().slots()
    assert [slot["name"] for slot in slots] == ["gpu0", "gpu1", "gpu2", "gpu3"]
    assert [slot["index"] for slot in slots] == [0, 1, 2, 3]
    assert slots[0]["model"] == "Fake0"
    assert slots[0]["mem"] == 81920 << 20
    assert all(slot["free"] and slot["kind"] == "gpu" for slot in slots)


def test_who_holds_the_memory_decides(
    fake: FakeNvml, probe: Callable[..., Probe], stranger: Callable[[str], int]
) -> None:
    foreign, desktop, own = stranger("training"), stranger("Xorg"), stranger("mine")
    fake.show(*four())
    fake.change(0, procs=f"{foreign}:500")
    fake.change(1, graphics=f"{desktop}:700", used=710)
    fake.change(2, procs=f"{own}:900", used=910)
    fake.change(3, procs="4194304:900", used=910)
    look = probe(owned=str(own))
    uuids = [str(line["uuid"]) for line in fake.lines]
    said = look.free(uuids[2])
    assert said["gpu0"] == f"process {foreign} (training) is using it"
    assert said["gpu1"] == said["gpu2"] == ""
    assert "910 MiB" in said["gpu3"], "a process that cannot be seen: the memory decides"
    fake.change(3, used=100)
    assert look.free(uuids[2])["gpu3"] == ""
    fake.change(2, procs=f"{own}:900,{foreign}:na")
    assert "training" in look.free(uuids[2])["gpu2"], "somebody else beside our own run"


def test_readings_that_are_not_available(fake: FakeNvml, probe: Callable[..., Probe]) -> None:
    fake.show(*four())
    fake.change(0, procs="na", graphics="na", mps="na", used=4000)
    fake.change(1, procs="na", used=200)
    fake.change(2, used="na")
    fake.change(3, used="na", procs="na")
    said = probe().free()
    assert "4000 MiB" in said["gpu0"]
    assert said["gpu1"] == said["gpu2"] == ""
    assert "neither" in said["gpu3"]


def test_memory_without_any_process_is_somebody_elses(fake: FakeNvml, probe: Callable[..., Probe]) -> None:
    """In a container the processes of others are not listed at all."""
    fake.show(*four(used=5000))
    assert "5000 MiB" in probe().free()["gpu0"]


def test_a_lost_gpu_keeps_its_slot_and_disturbs_no_other(fake: FakeNvml, probe: Callable[..., Probe]) -> None:
    fake.show(*four())
    look = probe()
    assert set(look.free().values()) == {""}
    fake.change(1, error=15)
    said = look.free()
    assert "lost" in said.pop("gpu1").lower()
    assert said == {"gpu0": "", "gpu2": "", "gpu3": ""}
    fake.change(1, error=None, lost_at_count=15)
    assert set(look.free()) == {"gpu0", "gpu1", "gpu2", "gpu3"}
    fake.change(1, lost_at_count=None)
    assert set(look.free().values()) == {""}


def test_a_gpu_that_was_lost_before_is_left_out(fake: FakeNvml, probe: Callable[..., Probe]) -> None:
    fake.show(*four(error=15))
    assert set(probe().free()) == {"gpu1", "gpu2", "gpu3"}


def test_the_driver_goes_and_comes_back(fake: FakeNvml, probe: Callable[..., Probe]) -> None:
    fake.show(*four())
    look = probe()
    look.free()
    fake.write("init=9")
    assert all("cannot be read" in why for why in look.free().values())
    fake.write()
    assert set(look.free().values()) == {""}


def test_mig_instances_are_slots(fake: FakeNvml, probe: Callable[..., Probe]) -> None:
    fake.show(*four(mig=2, used1=3000))
    slots = {slot["name"]: slot for slot in probe().slots()}
    assert sorted(slots) == ["gpu0.0", "gpu0.1", "gpu1", "gpu2", "gpu3"]
    assert slots["gpu0.0"]["uuid"].startswith("MIG-")
    assert slots["gpu0.0"]["free"]
    assert not slots["gpu0.1"]["free"]


def test_mig_mode_without_instances_has_no_slot(fake: FakeNvml, probe: Callable[..., Probe]) -> None:
    fake.show(*four(mig=0))
    assert sorted(probe().free()) == ["gpu1", "gpu2", "gpu3"]


@pytest.mark.parametrize(
    ("choice", "visible", "names"),
    [
        ("none", None, []),
        ("0,2", None, [0, 2]),
        ("all", "1,3", [1, 3]),
        ("all", "", []),
        ("all", "-1", []),
        ("all", "0,-1,2", [0]),
        ("1,2", "2,3", [2]),
        ("all", "UUID1", [1]),
        ("UUID3", None, [3]),
    ],
)
def test_which_gpus_may_be_used(
    fake: FakeNvml, probe: Callable[..., Probe], choice: str, visible: str | None, names: list[int]
) -> None:
    fake.show(*four())
    for number, line in enumerate(fake.lines):
        choice = choice.replace(f"UUID{number}", str(line["uuid"]))
        visible = visible.replace(f"UUID{number}", str(line["uuid"])) if visible else visible
    assert sorted(probe(choice, visible).free()) == [f"gpu{number}" for number in names]


def test_a_gpu_that_another_yard_has_locked(fake: FakeNvml, probe: Callable[..., Probe], tmp_path: Path) -> None:
    fake.show(*four())
    uuid = str(fake.lines[0]["uuid"])
    held = gpulock.take(uuid, str(tmp_path))
    assert held is not None
    look = probe()
    assert "another yard" in look.free()["gpu0"]
    assert look.free(uuid)["gpu0"] == "", "our own lock"
    held.release()
    assert look.free()["gpu0"] == ""


def test_a_gpu_whose_lock_nobody_can_take_is_not_free(
    fake: FakeNvml, probe: Callable[..., Probe], tmp_path: Path
) -> None:
    """Free, it would be assigned and handed back without end."""
    fake.show(*four())
    Path(gpulock.lock_path(str(fake.lines[0]["uuid"]), str(tmp_path))).symlink_to("nowhere")
    found = probe().free()
    assert "its lock cannot be opened" in found["gpu0"]
    assert found["gpu1"] == ""


# -- whole agents


@pytest.fixture
def gpu_box(box: AgentBox, fake: FakeNvml) -> Iterator[AgentBox]:
    fake.show(*four())
    uuids = [str(line["uuid"]) for line in fake.lines]
    box.environ.update(RUNYARD_GPUS="all", LD_LIBRARY_PATH=str(fake.directory))
    yield box
    for uuid in [*uuids, f"MIG-{uuids[3]}-0"]:
        Path(gpulock.lock_path(uuid)).unlink(missing_ok=True)


SHOW = "import os\nprint(os.environ['CUDA_DEVICE_ORDER'], repr(os.environ['CUDA_VISIBLE_DEVICES']))\n"


def test_what_a_run_sees(gpu_box: AgentBox, fake: FakeNvml) -> None:
    fake.change(3, mig=1)
    gpu_box.start()
    hello = wait_for(lambda: gpu_box.yard.hellos)[0]
    assert [gpu["index"] for gpu in hello["host"]["gpus"]] == [0, 1, 2, 3]
    assert len([slot for slot in hello["slots"] if slot["kind"] == "gpu"]) == 4
    seen = {}
    for slots in (["gpu0", "gpu2"], ["gpu3.0"], ["cpu0"]):
        attempt = gpu_box.python(SHOW, slots=slots)
        log = gpu_box.home / gpu_box.yard.pending[attempt]["dir"] / ".runyard" / "log.1"
        gpu_box.end(attempt)
        seen[slots[0]] = log.read_text().split()
    uuid = fake.lines[3]["uuid"]
    assert seen == {
        "gpu0": ["PCI_BUS_ID", "'0,2'"], "gpu3.0": ["PCI_BUS_ID", "'MIG-%s-0'" % uuid], "cpu0": ["PCI_BUS_ID", "''"],
    }  # fmt: skip


def test_a_gpu_that_became_busy_is_handed_back(
    gpu_box: AgentBox, fake: FakeNvml, stranger: Callable[[str], int]
) -> None:
    gpu_box.start()
    wait_for(lambda: gpu_box.yard.hellos)
    fake.change(0, procs=f"{stranger('training')}:500")
    attempt = gpu_box.python(SHOW, slots=["gpu0"])
    wait_for(lambda: attempt in gpu_box.yard.handed_back)
    assert "training" in gpu_box.yard.handed_back[attempt]
    assert attempt not in gpu_box.yard.phases or "running" not in gpu_box.yard.phases[attempt]
    slots = {slot["name"]: slot for slot in gpu_box.yard.heartbeats[-1]["slots"]}
    assert not slots["gpu0"]["free"], "said before it was handed back"
    assert gpu_box.end(gpu_box.python(SHOW, slots=["gpu1"]))["exit_code"] == 0


def test_the_lock_outlives_the_agent(gpu_box: AgentBox, fake: FakeNvml) -> None:
    uuid = str(fake.lines[0]["uuid"])
    agent = gpu_box.start()
    attempt = gpu_box.python("import time\nprint('up', flush=True)\ntime.sleep(60)\n", slots=["gpu0"])
    status = gpu_box.status(attempt)
    wait_for((gpu_box.run_dir(attempt) / ".runyard" / "log.1").read_bytes, what="the program")
    assert gpulock.is_held(uuid)
    gpu_box.kill(agent)
    assert gpulock.is_held(uuid)
    held = [os.readlink(f"/proc/{status['pid']}/fd/{fd}") for fd in os.listdir(f"/proc/{status['pid']}/fd")]
    assert not [name for name in held if "runyard-gpu" in name], "the program has not got it"
    gpu_box.start()
    wait_for(lambda: len(gpu_box.yard.hellos) == 2)
    slots = {slot["name"]: slot for slot in gpu_box.yard.hellos[1]["slots"]}
    assert slots["gpu1"]["free"]
    gpu_box.yard.stop(attempt, 0.0)
    gpu_box.end(attempt)
    wait_for(lambda: not gpulock.is_held(uuid))
    assert gpu_box.end(gpu_box.python(SHOW, slots=["gpu0"]))["exit_code"] == 0


def test_a_driver_that_hangs_stops_nothing_else(gpu_box: AgentBox, fake: FakeNvml) -> None:
    gpu_box.start()
    wait_for(lambda: gpu_box.yard.hellos)
    fake.change(0, hang=60)
    time.sleep(6.0)
    beats = len(gpu_box.yard.heartbeats)
    assert gpu_box.end(gpu_box.python(SHOW, slots=["cpu0"]))["exit_code"] == 0
    wait_for(lambda: len(gpu_box.yard.heartbeats) >= beats + 2)
    stuck = gpu_box.python(SHOW, slots=["gpu1"])
    wait_for(lambda: "does not answer" in gpu_box.yard.handed_back.get(stuck, ""), 20)


def test_two_yards_never_start_on_one_gpu(gpu_box: AgentBox, fake: FakeNvml) -> None:
    """Programs that would touch the GPU only later: nothing but the lock keeps them apart."""
    record = gpu_box.home / "record"
    code = (
        "import os, time\nfd = os.open(%r, os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        "os.write(fd, b'+')\ntime.sleep(0.5)\nos.write(fd, b'-')\n" % str(record)
    )
    other_home = gpu_box.home / "other"
    other_home.mkdir()
    other = AgentBox(other_home, FakeServer())
    other.environ.update(gpu_box.environ)
    try:
        for box in (gpu_box, other):
            box.start()
        done = {id(box): 0 for box in (gpu_box, other)}
        current: dict[int, str] = {}
        deadline = time.monotonic() + 40.0
        while min(done.values()) < 3 and time.monotonic() < deadline:
            for box in (gpu_box, other):
                attempt = current.get(id(box))
                if attempt is None or attempt in box.yard.handed_back or box.yard.end_of(attempt):
                    done[id(box)] += bool(attempt and box.yard.end_of(attempt))
                    current[id(box)] = box.python(code, slots=["gpu0"])
            time.sleep(0.01)
        assert min(done.values()) >= 3
        handed_back = len(gpu_box.yard.handed_back) + len(other.yard.handed_back)
        assert handed_back, "they did meet"
    finally:
        other.close()
        other.server.down()
    text = record.read_text()
    assert {text[i : i + 2] for i in range(0, len(text) - 1, 2)} == {"+-"}, text
