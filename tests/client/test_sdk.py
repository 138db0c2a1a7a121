"""What a program logs with `runyard.log` and its kin, inside of a run."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runyard.wire import spool
from tests.client.streams import environment, messages, program, rows
from tests.house.test_old_pythons import INTERPRETERS


def log(directory: Path, code: str, **more: str) -> str:
    """Run a program that logs; it must end well. Returns what it said on standard error."""
    done = program(directory, "import runyard\n" + code, **more)
    assert done.returncode == 0, done.stderr
    return str(done.stderr)


def media(directory: Path) -> dict[str, dict[str, Any]]:
    return {message["name"]: message for message in messages(directory / "spool", "media")}


@pytest.mark.parametrize("version", INTERPRETERS)
def test_every_python(tmp_path: Path, version: str) -> None:
    code = """
import runyard
run = runyard.init(params={"lr": 0.1, "model": {"depth": 3, "wide": None}})
assert runyard.init() is run and run.id == "a" * 12
for step in range(3):
    runyard.log({"loss": 1 / (step + 1), "acc": step})
runyard.log({"val": {"acc": 0.5}, "note": "text"}, step=7)
runyard.log({"loss": 9.0})
runyard.summary(best=0.93)
runyard.tag("baseline", "x")
runyard.log({"h": runyard.Histogram([1, 2, 2])})
with run:
    pass
"""
    done = program(tmp_path, code, python=INTERPRETERS[version])
    assert (done.returncode, done.stderr) == (0, "")
    found = rows(tmp_path / "spool")
    assert found[:3] == [(step, {"loss": 1 / (step + 1), "acc": float(step)}) for step in range(3)]
    assert found[3:] == [(7, {"val/acc": 0.5}), (8, {"loss": 9.0})]
    said = messages(tmp_path / "spool")
    assert said[0]["type"] == "process" and said[0]["python"].startswith(version + ".")
    assert [m["values"] for m in said if m["type"] == "params"] == [{"lr": 0.1, "model": {"depth": 3, "wide": None}}]
    assert [m["add"] for m in said if m["type"] == "tags"] == [["baseline", "x"]]
    assert media(tmp_path)["note"]["content"] == b"text" and media(tmp_path)["note"]["step"] == 7


def test_numbers_of_every_kind(tmp_path: Path) -> None:
    log(tmp_path, """
import math, decimal, fractions, numpy
runyard.log({"nan": math.nan, "inf": -math.inf, "int": 3, "big": 10**400, "bool": True, "f32": numpy.float32(0.5),
             "zero-dim": numpy.array(2.0), "one": numpy.array([3.0]), "dec": decimal.Decimal("0.25"),
             "frac": fractions.Fraction(1, 4), "i64": numpy.int64(7)}, step=numpy.int64(5))
""")  # fmt: skip
    ((step, found),) = rows(tmp_path / "spool")
    assert step == 5 and math.isnan(found.pop("nan"))
    assert found == {
        "inf": -math.inf, "int": 3.0, "big": math.inf, "bool": 1.0, "f32": 0.5, "zero-dim": 2.0, "one": 3.0, "dec": 0.25,
        "frac": 0.25, "i64": 7.0,
    }  # fmt: skip


TENSOR = """
import warnings
class Tensor:  # as torch has them
    shape = ()
    requires_grad = True
    def __init__(self, value): self.value = value
    def detach(self):
        other = Tensor(self.value); other.requires_grad = False
        return other
    def __float__(self):
        if self.requires_grad: warnings.warn("Converting a tensor with requires_grad=True to a scalar")
        return self.value
    def __index__(self):
        raise TypeError("only integer tensors of a single element can be converted to an index")
