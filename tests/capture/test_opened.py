"""Data files that Python opens: which are recorded, and that opening them is as it was."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from runyard.capture.folders import MAX_ENTRIES, MAX_LISTED, Folders
from tests.capture.conftest import Run
from tests.house.test_old_pythons import INTERPRETERS

MANY_WAYS = """
import bz2, codecs, fileinput, gzip, io, json, lzma, os, pathlib, sqlite3, tarfile, tempfile, tokenize, zipfile
from unittest import mock
with gzip.open("a.gz", "wb") as file: file.write(b"1")
print(open("text.txt").read(), io.open("text2.txt", mode="rb").read(), pathlib.Path("text3.txt").read_text())
print(codecs.open("text4.txt", "r", "utf-8").read(), pathlib.Path("text5.txt").open().read(), open(file=b"text6.txt").read())
with open(os.open("text7.txt", os.O_RDONLY)) as file: print(file.read())
with fileinput.input("text8.txt") as file: print(list(file))
print(gzip.open("a.gz").read())
with zipfile.ZipFile("a.zip") as archive: print(archive.namelist())
with tarfile.open("a.tar") as archive: print(archive.getnames())
with mock.patch("builtins.open", mock.mock_open(read_data="mocked")) as fake: print(open("nothing").read(), fake.call_count)
with tempfile.TemporaryFile() as file: file.write(b"x")
print(open(1, "w", closefd=False).fileno(), type(open("text.txt")), open("text.txt", encoding="latin-1").encoding)
"""


@pytest.mark.parametrize("version", INTERPRETERS)
def test_every_way_to_open_a_file_works_and_is_seen(run: Run, version: str) -> None:
    import tarfile
    import zipfile

    for number in ("", *range(2, 9)):
        run.write(f"text{number}.txt", "text%s" % number)
    with zipfile.ZipFile(run.tree / "a.zip", "w") as archive:
        archive.write(run.tree / "text.txt", "t")
    with tarfile.open(run.tree / "a.tar", "w") as tar:
        tar.add(run.tree / "text.txt", "t")
    run.write("train.py", MANY_WAYS)
    plain = run.plain(INTERPRETERS[version], "train.py")
    done = run.execute(INTERPRETERS[version], "train.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, plain.stdout, "")
    expected = {f"text{number}.txt" for number in ("", 2, 3, 4, 5, 6, 8)}  # what os.open opens is seen from outside
    assert set(run.files()) == expected | {"a.zip", "a.tar"}
    entry = run.files()["text2.txt"]
    facts = (run.tree / "text2.txt").stat()
    assert entry == {"path": "text2.txt", "size": 5, "mtime_us": facts.st_mtime_ns // 1000, "via": "open"}
    assert run.notes() == []


OPENING = {
    "numpy": """
import numpy as np
np.save("w.npy", np.ones(3))
print(np.load("d.npy").sum(), np.load("w.npy").sum(), np.memmap("d.bin", mode="r").shape)
print(np.loadtxt("d.csv", delimiter=",").shape, np.fromfile("e.bin", np.uint8))
""",
    "pandas": """
import pandas as pd
print(len(pd.read_csv("d.csv")), len(pd.read_csv("d2.csv", engine="python")), len(pd.read_csv("d3.csv", engine="c")))
""",
    "PIL": "from PIL import Image; print(Image.open('d.png').size)",
}
SEEN = {"numpy": {"d.npy", "d.bin", "d.csv", "e.bin"}, "pandas": {"d.csv", "d2.csv", "d3.csv"}, "PIL": {"d.png"}}
MAKING = {
    "numpy": "import numpy as np; np.save('d.npy', np.ones(4))",
    "PIL": "from PIL import Image; Image.new('RGB', (2, 3)).save('d.png')",
}


@pytest.mark.parametrize("package", OPENING)
def test_libraries_open_files_through_python(run: Run, require: Callable[[str], None], package: str) -> None:
    require(f"package {package}")
    for name in ("d.csv", "d2.csv", "d3.csv"):
        run.write(name, "1,2\n3,4\n")
    run.write("d.bin", "12345")
    run.write("e.bin", "1")
    run.write("train.py", OPENING[package])
    assert run.plain(sys.executable, "-c", MAKING.get(package, "")).returncode == 0
    plain = run.plain(sys.executable, "train.py")
    assert run.python("train.py").stdout == plain.stdout
    assert set(run.files()) == SEEN[package]


def test_what_is_no_data_is_left_out(run: Run) -> None:
    outside = run.tree.parent / "shared"
    outside.mkdir()
    (outside / "real.bin").write_text("123")
    (run.tree / "linked").symlink_to(outside)
    (run.tree / "one.bin").symlink_to(outside / "real.bin")
    (outside / ".config").mkdir()
    (outside / ".config" / "x.dat").write_text("")
    run.write("__pycache__/x.dat", "")
    run.write("lib.py", "A = 1")
    run.write("seen.bin", "")
    run.write("train.py", """
