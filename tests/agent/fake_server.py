"""A real HTTP server with a scripted yard behind it: it keeps the protocol, and breaks it on demand."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import re
import struct
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from runyard.wire import gitobjects, ids, spool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DROP_BEFORE, DROP_AFTER, NONSENSE = "drop before", "drop after", "nonsense"
"""Close the connection before or after the request has had its effect; answer with something else."""
PROXY_401 = "401 of a proxy"


def make_tree(files: Mapping[str, bytes | str]) -> tuple[str, bytes]:
    """Return the name and the tar of a tree of these files (bytes; a string starting with ``->`` is a symlink)."""
    entries, buffer = [], io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            path = name.encode()
            if isinstance(content, str) and content.startswith("->"):
                info.type, info.linkname = tarfile.SYMTYPE, content[2:]
                tar.addfile(info)
                entries.append(
                    gitobjects.Entry(path, gitobjects.SYMLINK, gitobjects.object_id(b"blob", content[2:].encode()))
                )
                continue
            data = content.encode() if isinstance(content, str) else content
            info.size, info.mode = len(data), 0o755 if name.endswith(".sh") else 0o644
            tar.addfile(info, io.BytesIO(data))
            mode = gitobjects.EXECUTABLE if info.mode & 0o100 else gitobjects.FILE
            entries.append(gitobjects.Entry(path, mode, gitobjects.object_id(b"blob", data)))
    return gitobjects.tree_id(entries), buffer.getvalue()


class FakeYard:
    """What the server remembers, and how it misbehaves. All of it under one lock."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.yard = "yard-of-the-test"
        self.trees: dict[str, bytes] = {}
        self.pending: dict[str, dict[str, Any]] = {}
        """Assignments that no agent has named as known yet."""
        self.repeat_assignments = False
        """Assign again and again, whatever the agent says it knows."""
        self.stops: dict[str, dict[str, Any]] = {}
        self.stops_sent: dict[str, tuple[float, float]] = {}
        """When each stop was last sent, and with which grace; sent again until the agent says that it is stopping."""
        self.phases: dict[str, list[str]] = {}
        self.refuse_phase: dict[str, str] = {}
        """Attempt id: phase that is answered with 409 ``stale``."""
        self.ends: dict[str, list[dict[str, Any]]] = {}
        self.fails_over = ""
        """Attempt id: ends that are sent with this one's are answered with 500."""
        self.result = "accepted"
        self.handed_back: dict[str, str] = {}
        self.hellos: list[dict[str, Any]] = []
        self.heartbeats: list[dict[str, Any]] = []
        self.verdicts: dict[str, dict[str, Any]] = {}
        self.drain = False
        self.heartbeat_s = 0.5
        self.logs: dict[str, bytes] = {}
        self.outputs: dict[str, list[dict[str, Any]]] = {}
        self.files: dict[tuple[str, str], bytes] = {}
        self.records: dict[tuple[str, str], list[spool.Record]] = {}
        """What was logged: the records of each stream of each attempt."""
        self.own: list[dict[str, Any]] = []
        """Specs of runs that programs began by themselves."""
        self.knows_agents = True
        self.token = ""
        """The only token that is taken; ``""``: any."""
        self.requests: list[tuple[str, str]] = []
        self.shown: set[str] = set()
        """Values of the Authorization header."""
        self.faults: list[tuple[str, str, str, int]] = []
        self.late_s = 0.0
        self.stopped_at = 0.0

    def fault(self, kind: str, method: str, pattern: str, times: int = 1) -> None:
        """Misbehave for the next ``times`` requests whose path matches."""
        with self.changed:
            self.faults.append((kind, method, pattern, times))

    def take_fault(self, method: str, path: str) -> str:
        """Return how to misbehave for this request, ``""`` for not at all."""
        with self.changed:
            self.requests.append((method, path))
            for number, (kind, wanted, pattern, times) in enumerate(self.faults):
                if method == wanted and re.search(pattern, path):
                    self.faults[number] = (kind, wanted, pattern, times - 1)
                    if times <= 1:
                        del self.faults[number]
                    return kind
        return ""

    def assign(self, attempt: dict[str, Any]) -> str:
        """Hand out an assignment with the next poll; returns the attempt's id."""
        with self.changed:
            self.pending[attempt["attempt"]] = attempt
            self.changed.notify_all()
        return str(attempt["attempt"])

    def stop(self, attempt: str, grace_s: float = 30.0, reason: str = "stopped", origin: str = "human") -> None:
        """Ask for a stop with the next poll."""
        with self.changed:
            self.stops[attempt] = {"attempt": attempt, "grace_s": grace_s, "reason": reason, "origin": origin}
            self.changed.notify_all()

    def end_of(self, attempt: str) -> dict[str, Any] | None:
        """Return the first end that was reported of an attempt."""
        with self.changed:
            ends = self.ends.get(attempt)
            return ends[0] if ends else None

    def size(self, attempt: str) -> int:
        with self.changed:
            return len(self.logs.get(attempt, b""))

    # -- requests

    def answer(self, method: str, path: str, query: Mapping[str, list[str]], body: bytes) -> tuple[int, Any]:
        """Carry out a request; returns status and JSON value (or bytes)."""
        if path == "/health":
            return 200, {"status": "ok", "version": "0", "yard": self.yard}
        parts = path.split("/")[3:]
        if parts[0] == "trees":
            data = self.trees.get(parts[1].partition(".")[0])
            return (200, data) if data is not None else _error(404, "not_found", "no such tree")
        if parts[0] == "agents":
            return self._agent(method, parts, json.loads(body))
        if parts[1:] == ["finish"]:
            return self._finish(json.loads(body))
        return self._attempt(method, parts[1], parts[2:], query, body)

    def _agent(self, method: str, parts: list[str], body: dict[str, Any]) -> tuple[int, Any]:
        with self.changed:
            if method == "PUT":
                self.hellos.append(body)
                self.knows_agents = True
                return 200, {
                    "yard": self.yard, "server_time": time.time_ns() // 1000, "lease_s": 60.0,
                    "heartbeat_s": self.heartbeat_s, "attempts": self._judge(body["attempts"]),
                }  # fmt: skip
            if not self.knows_agents:
                return _error(400, "invalid", "agent is unknown")
            if parts[2] == "heartbeat":
                self.heartbeats.append(body)
                return 200, {"attempts": self._judge(body["attempts"]), "drain": self.drain}
            if parts[2] == "runs":
                return self._begin(body["runs"])
            return 200, self._poll(body)

    def _begin(self, begun: list[dict[str, Any]]) -> tuple[int, Any]:
        """Take in runs that programs began by themselves; one of project ``refused`` is not wanted."""
        if any(item["run"]["project"] == "refused" for item in begun):
            return _error(422, "invalid", "as scripted")
        self.own += [item["run"] for item in begun]
        return 200, {
            "assign": [
                {"attempt": item["run"]["id"].encode().hex().ljust(32, "0")[:32], "run": item["run"]["id"], "epoch": 1,
                 "number": 1, "slots": [], "dir": "runs/own/" + item["run"]["id"], "grace_s": 1.0}
                for item in begun
            ]
        }  # fmt: skip

    def _judge(self, attempts: dict[str, Any]) -> dict[str, Any]:
        return {
            name: self.verdicts.get(name, {"verdict": "keep", "epoch": said["epoch"]})
            for name, said in attempts.items()
        }

    def _poll(self, body: dict[str, Any]) -> dict[str, Any]:
        known = set(body["known"])
        deadline = time.monotonic() + min(body["wait_s"], 5.0)
        while True:
            assign = [a for a in self.pending.values() if a["attempt"] not in known or self.repeat_assignments]
            stop = [self.stops[name] for name in self.stops if name in known and self._is_due(name)]
            if assign or stop or self.drain or time.monotonic() >= deadline:
                if stop:
                    self.stopped_at = time.monotonic()
                return {"assign": assign, "stop": stop, "drain": self.drain}
            self.changed.wait(min(0.5, deadline - time.monotonic()))

    def _is_due(self, attempt: str) -> bool:
        said = self.heartbeats[-1]["attempts"].get(attempt, {}) if self.heartbeats else {}
        sent, grace = self.stops_sent.get(attempt, (0.0, -1.0))
        if grace == self.stops[attempt]["grace_s"] and (
            said.get("phase") == "stopping" or time.monotonic() - sent < 0.5
        ):
            return False
        self.stops_sent[attempt] = (time.monotonic(), self.stops[attempt]["grace_s"])
        return True

    def _finish(self, body: dict[str, Any]) -> tuple[int, Any]:
        with self.changed:
            results = {}
            if self.fails_over in [end["attempt"] for end in body["ends"]]:
                return _error(500, "internal", "as scripted")
            for end in body["ends"]:
                known = self.ends.setdefault(end["attempt"], [])
                results[end["attempt"]] = "duplicate" if known else self.result
                known.append(end)
                self.pending.pop(end["attempt"], None)
            self.changed.notify_all()
            return 200, {"results": results}

    def _attempt(
        self, method: str, attempt: str, rest: list[str], query: Mapping[str, list[str]], body: bytes
    ) -> tuple[int, Any]:
        with self.changed:
            if rest == ["phase"]:
                phase = json.loads(body)["phase"]
                if self.refuse_phase.get(attempt) == phase:
                    self.pending.pop(attempt, None)
                    return _error(409, "stale", "this attempt is no longer the current one")
                self.phases.setdefault(attempt, []).append(phase)
                self.changed.notify_all()
                return 200, {"ok": True}
            if rest == ["hand-back"]:
                self.handed_back[attempt] = json.loads(body)["why"]
                self.pending.pop(attempt, None)
                return 200, {"ok": True}
            if rest == ["log"]:
                return self._log(attempt, int(query["offset"][0]), body)
            if rest[0] == "spool":
                return self._take_spool((attempt, rest[1]), int(query["first"][0]), "lost" in query, body)
            if rest == ["outputs"]:
                self.outputs[attempt] = json.loads(body)["outputs"]
                have = {path for owner, path in self.files if owner == attempt}
                return 200, {"wanted": [o["path"] for o in self.outputs[attempt] if o["path"] not in have]}
            self.files[attempt, "/".join(rest[1:])] = body
            return 200, {"size": len(body)}

    def _take_spool(self, key: tuple[str, str], first: int, lost: bool, body: bytes) -> tuple[int, Any]:
        held = self.records.setdefault(key, [])
        following = held[-1].number + 1 if held else 0
        if first > following and not lost:
            return _error(409, "conflict", "a gap", next=following)
        held += [record for record in spool.records(body) if record.number >= following]
        return 200, {"next": held[-1].number + 1 if held else 0}

    def rows(self, attempt: str) -> list[tuple[int, dict[str, float]]]:
        """Return what an attempt logged: step and values, by stream."""
        with self.changed:
            streams = [records for (owner, _), records in sorted(self.records.items()) if owner == attempt]
        return [row for records in streams for row in logged(records)]

    def _log(self, attempt: str, offset: int, body: bytes) -> tuple[int, Any]:
        held = self.logs.setdefault(attempt, b"")
        if offset > len(held):
            return _error(409, "conflict", "a gap", size=len(held))
        self.logs[attempt] = held + body[len(held) - offset :] if offset + len(body) > len(held) else held
        return 200, {"size": len(self.logs[attempt])}