"""


def test_a_tensor_that_a_gradient_goes_through_is_a_number_like_others(tmp_path: Path) -> None:
    said = log(tmp_path, TENSOR + "runyard.summary(loss=Tensor(0.5)); runyard.params(lr=Tensor(0.75))\n")
    assert said == ""
    assert messages(tmp_path / "spool", "summary")[0]["values"] == {"loss": 0.5}
    assert messages(tmp_path / "spool", "params")[0]["values"] == {"lr": 0.75}


def test_whole_numbers_of_libraries_stay_whole(tmp_path: Path) -> None:
    log(tmp_path, "import numpy\nrunyard.params(a=numpy.int64(2**62 + 1), b=numpy.array(2), c=numpy.array(0.5))\n")
    assert messages(tmp_path / "spool", "params")[0]["values"] == {"a": 2**62 + 1, "b": 2, "c": 0.5}


def test_a_batch_of_images_is_refused_with_what_to_do(tmp_path: Path) -> None:
    said = log(tmp_path, "import numpy\nrunyard.log({'x': numpy.zeros((2, 3, 8, 8)), 'y': 1.0})\n")
    assert "an array of 4 dimensions is no image: log one of them (x[0]), or runyard.Histogram(x)" in said
    assert not media(tmp_path) and rows(tmp_path / "spool") == [(0, {"y": 1.0})]


def test_images(tmp_path: Path) -> None:
    log(tmp_path, """
import io, numpy
from PIL import Image
runyard.log({"rgb": numpy.full((4, 6, 3), 200, dtype="uint8"), "grey": numpy.linspace(0, 1, 12).reshape(3, 4),
             "torch-like": numpy.zeros((3, 8, 5)), "mask": numpy.eye(4, dtype=bool),
             "pil": Image.new("RGB", (5, 4), (1, 2, 3)), "titled": runyard.Image(numpy.zeros((2, 2)), "a caption")})
buffer = io.BytesIO(); Image.new("L", (3, 3)).save(buffer, "PNG"); runyard.log({"bytes": buffer.getvalue()})
""")  # fmt: skip
    import io

    from PIL import Image

    found = {name: Image.open(io.BytesIO(item["content"])) for name, item in media(tmp_path).items()}
    assert {name: (image.size, image.mode) for name, image in found.items()} == {
        "rgb": ((6, 4), "RGB"), "grey": ((4, 3), "L"), "torch-like": ((5, 8), "RGB"), "mask": ((4, 4), "L"),
        "pil": ((5, 4), "RGB"), "titled": ((2, 2), "L"), "bytes": ((3, 3), "L"),
    }  # fmt: skip
    assert found["rgb"].getpixel((0, 0)) == (200, 200, 200) and found["grey"].getpixel((3, 2)) == 255
    assert found["mask"].getpixel((1, 1)) == 255 and found["pil"].getpixel((0, 0)) == (1, 2, 3)
    assert media(tmp_path)["titled"]["caption"] == "a caption"


def test_figures_tables_and_histograms(tmp_path: Path) -> None:
    log(tmp_path, """
import matplotlib; matplotlib.use("agg")
import matplotlib.pyplot as plt, numpy, math
figure = plt.figure(); plt.plot([1, 2])
class Plotly:
    def to_plotly_json(self): return {}
    def to_json(self): return '{"data": []}'
runyard.log({"figure": figure, "plotly": Plotly(), "rows": [{"a": 1, "b": "x"}, {"a": math.nan, "c": None}],
             "table": runyard.Table([[1, 2], [3, 4]], columns=["x", "y"]), "array": numpy.arange(100.0),
             "list": [0.0, 1.0, 1.0, math.nan], "hist": runyard.Histogram([1, 1, 1], bins=4)}, step=2)
