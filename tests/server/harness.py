"""A real server in a thread of the test process: real sockets, real yard on SQLite; and a pretended agent over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from runyard.server import sockets
from runyard.server.context import Context
from runyard.server.process import Parts, serve_until
from runyard.services.yard import Yard, open_yard
from runyard.wire import files, settings
from runyard.wire.http import Http
from runyard.wire.ids import new_run_id
from runyard.wire.paths import Home

AGENT = "host1.somebody"
HELLO: dict[str, Any] = {
    "host": {"id": "host1", "name": "host1", "boot_id": "b", "cpus": 128, "mem": 1 << 33, "os": "Linux", "gpus": []},
    "user": "somebody", "uid": 1, "pid": 1, "version": "0", "shared_home": None, "attempts": {},
    "slots": [
        {"name": f"cpu{number}", "kind": "cpu", "index": number, "threads": 1, "free": True, "why": ""}
        for number in range(32)
    ],
}  # fmt: skip


def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait until a condition holds and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return value


def spec(**fields: Any) -> dict[str, Any]:
    """Return a run spec."""
    return {
        "id": new_run_id(), "project": "digits", "command": ["true"], "program": "/bin/true", "cwd": "",
        "source": "/nowhere", "repo_name": "digits", "snapshot": {"tree": "0" * 40}, **fields,
    }  # fmt: skip


class Running:
    """A server that runs, and ways to talk to it."""

    def __init__(self, home: Home, yard: Yard, context: Context, loop: asyncio.AbstractEventLoop) -> None:
        self.home = home
        self.yard = yard
        self.context = context
        self.loop = loop
        self.url = context.url
        self.socket = home.socket()
        self.known: list[str] = []

    def http(self, token: str = "") -> Http:
        """Return the project's own client, on the Unix socket."""
        return Http("unix:" + self.socket, token, timeout=20.0)

    def tcp(self, token: str = "") -> Http:
        """Return the project's own client, on TCP."""
        return Http(self.url, token, timeout=20.0)

    def token(self, scope: str) -> str:
        """Return a new token of a scope."""
        with self.http() as http:
            made = http.json("POST", "/api/v1/tokens", {"name": "t" + new_run_id(), "scope": scope})
        return str(made["token"])

    def client(self, door: str = "tcp", **options: Any) -> httpx.Client:
        """Return another client, on TCP or the Unix socket."""
        if door == "tcp":
            return httpx.Client(base_url=self.url, timeout=20, verify=False, **options)
        transport = httpx.HTTPTransport(uds=self.socket, verify=False)
        return httpx.Client(base_url="http://localhost", transport=transport, timeout=20, **options)

    def context_token(self) -> str:
        """Return the owner's token in server.json."""
        with open(self.home.server_json, encoding="ascii") as file:
            return str(json.load(file)["token"])

    def submit(self, **fields: Any) -> dict[str, Any]:
        """Queue a run."""
        body = spec(**fields)
        with self.http() as http:
            run: dict[str, Any] = http.json("PUT", "/api/v1/runs/" + body["id"], body)
        return run

    def start(self, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Queue a run, and take it to its phase running as an agent would; return the run and the assignment."""
        with self.http() as http:
            if not self.known:
                http.json("PUT", "/api/v1/agents/" + AGENT, HELLO)
            run = self.submit(**fields)
        return run, self.take(run)

    def take(self, run: dict[str, Any]) -> dict[str, Any]:
        """Wait for the assignment of a run and start it as an agent would."""
        with self.http() as http:
            found: list[dict[str, Any]] = []
            while not found:
                body = {"known": self.known, "wait_s": 10}
                answer = http.json("POST", f"/api/v1/agents/{AGENT}/poll", body)
                assert answer["assign"], "nothing was assigned"
                self.known += [item["attempt"] for item in answer["assign"]]
                found = [item for item in answer["assign"] if item["run"] == run["id"]]
            for phase in ("staging", "running"):
                body = {"epoch": found[0]["epoch"], "phase": phase}
                http.json("POST", f"/api/v1/attempts/{found[0]['attempt']}/phase", body)
        return found[0]

    def finish(self, assignment: dict[str, Any], exit_code: int = 0) -> str:
        """Report the end of an attempt as an agent would."""
        end = {
            "attempt": assignment["attempt"], "epoch": assignment["epoch"], "exit_code": exit_code, "signal": None,
            "reason": "exited", "origin": "user", "started_at": 1, "ended_at": time.time_ns() // 1000,
            "log_bytes": 0, "log_dropped": 0, "of_another_version": True,
        }  # fmt: skip
        with self.http() as http:
            answer = http.json("POST", "/api/v1/attempts/finish", {"ends": [end]})
        return str(answer["results"][assignment["attempt"]])

    def tree_dir(self, run: dict[str, Any]) -> Path:
        """Return the working tree of a run, made if it is not there."""
        with self.http() as http:
            path = Path(http.json("GET", "/api/v1/runs/" + run["id"])["run_dir"])
        path.mkdir(parents=True, exist_ok=True)
        (path.parent / ".runyard").mkdir(exist_ok=True)
        return path

    def log_file(self, run: dict[str, Any]) -> Path:
        """Return the log of a run's first attempt; its directory exists."""
        return self.tree_dir(run).parent / ".runyard" / "log.1"


@contextmanager
def running(path: Path, listen: str = "127.0.0.1", **options: Any) -> Iterator[Running]:
    """Run a server on a home, with these settings, until the block is left."""
    home = Home(str(path))
    sockets.private_directory(home.host_dir())
    os.makedirs(home.runs, exist_ok=True)
    values = settings.defaults()
    values.update({"min_free": "0", **options})
    yard = open_yard(home.path, values)
    tcp, unix = sockets.bind_tcp(listen), sockets.bind_unix(home.socket())
    lock = files.try_lock(home.server_lock)
    assert lock is not None
    parts = Parts(yard=yard, home=home, lock=lock, user="somebody", listen=listen, unix=unix, tcp=tcp, agent=None)
    state: dict[str, Any] = {}
    ready = threading.Event()

    def found(context: Context) -> None:
        state["context"] = context
        ready.set()

    async def main() -> None:
        state["loop"] = asyncio.get_running_loop()
        state["stop"] = asyncio.Event()
        await serve_until(parts, state["stop"], found)

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    try:
        assert ready.wait(20)
        yield Running(home, yard, state["context"], state["loop"])
    finally:
        if thread.is_alive():
            state["loop"].call_soon_threadsafe(state["stop"].set)
        thread.join(20)
        yard.close()
        tcp.close()
        unix.close()
        os.close(lock)
        assert not thread.is_alive()
