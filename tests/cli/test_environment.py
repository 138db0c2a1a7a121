from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from runyard.cli import environment


def gather(program: str, home: Path, **variables: str) -> dict[str, object]:
    environ = {"PATH": os.environ["PATH"], **variables}
    return environment.gather(program, environ, str(home), str(home), str(home))


def test_interpreter_and_packages_of_a_venv_are_those_of_the_venv(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (site,) = (venv / "lib").glob("python*/site-packages")
    (site / "Some_Package-1.2.dist-info").mkdir()
    found = gather(str(venv / "bin" / "python"), tmp_path)
    assert found["packages"] == {"some-package": "1.2"}
    assert found["python"]["prefix"] == str(venv)  # type: ignore[index]


def test_the_interpreter_is_asked_once_and_again_when_something_changed(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (site,) = (venv / "lib").glob("python*/site-packages")
    (site / "asked.pth").write_text("import os; open(%r, 'a').write('x')\n" % str(tmp_path / "asked"))
    python = str(venv / "bin" / "python")
    first = gather(python, tmp_path)
    asked = (tmp_path / "asked").read_text()  # site reads a .pth file of a venv more than once
    assert gather(python, tmp_path) == first
    assert (tmp_path / "asked").read_text() == asked
    (site / "new-2.0.dist-info").mkdir()
    os.utime(site, ns=(time.time_ns(), time.time_ns() + 10**9))
    assert gather(python, tmp_path)["packages"] == {"new": "2.0"}
    assert (tmp_path / "asked").read_text() == 2 * asked


def test_a_script_belongs_to_the_interpreter_of_its_first_line(tmp_path: Path) -> None:
    script = tmp_path / "torchrun"
    script.write_text("#!%s\n" % sys.executable)
    assert gather(str(script), tmp_path)["python"]["path"] == sys.executable  # type: ignore[index]


def test_only_the_listed_variables_are_recorded(tmp_path: Path) -> None:
    found = gather("/bin/sh", tmp_path, AWS_SECRET_ACCESS_KEY="planted", TZ="UTC", WANDB_API_KEY="planted")
    assert found["variables"] == {"TZ": "UTC"}
    assert "planted" not in json.dumps(found)


def test_a_broken_interpreter_or_cache_stops_nothing(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "interpreters.json").write_text('{"form": 1, "by": []}')
    assert gather(str(python), tmp_path)["python"] == {"path": str(python)}


def test_modules_of_the_users_directory_do_not_stand_for_the_standard_ones(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the user has a file of that name')\n")
    found = gather(sys.executable, tmp_path)
    assert found["python"]["version"] == "%d.%d.%d" % sys.version_info[:3]  # type: ignore[index]


def test_files_that_describe_an_environment_are_named(tmp_path: Path) -> None:
    for name in ("uv.lock", "Dockerfile", "requirements-dev.txt", "environment.yml", "train.py", "data.txt"):
        (tmp_path / name).write_text("")
    assert gather("/bin/sh", tmp_path)["files"] == ["Dockerfile", "environment.yml", "requirements-dev.txt", "uv.lock"]