""")  # fmt: skip
    found = media(tmp_path)
    assert found["figure"]["content"].startswith(b"\x89PNG") and found["figure"]["kind"] == "figure"
    assert json.loads(found["plotly"]["content"]) == {"data": []}
    rows_table = json.loads(found["rows"]["content"])
    assert rows_table == {"columns": ["a", "b", "c"], "rows": [[1, "x", None], ["NaN", None, None]], "of": 2}
    assert json.loads(found["table"]["content"])["rows"] == [[1, 2], [3, 4]]
    array, some = (json.loads(found[name]["content"]) for name in ("array", "list"))
    assert sum(array["counts"]) == 100 and len(array["edges"]) == 65 and array["edges"][-1] == 99.0
    assert sum(some["counts"]) == 3 and some["others"] == 1
    assert json.loads(found["hist"]["content"])["counts"] == [0, 0, 3, 0]
    assert {item["step"] for item in found.values()} == {2}


@pytest.mark.parametrize(
    "call",
    ["log({'x': object(), 'y': 1.0}, step=3)", "log({'x': None, 'y': 1.0}, step=3)", "log({'x': 1j, 'y': 1}, step=3)"],
)
def test_what_cannot_be_taken_is_said_once_and_costs_nothing_else(tmp_path: Path, call: str) -> None:
    said = log(tmp_path, f"for _ in range(5): runyard.{call}\n")
    assert said.count("runyard:") == 1 and "x was not logged" in said
    assert rows(tmp_path / "spool") == [(3, {"y": 1.0})] * 5
    refused = messages(tmp_path / "spool", "refused")
    assert {item["name"] for item in refused} == {"x"} and sum(item["count"] for item in refused) == 5


ODD = """
class Odd:
    def __float__(self): raise RuntimeError("no number")
    def __repr__(self): raise RuntimeError("no text")
class Key(Odd):
    __str__ = Odd.__repr__
loop = {"a": 1.0}
loop["loop"] = loop
deep = 1
for _ in range(5000): deep = [deep]
"""


def test_a_value_that_cannot_be_taken_costs_no_other(tmp_path: Path) -> None:
    log(tmp_path, ODD + """
runyard.log({"x": Odd(), "y": loop, "ok": 1.0}, step=1)
runyard.params({"x": Odd(), "y": 10**5000, "ok": [1, {"a": 2}], "z": deep, "loop": loop})
runyard.summary(x=Odd(), ok=2.0)
""")  # fmt: skip
    ((step, found),) = rows(tmp_path / "spool")
    assert step == 1 and found["ok"] == 1.0 and found["y/loop/loop/a"] == 1.0
    assert {name.count("/") for name in found} == set(range(21)), "a dict in itself is followed so far"
    (params,) = messages(tmp_path / "spool", "params")
    assert params["values"]["ok"] == [1, {"a": 2}] and params["values"]["loop"]["loop"]["a"] == 1.0
    assert "[[" in json.dumps(params["values"].get("z", "[[")), "what is deeper is text, if Python can make it one"
    assert [item["values"] for item in messages(tmp_path / "spool", "summary")] == [{"ok": 2.0}]
    refused = {item["name"]: item["why"] for item in messages(tmp_path / "spool", "refused")}
    assert refused["x"] == "TypeError: a summary is a number, not Odd" or "no text" in refused["x"]
    assert refused["y"] == "ValueError: a whole number of 16610 bits is too large"
    assert "nested more than 20 deep" in refused["y" + "/loop" * 20]


def test_what_cannot_be_taken_at_all_is_named_by_the_call(tmp_path: Path) -> None:
    said = log(
        tmp_path, ODD + "runyard.log({Key(): 1.0})\nrunyard.log(3)\nrunyard.tag(loop)\nrunyard.log({'a\\n': Odd()})\n"
    )
    assert said == "runyard: log was not logged: RuntimeError: no text (said once)\n"
    assert [item["name"] for item in messages(tmp_path / "spool", "refused")] == ["log", "log", "tag", "a\\n"]


def test_steps_at_the_end_of_what_there_is(tmp_path: Path) -> None:
    log(tmp_path, """
import math, numpy
for step in (2**63, -2**63 - 1, 1e30, math.nan, "7", 0.5):
    runyard.log({"refused": 1.0}, step=step)
