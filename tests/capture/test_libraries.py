"""Parameters as the libraries that parsed them say."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from tests.capture.conftest import Run


def test_a_path_in_the_directory_of_the_run_is_the_same_for_every_run(run: Run) -> None:
    code = """
import argparse, os
parser = argparse.ArgumentParser()
parser.add_argument("--data", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "sub", "a.csv"))
parser.add_argument("--out", default="/elsewhere/b")
print(parser.parse_args().data)
"""
    (run.tree / "p.py").write_text(code)
    assert run.python("p.py").stdout == f"{run.tree}/sub/a.csv\n"
    assert run.params("default") == {"data": "sub/a.csv", "out": "/elsewhere/b"}


def test_argparse_subparsers_lists_flags_and_objects(run: Run) -> None:
    run.write("train.py", """
import argparse, enum, pathlib
class Kind(enum.Enum):
    A = "a"
parser = argparse.ArgumentParser()
parser.add_argument("data")
parser.add_argument("--kind", type=Kind, default=Kind.A)
parser.add_argument("--path", type=pathlib.Path, default=pathlib.Path("x/y"))
parser.add_argument("--layers", nargs="+", type=int, default=[1])
parser.add_argument("--use-amp", action="store_true")
parser.add_argument("--no-cache", dest="cache", action="store_false")
parser.add_argument("--add", action="append")
parser.add_argument("--api-key")
parser.add_argument("--learning-rate", type=float, default=0.1)
sub = parser.add_subparsers()
fit = sub.add_parser("fit")
fit.add_argument("--epochs", type=int, default=3)
fit.add_argument("-v", action="count", default=0)
fit.set_defaults(func=print)
args = parser.parse_args()
""")  # fmt: skip
    words = "d.csv --layers 64 32 --no-cache --add 1 --add 2 --api-key secret --learn 0.5 fit -vv"
    run.python("train.py", *words.split())
    assert run.params("cli") == {
        "data": "d.csv", "layers": "[64, 32]", "cache": False, "add": '["1", "2"]', "api_key": "(hidden)",
        "learning_rate": 0.5, "command": "fit", "v": 2,
    }  # fmt: skip
    assert run.params("default") == {
        "kind": "a", "path": "x/y", "use_amp": False, "epochs": 3, "func": "builtins.print",
    }  # fmt: skip
    assert run.notes() == []


def test_what_a_parser_leaves_is_read_as_long_options(run: Run) -> None:
    run.write(
        "train.py",
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--a', type=int)\np.parse_known_args()",
    )
    run.python("train.py", "--a", "1", "--optim.lr=0.1", "-q", "--steps", "5", "model.dim=3")
    assert run.params("cli") == {"a": 1, "optim.lr": 0.1, "steps": 5, "model.dim": 3}


def test_arguments_that_do_not_come_from_the_command_line(run: Run) -> None:
    run.write(
        "train.py",
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--a', type=int)\np.parse_args(['--a', '1'])",
    )
    run.python("train.py")
    assert (run.params("call"), run.params("cli")) == ({"a": 1}, {})


def test_a_parser_that_fails_or_helps_records_nothing(run: Run) -> None:
    run.write(
        "train.py", "import argparse\np = argparse.ArgumentParser()\np.add_argument('--a', type=int)\np.parse_args()"
    )
    assert run.execute(sys.executable, "train.py", "--a", "x").returncode == 2
    assert run.execute(sys.executable, "train.py", "--help").returncode == 0
    assert run.params("cli") == {}
    assert run.notes() == []


def test_without_a_parser_the_command_line_is_guessed(run: Run) -> None:
    run.write("train.py", "import sys\nimport decimal\nprint(sys.argv)")
    run.python("train.py", "--lr", "1e-3", "seed=3", "-j4", "--flag", "--", "--not")
    assert run.params("command") == {"lr": 0.001, "seed": 3, "j": 4, "flag": True}


def test_a_profiler_runs_the_program_and_says_no_parameters_of_its_own(run: Run) -> None:
    run.write(
        "train.py", "import argparse\np = argparse.ArgumentParser()\np.add_argument('--a', type=int)\np.parse_args()"
    )
    run.python("-m", "cProfile", "-o", "out.prof", "train.py", "--a", "1")
    assert (run.params("cli"), run.params("command")) == ({"a": 1}, {})


def test_a_launcher_is_no_program_but_what_it_launches_is(run: Run) -> None:
    run.write("torchrun.py", "import argparse, subprocess, sys\np = argparse.ArgumentParser()\n"
              "p.add_argument('--nproc', type=int)\np.add_argument('rest', nargs='...')\nargs = p.parse_args()\n"
              "subprocess.run([sys.executable, *args.rest], check=True)")  # fmt: skip
    run.write(
        "tree/train.py",
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--a', type=int)\np.parse_args()",
    )
    inner = run.tree / "tree"
    run.python("torchrun.py", "--nproc", "2", "tree/train.py", "--a", "1", RUNYARD_RUN_DIR=str(inner))
    assert run.params("cli") == {"a": 1}


def test_a_program_that_a_program_starts_counts_where_it_is_of_the_tree(run: Run) -> None:
    code = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--{0}', type=int)\np.parse_known_args()\n"
    run.write("inner.py", code.format("b"))
    (run.tree.parent / "outside.py").write_text(code.format("c"))
    run.write("train.py", code.format("a") + "import subprocess, sys\n"
              "subprocess.run([sys.executable, 'inner.py', '--b', '2'])\n"
              "subprocess.run([sys.executable, '../outside.py', '--c', '3'])")  # fmt: skip
    run.python("train.py", "--a", "1")
    assert run.params("cli") == {"a": 1, "b": 2}


def test_click(run: Run) -> None:
    run.write("train.py", """
