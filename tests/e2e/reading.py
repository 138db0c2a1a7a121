"""Calls of real libraries that read files, and what a run shows of each: the lines of the table in docs/capture.md."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.harness import Cli, wait_for

PROGRAM = """
import importlib, os, sys, time
signals, names = sys.argv[1], sys.argv[2:]
def meet(here, there):
    open(os.path.join(signals, here), "w").close()
    while not os.path.exists(os.path.join(signals, there)):
        time.sleep(0.01)
if __name__ == "__main__":
    calls = [importlib.import_module(name) for name in names]
    meet("ready", "go")
    kept = [call.call() for call in calls]
    meet("done", "end")
"""
"""Imports everything, reads everything while nobody looks from outside, then waits with what it has kept."""

MAKING = """
import os, sqlite3, sys, tarfile, zipfile
import cv2, h5py, joblib, numpy as np, pandas as pd, pyarrow as pa, pyarrow.dataset, safetensors.numpy, scipy.io
array = np.arange(1000.0).reshape(100, 10)
frame = pd.DataFrame(array, columns=list("abcdefghij"))
table = pa.table(frame)
picture = np.zeros((32, 32, 3), np.uint8)
def h5(path):
    with h5py.File(path, "w") as file: file["x"] = array
def arrow(path):
    with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, table.schema) as writer: writer.write_table(table)
def database(path):
    link = sqlite3.connect(path)
    frame.to_sql("t", link)
    link.close()
def tar(path):
    with tarfile.open(path, "w") as file: file.add(__file__, "member")
def zipped(path):
    with zipfile.ZipFile(path, "w") as file: file.write(__file__, "member")
def video(path):
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 32))
    for _ in range(9): writer.write(picture)
    writer.release()