runyard.log({"a": 1.0}, step=-2**63)
runyard.log({"a": 2.0})
runyard.log({"a": 3.0}, step=True)
runyard.log({"a": 4.0}, step=numpy.uint8(255))
runyard.log({"a": 5.0})
runyard.log({"a": 6.0}, step=2**63 - 1)
runyard.log({"a": 7.0, "text": "x"})
runyard.log({"a": 8.0})
""")  # fmt: skip
    last = 2**63 - 1
    expected = [(-(2**63), 1.0), (0, 2.0), (1, 3.0), (255, 4.0), (256, 5.0), (last, 6.0), (last, 7.0), (last, 8.0)]
    assert rows(tmp_path / "spool") == [(step, {"a": value}) for step, value in expected]
    assert media(tmp_path)["text"]["step"] == last
    assert sum(item["count"] for item in messages(tmp_path / "spool", "refused")) == 6


def test_what_was_refused_is_known_of_a_killed_program_too(tmp_path: Path) -> None:
    code = "import runyard, os\nfor _ in range(5): runyard.log({'x': None})\nos.kill(os.getpid(), 9)\n"
    assert program(tmp_path, code).returncode == -9
    assert [item["name"] for item in messages(tmp_path / "spool", "refused")] == ["x"]


def test_a_histogram_from_the_least_to_the_greatest_number(tmp_path: Path) -> None:
    log(tmp_path, "runyard.log({'h': runyard.Histogram([-1.7e308, 0.1, 1.7e308], bins=4)})\n")
    found = json.loads(media(tmp_path)["h"]["content"])
    assert found["counts"] == [1, 0, 1, 1] and found["edges"] == pytest.approx(
        [-1.7e308, -8.5e307, 0.0, 8.5e307, 1.7e308]
    )


def test_what_is_too_large_is_named_and_costs_nothing_else(tmp_path: Path) -> None:
    said = log(tmp_path, r"runyard.log({'x': b'\x89PNG\r\n\x1a\n' + bytes(1 << 26), 'y': 1.0}, step=3)")
    assert "x was not logged: ValueError: 67108872 bytes" in said
    assert rows(tmp_path / "spool") == [(3, {"y": 1.0})] and not media(tmp_path)


@pytest.mark.parametrize(
    "call",
    ["log(3)", "log(None)", "log({'a': 1.0}, step='x')", "log({'a': 1.0}, step=2**70)", "log({'a': 1}, step=0.5)",
     "params(7)", "summary(best='text')", "output('/nonexistent')", "data('/nonexistent')", "tag(object())",
     "params(x=object())", "log({'a': 'x' * (1 << 20)})", "log({})", "log({'\\ud800': 1.0})", "log({1: 2.0, None: 3})",
     "log({'a': {'b': {}}})", "init(all_ranks=None)", "finish(); runyard.finish(); runyard.log({'a': 1})"],
)  # fmt: skip
def test_nothing_is_raised_into_the_program(tmp_path: Path, call: str) -> None:
    log(tmp_path, f"runyard.{call}\nrunyard.log({{'after': 1.0}}, step=1)\n")
    assert (1, {"after": 1.0}) in rows(tmp_path / "spool")


def test_forks_and_processes_have_streams_of_their_own(tmp_path: Path) -> None:
    log(tmp_path, """
import os, multiprocessing
def work(number):
    runyard.log({"child%d" % number: float(number)}, step=number)
if __name__ == "__main__":
    runyard.log({"parent": 0.0}, step=0)
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        children = [context.Process(target=work, args=(n,)) for n in (1, 2)]
        [child.start() for child in children]; [child.join() for child in children]
    runyard.log({"parent": 1.0}, step=1)
