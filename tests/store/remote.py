"""The yard over HTTP: a real server on a Unix socket, in a thread of the tests, and the project's own client."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runyard.client.api import PREFIX, Api
from runyard.server import sockets
from runyard.server.app import create_app
from runyard.server.auth import Gates
from runyard.server.context import Context
from runyard.server.protocol import Server
from runyard.server.treecache import TreeCache
from runyard.server.waiting import Hub
from runyard.services.api import Actor, Json, Series
from runyard.services.yard import Yard
from runyard.testing.clock import ManualClock
from runyard.testing.stage import ME, Opened, Stage
from runyard.wire.paths import Home
from tests.store.backends import dump, open_inner


class Wire:
    """A server without a yard of its own: each stage lends it one."""

    def __init__(self, directory: Path) -> None:
        self._socket = sockets.bind_unix(str(directory / "api"))
        self.url = "unix:" + str(directory / "api")
        self._begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="server")
        self._thread.start()
        self._begun.wait(20)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.context = Context(
            yard=None, home=Home("/nonexistent"), gates=Gates(ME.user, "cookie", "local"), hub=Hub(self._loop),  # type: ignore[arg-type]
            url="http://localhost", hosts=frozenset({"localhost"}), facts={}, stop=self._stop.set, trees=TreeCache(),
        )  # fmt: skip
        server = Server(create_app(self.context), 1)
        serving = asyncio.create_task(server.serve([self._socket]))
        await server.ready.wait()
        self._begun.set()
        await self._stop.wait()
        server.should_exit = True
        await serving

    def lend(self, yard: Yard, home: Path) -> Callable[[], None]:
        """Let the server speak for this yard, until what is returned is called."""
        self.context.yard, self.context.home = yard, Home(str(home))
        return yard.subscribe(self.context.hub.notify)

    def close(self) -> None:
        """End the server."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)


@contextmanager
def wire() -> Iterator[Wire]:
    """Give a server on a socket of its own."""
    directory = Path(tempfile.mkdtemp(prefix="ry-wire-", dir=os.environ.get("TMPDIR", "/tmp")))
    made = Wire(directory)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(directory)