make = {
    "npy": lambda path: np.save(path, array), "npz": lambda path: np.savez(path, a=array),
    "txt": lambda path: np.savetxt(path, array), "bin": array.tofile, "csv": frame.to_csv, "pkl": frame.to_pickle,
    "parquet": frame.to_parquet, "feather": frame.to_feather, "xlsx": frame.to_excel, "arrow": arrow, "h5": h5,
    "hdf": lambda path: frame.to_hdf(path, key="x"), "db": database, "tar": tar, "zip": zipped, "avi": video,
    "png": lambda path: cv2.imwrite(path, picture), "joblib": lambda path: joblib.dump(array, path),
    "mat": lambda path: scipy.io.savemat(path, {"a": array}),
    "dataset": lambda path: pa.dataset.write_dataset(table, path, format="parquet"),
    "safetensors": lambda path: safetensors.numpy.save_file({"a": array}, path),
}
for path in sys.argv[1:]: make[path.rpartition(".")[2]](path)
"""
"""Writes files, each of the format that its name says."""


@dataclass(frozen=True)
class Line:
    """A call: statements, of which the last returns what the program keeps; ``P`` is the path. ``format``: of the file.

    ``seen``: how a run with hooks knows of the file (``via``); ``outside``: one without; None: it does not.
    """

    format: str
    code: str
    seen: str | None = "open"
    outside: str | None = None


LINES = {
    "numpy.load": Line("npy", "import numpy; return numpy.load(P)"),
    "numpy.load of .npz": Line("npz", "import numpy; return numpy.load(P)['a']"),
    "numpy.load, mmap_mode r": Line("npy", "import numpy; return numpy.load(P, mmap_mode='r')", "open", "fd"),
    "numpy.load, mmap_mode c": Line("npy", "import numpy; return numpy.load(P, mmap_mode='c')", "open", "fd"),
    "numpy.memmap": Line("npy", "import numpy; return numpy.memmap(P, mode='r')", "open", "fd"),
    "numpy.loadtxt": Line("txt", "import numpy; return numpy.loadtxt(P)"),
    "numpy.genfromtxt": Line("txt", "import numpy; return numpy.genfromtxt(P)"),
    "numpy.fromfile": Line("bin", "import numpy; return numpy.fromfile(P)"),
    "scipy.io.loadmat": Line("mat", "import scipy.io; return scipy.io.loadmat(P)"),
    "joblib.load": Line("joblib", "import joblib; return joblib.load(P)"),
    "pandas.read_csv": Line("csv", "import pandas; return pandas.read_csv(P)"),
    "pandas.read_csv, engine pyarrow": Line("csv", "import pandas; return pandas.read_csv(P, engine='pyarrow')"),
    "pandas.read_pickle": Line("pkl", "import pandas; return pandas.read_pickle(P)"),
    "pandas.read_parquet": Line("parquet", "import pandas; return pandas.read_parquet(P)"),
    "pandas.read_feather": Line("feather", "import pandas; return pandas.read_feather(P)"),
    "pandas.read_excel": Line("xlsx", "import pandas; return pandas.read_excel(P)"),
    "pandas.read_hdf": Line("hdf", "import pandas; return pandas.read_hdf(P)"),
    "h5py.File, closed": Line("h5", "import h5py\n    with h5py.File(P) as file: return file['x'][:]"),
    "h5py.File, kept open": Line("h5", "import h5py; return h5py.File(P)", "open", "fd"),
    "pyarrow.parquet.read_table": Line("parquet", "import pyarrow.parquet; return pyarrow.parquet.read_table(P)"),
    "pyarrow.parquet.ParquetFile": Line(
        "parquet", "import pyarrow.parquet; return pyarrow.parquet.ParquetFile(P)", "open", "fd"
    ),
    "pyarrow.dataset.dataset": Line("dataset", "import pyarrow.dataset; return pyarrow.dataset.dataset(P).to_table()"),
    "pyarrow.memory_map": Line("arrow", "import pyarrow; return pyarrow.memory_map(P)", "fd", "fd"),
    "pyarrow.feather.read_table": Line(
        "feather", "import pyarrow.feather; return pyarrow.feather.read_table(P).num_rows", None
    ),
    "pyarrow.csv.read_csv": Line("csv", "import pyarrow.csv; return pyarrow.csv.read_csv(P).num_rows", None),
    "cv2.imread": Line("png", "import cv2; return cv2.imread(P)"),
    "cv2.imdecode of numpy.fromfile": Line(
        "png", "import cv2, numpy; return cv2.imdecode(numpy.fromfile(P, numpy.uint8), 1)"
    ),
    "cv2.VideoCapture, released": Line("avi", "import cv2; return cv2.VideoCapture(P).read()", None),
    "cv2.VideoCapture, kept open": Line("avi", "import cv2; return cv2.VideoCapture(P)", "fd", "fd"),
    "PIL.Image.open": Line("png", "from PIL import Image; return Image.open(P).copy()"),
    "safetensors.numpy.load_file": Line(
        "safetensors", "import safetensors.numpy; return safetensors.numpy.load_file(P)"
    ),
    "safetensors.safe_open, closed": Line(
        "safetensors",
        "import safetensors\n    with safetensors.safe_open(P, 'np') as file: return file.get_tensor('a').sum()",
        None,
    ),
    "safetensors.safe_open, kept open": Line(
        "safetensors", "import safetensors; return safetensors.safe_open(P, 'np')", "map", "map"
    ),
    "tarfile.open": Line("tar", "import tarfile\n    with tarfile.open(P) as file: return file.getnames()"),
    "tarfile.open of a stream, closed": Line(
        "tar", "import tarfile\n    with tarfile.open(P, 'r|') as file: return file.getnames()", None
    ),
    "tarfile.open of a stream, kept open": Line("tar", "import tarfile; return tarfile.open(P, 'r|')", "fd", "fd"),
    "zipfile.ZipFile": Line("zip", "import zipfile\n    with zipfile.ZipFile(P) as file: return file.read('member')"),
    "sqlite3.connect": Line(
        "db", "import sqlite3; c = sqlite3.connect(P); c.execute('SELECT * FROM t'); return c", None
    ),
    "sqlite3.connect, mode=ro, kept open": Line(
        "db",
        "import sqlite3; c = sqlite3.connect('file:%s?mode=ro' % P, uri=True); c.execute('SELECT * FROM t'); return c",
        "fd",
        "fd",
    ),
    "os.open, closed": Line("bin", "import os; f = os.open(P, os.O_RDONLY); os.read(f, 9); return os.close(f)", None),
    "os.open, kept open": Line("bin", "import os; return os.open(P, os.O_RDONLY)", "fd", "fd"),
    "cat, which ends at once": Line("csv", "import subprocess; return subprocess.check_output(['cat', P])", None),
    "sh, which keeps a file open": Line(
        "csv",
        "import subprocess; return subprocess.Popen(['sh', '-c', 'exec 3< \"$0\"; read x', P], stdin=-1)",
        "fd",
        "fd",
    ),
}


TORCH_MAKING = """
import sys, numpy, torch, safetensors.torch
make = {
    "pt": lambda path: torch.save({"a": torch.ones(1000)}, path), "npy": lambda path: numpy.save(path, numpy.ones(1000)),
    "jit": torch.jit.script(torch.nn.Linear(2, 2)).save, "bin": lambda path: numpy.ones(1000, numpy.float32).tofile(path),
    "safetensors": lambda path: safetensors.torch.save_file({"a": torch.ones(1000)}, path),
}
for path in sys.argv[1:]: make[path.rpartition(".")[2]](path)
"""

LOADING = """
class Numbers:
    def __init__(self, path, mode):
        self.path, self.mode, self.array = path, mode, None
    def __len__(self):
        return 8
    def __getitem__(self, index):
        import numpy
        if self.array is None:
            self.array = numpy.load(self.path, mmap_mode=self.mode)
        return self.array[index]
