"""Trees, metrics, and small parts."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from runyard.model.spec import FIELDS
from runyard.server import logs, metrics
from runyard.server.shapes import RunSpec
from runyard.server.treecache import TreeCache
from runyard.snapshot.freeze import freeze
from runyard.wire import gitobjects
from runyard.wire.errors import InvalidError, NotFoundError, UnavailableError
from tests.server.harness import Running, until


@pytest.fixture
def tree(server: Running, tmp_path: Path) -> str:
    (tmp_path / "a.py").write_text("print(1)\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_bytes(bytes(range(256)) * 10)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return str(freeze(str(tmp_path), server.home.path).main.tree)


def test_tree(server: Running, tree: str):
    with server.tcp(server.token("agent")) as http:
        first = http.open("GET", f"/api/v1/trees/{tree}.tar").read()
        assert server.context.trees.get(tree) == first
        assert http.open("GET", f"/api/v1/trees/{tree}.tar").read() == first
        with tarfile.open(fileobj=io.BytesIO(first)) as tar:
            names = {member.name for member in tar if member.isfile()}
            assert names == {"a.py", "sub/b.txt"}
            member = tar.extractfile("sub/b.txt")
            assert member is not None
            assert member.read() == bytes(range(256)) * 10
        with pytest.raises(NotFoundError):
            http.open("GET", f"/api/v1/trees/{'1' * 40}.tar")
        with pytest.raises(InvalidError):
            http.open("GET", "/api/v1/trees/HEAD.tar")


def test_a_client_that_reads_slowly_keeps_no_lock_on_the_snapshots(server: Running, tmp_path: Path):
    """Nor does one that goes away; the tar of one that reads on is whole, and no file of it is left."""
    (tmp_path / "big.bin").write_bytes(os.urandom(40 << 20))
    tree = freeze(str(tmp_path), server.home.path).main.tree
    names = sorted(os.listdir(server.home.path))
    with server.http() as slow, server.http() as gone:
        response = slow.open("GET", f"/api/v1/trees/{tree}.tar")
        gone.open("GET", f"/api/v1/trees/{tree}.tar")
        gone.close()
        with open(os.path.join(server.home.snapshots, "lock"), "rb") as lock:
            until(lambda: not _is_held(lock.fileno()), 20.0)
        with tarfile.open(fileobj=io.BytesIO(response.read())) as tar:
            member = tar.extractfile("big.bin")
            assert member is not None
            assert member.read() == (tmp_path / "big.bin").read_bytes()
    assert server.context.trees.get(tree) is None, "it is too large to be held in memory"
    assert sorted(os.listdir(server.home.path)) == names


def _is_held(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(lock, fcntl.LOCK_UN)
    return False


def test_a_tree_that_is_damaged_never_looks_whole(server: Running, tmp_path: Path):
    (tmp_path / "whole.bin").write_bytes(os.urandom(1 << 20))
    (tmp_path / "z.txt").write_text("this object gets lost")
    tree = freeze(str(tmp_path), server.home.path).main.tree
    lost = gitobjects.object_id(b"blob", b"this object gets lost")
    os.unlink(os.path.join(server.home.snapshots, "objects", lost[:2], lost[2:]))
    with server.http() as http, pytest.raises((ConnectionError, UnavailableError)):
        http.open("GET", f"/api/v1/trees/{tree}.tar").read()
    assert server.context.trees.get(tree) is None


def test_cache_keeps_to_its_limit():
    cache = TreeCache(100)
    cache.put("large", bytes(26))
    assert cache.get("large") is None
    for number in range(10):
        cache.put(str(number), bytes(20))
        cache.get("0")
    assert cache.held == 100
    assert cache.get("0") is not None
    assert cache.get("5") is None
    cache.put("0", bytes(10))
    assert cache.held == 90


def test_metrics(server: Running):
    server.submit(hold=True)
    server.submit(resources={"host": "nowhere"})
    with server.client("socket") as client:
        client.get("/api/v1/runs/aaaaaaaaaaaa")
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    for line in lines:
        assert re.fullmatch(r'# (HELP|TYPE) \w+ .+|\w+(\{(\w+="[^"]*",?)*\})? [-+.e\d]+', line), line
    assert any(line.startswith('runyard_runs{state="held"} ') for line in lines)
    assert any(line.startswith("runyard_queue_age_seconds ") for line in lines)
    assert 'runyard_requests_total{method="GET",route="/api/v1/runs/{ref}",status="404"} 1' in lines
    assert float(next(li for li in lines if li.startswith("runyard_resident_bytes ")).split()[1]) > 1e6


def test_labels_are_escaped():
    text = metrics.family("x", "gauge", "Help.", [({"a": 'q"\\\n\udce9'}, 1)])
    assert text.splitlines()[2] == 'x{a="q\\"\\\\\\n\\\\udce9"} 1'


def test_log_lines_and_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logs, "MAX_BYTES", 2000)
    root = logging.getLogger()
    level, path = root.level, tmp_path / "server.log"
    handler = logs.start(str(path), foreground=False)
    try:
        for number in range(200):
            handler.handle(logging.makeLogRecord({"levelname": "INFO", "msg": "message %d \udce9", "args": (number,)}))
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["server.log", "server.log.1", "server.log.2"]
    assert all(p.stat().st_size <= 2000 for p in tmp_path.iterdir())
    last = path.read_text().splitlines()[-1]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    \[-\] message 199 \\udce9", last)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]+\.\d{3}Z ERROR   \[-\] text\n", logs.line("ERROR", "text"))


def test_the_edge_knows_the_fields_of_a_run_spec():
    assert set(RunSpec.model_fields) == set(FIELDS)
