"""Data and code around the repository: links, directories frozen beside it, downloads, editable installs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import runyard
from runyard.wire.errors import InvalidError
from tests.e2e.harness import Cli, write_repository

READ = "import sys; print(open(sys.argv[1]).read())"
DOWNLOAD = """\
import os, pathlib, sys
place = pathlib.Path(__file__).parent / "data"
if not (place / "x.csv").exists():
    place.mkdir(exist_ok=True)
    (place / "x.csv").write_text("1,2")
    print("downloaded")
print((place / "x.csv").read_text())
"""
SHOW_LIB = "import shapes; print(shapes.SIDES, shapes.__file__)"
RUNYARD = os.path.dirname(os.path.dirname(os.path.abspath(runyard.__file__)))


@pytest.fixture
def repository(home: Path, tmp_path: Path) -> Path:
    """A repository two levels deep, so that there is a place beside it."""
    files = {"load.py": DOWNLOAD, "sub/read.py": READ, "read.py": READ, ".gitignore": "/data/\n"}
    return write_repository(tmp_path / "work" / "digits", files)


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def log_of(cli: Cli, run_id: str, state: str = "finished") -> str:
    cli.until(run_id, state)
    return cli.out("logs", run_id).strip()


def links_of(cli: Cli, run_id: str) -> dict[str, str]:
    return {link["path"]: link["target"] for link in cli.show(run_id)["links"]}


def test_data_in_and_beside_the_repository_is_where_programs_look_for_it(cli: Cli) -> None:
    put(cli.cwd / "data" / "x.csv", "inside")
    put(cli.cwd.parent / "data" / "x.csv", "beside")
    inside = cli.submit("python", "read.py", "data/x.csv")
    beside = cli.submit("python", "read.py", "../data/x.csv")
    below = cli.submit("python", "read.py", "../data/x.csv", cwd=cli.cwd / "sub")
    script = cli.submit("python", "../load.py", cwd=cli.cwd / "sub")
    assert [log_of(cli, run) for run in (inside, beside, below, script)] == ["inside", "beside", "inside", "inside"]
    assert links_of(cli, inside) == {
        "data": str(cli.cwd / "data"), "../data": str(cli.cwd.parent / "data")
    }  # fmt: skip
    assert cli.show(inside)["outputs"] == []


def test_what_is_linked_or_named_as_data_is_the_submitters_own(cli: Cli, tmp_path: Path) -> None:
    put(cli.cwd.parent / "corpus" / "a.txt", "corpus")
    put(tmp_path / "far" / "b.txt", "far")
    run_id = cli.submit(
        "--link", "../corpus", "--data", str(tmp_path / "far"), "python", "-c",
        "import sys; print(*(open(p).read() for p in sys.argv[1:])); open('../corpus/new.txt', 'w').write('new')",
        "../corpus/a.txt", str(tmp_path / "far" / "b.txt"),
    )  # fmt: skip
    assert log_of(cli, run_id) == "corpus far"
    assert (cli.cwd.parent / "corpus" / "new.txt").read_text() == "new"
    again = cli.json("rerun", run_id)["id"]
    assert log_of(cli, again) == "corpus far"


def test_a_run_that_fails_on_a_file_which_was_not_frozen_says_how_to_link_it(cli: Cli) -> None:
    put(cli.cwd / ".gitignore", "/data/\n/cfg/\n")
    put(cli.cwd / "cfg" / "a.json", "settings")
    done = cli.call("run", "--wait", "python", "../read.py", "../cfg/a.json", cwd=cli.cwd / "sub", code=1)
    failed = cli.json("ls")[0]["id"]
    remedy = "runyard rerun %s --link ../cfg" % failed
    assert remedy in done.stderr and remedy in cli.out("show", failed)
    again = cli.json(*remedy.split()[1:], cwd=cli.cwd / "sub")["id"]
    assert log_of(cli, again) == "settings"


def test_a_run_that_writes_through_a_link_says_so(cli: Cli) -> None:
    put(cli.cwd / "data" / "sub" / "x.csv", "mine")
    code = "open('data/sub/x.csv', 'w').write('changed'); open('data/new', 'w').write('1')"
    done = cli.call("run", "--wait", "python", "-c", code)
    assert "your own files were written, through links: data/new, data/sub/x.csv" in done.stderr
    reading = cli.call("run", "--wait", "python", "-c", "open('data/sub/x.csv').read()")
    assert "written" not in reading.stderr


def test_a_link_that_is_not_there_or_leads_too_far_is_refused(cli: Cli) -> None:
    assert "no such file" in cli.call("run", "--link", "../gone", "true", code=1).stderr
    put(cli.cwd.parent.parent / "up" / "x", "")
    assert "more than one level above" in cli.call("run", "--link", "../../up", "true", code=1).stderr
    assert cli.json("ls") == []


def test_a_link_that_the_command_line_would_not_send_is_refused_by_the_server(cli: Cli) -> None:
    cli.call("start")
    spec = cli.json("run", "--dry-run", "true")
    good = {"path": "../data", "target": "/srv/data", "why": ""}
    assert cli.api("PUT", "/api/v1/runs/" + spec["id"], {**spec, "links": [good], "hold": True})["links"] == [good]
    for path in ("../../etc", "..", "/etc", "a/../../b", "../.runyard", ".runyard/x", ""):
        body = {**spec, "links": [{"path": path, "target": "/etc", "why": ""}]}
        with pytest.raises(InvalidError, match=r"links\[0\]"):
            cli.api("PUT", "/api/v1/runs/" + spec["id"], body)


def test_a_directory_frozen_beside_the_code_is_imported_as_it_was(cli: Cli) -> None:
    put(cli.cwd.parent / "lib" / "shapes.py", "SIDES = 3\n")
    path = f"{cli.cwd.parent / 'lib'}:{RUNYARD}"
    run_id = cli.submit("--hold", "--also", "../lib", "python", "-c", SHOW_LIB, PYTHONPATH=path)
    put(cli.cwd.parent / "lib" / "shapes.py", "SIDES = 4\n")
    cli.call("release", run_id)
    sides, place = log_of(cli, run_id).split()
    assert sides == "3"
    run = cli.show(run_id)
    assert place == str(Path(run["run_dir"]).parent / "lib" / "shapes.py")
    target = cli.cwd.parent / "out"
    cli.call("checkout", run_id, str(target / "code"))
    assert (target / "lib" / "shapes.py").read_text() == "SIDES = 3\n"
    cli.call("gc", "--yes")
    assert not Path(place).exists(), "unchanged code is thinned beside the tree too"


def test_what_one_run_downloads_no_later_one_downloads_again(cli: Cli) -> None:
    cli.env["RUNYARD_CPU_SLOTS"] = "1"
    first = cli.submit("--hold", "python", "load.py")
    queued = cli.submit("--hold", "python", "load.py")
    cli.call("release", first)
    assert log_of(cli, first) == "downloaded\n1,2"
    cli.call("release", queued)
    assert log_of(cli, queued) == "1,2"
    later = cli.submit("python", "load.py")
    assert log_of(cli, later) == "1,2"
    assert "data" in links_of(cli, later)
    assert log_of(cli, cli.json("rerun", first)["id"]) == "1,2"
    assert not (cli.cwd / "data").exists()
    assert [cli.show(run)["outputs"] for run in (first, queued, later)] == [[], [], []]


def test_a_failed_run_hands_no_data_on(cli: Cli) -> None:
    code = "import os; os.mkdir('data'); open('data/x.csv', 'w').write('half'); raise SystemExit(1)"
    failed = cli.submit("python", "-c", code)
    cli.until(failed, "failed")
    assert log_of(cli, cli.submit("python", "load.py")) == "downloaded\n1,2"
    assert [output["path"] for output in cli.show(failed)["outputs"]] == ["data/x.csv"]


def test_an_editable_install_edited_while_queued_runs_frozen(cli: Cli, tmp_path: Path) -> None:
    put(cli.cwd / "src" / "shapes.py", "SIDES = 3\n")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    site = next((venv / "lib").glob("python*/site-packages"))
    (site / "__editable__.shapes-1.0.pth").write_text(str(cli.cwd / "src") + "\n")
    run_id = cli.submit("--hold", "python", "-c", SHOW_LIB, PATH=f"{venv}/bin:{os.environ['PATH']}")
    put(cli.cwd / "src" / "shapes.py", "SIDES = 4\n")
    cli.call("release", run_id)
    sides, place = log_of(cli, run_id).split()
    assert (sides, place) == ("3", str(Path(cli.show(run_id)["run_dir"]) / "src" / "shapes.py"))


def test_a_run_in_place_works_in_the_live_directory_and_keeps_its_own_outputs_apart(cli: Cli) -> None:
    code = (
        "import os, json; print(json.dumps([os.getcwd(), os.environ['RUNYARD_RUN_DIR']])); "
        "open('made-here.txt', 'w').write('live'); "
        "open(os.path.join(os.environ['RUNYARD_RUN_DIR'], 'read.py'), 'w').write('kept')"
    )
    before = (cli.cwd / "read.py").read_text()
    run_id = cli.submit("--in-place", "python", "-c", code)
    where: Any = json.loads(log_of(cli, run_id))
    run = cli.show(run_id)
    assert run["code_frozen"] is False
    assert where == [str(cli.cwd), run["run_dir"]]
    assert [output["path"] for output in run["outputs"]] == ["read.py"]
    assert cli.out("get", run_id, "read.py", "-o", "-") == "kept"
    assert (cli.cwd / "made-here.txt").read_text() == "live"
    assert (cli.cwd / "read.py").read_text() == before


def test_uv_run_uses_the_users_environment_and_leaves_it_alone(cli: Cli, require: Any, tmp_path: Path) -> None:
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    cli.env["PATH"] = path
    uv = shutil.which("uv", path=path)
    if uv is None:
        require("uv")
    put(cli.cwd / "pyproject.toml", '[project]\nname = "digits"\nversion = "1"\nrequires-python = ">=3.8"\n')
    subprocess.run([uv or "uv", "venv", "--offline", "--python", sys.executable, ".venv"], cwd=cli.cwd, check=True)
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in (cli.cwd / ".venv").rglob("*"))
    run_id = cli.submit("uv", "run", "--offline", "python", "-c", "import sys; print(sys.prefix)")
    assert log_of(cli, run_id).splitlines()[-1] == str(cli.cwd / ".venv")
    assert sorted((str(path), path.lstat().st_mtime_ns) for path in (cli.cwd / ".venv").rglob("*")) == before
    assert not (Path(cli.show(run_id)["run_dir"]) / ".venv").exists()