def load(path, method, mode=None):
    from torch.utils.data import DataLoader
    workers = 4 if method == "fork" else 2
    loader = DataLoader(
        Numbers(path, mode), num_workers=workers, multiprocessing_context=method, persistent_workers=bool(mode)
    )
    assert sum(len(batch) for batch in loader) == 8
    return loader
"""
"""A data set that each worker opens by itself."""

TORCH_LINES = {
    "torch.load": Line("pt", "import torch; return torch.load(P)"),
    "torch.load, mmap": Line("pt", "import torch; return torch.load(P, mmap=True)", "open", "map"),
    "torch.from_file": Line("bin", "import torch; return torch.from_file(P, size=9)", "map", "map"),
    "torch.jit.load": Line("jit", "import torch; return torch.jit.load(P)", None),
    "safetensors.torch.load_file": Line(
        "safetensors", "import safetensors.torch; return safetensors.torch.load_file(P)['a'].sum()"
    ),
    "DataLoader, workers by fork": Line("npy", "import loading; return loading.load(P, 'fork')"),
    "DataLoader, workers by spawn": Line("npy", "import loading; return loading.load(P, 'spawn')"),
    "DataLoader, workers that keep a file open": Line(
        "npy", "import loading; return loading.load(P, 'fork', 'r')", "open", "fd"
    ),
}
"""Of the workers, four or two, each opens the file."""


def make_files(top: Path, making: str, lines: dict[str, Line]) -> dict[str, Path]:
    """Write the file of each line, with a program that knows all the formats, and return where it is."""
    top.mkdir()
    paths = {name: top / f"{number}.{line.format}" for number, (name, line) in enumerate(lines.items())}
    (top / "make.py").write_text(making)
    done = subprocess.run([sys.executable, top / "make.py", *paths.values()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name: path / "part-0.parquet" if path.is_dir() else path for name, path in paths.items()}


def write_program(repository: Path, paths: dict[str, Path], lines: dict[str, Line]) -> list[str]:
    """Write the program with a module for each line, and return the names of the modules."""
    (repository / "read.py").write_text(PROGRAM)
    names = []
    for number, (name, line) in enumerate(lines.items()):
        path = paths[name].parent if paths[name].parent.suffix else paths[name]
        first = line.code.partition("\n")[0].partition(";")[0]
        names.append(f"call{number}")
        (repository / f"{names[-1]}.py").write_text(f"{first}\nP = {str(path)!r}\ndef call():\n    {line.code}\n")
    return names


def read_all(
    cli: Cli, signals: Path, command: Iterable[str], names: Iterable[str], held: set[str]
) -> dict[str, dict[str, Any]]:
    """Have everything read while the collector stands still, then let it look until it has found ``held``; return the data.

    So whether something is seen from outside that is closed at once does not depend on when the collector looks.
    """
    signals.mkdir()
    run_id = cli.submit(*command, "read.py", str(signals), *names)
    wait_for(lambda: (signals / "ready").exists() or cli.show(run_id)["state"] == "failed", "the program")
    assert (signals / "ready").exists(), cli.out("logs", run_id)
    with stopped(collectors(cli.home)):
        (signals / "go").touch()
        wait_for((signals / "done").exists, "what it reads")
    try:
        wait_for(lambda: held <= data_of(cli, run_id).keys(), "what is kept open to be seen")
    except AssertionError as exc:
        missing = sorted(held - data_of(cli, run_id).keys())
        raise AssertionError(f"not seen: {missing}\n{cli.out('logs', run_id)}") from exc
    (signals / "end").touch()
    cli.until(run_id, "finished")
    wait_for(lambda: all(item["sha256"] for item in data_of(cli, run_id).values()), "the hashes")
    return data_of(cli, run_id)


def collectors(home: Path) -> list[int]:
    """Return the collectors of a home."""

    def look() -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = path.read_bytes().decode().split("\0")
                if any(word.endswith("agent/collector.py") for word in words) and str(home) in words[-2]:
                    found.append(int(path.parent.name))
        return found

    return wait_for(look, "a collector")


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Have processes stand still."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def data_of(cli: Cli, run_id: str) -> dict[str, dict[str, Any]]:
    """Return what a run read, by path."""
    return {item["path"]: item for item in cli.show(run_id)["data"]}