import json.decoder, os, subprocess, sys
for name in ("lib.py", json.decoder.__file__, "/proc/self/stat", "/dev/null", "/etc/passwd", "__pycache__/x.dat",
             "../shared/.config/x.dat", sys.executable):
    open(name, "rb").close()
with open("made.bin", "w") as file: file.write("1")
open("made.bin").close()
subprocess.run(["sh", "-c", "echo > other.bin"], check=True)
open("other.bin").close()
with open("log.txt", "a+") as file: file.read()
for name in ("linked/real.bin", "one.bin", "seen.bin", os.path.abspath("seen.bin")):
    open(name).close()
""")  # fmt: skip
    run.python("train.py")
    files = run.files()
    assert set(files) == {"linked/real.bin", "one.bin", "seen.bin"}
    assert {name: file.get("real") for name, file in files.items()} == {
        "linked/real.bin": str(outside / "real.bin"), "one.bin": str(outside / "real.bin"), "seen.bin": None,
    }  # fmt: skip


def test_what_a_process_of_the_run_made_is_no_data_of_another(run: Run) -> None:
    run.write("a.bin", "1")
    run.write("make.py", "open('made.bin', 'w').close()")
    run.write("read.py", "open('made.bin').close(); open('a.bin').close()")
    run.write(
        "train.py", "import subprocess, sys\nfor name in ('make.py', 'read.py'): subprocess.run([sys.executable, name])"
    )
    run.python("train.py")
    assert set(run.files()) == {"a.bin"}


def test_many_images_become_their_directory(run: Run) -> None:
    for number in range(250):
        run.write(f"images/{number % 2}/{number}.png", "12")
    run.write(
        "train.py",
        "import glob\nfor _ in range(3):\n    for name in sorted(glob.glob('images/*/*')): open(name).close()",
    )
    run.python("train.py")
    last = [message["files"] for message in run.messages("data")][-1]
    assert {item["path"]: (item["count"], item["size"]) for item in last if "count" in item} == {
        "images/0": (125, 250), "images/1": (125, 250),
    }  # fmt: skip
    assert len(run.messages("data")) < 120


def test_workers_that_are_forked_do_not_say_again_what_the_program_has_said(run: Run) -> None:
    run.write("a.bin", "1")
    run.write("train.py", "import os\nopen('a.bin').close()\npid = os.fork()\nopen('a.bin').close()\n"
              "if pid: os.waitpid(pid, 0)\nelse: os._exit(0)")  # fmt: skip
    run.python("train.py")
    assert len(run.messages("data")) == 1


@pytest.mark.parametrize("before", ["", "open('d0/0.bin').close()"])
def test_workers_say_at_their_end_what_they_have_not_said_yet(run: Run, before: str) -> None:
    for number in range(360):
        run.write(f"d{number % 20}/{number}.bin", "1")
    run.write("train.py", f"""
import multiprocessing
def work(part):
    for number in range(part, 360, 3): open("d%d/%d.bin" % (number % 20, number)).close()
{before}
workers = [multiprocessing.get_context("fork").Process(target=work, args=(part,)) for part in range(3)]
for worker in workers: worker.start()
for worker in workers: worker.join()
""")  # fmt: skip
    run.python("train.py")
    assert len(run.files()) == 360


def test_what_many_threads_open_at_once_is_all_seen(run: Run) -> None:
    for number in range(1000):
        run.write(f"images/{number}.png", "12")
    run.write("train.py", """
from concurrent.futures import ThreadPoolExecutor
def work(number):
    with open("images/%d.png" % number) as file: return len(file.read())
with ThreadPoolExecutor(8) as pool: print(sum(pool.map(work, range(1000))))
""")  # fmt: skip
    assert run.python("train.py").stdout == "2000\n"
    assert {path: file["count"] for path, file in run.files().items() if "count" in file} == {"images": 1000}
    assert run.notes() == []


def test_a_fork_while_another_thread_opens_files_stops_nothing(run: Run) -> None:
    for number in range(400):
        run.write(f"images/{number}.png", "12")
    run.write("train.py", """
import os, threading
def work():
    for number in range(400): open("images/%d.png" % number).close()