class Remote:
    """`YardService`, as far as it has routes, over HTTP. Who asks is who the connection says."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._local = threading.local()
        self._opened: list[Api] = []

    @property
    def api(self) -> Api:
        """The connection of this thread."""
        if not hasattr(self._local, "api"):
            self._local.api = Api(self._url)
            self._opened.append(self._local.api)
        api: Api = self._local.api
        return api

    def close(self) -> None:
        """Close the connections of all threads."""
        for api in self._opened:
            api.close()

    def _json(self, method: str, path: str, body: Any = None) -> Any:
        return self.api.http.json(method, PREFIX + path, body)

    def status(self) -> Json:
        return self.api.status()

    def submit(self, specs: Sequence[Json], env: Mapping[str, str] | None, _actor: Actor) -> list[str]:
        if len(specs) == 1:
            return [self.api.submit({**specs[0], "env": env})["id"]]
        return list(self._json("POST", "/runs", {"runs": list(specs), "env": env})["ids"])

    def run(self, ref: str, _actor: Actor) -> Json:
        return self.api.run(ref)

    def runs(self, filters: Mapping[str, Any], _actor: Actor) -> Json:
        return self.api.runs(**filters)

    def table(self, filters: Mapping[str, Any], _actor: Actor) -> Json:
        return self.api.table(**filters)

    def edit(self, ref: str, changes: Mapping[str, Any], _actor: Actor) -> Json:
        return self.api.edit(ref, dict(changes))

    def kill(self, ref: str, now: bool, _actor: Actor) -> Json:
        return self.api.kill(ref, now)

    def hold(self, ref: str, _actor: Actor) -> Json:
        return self.api.hold(ref)

    def release(self, ref: str, _actor: Actor) -> Json:
        return self.api.release(ref)

    def remove(self, ref: str, now: bool, _actor: Actor) -> None:
        self.api.remove(ref, now)

    def restore(self, ref: str, _actor: Actor) -> Json:
        return self.api.restore(ref)

    def events(self, ref: str, after: int, _actor: Actor) -> list[Json]:
        return [event for event in self.api.events(ref) if event["id"] > after]

    def begin_own(self, agent: str, begun: Sequence[Json]) -> list[Json]:
        return list(self._json("POST", f"/agents/{agent}/runs", {"runs": list(begun)})["assign"])

    def series(self, ref: str, metric: str, _actor: Actor, **options: Any) -> Series:
        found = self.api.series(ref, metric, **options)
        return Series(metric, found["count"], found["steps"], found["times"], found["values"])

    def media(self, ref: str, _actor: Actor) -> list[Json]:
        return self.api.media(ref)

    def append_spool(self, attempt: str, stream: str, first: int, data: bytes, lost: bool = False) -> int:
        path = f"{PREFIX}/attempts/{attempt}/spool/{stream}?first={first}" + ("&lost=true" if lost else "")
        return int(json.loads(self.api.http.open("PUT", path, data).read())["next"])

    def outputs(self, ref: str, _actor: Actor) -> list[Json]:
        return self.api.outputs(ref)

    def create_token(self, name: str, scope: str, lifetime_s: float | None, _actor: Actor) -> Json:
        return self.api.create_token(name, scope, lifetime_s)

    def tokens(self, _actor: Actor) -> list[Json]:
        return self.api.tokens()

    def revoke_token(self, name: str, _actor: Actor) -> None:
        self.api.revoke_token(name)

    def hello(self, agent: str, body: Json) -> Any:
        return self._json("PUT", "/agents/" + agent, body)

    def heartbeat(self, agent: str, body: Json) -> Any:
        return self._json("POST", f"/agents/{agent}/heartbeat", body)

    def poll(self, agent: str, known: Sequence[str]) -> Any:
        return self._json("POST", f"/agents/{agent}/poll", {"known": list(known), "wait_s": 0.0})

    def drain(self, agent: str, on: bool, _actor: Actor) -> Any:
        return self._json("POST", f"/agents/{agent}/drain", {"drain": on})

    def phase(self, attempt: str, epoch: int, phase: str) -> Any:
        return self._json("POST", f"/attempts/{attempt}/phase", {"epoch": epoch, "phase": phase})

    def finish(self, ends: Sequence[Json]) -> Any:
        return self._json("POST", "/attempts/finish", {"ends": list(ends)})["results"]

    def hand_back(self, attempt: str, epoch: int, why: str) -> Any:
        return self._json("POST", f"/attempts/{attempt}/hand-back", {"epoch": epoch, "why": why})

    def append_log(self, attempt: str, offset: int, data: bytes) -> int:
        path = f"{PREFIX}/attempts/{attempt}/log?offset={offset}"
        return int(json.loads(self.api.http.open("PUT", path, data).read())["size"])

    def report_outputs(self, attempt: str, outputs: Sequence[Json]) -> list[str]:
        return list(self._json("PUT", f"/attempts/{attempt}/outputs", {"outputs": list(outputs)})["wanted"])

    def du(self) -> Json:
        return self.api.du()

    def gc(self, body: Json, actor: Actor) -> Json:
        return self.api.gc(body)


def make_remote_stage(home: Path, url: str, server: Wire) -> Stage:
    """Return a stage whose calls go over HTTP to a yard in this process."""

    def open_it(clock: ManualClock) -> Opened:
        yard = open_inner(home, url, clock)
        unsubscribe = server.lend(yard, home)
        remote = Remote(server.url)

        def close() -> None:
            remote.close()
            unsubscribe()
            yard.close()

        return Opened(service=remote, inner=yard, close=close)  # type: ignore[arg-type]

    return Stage(open_it, lambda: dump(url), remote=True)
