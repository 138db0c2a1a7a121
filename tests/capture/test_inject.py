"""The hooks get into every Python of a run, and nobody notices."""

from __future__ import annotations

import glob
import os
import sys
import zipfile
from pathlib import Path

import pytest

from tests.capture.conftest import Run
from tests.house.test_old_pythons import INTERPRETERS

OLDER = sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin/python")))
EVERY = sorted({*INTERPRETERS.values(), *OLDER})
PROGRAM = """
import argparse, sys
LR = 0.1
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=LR)
parser.add_argument("--epochs", type=int, default=3)
print(parser.parse_args().lr, sys.path[1:], [name for name in sys.modules if "runyard" in name], sys.argv[1:])
print(open("data.csv").read())
"""
LOOK = """
import copy, inspect, io, pickle, pydoc, sys
print(open, io.open is open, isinstance(open, type(len)), inspect.signature(open), inspect.isbuiltin(open))
print(pickle.loads(pickle.dumps(open)) is open, copy.deepcopy(open) is open, open.__name__, open.__doc__, open.__module__)
class Reader:
    open = open
print(Reader().open(__file__).readline(), pydoc.render_doc(open))
print(sys.path, sys.modules.get("sitecustomize"), sys.flags, sys.argv)
import argparse
print(inspect.signature(argparse.ArgumentParser.parse_known_args), pydoc.render_doc(argparse.ArgumentParser))
for wrong in ((), (1.5,), ("x", "y"), ([],)):
    try:
        open(*wrong)
    except Exception as exc:
        print(repr(exc))
"""


@pytest.mark.parametrize("python", EVERY, ids=lambda path: path.split("/")[-3])
def test_every_python_runs_the_program_as_without_us(run: Run, python: str) -> None:
    run.write("train.py", PROGRAM)
    run.write("data.csv", "1,2\n")
    plain = run.plain(python, "train.py", "--lr", "0.5")
    done = run.execute(python, "train.py", "--lr", "0.5")
    assert (done.returncode, done.stdout, done.stderr) == (0, plain.stdout, plain.stderr)


@pytest.mark.parametrize("version", INTERPRETERS)
def test_from_3_8_on_parameters_and_data_are_recorded(run: Run, version: str) -> None:
    run.write("train.py", PROGRAM)
    run.write("data.csv", "1,2\n")
    run.execute(INTERPRETERS[version], "train.py", "--lr", "0.5")
    assert (run.params("cli"), run.params("constant")) == ({"lr": 0.5}, {"LR": 0.1})
    assert run.params("default") == {"epochs": 3}
    assert run.files()["data.csv"]["size"] == 4
    (process,) = run.messages("process")
    assert (process["writer"], process["python"].rpartition(".")[0]) == ("capture", version)
    assert run.notes() == []


@pytest.mark.parametrize("version", INTERPRETERS)
def test_open_and_argparse_look_as_they_were(run: Run, version: str) -> None:
    run.write("look.py", LOOK)
    plain = run.plain(INTERPRETERS[version], "look.py")
    done = run.execute(INTERPRETERS[version], "look.py")
    assert (done.stdout, done.stderr, done.returncode) == (plain.stdout, plain.stderr, 0)


@pytest.mark.parametrize("version", INTERPRETERS)
@pytest.mark.parametrize(
    "text",
    ["open('missing')", "import argparse; argparse.ArgumentParser().parse_args()", "open('x', opener=lambda *_: 1 / 0)",
     "import argparse; p = argparse.ArgumentParser(); p.add_argument('--x', type=lambda v: {}[v]); p.parse_args(['--x', 'a'])"],
)  # fmt: skip
def test_errors_of_the_program_are_the_same(run: Run, version: str, text: str) -> None:
    run.write("wrong.py", text)
    plain = run.plain(INTERPRETERS[version], "wrong.py", "--unknown")
    done = run.execute(INTERPRETERS[version], "wrong.py", "--unknown")
    assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout)
    if tuple(map(int, version.split("."))) >= (3, 11):
        assert done.stderr == plain.stderr
    else:  # there a frame of ours stays in the traceback
        assert done.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]


NEXT = {
    "nothing special": "print('theirs', __name__, __file__)",
    "an error": "print('theirs'); 1 / 0",
    "a missing module": "import no_such_module",
    "an exit": "raise SystemExit(3)",
}


@pytest.mark.parametrize("version", INTERPRETERS)
@pytest.mark.parametrize("what", NEXT)
def test_the_next_sitecustomize_runs_as_if_ours_was_not_there(run: Run, version: str, what: str) -> None:
    theirs = run.tree / "theirs"
    theirs.mkdir()
    (theirs / "sitecustomize.py").write_text(NEXT[what])
    run.write("look.py", "import sys; print(sys.modules.get('sitecustomize'), sys.path)")
    environ = run.environ()
    done = run.plain(
        INTERPRETERS[version], "look.py", environ=environ | {"PYTHONPATH": environ["PYTHONPATH"] + ":" + str(theirs)}
    )
    plain = run.plain(INTERPRETERS[version], "look.py", environ=environ | {"PYTHONPATH": str(theirs)})
    if what == "an exit":  # Python gives up, with all frames that it was in
        done.stderr, plain.stderr = "", ""
    assert (done.returncode, done.stdout, done.stderr) == (plain.returncode, plain.stdout, plain.stderr)


