"""Data that runs read: what is seen from outside, its fingerprints, and whether it has changed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tests.e2e.harness import Cli, wait_for

READER = """
import ctypes, os, sys, time
libc, size_t = ctypes.CDLL(None), ctypes.c_size_t
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDONLY)
    if path.endswith(".map"):  # as C libraries do; Python's own mmap keeps the file open
        libc.mmap(None, size_t(os.fstat(fd).st_size), 1, 2, fd, size_t(0))
        os.close(fd)
time.sleep(1.5)
open("out.csv", "w").write("x")
"""


def read_by(cli: Cli, *args: str, hashed: int) -> dict[str, dict[str, Any]]:
    """Return the data of a run by path, once so many files have their hash."""
    run_id = cli.submit(*args)
    cli.until(run_id, "finished")
    wait_for(lambda: sum(bool(item["sha256"]) for item in cli.show(run_id)["data"]) >= hashed or None, "the hashes")
    return {item["path"]: item for item in cli.show(run_id)["data"]}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_open_and_mapped_files_with_their_fingerprints(cli: Cli, tmp_path: Path) -> None:
    (cli.cwd / "read.py").write_text(READER)
    data = cli.cwd / "data"  # ignored by git, so it is linked
    data.mkdir()
    for name in ("train.bin", "train.map"):
        (data / name).write_bytes(name.encode() * 1000)
    outside = tmp_path / "elsewhere.npy"
    outside.write_bytes(b"numbers")
    words = ("python", "read.py", "data/train.bin", "data/train.map", str(outside))
    found = read_by(cli, "-p", "p", *words, hashed=3)
    assert set(found) == {"data", "data/train.bin", "data/train.map", str(outside)}
    assert found["data"]["via"] == "linked" and found["data"]["sha256"] is None
    assert (found["data/train.bin"]["via"], found["data/train.map"]["via"]) == ("fd", "map")
    assert found["data/train.bin"]["sha256"] == sha256(data / "train.bin")
    assert found["data/train.map"]["size"] == 9000
    assert found[str(outside)]["sha256"] == sha256(outside)
    assert not any(item["changed_since"] for item in found.values())
    (data / "train.bin").write_bytes(b"others")
    before = cli.json("ls", "-p", "p")[0]["id"]
    again = read_by(cli, "-p", "p", *words, hashed=3)
    assert {path for path, item in again.items() if item["changed_since"] == before} == {"data/train.bin"}
    assert "changed since " + before in cli.out("show", "@last")


def test_a_directory_that_was_declared_is_a_manifest(cli: Cli) -> None:
    images = cli.cwd / "images"
    for number in range(200):
        path = images / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"png%d" % number)
    found = read_by(cli, "--data", "images", "python", "-c", "pass", hashed=1)["images"]
    assert found["sha256"] == manifest(images)
    assert (found["files"], found["via"]) == (200, "linked")
    assert found["size"] == sum(path.stat().st_size for path in images.rglob("*.png"))


def test_what_dvc_knows_is_not_hashed_again(cli: Cli) -> None:
    (cli.cwd / "read.py").write_text(READER)
    data = cli.cwd / "data"
    data.mkdir()
    (data / "a.bin").write_bytes(b"a")
    (data / "a.bin.dvc").write_text("outs:\n- md5: 0cc175b9c0f1b6a831c399e269772661\n  size: 1\n  path: a.bin\n")
    (data / "b.bin").write_bytes(b"b")
    lock = "    - path: other\n      md5: {0}\n    - path: b.bin\n      hash: md5\n      md5: {1}\n"
    start = "schema: '2.0'\nstages:\n  prepare:\n    outs:\n"
    (data / "dvc.lock").write_text(start + lock.format("1" * 32, "92eb5ffee6ae2fec3ad71c777531578f"))
    found = read_by(cli, "python", "read.py", "data/a.bin", "data/b.bin", hashed=2)
    assert found["data/a.bin"]["sha256"] == "md5:0cc175b9c0f1b6a831c399e269772661"
    assert found["data/b.bin"]["sha256"] == "md5:92eb5ffee6ae2fec3ad71c777531578f"


IMAGES = """
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
def read(number):
    with open("%s/%d/%d.png" % (sys.argv[1], number % 50, number), "rb") as file: return len(file.read())
def read_all(numbers):
    with ThreadPoolExecutor(4) as pool: list(pool.map(read, numbers))
if __name__ == "__main__":
    parts = [range(part, int(sys.argv[2]), 4) for part in range(4)]
    workers = [get_context("fork").Process(target=read_all, args=(part,)) for part in parts]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    read_all(parts[0])
    open("labels.csv").close()
"""


def write_images(top: Path, count: int) -> None:
    for number in range(count):
        path = top / str(number % 50) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"png%d" % number)


def manifest(top: Path) -> str:
    lines = [f"{path.relative_to(top)} {sha256(path)}\n" for path in sorted(top.rglob("*.png"), key=str)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_images_that_many_workers_read_are_their_directory(cli: Cli, tmp_path: Path) -> None:
    (cli.cwd / "read.py").write_text(IMAGES)
    (cli.cwd / "labels.csv").write_text("1")
    images = tmp_path / "images"
    write_images(images, 5000)
    words = ("-p", "p", "python", "read.py", str(images), "5000")
    found = read_by(cli, *words, hashed=2)
    assert set(found) == {"labels.csv", str(images)}
    whole = found[str(images)]
    assert (whole["files"], whole["size"], whole["via"]) == (5000, sum(len(b"png%d" % n) for n in range(5000)), "open")
    assert whole["sha256"] == manifest(images)
    before = cli.json("ls", "-p", "p")[0]["id"]
    (images / "7" / "7.png").write_bytes(b"another")
    assert read_by(cli, *words, hashed=2)[str(images)]["changed_since"] == before


def test_a_directory_of_which_little_is_read_is_not_fingerprinted(cli: Cli, tmp_path: Path) -> None:
    (cli.cwd / "read.py").write_text(IMAGES)
    (cli.cwd / "labels.csv").write_text("1")
    images = tmp_path / "images"
    write_images(images, 2000)
    found = read_by(cli, "python", "read.py", str(images), "900", hashed=1)
    assert (found[str(images)]["files"], found[str(images)]["sha256"]) == (900, None)
