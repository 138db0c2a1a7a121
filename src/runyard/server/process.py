"""One server, from its sockets to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio.to_thread

from runyard import __version__
from runyard.server import ownership
from runyard.server.app import create_app
from runyard.server.auth import Gates
from runyard.server.chores import Chores
from runyard.server.context import Context
from runyard.server.localagent import LocalAgent
from runyard.server.protocol import Server
from runyard.server.sockets import address_url, has_moved, host_names
from runyard.server.ticker import Ticker
from runyard.server.treecache import TreeCache
from runyard.server.waiting import Hub
from runyard.services.api import YardService
from runyard.wire import files, procs
from runyard.wire.ids import new_secret
from runyard.wire.paths import Home

logger = logging.getLogger("runyard.server")
THREADS = 24
"""Requests that are at work in the services at the same time."""
LOOK_S = 10.0
"""How often the server sees whether its home is still there."""
DRAIN_S = 5
"""Seconds that requests get to finish when the server stops."""


@dataclass(kw_only=True)
class Parts:
    """What a server is made of."""

    yard: YardService
    home: Home
    lock: int
    """The open file whose lock makes this process the home's server."""
    user: str
    """Name of the account that owns the yard."""
    listen: str
    unix: socket.socket
    tcp: socket.socket
    agent: LocalAgent | None
    """None: no agent is started on this host."""


def server_info(parts: Parts, token: str) -> dict[str, Any]:
    """Return what server.json says (docs/protocol.md)."""
    return {
        "yard": parts.yard.status()["yard"],
        "version": __version__,
        "host_id": parts.home.host,
        "host": socket.gethostname(),
        "boot_id": procs.boot_id(),
        "pid": os.getpid(),
        "pid_start": procs.start_time(os.getpid()),
        "url": address_url(parts.tcp),
        "listen": parts.listen,
        "moved": has_moved(parts.tcp, parts.listen),
        "socket": parts.unix.getsockname(),
        "token": token,
    }


def _context(parts: Parts, info: dict[str, Any], stop: Callable[[], None]) -> Context:
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    facts = {key: info[key] for key in ("yard", "version", "url", "moved", "pid", "host", "host_id", "socket")}
    return Context(
        yard=parts.yard,
        home=parts.home,
        gates=Gates(parts.user, "runyard_" + str(info["yard"])[:8], info["token"]),
        hub=Hub(asyncio.get_running_loop()),
        url=info["url"],
        hosts=host_names(parts.tcp, parts.listen),
        facts={**facts, "home": parts.home.path, "started_at": started},
        stop=stop,
        trees=TreeCache(),
    )


async def serve(parts: Parts) -> None:
    """Serve until SIGTERM, SIGINT or a request to stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve_until(parts, stop)


async def serve_until(parts: Parts, stop: asyncio.Event, ready: Callable[[Context], None] | None = None) -> None:
    """Serve until ``stop`` is set; then end what waits, and the local agent. Runs go on.

    ``ready`` is called once requests are answered and server.json is written.
    """
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    info = await asyncio.to_thread(server_info, parts, new_secret())
    context = _context(parts, info, stop.set)
    server = Server(create_app(context), DRAIN_S)
    serving = asyncio.create_task(server.serve([parts.unix, parts.tcp]))
    await _first(serving, server.ready)
    ticker, chores = Ticker(parts.yard), Chores(parts.yard, info["url"])
    subscriptions = [parts.yard.subscribe(each.notify) for each in (context.hub, ticker, chores)]
    ticker.start()
    chores.start()
    try:
        ownership.publish(parts.home, info)
        logger.info("ready: %s and %s, version %s, pid %d", info["url"], info["socket"], __version__, os.getpid())
        if parts.agent is not None:
            parts.agent.start()
        if ready is not None:
            ready(context)
        leaving = asyncio.create_task(_leave_a_removed_home(parts, stop))
        await _first(serving, stop)
        leaving.cancel()
    finally:
        logger.info("stopping")
        ownership.withdraw(parts.home)
        context.hub.stop()
        server.should_exit = True
        stops = [ticker.stop, chores.stop] + ([parts.agent.stop] if parts.agent is not None else [])
        await asyncio.gather(serving, *(asyncio.to_thread(each) for each in stops))
        for end in subscriptions:
            end()


async def _leave_a_removed_home(parts: Parts, stop: asyncio.Event) -> None:
    """Set ``stop`` once the home is no longer there, or is another one: nobody would find this server to stop it."""
    while files.is_at(parts.lock, parts.home.server_lock):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_S)
            return
    logger.warning("%s is no longer the home of this server", parts.home.path)
    stop.set()


async def _first(serving: asyncio.Task[None], event: asyncio.Event) -> None:
    """Wait for an event, or for the server to end by itself."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