@pytest.mark.parametrize("flag", ["-I", "-S", "-E", "-IS"])
def test_nothing_happens_where_python_is_told_to_look_at_nothing(run: Run, flag: str) -> None:
    run.write("train.py", PROGRAM)
    run.write("data.csv", "1,2\n")
    done = run.python(flag, "train.py", "--lr", "0.5")
    assert done.stdout.startswith("0.5 ")
    assert run.messages() == []


@pytest.mark.parametrize("missing", ["RUNYARD_ATTEMPT", "RUNYARD_SPOOL", "RUNYARD_CAPTURE", "RUNYARD_RUN_DIR"])
def test_nothing_happens_without_the_variables(run: Run, missing: str) -> None:
    run.write("train.py", PROGRAM)
    run.write("data.csv", "1,2\n")
    environ = run.environ()
    del environ[missing]
    assert run.plain(sys.executable, "train.py", environ=environ).returncode == 0
    assert run.messages() == []


def test_the_client_half_can_be_imported_where_there_is_none_and_an_installed_one_wins(run: Run) -> None:
    run.write("sdk.py", "import runyard, runyard.client.spool, sys; print(runyard.__file__); print(sys.path)")
    python = str(Path(sys.base_prefix) / "bin" / "python3")  # not that of .venv, where Runyard is installed
    done = run.execute(python, "sdk.py")
    assert done.stdout.splitlines()[0] == str(run.lib / "runyard" / "__init__.py")
    assert str(run.lib) not in done.stdout.splitlines()[1]
    run.write("runyard/__init__.py", "client = 'their own'")
    run.write("sdk.py", "import runyard; print(runyard.client)\nopen('sdk.py').close()")
    assert run.execute(python, "sdk.py").stdout == "their own\n"


