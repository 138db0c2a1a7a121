"""What the collector makes of the data that a run reads: names, numbers, fingerprints; the run itself is in tests/e2e."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import Any

import pytest

from runyard.agent.fingerprints import Cache, sha256_of
from runyard.agent.seen import Seen, _mapped_files
from runyard.client.spool import SpoolWriter


class Stage:
    """A run's tree and spool, and collectors that look at them."""

    def __init__(self, top: Path) -> None:
        self.tree = top / "tree"
        self.tree.mkdir()
        self.top = top
        self.started_us = time.time_ns() // 1000 + 10_000_000
        self.links: list[dict[str, Any]] = []

    def collector(self, kept: Any = None) -> Seen:
        """Return one that has just been started; ``kept``: the state of the one before."""
        facts = {
            "tree": str(self.tree), "spool": str(self.top / "spool"), "started_us": self.started_us, "links": self.links,
            "hashes": str(self.top / "hashes.db"),
        }  # fmt: skip
        seen = Seen(str(self.top), facts)
        if kept is not None:
            seen.restore(kept)
        return seen

    def say(self, *files: dict[str, Any]) -> None:
        """Have a process of the run say what it has read, and end."""
        writer = SpoolWriter(str(self.top / "spool"), {"type": "process", "pid": 1}, print)
        writer.message({"type": "data", "files": list(files)})
        writer.close()

    def write(self, name: str, text: str = "1") -> dict[str, Any]:
        """Write a file, and return what a process says that has read it."""
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return {"path": name, "size": len(text), "mtime_us": path.stat().st_mtime_ns // 1000, "via": "open"}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def files_of(turn: tuple[Any, Any]) -> dict[str, dict[str, Any]]:
    """Return what was found, by path; later knowledge goes over earlier."""
    found: dict[str, dict[str, Any]] = {}
    for message, _ in turn[1]:
        for item in message["files"]:
            found.setdefault(item["path"], {}).update(item)
    return found


def test_a_collector_that_is_started_again_hashes_what_the_one_before_has_not(stage: Stage) -> None:
    outside = stage.top / "linked"
    outside.mkdir()
    (outside / "asked").write_text("1")
    stage.links = [
        {"path": "data", "target": str(outside), "why": "found"},
        {"path": "asked", "target": str(outside / "asked"), "why": "asked for"},
    ]
    os.symlink(outside, stage.tree / "data")
    os.symlink(outside / "asked", stage.tree / "asked")
    stage.say(stage.write("a.bin"))
    first = stage.collector()
    assert set(files_of(first.turn(False))) == {"data", "asked"}
    second = stage.collector(first.state())
    hashed = files_of(second.turn(True))
    assert set(hashed) == {"a.bin", "asked"} and all(item["sha256"] for item in hashed.values())
    third = stage.collector(second.state())
    assert files_of(third.turn(True)) == {}


def test_what_is_linked_is_fingerprinted_if_it_is_read(stage: Stage) -> None:
    outside = stage.top / "outside"
    for name in ("train", "test"):
        (outside / name).mkdir(parents=True)
        for number in range(120):
            (outside / name / f"{number}.png").write_text("1")
        (outside / f"{name}.npz").write_text("1")
    for name in ("train", "test", "train.npz", "test.npz"):
        stage.links.append({"path": name, "target": str(outside / name), "why": "found"})
        os.symlink(outside / name, stage.tree / name)
    stage.say({"path": "train", "count": 120, "size": 120, "via": "open"})
    stage.say({"path": "train.npz", "size": 1, "mtime_us": 1, "via": "open"})
    found = files_of(stage.collector().turn(True))
    assert {name for name, item in found.items() if item.get("sha256")} == {"train", "train.npz"}
    assert set(found) == {"train", "test", "train.npz", "test.npz"}


def test_many_files_of_a_directory_that_several_processes_read_are_the_directory(stage: Stage) -> None:
    said = [stage.write(f"images/{number}.png") for number in range(120)]
    for part in range(4):
        stage.say(*said[part::3])  # the last reads what the first has read
    stage.say(stage.write("labels.csv"))
    found = files_of(stage.collector().turn(True))
    assert set(found) == {"images", "labels.csv"}
    assert (found["images"]["count"], found["images"]["files"], found["images"]["size"]) == (120, 120, 120)
    assert found["images"]["sha256"]


def test_numbers_of_processes_add_up_to_at_most_what_is_there(stage: Stage) -> None:
    for number in range(150):
        stage.write(f"images/{number}.png", "12")
    part = {"path": "images", "count": 60, "size": 120, "via": "open"}
    stage.say(part)
    stage.say(part)
    assert files_of(stage.collector().turn(True))["images"]["files"] == 120
    stage.say({**part, "count": 110, "size": 220})
    whole = files_of(stage.collector().turn(True))["images"]
    assert (whole["files"], whole["size"]) == (150, 300)


def test_what_a_run_wrote_into_a_directory_is_not_of_its_data(stage: Stage) -> None:
    for number in range(120):
        stage.write(f"images/{number}.png")
    stage.say({"path": "images", "count": 120, "size": 120, "via": "open"})
    before = files_of(stage.collector().turn(True))["images"]["sha256"]
    stage.write("images/made.png")
    made = stage.started_us * 1000 + 1
    os.utime(stage.tree / "images" / "made.png", ns=(made, made))
    assert files_of(stage.collector().turn(True))["images"]["sha256"] == before


def test_the_tree_itself_has_no_fingerprint(stage: Stage) -> None:
    stage.say(*(stage.write(f"{number}.png") for number in range(120)))
    assert files_of(stage.collector().turn(True)) == {
        ".": {"path": ".", "count": 120, "size": 120, "via": None, "files": 120}
    }


def test_a_declared_directory_is_fingerprinted_whatever_is_read_of_it(stage: Stage) -> None:
    for number in range(500):
        stage.write(f"images/{number}.png")
    stage.say({"path": "images", "size": 4096, "mtime_us": 1, "via": "declared"})
    stage.say({"path": "images", "count": 101, "size": 101, "via": "open"})
    whole = files_of(stage.collector().turn(True))["images"]
    assert (whole["files"], bool(whole["sha256"])) == (500, True)


def test_a_private_map_only_reads_a_file_a_shared_one_may_write(tmp_path: Path) -> None:
    maps = []
    for name, flags, prot in (
        ("read", mmap.MAP_SHARED, mmap.PROT_READ),
        ("private", mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE),
        ("shared", mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
    ):
        path = tmp_path / name
        path.write_text("1")
        with path.open("r+b") as file:
            maps.append(mmap.mmap(file.fileno(), 1, flags, prot))
    found = {Path(path).name for path in _mapped_files(os.getpid()) if path.startswith(str(tmp_path))}
    for item in maps:
        item.close()
    assert found == {"read", "private"}


def test_hashes_are_kept_for_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("1")
    cache = Cache(str(tmp_path / "hashes.db"))
    first = sha256_of(str(path), cache)
    cache.write()
    assert first[1] == 1
    assert sha256_of(str(path), Cache(str(tmp_path / "hashes.db"))) == (first[0], 0)
