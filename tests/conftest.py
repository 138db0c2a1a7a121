"""Fixtures for all tests."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.fuzz import MORE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOP = Path(__file__).resolve().parent.parent
# Machines that run tests are busy: how long one example takes says nothing.
settings.register_profile(
    "runyard", max_examples=100 * MORE, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("runyard")

# The contract suites are tests that lie in the package. Said here, before anything imports them.
pytest.register_assert_rewrite("runyard.testing")

KEPT_VARIABLES = {"RUNYARD_CI", "RUNYARD_TEST_POSTGRESQL_URL", "RUNYARD_TEST_LIVES", "RUNYARD_TEST_FUZZ"}
BINARIES = str(Path(sys.executable).parent)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How often what depends on chance is tried: random schedules of the crash suite, starts on one GPU."""
    parser.addoption("--schedules", type=int, default=20, help="random schedules of tests/crash (default 20)")
    parser.addoption("--seed", type=int, default=None, help="seed of the first of them; by default 1")
    parser.addoption("--crashes", type=int, default=20, help="SIGKILLs of a program that logs (default 20)")
    parser.addoption("--starts", type=int, default=16, help="starts of two yards on one GPU (default 16)")


def pytest_configure() -> None:
    """Take Ctrl-C as in a terminal, also when started in the background: programs under test inherit what is ignored."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches them, and no git configuration either.

    ``python`` on PATH is the interpreter that runs the tests, as in an activated environment.
    """
    for name in list(os.environ):
        if name.startswith(("RUNYARD_", "GIT_")) and name not in KEPT_VARIABLES:
            monkeypatch.delenv(name)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    monkeypatch.setenv("PATH", BINARIES, prepend=os.pathsep)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Somebody")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "somebody@example.org")


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home of its own, named by RUNYARD_HOME; its path is short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="ry-", dir=os.environ.get("TMPDIR", "/tmp")))
    monkeypatch.setenv("RUNYARD_HOME", str(path))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def _available(what: str) -> bool:
    if what == "postgresql":
        return bool(os.environ.get("RUNYARD_TEST_POSTGRESQL_URL"))
    if what == "root":
        return os.getuid() == 0
    if what.startswith("package "):
        return importlib.util.find_spec(what.partition(" ")[2]) is not None
    return shutil.which(what) is not None


@pytest.fixture(scope="session")
def require() -> Callable[[str], None]:
    """Return ``require(what)``: what a test needs beyond Python and the installed packages.

    ``what`` is a program on PATH, ``package NAME`` (a module to import), ``postgresql`` (a server named by
    RUNYARD_TEST_POSTGRESQL_URL) or ``root``. Where it is missing, the test is skipped, and fails with RUNYARD_CI=1, where
    everything that can be installed is there.
    """

    def check(what: str) -> None:
        if _available(what):
            return
        reason = f"needs {what}"
        if os.environ.get("RUNYARD_CI") == "1" and what != "root":
            pytest.fail(reason)
        pytest.skip(reason)

    return check


@pytest.fixture(scope="session")
def crashes(request: pytest.FixtureRequest) -> int:
    """How often a program that logs is killed."""
    return int(request.config.getoption("--crashes"))
