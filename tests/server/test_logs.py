"""Logs: any part, and as they grow."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest

from runyard.cli.follow import pieces
from runyard.client.api import Api
from runyard.wire.errors import ConflictError, UnavailableError
from tests.server.harness import Running, until


def test_parts(server: Running):
    run, assignment = server.start()
    server.log_file(run).write_bytes(b"0123456789")
    url = f"/api/v1/runs/{run['id']}/log"
    with server.client("socket") as client:
        for query, part, start in (
            ("", b"0123456789", 0), ("?offset=4", b"456789", 4), ("?offset=-3", b"789", 7), ("?limit=2", b"01", 0),
            ("?offset=8&limit=5", b"89", 8), ("?offset=99", b"", 10), ("?offset=-99&limit=1", b"0", 0),
            ("?attempt=1", b"0123456789", 0),
        ):  # fmt: skip
            answer = client.get(url + query)
            assert answer.content == part, query
            assert answer.headers["x-log-size"] == "10"
            assert answer.headers["x-log-offset"] == str(start)
            assert answer.headers["x-log-end"] == "false"
        assert client.get(url + "?attempt=2").status_code == 404
        server.finish(assignment)
        assert client.get(url).headers["x-log-end"] == "true"


def test_a_run_that_has_not_started_has_an_empty_log(server: Running):
    run = server.submit(hold=True)
    with server.client("socket") as client:
        answer = client.get(f"/api/v1/runs/{run['id']}/log")
    assert (answer.content, answer.headers["x-log-end"]) == (b"", "false")


class Follower(threading.Thread):
    """Follows a log with the project's own client; keeps what came and when."""

    def __init__(self, server: Running, run: str, offset: int = 0) -> None:
        super().__init__(daemon=True)
        self.http = server.http()
        self.path = f"/api/v1/runs/{run}/log?follow=true&offset={offset}"
        self.data = b""
        self.at = 0.0
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            with self.http:
                for piece in self.http.stream("GET", self.path):
                    self.data += piece
                    self.at = time.monotonic()
        except UnavailableError as exc:
            self.error = exc

    def has(self, data: bytes) -> Callable[[], bool]:
        return lambda: self.data == data


def test_follow_a_growing_log_to_its_end(server: Running):
    run, assignment = server.start()
    follower = Follower(server, run["id"])
    log = server.log_file(run)
    expected = b""
    delays = []
    with log.open("wb", buffering=0) as file:
        for number in range(20):
            line = b"line %d\n" % number
            expected += line
            sent = time.monotonic()
            file.write(line)
            until(follower.has(expected))
            delays.append(follower.at - sent)
        big = os.urandom(3_000_000)
        file.write(big)
        until(follower.has(expected + big))
        assert follower.is_alive()
        file.write(b"last")
    server.finish(assignment)
    follower.join(10)
    assert not follower.is_alive()
    assert follower.data == expected + big + b"last"
    assert follower.error is None
    assert sorted(delays)[len(delays) // 2] < 0.2


def test_follow_from_an_offset_before_the_log_exists(server: Running):
    run, assignment = server.start()
    follower = Follower(server, run["id"], offset=3)
    log = server.log_file(run)
    assert not log.exists()
    log.write_bytes(b"abcdef")
    until(follower.has(b"def"))
    server.finish(assignment)
    follower.join(10)
    assert follower.error is None


def test_follow_of_an_ended_run_ends_at_once(server: Running):
    run, assignment = server.start()
    server.log_file(run).write_bytes(b"all of it")
    server.finish(assignment)
    follower = Follower(server, run["id"], offset=-2)
    follower.join(10)
    assert (follower.data, follower.error) == (b"it", None)


def test_a_stream_is_that_of_one_attempt(server: Running):
    run, assignment = server.start(retries=1)
    log = server.log_file(run)
    log.write_bytes(b"first")
    follower = Follower(server, run["id"])
    until(follower.has(b"first"))
    server.finish(assignment, exit_code=1)
    again = server.take(run)
    (log.parent / "log.2").write_bytes(b"second")
    follower.join(10)
    assert (follower.data, follower.error) == (b"first", None)
    with server.http() as http:
        assert http.open("GET", f"/api/v1/runs/{run['id']}/log").headers["x-log-attempt"] == "2"
    server.finish(again)


@pytest.mark.parametrize("breaks", [False, True], ids=["", "the connection breaks"])
def test_following_a_run_shows_each_attempt_whole(server: Running, breaks: bool):
    run, assignment = server.start(retries=1)
    log = server.log_file(run)
    log.write_bytes(b"first ")
    with Api("unix:" + server.socket) as api:
        shown = pieces(api, run["id"])
        assert next(shown) == b"first "
        log.write_bytes(b"first more ")
        server.finish(assignment, exit_code=1)
        again = server.take(run)
        (log.parent / "log.2").write_bytes(b"second")
        server.finish(again)
        if breaks:
            api.http._sock.shutdown(2)  # type: ignore[union-attr]
        assert b"".join(shown) == b"more second"


def test_when_the_server_stops_a_follower_learns_that_the_log_was_not_at_its_end(own_server: Running):
    run, _ = own_server.start()
    own_server.log_file(run).write_bytes(b"some")
    follower = Follower(own_server, run["id"])
    until(follower.has(b"some"))
    own_server.loop.call_soon_threadsafe(own_server.context.stop)
    follower.join(5)
    assert not follower.is_alive()
    assert isinstance(follower.error, UnavailableError)


def test_nobody_looks_at_files_when_nobody_follows(server: Running):
    run, assignment = server.start()
    server.log_file(run).write_bytes(b"x")
    follower = Follower(server, run["id"])
    until(follower.has(b"x"))
    assert server.context.growth.watched == 1
    follower.http._sock.shutdown(2)  # type: ignore[union-attr]  # the client goes away
    until(lambda: server.context.growth.watched == 0)
    until(lambda: not server.context.growth.looking)
    server.finish(assignment)


def test_append(server: Running):
    run, assignment = server.start()
    url = f"/api/v1/attempts/{assignment['attempt']}/log?offset="
    data = os.urandom(5_000_000)
    with server.http() as http:
        put = lambda offset, piece: http.open("PUT", url + str(offset), piece)  # noqa: E731
        assert put(0, data[:1000]).read() == b'{"size":1000}'
        assert put(500, data[500:3_000_000]).read() == b'{"size":3000000}'  # what is held already is dropped
        assert put(0, b"").read() == b'{"size":3000000}'
        with pytest.raises(ConflictError) as caught:
            put(4_000_000, data[4_000_000:])
        assert caught.value.details["size"] == 3_000_000
        assert put(3_000_000, data[3_000_000:]).read() == b'{"size":5000000}'
    assert server.log_file(run).read_bytes() == data