def test_modules_of_the_program_named_like_those_that_we_need_are_its_own(run: Run) -> None:
    run.write("json.py", "print('my json')")
    run.write(
        "train.py",
        "X = 1\nimport threading, zlib, json, struct\nprint(json.__file__, threading.main_thread().name)",
    )
    plain = run.plain(sys.executable, "train.py")
    done = run.execute(sys.executable, "train.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, plain.stdout, plain.stderr)


@pytest.mark.parametrize("version", INTERPRETERS)
@pytest.mark.parametrize("name", ["threading", "json", "struct", "zlib", "mmap", "re", "collections", "enum"])
def test_a_module_that_we_need_too_is_executed_once(run: Run, version: str, name: str) -> None:
    run.write(
        "train.py",
        f"X = 1\nimport {name}\nimport sys\nprint({name}.__spec__.loader, {name}.__spec__.name)\n"
        f"assert sys.modules[{name!r}] is {name}; import json, threading; json.dumps(1)\n"
        "print(threading.main_thread() is threading.current_thread())\n"
        f"import gc; print(sum(type(item) is type(sys) and item.__name__ == {name!r} for item in gc.get_objects()))",
    )
    plain = run.plain(INTERPRETERS[version], "train.py")
    done = run.execute(INTERPRETERS[version], "train.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.partition(" at 0x")[0] for line in done.stdout.splitlines()] == [
        line.partition(" at 0x")[0] for line in plain.stdout.splitlines()
    ]
    assert run.params("constant") == {"X": 1}


def test_modules_packages_and_archives_run(run: Run) -> None:
    run.write("data.csv", "1,2\n")
    run.write("pack/__init__.py", "")
    run.write("pack/train.py", PROGRAM)
    run.python("-m", "pack.train", "--lr", "0.25")
    assert (run.params("cli"), run.params("constant")) == ({"lr": 0.25}, {"LR": 0.1})
    with zipfile.ZipFile(run.tree / "app.pyz", "w") as archive:
        archive.writestr("__main__.py", PROGRAM)
    run.python("app.pyz", "--lr", "0.125")
    assert run.notes() == []


def test_what_forks_spawns_and_starts_programs_works_and_only_the_program_says_its_parameters(run: Run) -> None:
    run.write("data.csv", "1,2\n")
    for number in range(6):
        run.write(f"part{number}.bin", "x" * number)
    run.write("train.py", """
import argparse, multiprocessing, os, subprocess, sys
def work(number):
    argparse.ArgumentParser().parse_known_args()
    with open("part%d.bin" % number, "rb") as file:
        return len(file.read())
LR = 0.1
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float)
    parser.parse_args()
    for number, method in enumerate(("fork", "spawn", "forkserver")):
        context = multiprocessing.get_context(method)
        with context.Pool(1) as pool:
            print(pool.map(work, [2 * number]))
        process = context.Process(target=work, args=(2 * number + 1,))
        process.start()
        process.join()
        print(process.exitcode)
    subprocess.run([sys.executable, "-c", "import argparse; argparse.ArgumentParser().parse_known_args()"], check=True)
    subprocess.run(["sh", "-c", "exec %s -c 'open(\\"data.csv\\").close()'" % sys.executable], check=True)
""")  # fmt: skip
    done = run.python("train.py", "--lr", "0.5")
    assert done.stdout == "[0]\n0\n[2]\n0\n[4]\n0\n"
    assert [(item["origin"], item["values"]) for item in run.messages("params")] == [
        ("command", {"lr": 0.5}), ("constant", {"LR": 0.1}), ("cli", {"lr": 0.5}),
    ]  # fmt: skip
    # Workers of a pool are ended by a signal; what they open is said at once.
    assert set(run.files()) == {"data.csv", *(f"part{number}.bin" for number in range(6))}
    assert run.notes() == []


def test_a_program_that_is_killed_has_said_what_it_did(run: Run) -> None:
    run.write("data.csv", "1,2\n")
    run.write("train.py", "import argparse, os\nLR = 0.1\nparser = argparse.ArgumentParser()\nparser.add_argument('--x')\n"
              "parser.parse_args()\nopen('data.csv').close()\nos.kill(os.getpid(), 9)")  # fmt: skip
    assert run.execute(sys.executable, "train.py", "--x", "1").returncode == -9
    assert (run.params("cli"), run.params("constant"), set(run.files())) == ({"x": "1"}, {"LR": 0.1}, {"data.csv"})


def test_nobody_notices_where_nothing_can_be_written(run: Run) -> None:
    run.write("train.py", PROGRAM)
    run.write("data.csv", "1,2\n")
    run.spool.write_text("a file where the directory should be")
    plain = run.plain(sys.executable, "train.py")
    done = run.execute(sys.executable, "train.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, plain.stdout, "")


def test_other_ranks_and_tools_say_no_parameters(run: Run) -> None:
    run.write("train.py", PROGRAM)
    run.write("data.csv", "1,2\n")
    run.python("train.py", "--lr", "0.5", RANK="1", LOCAL_RANK="1", WORLD_SIZE="2")
    run.write("test_it.py", "def test_it(): open('data.csv').close()")
    run.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py")
    assert run.messages("params") == []
    assert set(run.files()) == {"data.csv"}
    run.python("train.py", "--lr", "0.5", RANK="0", LOCAL_RANK="0", WORLD_SIZE="2")
    assert run.params("cli") == {"lr": 0.5}


def test_errors_in_hooks_are_counted_and_end_somewhere(run: Run) -> None:
    for number in range(30):
        run.write(f"{number}.bin", "1")
    run.write("train.py", """
import os
fstat, calls = os.fstat, []
def broken(fd):
    calls.append(fd)
    raise ValueError("broken")
os.fstat = broken
for number in range(30): open("%d.bin" % number).close()
os.fstat = fstat
print(len(calls))
open("0.bin").close()
""")  # fmt: skip
    assert run.python("train.py").stdout == "20\n"
    assert run.notes()[-2:] == ["error in a hook: ValueError: broken at train.py:6", "20 errors in hooks in all"]
    assert run.files() == {}


def test_a_path_like_object_is_asked_for_its_path_as_often_as_without_us(run: Run) -> None:
    run.write("a.bin", "1")
    run.write("train.py", """
class Odd:
    calls = 0
    def __fspath__(self):
        Odd.calls += 1
        return "a.bin"
for _ in range(3): open(Odd()).close()
print(Odd.calls)
""")  # fmt: skip
    plain = run.plain(sys.executable, "train.py")
    assert run.python("train.py").stdout == plain.stdout == "3\n"
    assert set(run.files()) == {"a.bin"}


@pytest.mark.parametrize(
    "version", [version for version in INTERPRETERS if version in ("3.10", "3.11", "3.12", "3.13")]
)
def test_a_warning_about_a_missing_encoding_is_of_the_line_that_opens(run: Run, version: str) -> None:
    text = "open('train.py', 'rb').close()\nopen('train.py', encoding='ascii').close()\nopen('train.py').close()\n"
    (run.tree / "train.py").write_text(text)
    options = ("-X", "warn_default_encoding", "-W", "error::EncodingWarning:__main__", "train.py")
    done = run.execute(INTERPRETERS[version], *options)
    assert done.returncode == 1 and "line 3" in done.stderr and "EncodingWarning" in done.stderr


def test_a_fork_while_another_thread_imports_our_modules_hangs_nothing(run: Run) -> None:
    (run.tree / "train.py").write_text("""
import gc, os, signal, sys, threading
(library,) = [item for item in gc.get_objects() if type(item).__name__ == "Library"]
held, go = threading.Event(), threading.Event()
def hold():
    with library._lock:
        held.set(); go.wait()
thread = threading.Thread(target=hold); thread.start(); held.wait()
child = os.fork()
if not child:
    signal.alarm(10)
    open("data.bin", "rb").close()
    os._exit(0)
status = os.waitpid(child, 0)[1]
go.set(); thread.join()
sys.exit(status != 0)
""")
    (run.tree / "data.bin").write_bytes(b"x")
    os.utime(run.tree / "data.bin", (1, 1))
    run.python("train.py")
