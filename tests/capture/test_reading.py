"""Libraries that open files in C: what they do with the hooks is what they do without."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from tests.capture.conftest import Run

CALLS = {
    "cv2": ("a.png", "cv2.imwrite(path, numpy.zeros((3, 3), numpy.uint8))", "import cv2", "cv2.imread(path)", "cv2.imread"),
    "h5py": ("a.h5", "h5py.File(path, 'w').close()", "import h5py", "h5py.File(path).close()", "h5py.File"),
    "tables": ("a.h5", "tables.open_file(path, 'w').close()", "import tables", "tables.open_file(path).close()", "tables.File"),
    "pyarrow": (
        "a.parquet", "pyarrow.parquet.write_table(pyarrow.table({'a': [1]}), path)", "import pyarrow.parquet",
        "pyarrow.parquet.read_table(path)", "pyarrow.parquet.ParquetFile",
    ),
    "safetensors": (
        "a.safetensors", "safetensors.numpy.save_file({'a': numpy.zeros(3)}, path)", "import safetensors.numpy",
        "safetensors.numpy.load_file(path)", "safetensors.numpy.load_file",
    ),
}  # fmt: skip
TRYING = """
import inspect, os, pathlib, pickle, sys, traceback, numpy
os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
{imports}
path = "{name}"
{make}
{call}
paths = [pathlib.Path("in/{name}"), "in/{name}", "nothing", "broken", b"broken", 7, None]
for path in paths:
    try:
        print(type({call}))
    except Exception:
        traceback.print_exc(file=sys.stdout)
try:
    print(inspect.signature({function}))
except ValueError as exc:
    print(exc)
print({function}.__name__, {function}.__module__, {function}.__doc__, pickle.dumps({function}))
"""


@pytest.mark.parametrize("package", CALLS)
def test_nothing_changes_for_the_program(run: Run, require: Callable[[str], None], package: str) -> None:
    require(f"package {package}")
    name, make, imports, call, function = CALLS[package]
    run.write("train.py", TRYING.format(name=name, make=make, imports=imports, call=call, function=function))
    run.write("broken", "no such format")
    made = f"import numpy; {imports}; path = 'in/{name}'; {make}"
    (run.tree / "in").mkdir()
    assert run.plain(sys.executable, "-c", made).returncode == 0
    plain = run.plain(sys.executable, "train.py")
    (run.tree / name).unlink()
    done = run.execute(sys.executable, "train.py")
    assert (done.returncode, done.stderr) == (plain.returncode, plain.stderr)
    assert done.stdout == plain.stdout
    assert set(run.files()) == {f"in/{name}"}  # and neither what could not be read nor what it made
    assert package in run.messages("capture")[-1]["active"]
    assert run.notes() == []


def test_they_are_as_they_were_where_data_is_not_captured(run: Run, require: Callable[[str], None]) -> None:
    require("package cv2")
    run.write("train.py", "import cv2; print(type(cv2.imread))")
    assert run.python("train.py", kinds="params").stdout == run.plain(sys.executable, "train.py").stdout


def test_a_dataset_is_all_of_its_files(run: Run, require: Callable[[str], None]) -> None:
    require("package pyarrow")
    made = (
        "import pyarrow, pyarrow.dataset as d; d.write_dataset(pyarrow.table({'a': [1, 2]}), 'set', format='parquet', "
    )
    run.plain(sys.executable, "-c", made + "partitioning=['a'], partitioning_flavor='hive')")
    run.write("train.py", "import pyarrow.parquet; pyarrow.parquet.read_table('set', filters=[('a', '=', 1)])")
    run.python("train.py")
    assert set(run.files()) == {"set/a=1/part-0.parquet", "set/a=2/part-0.parquet"}
