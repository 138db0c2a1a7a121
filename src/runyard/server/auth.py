"""Who asks, and what they may do.

Four ways to be somebody: the Unix socket (the owner, whose uid the kernel vouches for), the token of server.json, a
token that the yard knows, and a browser's session cookie, got with a one-time token.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections.abc import Callable
from typing import Any

from fastapi import Request

from runyard.services.api import Actor
from runyard.wire.errors import AuthError, ForbiddenError
from runyard.wire.ids import new_secret

ONE_TIME_S = 60.0
SESSION_S = 30 * 86400.0
OWNER, AGENT, ATTEMPT, READ = "owner", "agent", "attempt", "read"


def _scopes(*scopes: str) -> dict[str, Any]:
    return {"x-scopes": sorted({OWNER, *scopes})}


OWNERS = _scopes()
"""For ``openapi_extra`` of a route: who may use it. A route that says nothing is the owner's."""
READERS = _scopes(READ, ATTEMPT)
AGENTS = _scopes(AGENT)
TREES = _scopes(READ, AGENT, ATTEMPT)
ANYBODY: dict[str, Any] = {"x-scopes": [], "security": []}
"""No credential needed; such paths must be in `gate.PUBLIC` too."""


async def authorize(request: Request) -> None:
    """Refuse a credential that does not cover the route (a dependency of every route)."""
    extra = getattr(request.scope.get("route"), "openapi_extra", None) or OWNERS
    scopes = extra.get("x-scopes", OWNERS["x-scopes"])
    if not scopes:
        return
    actor: Actor = request.scope["runyard.actor"]
    if actor.scope not in scopes:
        raise ForbiddenError(
            "this needs the scope {}; your credential has the scope {}".format(" or ".join(scopes), actor.scope),
            "use a token with that scope (`runyard token create`), or the owner's account on the server's host",
        )


def _key(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


class _Secrets:
    """Secrets that end; only their hashes are kept."""

    def __init__(self, lifetime_s: float, limit: int, clock: Callable[[], float]) -> None:
        self._lifetime_s = lifetime_s
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[bytes, tuple[float, Actor]] = {}

    def create(self, actor: Actor) -> str:
        secret = new_secret()
        now = self._clock()
        with self._lock:
            self._entries = {key: entry for key, entry in self._entries.items() if entry[0] > now}
            while len(self._entries) >= self._limit:
                self._entries.pop(next(iter(self._entries)))
            self._entries[_key(secret)] = (now + self._lifetime_s, actor)
        return secret

    def get(self, secret: str, take: bool = False) -> Actor | None:
        key = _key(secret)
        with self._lock:
            entry = self._entries.pop(key, None) if take else self._entries.get(key)
        return entry[1] if entry is not None and entry[0] > self._clock() else None


class Gates:
    """Credentials that live and end with this process."""

    def __init__(self, user: str, cookie: str, local_token: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.owner = Actor(user=user)
        self.cookie = cookie
        """Name of the session cookie. Cookies know no ports, so it differs from yard to yard."""
        self._local = local_token.encode()
        self._one_time = _Secrets(ONE_TIME_S, 100, clock)
        self._sessions = _Secrets(SESSION_S, 1000, clock)

    def is_local(self, token: str) -> bool:
        """Tell whether a bearer token is the one in server.json."""
        return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._local)

    def one_time(self, actor: Actor) -> str:
        """Return a token that lets one browser in, once, within `ONE_TIME_S`."""
        return self._one_time.create(actor)

    def exchange(self, token: str) -> str:
        """Turn a one-time token into a session's secret; raises AuthError when it was used or is too old."""
        actor = self._one_time.get(token, take=True)
        if actor is None:
            raise AuthError(
                f"this address has been used already, or is older than {ONE_TIME_S:.0f} seconds",
                "run `runyard open` again for a fresh one",
            )
        return self._sessions.create(actor)

    def session(self, secret: str) -> Actor | None:
        """Return whose session this is, None when there is none."""
        return self._sessions.get(secret)
