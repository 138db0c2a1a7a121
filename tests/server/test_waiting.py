"""Long polls: woken at once, and free of cost while they wait."""

from __future__ import annotations

import os
import socket
import statistics
import threading
import time
from typing import Any

from tests.server.harness import AGENT, HELLO, Running, until


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def open_polls(server: Running, count: int, wait_s: float = 60.0) -> list[socket.socket]:
    body = b'{"known": [], "wait_s": %g}' % wait_s
    polls = []
    for number in range(count):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        sock.connect(server.socket)
        head = (
            f"POST /api/v1/agents/idle{number}/poll HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        sock.sendall(head.encode() + body)
        polls.append(sock)
    return polls


def test_idle_polls_hold_no_threads_and_leave_when_their_clients_do(own_server: Running):
    server = own_server
    with server.http() as http:
        http.json("GET", "/api/v1/runs")
    polls = open_polls(server, 200)
    until(lambda: server.context.hub.waiting == 200)
    limit = 24 + 8  # the pool may have grown to its limit while they came in, and no further
    assert threads() <= limit + threading.active_count() - 24
    with server.http() as http:  # and the server answers as before
        started = time.monotonic()
        http.json("GET", "/api/v1/runs")
        assert time.monotonic() - started < 15
    until(lambda: server.yard.context.db.engine.pool.checkedout() == 0)  # type: ignore[attr-defined]
    for sock in polls:
        sock.close()
    until(lambda: server.context.hub.waiting == 0)


def test_a_poll_wakes_within_50_ms(server: Running):
    with server.http() as http:
        http.json("PUT", "/api/v1/agents/" + AGENT, HELLO)
    delays, plain = [], []
    for _ in range(9):
        with server.http() as http:  # what a poll costs on this machine just now, when there is nothing to wait for
            started = time.monotonic()
            http.json("POST", f"/api/v1/agents/{AGENT}/poll", {"known": server.known, "wait_s": 0})
            plain.append(time.monotonic() - started)
        came: dict[str, Any] = {}

        def poll(came: dict[str, Any] = came) -> None:
            with server.http() as http:
                url = f"/api/v1/agents/{AGENT}/poll"
                answer = http.json("POST", url, {"known": server.known, "wait_s": 20})
                came.update(answer, at=time.monotonic())

        thread = threading.Thread(target=poll)
        thread.start()
        until(lambda: server.context.hub.waiting == 1)
        server.context.hub.notify("agent:somebody else")
        rang: list[float] = []

        def note(topic: str, rang: list[float] = rang) -> None:
            if topic.startswith("agent:"):
                rang.append(time.monotonic())

        end = server.yard.subscribe(note)
        server.submit()
        thread.join(20)
        end()
        assert came["assign"]
        server.known.extend(item["attempt"] for item in came["assign"])
        delays.append(came["at"] - rang[0])
    assert statistics.median(delays) < 0.05 + 2 * statistics.median(plain), (delays, plain)


def test_a_poll_ends_when_its_time_is_over(server: Running):
    with server.http() as http:
        started = time.monotonic()
        answer = http.json("POST", "/api/v1/agents/nobody/poll", {"known": [], "wait_s": 0.2})
        assert 0.2 <= time.monotonic() - started < 5
    assert answer == {"assign": [], "stop": [], "drain": False}


def test_polls_end_when_the_server_stops(own_server: Running):
    polls = open_polls(own_server, 3)
    until(lambda: own_server.context.hub.waiting == 3)
    started = time.monotonic()
    own_server.loop.call_soon_threadsafe(own_server.context.stop)
    for sock in polls:
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        sock.close()
    assert time.monotonic() - started < 15


def test_wait_for_the_end_of_a_run(server: Running):
    run, assignment = server.start()
    url = f"/api/v1/runs/{run['id']}/wait?timeout="
    with server.http() as http:
        assert http.json("GET", url + "0.05")["state"] == "running"
        answer: dict[str, Any] = {}

        def wait() -> None:
            with server.http() as waiting:
                answer.update(waiting.json("GET", url + "20"))

        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: server.context.hub.waiting == 1)
        server.finish(assignment)
        thread.join(10)
        assert answer["state"] == "finished"
        started = time.monotonic()
        assert http.json("GET", url + "20")["state"] == "finished"
        assert time.monotonic() - started < 15
