"""Notices and upkeep, beside everything else."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from runyard.server import chores
from tests.server.harness import running, until


@pytest.fixture
def sink() -> Iterator[tuple[str, list[str]]]:
    """A web hook on loopback: its address for Apprise, and what it got."""
    got: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"json://127.0.0.1:{server.server_port}", got
        server.shutdown()
        thread.join()


def test_a_notice_of_the_end_of_a_run(home: Path, sink: tuple[str, list[str]]):
    address, got = sink
    with running(home, notify=[address]) as server:
        run, assignment = server.start(message="look at me")
        server.finish(assignment, exit_code=3)
        until(lambda: got, 30)
        notice = json.loads(got[0])
        assert "failed" in notice["title"]
        assert "look at me" in notice["message"]
        assert f"{server.url}/runs/{run['id']}" in notice["message"]
    assert len(got) == 1


def test_an_address_that_hangs_holds_nothing_up(home: Path):
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"json://127.0.0.1:{silent.getsockname()[1]}"
        with running(home, notify=[address], notify_timeout=1.0) as server:
            for _ in range(3):
                _, assignment = server.start()
                assert server.finish(assignment) == "accepted"


def test_outputs_are_hashed_in_the_background(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chores, "UPKEEP_AFTER_END_S", 0.05)
    with running(home) as server:
        run, assignment = server.start()
        data = b"weights" * 1000
        output = {"path": "model.pt", "size": len(data), "mtime_us": 1, "type": ""}
        with server.http() as http:
            url = f"/api/v1/attempts/{assignment['attempt']}"
            http.json("PUT", url + "/outputs", {"outputs": [output]})
            http.open("PUT", url + "/files/model.pt", data).read()
            server.finish(assignment)
            digest = until(lambda: http.json("GET", "/api/v1/runs/" + run["id"])["outputs"][0]["sha256"])
        assert digest == hashlib.sha256(data).hexdigest()
