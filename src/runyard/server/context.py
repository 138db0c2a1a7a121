"""What all routes of one server share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from runyard.server.auth import Gates
from runyard.server.growth import Growth
from runyard.server.metrics import Counters
from runyard.server.treecache import TreeCache
from runyard.server.waiting import Hub
from runyard.services.api import Actor, YardService
from runyard.wire.paths import Home


@dataclass(kw_only=True)
class Context:
    """One server: made by `process.serve`, reached by routes through `Ctx`."""

    yard: YardService
    home: Home
    gates: Gates
    """Credentials that live in this process: browser sessions, one-time addresses, the local token."""
    hub: Hub
    url: str
    """Address for browsers and other hosts."""
    hosts: frozenset[str]
    """Values of the Host header, without port, that are answered; ``*`` for any address in digits."""
    facts: dict[str, Any]
    """What `GET /api/v1/status` says of the process: version, pid, host, started_at..."""
    stop: Callable[[], None]
    """Ask the server to stop; returns at once."""
    trees: TreeCache
    counters: Counters = field(default_factory=Counters)
    growth: Growth = field(default_factory=Growth)


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


async def _actor(request: Request) -> Actor:
    actor: Actor = request.scope["runyard.actor"]
    return actor


Ctx = Annotated[Context, Depends(_context)]
Who = Annotated[Actor, Depends(_actor)]
