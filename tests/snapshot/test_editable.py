"""Editable installs from inside of the tree load the frozen code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from runyard.snapshot.editable import find_editable, find_interpreter, site_directories


@pytest.fixture
def env(tmp_path: Path) -> Path:
    """A venv without pip; returns its site directory."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    return next((tmp_path / "venv" / "lib").glob("python3.*/site-packages"))


@pytest.fixture
def top(tmp_path: Path) -> Path:
    path = tmp_path / "digits"
    (path / "src" / "digits").mkdir(parents=True)
    (path / "src" / "digits" / "__init__.py").write_text("WHERE = __file__\n")
    return path


def python_of(site: Path) -> str:
    return str(site.parents[2] / "bin" / "python")


def found(site: Path, top: Path, **environ: str) -> tuple[list[str], list[tuple[str, str]], list[str]]:
    result = find_editable(python_of(site), [(str(top), "")], environ)
    return result.pythonpath, result.elsewhere, result.unmapped


def test_path_files(env: Path, top: Path, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (env / "__editable__.digits-1.0.pth").write_text("%s\n" % (top / "src"))
    (env / "other.pth").write_text("# comment\nimport sys; sys.x = 1\n%s\n/nonexistent\n" % (tmp_path / "lib"))
    (env / "old.egg-link").write_text("%s\n.\n" % top)
    assert found(env, top) == (["src", "."], [("other", str(tmp_path / "lib"))], [])


def test_the_path_that_is_found_makes_python_load_the_copy(env: Path, top: Path, tmp_path: Path) -> None:
    (env / "digits.pth").write_text("%s\n" % (top / "src"))
    copy = tmp_path / "copy"
    top.joinpath("src").rename(tmp_path / "keep")
    (tmp_path / "keep").rename(top / "src")
    subprocess.run(["cp", "-r", str(top), str(copy)], check=True)
    (entry,) = found(env, top)[0]
    done = subprocess.run(
        [python_of(env), "-c", "import digits; print(digits.WHERE)"],
        env={"PYTHONPATH": str(copy / entry), "PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(str(copy))


def test_setuptools_finder(env: Path, top: Path, tmp_path: Path) -> None:
    mapping = {"digits": str(top / "src" / "digits"), "renamed": str(top / "lib"), "far": str(tmp_path / "x" / "far")}
    (tmp_path / "x" / "far").mkdir(parents=True)
    (env / "__editable___digits_1_0_finder.py").write_text(
        "import sys\nMAPPING: dict[str, str] = %r\nNAMESPACES: dict[str, list[str]] = {'ns.sub': [%r]}\n"
        % (mapping, str(top / "nsdir" / "ns" / "sub"))
    )
    (top / "nsdir").mkdir()
    paths, elsewhere, unmapped = found(env, top)
    assert paths == ["src", "nsdir"] and unmapped == ["renamed"]
    assert elsewhere == [("digits_1_0", str(tmp_path / "x"))]


def test_other_build_systems_are_reported(env: Path, top: Path, tmp_path: Path) -> None:
    (tmp_path / "other dir").mkdir()
    for name, url, editable in (
        ("digits-1.0", "file://%s" % top, True),
        ("elsewhere-2", "file://%s" % str(tmp_path / "other dir").replace(" ", "%20"), True),
        ("plain-1", "file://%s" % top, False),
        ("broken-1", None, True),
    ):
        (env / (name + ".dist-info")).mkdir()
        record = json.dumps({"url": url, "dir_info": {"editable": editable}}) if url else '{"editable": '
        (env / (name + ".dist-info") / "direct_url.json").write_text(record)
    assert found(env, top) == ([], [("elsewhere", str(tmp_path / "other dir"))], ["digits"])
    (env / "digits.pth").write_text("%s\n" % (top / "src"))
    assert found(env, top) == (["src"], [("elsewhere", str(tmp_path / "other dir"))], [])


def test_pythonpath_of_the_caller(env: Path, top: Path, tmp_path: Path) -> None:
    paths = os.pathsep.join([str(tmp_path), str(top / "src"), "relative", ""])
    assert found(env, top, PYTHONPATH=paths)[0] == ["src"]
    assert find_editable(None, [(str(top), "")], {"PYTHONPATH": str(top)}).pythonpath == ["."]


def test_installs_from_directories_that_are_frozen_beside_the_tree(env: Path, top: Path, tmp_path: Path) -> None:
    (tmp_path / "lib" / "src").mkdir(parents=True)
    (env / "lib.pth").write_text("%s\n%s\n" % (tmp_path / "lib" / "src", top))
    roots = [(str(top), ""), (str(tmp_path / "lib"), "../lib")]
    result = find_editable(python_of(env), roots, {})
    assert result.pythonpath == ["../lib/src", "."] and result.elsewhere == []


def test_a_venv_inside_of_the_tree_is_no_editable_install(top: Path) -> None:
    venv.create(top / ".venv", with_pip=False, symlinks=True)
    site = next((top / ".venv" / "lib").glob("python3.*/site-packages"))
    (site / "vendored").mkdir()
    (site / "v.pth").write_text("vendored\n")
    assert found(site, top) == ([], [], [])


def test_site_directories_are_those_of_the_interpreter(env: Path, tmp_path: Path) -> None:
    assert site_directories(python_of(env), {}) == [str(env)]
    ask = "import site, os; print([p for p in site.getsitepackages() if os.path.isdir(p)])"
    real = os.path.realpath(sys.executable)
    said = subprocess.run([real, "-I", "-c", ask], capture_output=True, text=True, check=True)
    assert set(eval(said.stdout)) <= set(site_directories(real, {}))


def test_finding_the_interpreter(tmp_path: Path, env: Path, top: Path) -> None:
    assert find_interpreter("/usr/bin/python3.11", {}, str(top)) == "/usr/bin/python3.11"
    script = tmp_path / "torchrun"
    script.write_text("#!%s\nimport x\n" % python_of(env))
    assert find_interpreter(str(script), {}, str(top)) == python_of(env)
    prefix = str(env.parents[2])
    assert find_interpreter("/bin/bash", {"VIRTUAL_ENV": prefix}, str(top)) == python_of(env)
    venv.create(top / ".venv", with_pip=False, symlinks=True)
    assert find_interpreter("/x/uv", {"VIRTUAL_ENV": prefix}, str(top)) == str(top / ".venv" / "bin" / "python")
    assert find_interpreter("/bin/bash", {"PATH": "/nonexistent"}, str(tmp_path)) is None