""")  # fmt: skip
    assert len(spool.streams(str(tmp_path / "spool"))) == 5
    found = rows(tmp_path / "spool")
    assert sorted((step, *values) for step, values in found) == sorted(
        [(0, "parent"), (1, "parent")] + 2 * [(1, "child1"), (2, "child2")]
    )


def test_of_several_ranks_the_first_one_logs(tmp_path: Path) -> None:
    for rank in "01":
        log(tmp_path, "runyard.log({'loss': 1.0})\nrunyard.params(a=1)\n", RANK=rank, WORLD_SIZE="2")
    assert len(rows(tmp_path / "spool")) == 1
    log(tmp_path, "runyard.init(all_ranks=True)\nrunyard.log({'loss': 2.0, 'n': 'text'})\n", RANK="1", WORLD_SIZE="2")
    assert (0, {"rank1/loss": 2.0}) in rows(tmp_path / "spool")


def test_outputs_and_data(tmp_path: Path) -> None:
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (elsewhere / "model.pt").write_text("weights")
    (tmp_path / "train.csv").write_text("a,b\n")
    log(tmp_path, f"""
open("inside.txt", "w").close()
runyard.output("inside.txt", step=3)
runyard.output({str(elsewhere / "model.pt")!r})
runyard.data("train.csv")
""")  # fmt: skip
    assert [m["path"] for m in messages(tmp_path / "spool", "output")] == ["inside.txt", "model.pt"]
    assert (tmp_path / "model.pt").read_text() == "weights"
    (file,) = messages(tmp_path / "spool", "data")[0]["files"]
    assert (file["path"], file["size"], file["via"]) == ("train.csv", 4, "declared")


def test_a_program_that_logs_nothing_pays_nothing(tmp_path: Path) -> None:
    code = "import sys, runyard\nprint(sorted(m for m in sys.modules if m.startswith('runyard')))\n"
    done = program(tmp_path, code)
    assert done.stdout == "['runyard']\n" and not (tmp_path / "spool").exists()


def test_only_what_the_program_has_imported_is_used(tmp_path: Path) -> None:
    heavy = "numpy pandas matplotlib PIL torch http urllib socket subprocess ssl asyncio".split()
    code = f"runyard.log({{'a': 1.0, 'b': 'x'}})\nimport sys\nassert not [m for m in {heavy!r} if m in sys.modules]\n"
    log(tmp_path, code)


def test_logging_goes_on_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file is in the way")
    said = log(tmp_path, "for step in range(1000): runyard.log({'a': 1.0})\n")
    assert said.count("runyard:") == 1


def test_a_killed_program_loses_nothing(tmp_path: Path) -> None:
    code = "import runyard, os, signal\nfor s in range(100): runyard.log({'a': float(s)})\nos.kill(os.getpid(), 9)\n"
    (tmp_path / "p.py").write_text(code)
    done = subprocess.run([sys.executable, str(tmp_path / "p.py")], env=environment(tmp_path))
    assert done.returncode == -9
    assert [step for step, _ in rows(tmp_path / "spool")] == list(range(100))


def test_without_a_home_the_program_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    env = {**environment(tmp_path), "RUNYARD_HOME": str(tmp_path / "file" / "home")}
    for name in ("RUNYARD_SPOOL", "RUNYARD_RUN_ID"):
        del env[name]
    code = "import runyard\nrunyard.log({'a': 1.0})\nrunyard.log({'a': 1.0})\nprint('went on')\n"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "went on\n" and done.stderr.count("runyard: nothing is recorded") == 1
    assert os.path.exists(tmp_path / "file")


def test_a_signal_handler_that_logs_what_cannot_be_taken_hangs_nothing(tmp_path: Path) -> None:
    log(
        tmp_path,
        """
import os, signal, sys
class Interrupted:
    def write(self, text):
        os.kill(os.getpid(), signal.SIGUSR1)
        raise RuntimeError("no standard error")
    def flush(self): pass
class Odd(Exception):
    def __str__(self): raise KeyError("no text")
class Value:
    def __float__(self): raise Odd()
    def __array__(self, *a, **k): raise Odd()