thread = threading.Thread(target=work)
thread.start()
for number in range(20):
    pid = os.fork()
    if not pid:
        open("images/%d.png" % number).close()
        os._exit(0)
    print(os.waitpid(pid, 0)[1])
thread.join()
""")  # fmt: skip
    assert run.python("train.py").stdout == "0\n" * 20


def test_what_lies_behind_a_link_is_called_by_the_link_however_it_is_opened(run: Run) -> None:
    outside = run.tree.parent / "shared"
    (outside / "sub").mkdir(parents=True)
    for name in ("a.bin", "sub/b.bin"):
        (outside / name).write_text("1")
    (run.tree.parent / "one.bin").write_text("1")
    (run.tree / "data").symlink_to(outside)
    links = {str(outside): "data", str(run.tree.parent / "one.bin"): "one.bin"}
    run.write("train.py", f"for name in ('a.bin', 'sub/b.bin', '../one.bin'): open({str(outside)!r} + '/' + name).close()\n"
              "open('data/a.bin').close()")  # fmt: skip
    run.python("train.py", RUNYARD_CAPTURE_LINKS=json.dumps(links))
    assert set(run.files()) == {"data/a.bin", "data/sub/b.bin", "one.bin"}


def test_only_the_kinds_that_are_on(run: Run) -> None:
    run.write("a.bin", "1")
    run.write("c.yaml", "a: 1")
    run.write("train.py", "X = 1\nopen('a.bin').close()\nopen('c.yaml').close()\n")
    run.python("train.py", "--lr", "1", kinds="data")
    assert (set(run.files()), run.messages("params"), run.messages("config")) == ({"a.bin", "c.yaml"}, [], [])
    assert run.messages("capture")[-1]["active"] == ["data"]
    for path in run.spool.iterdir():
        path.unlink()
    run.python("train.py", "--lr", "1", kinds="params")
    assert (run.files(), run.params("constant"), len(run.messages("config"))) == ({}, {"X": 1}, 1)


def added(folders: Folders, *paths: str) -> None:
    for path in paths:
        directory, _, name = path.rpartition("/")
        folders.add(directory, name, {"path": path, "size": 1})


def test_a_directory_stands_for_all_below_it() -> None:
    folders = Folders()
    added(folders, *(f"d/c{number}/x.png" for number in range(MAX_ENTRIES)))
    assert len(folders.take()) == MAX_ENTRIES
    added(folders, "d/c1/y.png", "e/z", "d/new/x.png")
    assert folders.take() == [
        {"path": "e/z", "size": 1},
        {"path": "d", "count": MAX_ENTRIES + 2, "size": MAX_ENTRIES + 2, "via": "open"},
    ]
    added(folders, "d/c2/y.png")
    assert folders.take() == [{"path": "d", "count": MAX_ENTRIES + 3, "size": MAX_ENTRIES + 3, "via": "open"}]
    assert folders.take() == []


def test_absolute_paths_and_the_tree_are_two_things() -> None:
    folders = Folders()
    added(folders, *(f"/data/{number}" for number in range(50)), *(f"{number}" for number in range(MAX_ENTRIES + 1)))
    found = folders.take()
    assert [item["path"] for item in found[:50]] == [f"/data/{number}" for number in range(50)]
    assert found[50:] == [{"path": ".", "count": MAX_ENTRIES + 1, "size": MAX_ENTRIES + 1, "via": "open"}]


def test_so_does_one_in_whose_directories_very_many_are() -> None:
    folders = Folders()
    added(folders, *(f"/top/d/c{number % 50}/{number}" for number in range(MAX_LISTED)))
    assert len(folders.take()) == MAX_LISTED
    added(folders, "/top/d/c1/new")
    whole = {"path": "/top/d", "count": MAX_LISTED + 1, "size": MAX_LISTED + 1, "via": "open"}
    assert folders.take() == [whole]
    others = [f"/top/e{number % 50}/{number}" for number in range(MAX_LISTED)]
    added(folders, *others[1:])
    assert len(folders.take()) == MAX_LISTED - 1  # and no more: the directory is one entry
    added(folders, others[0])
    assert folders.take() == [{**whole, "path": "/top", "count": 2 * MAX_LISTED + 1, "size": 2 * MAX_LISTED + 1}]


def test_the_topmost_directory_stands_for_nothing_that_lies_deep_below() -> None:
    folders = Folders()
    added(folders, *(f"d{number % 50}/c{number % 12}/{number}" for number in range(MAX_LISTED + 1)))
    assert len(folders.take()) == MAX_LISTED + 1
