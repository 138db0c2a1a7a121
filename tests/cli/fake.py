"""A small server that speaks the protocol for the command line, in memory: real HTTP over a real Unix socket or TCP."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
import time
from array import array
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from runyard import __version__
from runyard.wire import errors, files, paths, procs

Json = dict[str, Any]
NOW = "2026-11-20T09:30:05.000000Z"


class FakeYard:
    """State of the server. Tests read and change it directly."""

    def __init__(self) -> None:
        self.runs: dict[str, Json] = {}
        self.specs: dict[str, Json] = {}
        self.envs: dict[str, dict[str, str]] = {}
        self.logs: dict[str, bytes] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.media: dict[str, list[Json]] = {}
        self.trees: dict[str, bytes] = {}
        self.tokens: list[Json] = []
        self.requests: list[tuple[str, str]] = []
        self.version = __version__
        self.url = "http://127.0.0.1:8086"
        self.token = ""
        self.hints: list[str] = []
        self.refusal: errors.RunyardError | None = None
        """What a search is answered with."""
        self.table: Json = {}
        self.series: dict[tuple[str, str], list[float]] = {}
        """Values by run and metric; step and time are counted from 0."""
        self.changed = threading.Condition()

    def submit(self, spec: Json) -> Json:
        env = spec.pop("env", {})
        old = self.specs.get(spec["id"])
        if old is not None and old != spec:
            raise errors.ConflictError("another run has this id")
        self.specs[spec["id"]] = spec
        self.envs[spec["id"]] = env
        fields = ("id", "project", "name", "message", "tags", "command", "cwd", "priority", "resources", "snapshot")
        self.runs[spec["id"]] = {
            **{name: spec[name] for name in fields},
            "user": "somebody", "state": "held" if spec["hold"] else "queued", "phase": None, "wait_reasons": [],
            "created_at": NOW, "started_at": None, "ended_at": None, "end": None, "attempts": [], "host": None,
            "slots": [], "outputs": [], "params": {}, "metrics": {}, "data": [], "run_dir": "/nowhere",
            "program": spec["program"], "source": spec["source"], "repo_name": spec["repo_name"],
            "links": spec["links"], "also": spec.get("also", []), "environment": spec.get("environment"),
            "code_frozen": not spec["in_place"], "trashed": False,
        }  # fmt: skip
        return self.runs[spec["id"]]

    def find(self, ref: str) -> Json:
        if ref == "@last" and self.runs:
            return list(self.runs.values())[-1]
        found = [r for i, r in self.runs.items() if i.startswith(ref)]
        found = found or [r for r in self.runs.values() if r["name"] == ref]
        if not found:
            raise errors.NotFoundError("there is no run %r" % ref, "see the runs with: runyard ls")
        if len(found) > 1:
            raise errors.AmbiguousError("%r fits %d runs" % (ref, len(found)), "give more characters of the id")
        return found[0]

    def end(self, ref: str, exit_code: int | None = 0, signal: int | None = None, reason: str = "exited") -> None:
        with self.changed:
            run = self.find(ref)
            run["state"] = "finished" if exit_code == 0 else "killed" if reason == "stopped" else "failed"
            run["started_at"], run["ended_at"] = NOW, NOW
            run["end"] = {"exit_code": exit_code, "signal": signal, "reason": reason, "origin": "user"}
            self.changed.notify_all()

    def write(self, ref: str, data: bytes) -> None:
        with self.changed:
            run_id = self.find(ref)["id"]
            self.logs[run_id] = self.logs.get(run_id, b"") + data
            self.changed.notify_all()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    yard: FakeYard

    def address_string(self) -> str:
        return "local"

    def log_message(self, *args: Any) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            super().handle()

    def _answer(self, value: Any, status: int = 200) -> None:
        self._bytes(json.dumps(value).encode(), status)

    def _bytes(self, data: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(data)

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        self.lists = parse_qs(parts.query)
        words = [unquote(word) for word in parts.path.strip("/").split("/")]
        self.yard.requests.append((self.command, self.path))
        try:
            if (
                self.yard.token
                and words != ["health"]
                and self.headers.get("Authorization") != "Bearer " + self.yard.token
            ):
                raise errors.AuthError("no credential", "RUNYARD_TOKEN")
            self._route(words, json.loads(body) if body else {})
        except errors.RunyardError as exc:
            self._answer(exc.body(), exc.status)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _handle  # noqa: N815

    def _route(self, words: list[str], body: Any) -> None:
        yard = self.yard
        if words == ["health"]:
            self._answer({"status": "ok", "version": yard.version, "yard": "yard1"})
        elif words[2:] == ["status"]:
            self._answer(
                {
                    "url": yard.url,
                    "version": yard.version,
                    "pid": 1,
                    "home": "/h",
                    "host": "box",
                    "counts": {"queued": 1},
                    "slots": [],
                    "agents": [],
                    "disk": {"free": 1 << 30},
                    "paused": None,
                    "started_at": NOW,
                    "database": "sqlite",
                }
            )
        elif words[2] == "tokens":
            self._tokens(words[3:], body)
        elif words[2] == "trees":
            self._bytes(yard.trees[words[3].removesuffix(".tar")])
        elif words[2] == "open":
            self._answer({"url": yard.url + "/open#secret"})
        elif words[2] == "du":
            self._answer(
                {
                    "home": "/h",
                    "parts": {"runs": {"bytes": 1 << 20, "inodes": 2}},
                    "projects": {},
                    "total": 1,
                    "free": 2,
                }
            )
        elif words[2] == "gc":
            self._answer(
                {"code": {"runs": 2, "bytes": 5 << 20}, "checkpoints": {"files": []}, "done": body["do"],
                 "snapshots": {"trees": 1, "bytes": 3 << 20}}
            )  # fmt: skip
        elif words[2] == "backup":
            Path(body["path"]).write_bytes(b"x" * 2048)
            self._answer({"path": body["path"], "size": 2048})
        elif words[2] in ("runs", "table") and len(words) == 3:
            if self.yard.refusal is not None:
                raise self.yard.refusal
            self._list() if words[2] == "runs" else self._answer(self.yard.table)
        else:
            self._run(words[3], words[4:], body)

    def _tokens(self, rest: list[str], body: Any) -> None:
        if self.command == "POST":
            self.yard.tokens.append({"name": body["name"], "scope": body["scope"], "created_at": NOW})
            self._answer({"name": body["name"], "token": "ryt_secret"})
        elif self.command == "DELETE":
            self.yard.tokens = [t for t in self.yard.tokens if t["name"] != rest[0]]
            self._answer({"ok": True})
        else:
            self._answer({"tokens": self.yard.tokens})

    def _list(self) -> None:
        found = [r for r in reversed(self.yard.runs.values()) if r["trashed"] == (self.query.get("trashed") == "true")]
        found = [r for r in found if r.get("archived", False) == (self.query.get("archived") == "true")]
        for key in ("project", "user", "name"):
            if key in self.query:
                found = [r for r in found if r[key] == self.query[key]]
        if "state" in self.query:
            found = [r for r in found if r["state"] in self.lists["state"]]
        if "q" in self.query:
            found = [r for r in found if self.query["q"] in " ".join(r["command"]) + r["message"]]
        start, limit = int(self.query.get("before", 0)), int(self.query.get("limit", 2))
        more = start + limit < len(found)
        page = found[start : start + limit]
        if self.query.get("outputs") != "true":
            page = [{name: value for name, value in run.items() if name != "outputs"} for run in page]
        self._answer({"runs": page, "next": str(start + limit) if more else None, "hints": self.yard.hints})

    def _run(self, ref: str, rest: list[str], body: Any) -> None:
        yard = self.yard
        if self.command == "PUT":
            with yard.changed:
                self._answer(yard.submit(body))
                yard.changed.notify_all()
            return
        run = yard.find(ref)
        if rest == ["log"]:
            self._log(run["id"])
        elif rest == ["outputs"]:
            self._answer({"outputs": run["outputs"]})
        elif rest[:1] == ["files"]:
            data = yard.files.get(run["id"], {}).get("/".join(rest[1:]))
            if data is None:
                raise errors.NotFoundError("there is no such output", "runyard outputs")
            self._bytes(data)
        elif rest == ["wait"]:
            with yard.changed:
                yard.changed.wait_for(lambda: run["ended_at"], float(self.query["timeout"]))
            self._answer(run)
        elif rest == ["media"]:
            self._answer({"media": yard.media.get(run["id"], [])})
        elif rest[:1] == ["media"]:
            self._bytes(yard.files[run["id"]][rest[1]])
        elif rest == ["series"]:
            self._series(yard.series[run["id"], self.query["metric"]])
        elif rest == ["events"]:
            self._answer({"events": []})
        else:
            self._change(run, rest, body)

    def _series(self, values: list[float]) -> None:
        head = json.dumps({"metric": "", "count": len(values), "points": len(values)}).encode() + b"\n"
        steps = array("q", range(len(values)))
        self._bytes(head + steps.tobytes() + steps.tobytes() + array("d", values).tobytes())

    def _change(self, run: Json, rest: list[str], body: Any) -> None:
        if self.command == "PATCH":
            tags = [t for t in run["tags"] if t not in body.get("remove_tags", [])] + body.get("add_tags", [])
            run.update({k: v for k, v in body.items() if not k.endswith("_tags")}, tags=tags)
        elif self.command == "DELETE":
            if run["state"] == "running":
                raise errors.ConflictError("%s is running" % run["id"], "runyard kill %s" % run["id"])
            run["trashed"] = True
            self._bytes(b"", 204)
            return
        elif rest == ["kill"]:
            self.yard.end(run["id"], None, 9 if body["now"] else 15, "stopped")
        elif rest in (["hold"], ["release"]):
            run["state"] = {"hold": "held", "release": "queued"}[rest[0]]
        elif rest == ["restore"]:
            run["trashed"] = False
        self._answer(run)

    def _ended(self, run_id: str) -> bool:
        return bool(self.yard.runs[run_id]["ended_at"])

    def _log(self, run_id: str) -> None:
        data = self.yard.logs.get(run_id, b"")
        offset = int(self.query.get("offset", 0))
        if self.query.get("follow") == "true":
            self._follow(run_id, offset)
            return
        start = max(len(data) + offset, 0) if offset < 0 else offset
        piece = data[start:][: int(self.query.get("limit", len(data)))]
        self._bytes(piece, X_Log_Size=str(len(data)), X_Log_End="true" if self._ended(run_id) else "false",
                    X_Log_Attempt="1")  # fmt: skip

    def _follow(self, run_id: str, offset: int) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("X-Log-Attempt", "1")
        self.end_headers()
        while True:
            with self.yard.changed:
                while len(self.yard.logs.get(run_id, b"")) <= offset and not self._ended(run_id):
                    self.yard.changed.wait(20)
                data, done = self.yard.logs.get(run_id, b"")[offset:], self._ended(run_id)
            if data:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                offset += len(data)
            elif done:
                self.wfile.write(b"0\r\n\r\n")
                return


class Connections(socketserver.ThreadingMixIn):
    """Remembers its connections, so that they can be broken off."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def process_request(self, request: Any, client_address: Any) -> None:
        self.__dict__.setdefault("open", []).append(request)
        super().process_request(request, client_address)

    def break_off(self) -> None:
        for request in self.__dict__.pop("open", []):
            try:
                request.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed already


class UnixServer(Connections, socketserver.UnixStreamServer):
    pass


class TcpServer(Connections, socketserver.TCPServer):
    pass


def serve(yard: FakeYard, address: str | tuple[str, int]) -> UnixServer | TcpServer:
    """Serve a yard in a thread; the caller calls shutdown() and server_close()."""
    handler = type("YardHandler", (Handler,), {"yard": yard})
    server: UnixServer | TcpServer
    server = UnixServer(address, handler) if isinstance(address, str) else TcpServer(address, handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


def write_server_json(home: Path, pid: int, yard: FakeYard, **changes: Any) -> None:
    """Write a server.json that names this process as the server."""
    place = paths.Home(str(home))
    info = {
        "yard": "yard1", "host_id": paths.host_id(), "host": "box", "boot_id": procs.boot_id(), "pid": pid,
        "pid_start": procs.start_time(pid), "url": yard.url, "socket": place.socket(),
        "token": "t", "version": __version__,
    }  # fmt: skip
    files.write_json(place.server_json, {**info, **changes})


def until(condition: Any, seconds: float = 20.0) -> Any:
    """Poll a condition until it is true; fail after a deadline."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError("the condition did not become true in time")
