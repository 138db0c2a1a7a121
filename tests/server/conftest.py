from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.harness import Running, running


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server that the tests of a module share."""
    path = Path(tempfile.mkdtemp(prefix="ry-", dir="/tmp"))
    with running(path) as found:
        yield found
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def own_server(home: Path) -> Iterator[Running]:
    """A server of this test alone."""
    with running(home) as found:
        yield found