signal.signal(signal.SIGUSR1, lambda *a: runyard.log({"y": object()}))
sys.stderr = Interrupted()
signal.alarm(20)
runyard.log({"x": object()})
runyard.log({"z": Value()})
runyard.log({"loss": 1.0}, step=5)
""",
    )
    assert rows(tmp_path / "spool") == [(5, {"loss": 1.0})]
    assert {message["name"] for message in messages(tmp_path / "spool", "refused")} == {"x", "y", "z"}


def test_a_run_is_copied_and_pickled_as_what_a_program_has_of_it(tmp_path: Path) -> None:
    log(
        tmp_path,
        """
import copy, multiprocessing, pickle
class Model:
    def __init__(self): self.run = runyard.init()
model = Model()
assert copy.deepcopy(model).run is model.run and copy.copy(model.run) is model.run
assert pickle.loads(pickle.dumps(model.run)) is model.run
def work(run): run.log({"of_worker": 1.0}, step=1)
if __name__ == "__main__":
    worker = multiprocessing.get_context("spawn").Process(target=work, args=(model.run,))
    worker.start(); worker.join()
    assert worker.exitcode == 0
""",
    )
    assert rows(tmp_path / "spool") == [(1, {"of_worker": 1.0})]


def test_outputs_of_one_name_are_all_kept(tmp_path: Path) -> None:
    log(
        tmp_path,
        """
import os
for name, text in (("a", "1"), ("b", "2"), ("b", "3")):
    os.makedirs("../out/" + name, exist_ok=True)
    with open("../out/" + name + "/model.pt", "w") as file: file.write(text)
    runyard.output("../out/" + name + "/model.pt")
""",
        RUNYARD_RUN_DIR=str(tmp_path / "tree"),
    )
    assert [message["path"] for message in messages(tmp_path / "spool", "output")] == [
        "model.pt", "model-2.pt", "model-2.pt",
    ]  # fmt: skip
    assert (tmp_path / "tree" / "model.pt").read_text() == "1"
    assert (tmp_path / "tree" / "model-2.pt").read_text() == "3"


@pytest.mark.parametrize(
    ("environ", "logs"),
    [({"RANK": "8"}, True), ({"RANK": "1", "WORLD_SIZE": "2"}, False), ({"PMIX_RANK": "3"}, False),
     ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "4"}, True),
     ({"SLURM_PROCID": "2", "SLURM_STEP_ID": "0"}, False)],
)  # fmt: skip
def test_what_says_that_a_process_is_one_of_several(tmp_path: Path, environ: dict[str, str], logs: bool) -> None:
    log(tmp_path, "runyard.log({'loss': 1.0})", **environ)
    assert bool(rows(tmp_path / "spool")) == logs


def test_threads_that_log_first_at_once_have_one_stream(tmp_path: Path) -> None:
    log(
        tmp_path,
        """
import sys, threading
sys.setswitchinterval(1e-6)
start = threading.Barrier(8)
def work(number):
    start.wait()
    runyard.log({"loss": 1.0}, step=number)
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    )
    assert sorted(step for step, _ in rows(tmp_path / "spool")) == list(range(8))
    assert len(spool.streams(str(tmp_path / "spool"))) == 1


def test_a_tensor_that_is_part_of_a_graph_is_logged_without_a_warning(tmp_path: Path) -> None:
    said = log(
        tmp_path,
        """
import warnings
class Tensor:
    requires_grad, ndim, shape, dtype = True, 0, (), "float32"
    def __init__(self, value): self.value = value
    def detach(self):
        found = Tensor(self.value)
        found.requires_grad = False
        return found
    def item(self): return self.value
    def __float__(self):
        if self.requires_grad: warnings.warn("part of a graph")
        return self.value
for step in range(3):
    runyard.log({"loss": Tensor(0.5), "acc": 1.0})
""",
    )
    assert said == ""
    assert rows(tmp_path / "spool") == [(step, {"loss": 0.5, "acc": 1.0}) for step in range(3)]