import click
@click.group()
@click.option("--seed", default=1)
def main(seed): pass
@main.command()
@click.option("--lr", default=0.1)
@click.option("--password", hide_input=True)
@click.option("--epochs", envvar="EPOCHS", type=int)
@click.argument("data")
def fit(lr, password, epochs, data): print(lr, password, epochs, data)
main()
""")  # fmt: skip
    done = run.python("train.py", "fit", "--lr", "0.5", "--password", "p", "d.csv", EPOCHS="7")
    assert done.stdout == "0.5 p 7 d.csv\n"
    assert run.params("cli") == {"command": "fit", "lr": 0.5, "password": "(hidden)", "epochs": 7, "data": "d.csv"}
    assert run.params("default") == {"seed": 1}
    assert run.notes() == []


def test_typer(run: Run, require: Callable[[str], None]) -> None:
    require("package typer")
    run.write("train.py", """
import typer
def main(name: str, lr: float = 0.1, verbose: bool = False): print(name, lr)
typer.run(main)
""")  # fmt: skip
    assert run.python("train.py", "Bob", "--lr", "0.3").stdout == "Bob 0.3\n"
    assert run.params("cli") == {"name": "Bob", "lr": 0.3}
    assert run.params("default") == {"verbose": False}
    assert run.notes() == []


def test_hydra(run: Run, require: Callable[[str], None]) -> None:
    require("package hydra")
    run.write("conf/config.yaml", "defaults:\n  - model: small\n  - _self_\nlr: 1e-4\nsteps: ${model.dim}\n")
    run.write("conf/model/small.yaml", "dim: 8\n")
    run.write("conf/model/large.yaml", "dim: 64\nname: l\n")
    run.write("train.py", """
import hydra
@hydra.main(config_path="conf", config_name="config", version_base=None)
def main(config): print(config.model.dim)
main()
""")  # fmt: skip
    done = run.python("train.py", "model=large", "+extra.x=3")
    assert done.stdout == "64\n"
    assert run.params("cli") == {"model.dim": 64, "model.name": "l", "extra.x": 3}
    assert run.params("file") == {"lr": 0.0001, "steps": 64}
    assert run.messages("config") == []
    assert run.notes() == []


def test_absl(run: Run, require: Callable[[str], None]) -> None:
    require("package absl")
    run.write("train.py", """
from absl import app, flags
flags.DEFINE_float("lr", 0.1, "")
flags.DEFINE_integer("steps", 5, "")
def main(argv): print(flags.FLAGS.lr)
app.run(main)
""")  # fmt: skip
    assert run.python("train.py", "--lr=0.5").stdout == "0.5\n"
    assert (run.params("cli"), run.params("default")) == ({"lr": 0.5}, {"steps": 5})


ON_TOP = {
    "tyro": "import tyro\ndef main(lr: float = 0.1, steps: int = 3): print(lr)\ntyro.cli(main)",
    "typer": "import typer\ndef main(lr: float = 0.1, steps: int = 3): print(lr)\ntyper.run(main)",
    "simple_parsing": """
from dataclasses import dataclass
import simple_parsing
@dataclass
class Options:
    lr: float = 0.1
    steps: int = 3
parser = simple_parsing.ArgumentParser()
parser.add_arguments(Options, dest="options")
print(parser.parse_args().options.lr)
""",
}


@pytest.mark.parametrize("library", ON_TOP)
def test_libraries_on_top_of_others(run: Run, require: Callable[[str], None], library: str) -> None:
    require(f"package {library}")
    run.write("train.py", ON_TOP[library])
    assert run.python("train.py", "--lr", "0.5").stdout == "0.5\n"
    found = run.params("command") | run.params("default") | run.params("cli")
    assert any(name.endswith("lr") and value == 0.5 for name, value in found.items()), found
    assert run.notes() == []


def test_configuration_files_are_sent_as_they_are(run: Run) -> None:
    elsewhere = run.tree.parent / "mine.toml"
    elsewhere.write_text("a = 1\n")
    (run.tree.parent / "other.toml").write_text("a = 2\n")
    run.write("conf/model.yaml", "lr: 1e-4\n")
    run.write("labels.json", "[1, 2, 3]")
    run.write("big.json", '{"a": "' + "x" * 300_000 + '"}')
    run.write("pyproject.toml", "[tool]\n")
    run.write("train.py", """
import json, pathlib, sys
open("conf/model.yaml").read()
open("conf/model.yaml").read()
pathlib.Path(sys.argv[2]).read_text()
open("../other.toml").close()
json.load(open("labels.json"))
json.load(open("big.json"))
open("pyproject.toml").close()
with open("out.json", "w") as file: file.write("{}")
open("out.json").close()
""")  # fmt: skip
    run.execute(sys.executable, "train.py", "--config", str(elsewhere))
    assert [(item["path"], item["format"], item["text"]) for item in run.messages("config")] == [
        ("conf/model.yaml", "yaml", "lr: 1e-4\n"), (str(elsewhere), "toml", "a = 1\n"),
    ]  # fmt: skip
    assert {"labels.json", "big.json"} <= set(run.files())
    assert not {"out.json", "conf/model.yaml"} & set(run.files())