def logged(records: list[spool.Record]) -> list[tuple[int, dict[str, float]]]:
    """Return step and values of all rows in records."""
    shapes: dict[int, list[str]] = {}
    found: list[tuple[int, dict[str, float]]] = []
    for record in records:
        if record.kind == spool.SHAPE:
            shapes[record.shape] = spool.parse_shape(record.body)
        elif record.kind == spool.ROW:
            names = shapes[record.shape]
            _, step, *values = struct.unpack("<qq%dd" % len(names), record.body)
            found.append((step, dict(zip(names, values, strict=True))))
        elif record.kind == spool.GROUP:
            found += logged(list(spool.records(record.body)))
    return found


def _error(status: int, code: str, message: str, **details: Any) -> tuple[int, Any]:
    return status, {"error": {"code": code, "message": message, "hint": "", "details": details}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while True:
            size = int(self.rfile.readline(), 16)
            data += self.rfile.read(size)
            self.rfile.readline()
            if not size:
                return data

    def _serve(self) -> None:
        yard, url = self.server.yard, urlsplit(self.path)
        fault = yard.take_fault(self.command, url.path)
        yard.shown.add(self.headers["Authorization"] or "")
        body = self._body()
        if fault == DROP_BEFORE:
            self.close_connection = True
            return
        if fault == "late":
            time.sleep(yard.late_s)
        if fault.isdigit():
            code = {"400": "invalid", "503": "unavailable"}.get(fault, "error")
            status, value = _error(int(fault), code, "as scripted")
        elif fault == PROXY_401:
            status, value = 401, b"<html>log in first</html>"
        elif yard.token and self.headers["Authorization"] != "Bearer " + yard.token and url.path != "/health":
            status, value = _error(401, "unauthorized", "this token is not known")
        else:
            status, value = yard.answer(self.command, unquote(url.path), parse_qs(url.query), body)
        if fault == DROP_AFTER or self.server.closed:
            self.close_connection = True
            return
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        if fault == NONSENSE:
            data = b"<html>welcome to the captive portal</html>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = _serve  # noqa: N815  names that http.server looks for


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    yard: FakeYard
    closed = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that the agent has left is no error."""


class FakeServer:
    """The yard behind a port that can be closed and opened again."""

    def __init__(self) -> None:
        self.yard = FakeYard()
        self.port = 0
        self._server: _Server | None = None
        self.up()

    @property
    def url(self) -> str:
        return "http://127.0.0.1:%d" % self.port

    def up(self) -> None:
        """Listen, at the same port as before."""
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.yard = self.yard
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Stop listening and answer nothing any more."""
        if self._server is not None:
            self._server.closed = True
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            with self.yard.changed:
                self.yard.changed.notify_all()


_slots = itertools.count()
CPU_SLOTS = 16


def assignment(tree: str, command: list[str], **changes: Any) -> dict[str, Any]:
    """Return an assignment as the server makes it; ``spec_*`` changes go into the spec."""
    run = ids.new_run_id()
    spec: dict[str, Any] = {
        "id": run, "project": "digits", "command": command, "program": command[0], "cwd": "",
        "source": "/nowhere/digits", "repo_name": "digits",
        "snapshot": {"tree": tree, "commit": hashlib.sha1(b"c").hexdigest(), "branch": "main"},
        "links": [], "pythonpath": [], "pty": True, "shell": False, "in_place": False, "time_limit_s": None,
    }  # fmt: skip
    spec.update({name[5:]: value for name, value in changes.items() if name.startswith("spec_")})
    value = {
        "attempt": ids.new_attempt_id(), "run": run, "epoch": 1, "number": 1, "resumed": False, "fresh": False,
        "slots": ["cpu%d" % (next(_slots) % CPU_SLOTS)], "token": "secret-of-the-run",
        "dir": "runs/digits/20261120-0930-" + run, "spec": spec,
        "env": {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root"}, "grace_s": 30.0,
    }  # fmt: skip
    value.update({name: change for name, change in changes.items() if not name.startswith("spec_")})
    return value


def wait_for(condition: Callable[[], Any], timeout: float = 15.0, what: str = "") -> Any:
    """Return the condition's value once it is true; fails after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError("waited in vain for %s" % (what or condition))
        time.sleep(0.01)
