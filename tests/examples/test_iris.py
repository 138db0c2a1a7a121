"""The demo's repository: the data is Fisher's, the script works as a user's would, on its own."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import runyard.demo

IRIS = Path(runyard.demo.__file__).parent / "iris"
SHA256 = "9cc1c345c71bcc9b486b74cbf6063fa66f4bb5e0f603a4b3c3471ec2e5e8e355"
EPOCH = re.compile(r"^epoch (\d+) loss: (\d+\.\d+) acc: ([01]\.\d\d)$")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return Path(shutil.copytree(IRIS, tmp_path / "iris"))


def train(repository: Path, *arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "train.py", *arguments], cwd=repository, capture_output=True, text=True, timeout=60, check=False
    )


def rows() -> list[list[str]]:
    with (IRIS / "iris.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_the_measurements_are_those_of_fishers_table() -> None:
    """Means of his table, and the two rows that a widespread copy has wrong."""
    header, *flowers = rows()
    assert header == ["sepal_length", "sepal_width", "petal_length", "petal_width", "species"]
    means = {
        "setosa": ["5.006", "3.428", "1.462", "0.246"],
        "versicolor": ["5.936", "2.770", "4.260", "1.326"],
        "virginica": ["6.588", "2.974", "5.552", "2.026"],
    }
    for species, expected in means.items():
        of_species = [[float(x) for x in flower[:4]] for flower in flowers if flower[4] == species]
        assert len(of_species) == 50
        assert [f"{sum(column) / 50:.3f}" for column in zip(*of_species, strict=True)] == expected
    assert flowers[34] == ["4.9", "3.1", "1.5", "0.2", "setosa"]
    assert flowers[37] == ["4.9", "3.6", "1.4", "0.1", "setosa"]
    assert hashlib.sha256((IRIS / "iris.csv").read_bytes()).hexdigest() == SHA256


def test_the_measurements_are_those_that_scikit_learn_has() -> None:
    if importlib.util.find_spec("sklearn") is None:
        assert os.environ.get("RUNYARD_CI") != "1", "scikit-learn is in the test extra"
        pytest.skip("scikit-learn is not installed")
    code = (
        "import json, sklearn.datasets as d; b = d.load_iris(); print(json.dumps([b.data.tolist(), b.target.tolist()]))"
    )
    data, target = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    flowers = rows()[1:]
    names = ["setosa", "versicolor", "virginica"]
    assert [[float(x) for x in flower[:4]] for flower in flowers] == data
    assert [names.index(flower[4]) for flower in flowers] == target


def test_it_learns_prints_every_epoch_and_writes_curve_and_model(repository: Path) -> None:
    done = train(repository, "--lr", "0.05", "--epochs", "20")
    assert (done.returncode, done.stderr) == (0, "")
    matches = [EPOCH.match(line) for line in done.stdout.splitlines()]
    assert all(matches)
    epochs = [match.groups() for match in matches if match]
    assert [int(number) for number, _, _ in epochs] == list(range(1, 21))
    assert float(epochs[-1][1]) < 0.15 < float(epochs[0][1])
    assert float(epochs[-1][2]) >= 0.9
    curve = ET.parse(repository / "learning_curve.svg")
    lines = curve.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [20, 20]
    model = json.loads((repository / "model.json").read_text())
    assert [len(layer) for layer in model["layers"]] == [16, 3]
    assert sorted(path.name for path in repository.iterdir()) == [
        "iris.csv", "learning_curve.svg", "model.json", "train.py",
    ]  # fmt: skip


def test_equal_seeds_give_equal_runs_and_other_parameters_others(repository: Path) -> None:
    first = train(repository, "--epochs", "3").stdout
    assert train(repository, "--epochs", "3").stdout == first
    assert train(repository, "--epochs", "3", "--seed", "2").stdout != first
    assert train(repository, "--epochs", "3", "--lr", "0.1").stdout != first
    assert train(repository, "--epochs", "3", "--hidden", "0").stdout != first


def test_an_edit_of_one_line_changes_the_result(repository: Path) -> None:
    """What the demo edits while the run is queued."""
    first = train(repository, "--epochs", "3").stdout
    script = repository / "train.py"
    code = script.read_text()
    assert code.count("MOMENTUM = 0.0  ") == 1
    script.write_text(code.replace("MOMENTUM = 0.0  ", "MOMENTUM = 0.9  "))
    done = train(repository, "--epochs", "3")
    assert done.returncode == 0
    assert done.stdout != first


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--lr", "abc"], 2, "invalid float value: 'abc'"),
        (["--data", "missing.csv"], 1, "FileNotFoundError"),
        (["--lr", "100"], 1, "ValueError: "),
    ],
)
def test_it_fails_as_scripts_do(repository: Path, arguments: list[str], status: int, message: str) -> None:
    done = train(repository, *arguments)
    assert done.returncode == status
    assert message in done.stderr
    assert not (repository / "model.json").exists()


def test_it_knows_nothing_of_runyard() -> None:
    assert not any("runyard" in path.read_text().lower() for path in IRIS.iterdir())
