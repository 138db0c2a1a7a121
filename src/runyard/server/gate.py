"""The outermost layer: every request passes here before any route, and every answer on its way out.

In this order: a number for the request, Host, Origin, who asks, size of the body; on the way out headers, counters,
the log.
"""

from __future__ import annotations

import ipaddress
import logging
import time
import urllib.parse
import uuid

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runyard.server import errors
from runyard.server.context import Context
from runyard.server.logs import request_number
from runyard.server.replies import error_reply
from runyard.services.api import Actor
from runyard.wire.errors import AuthError, ForbiddenError, RunyardError, UsageError

logger = logging.getLogger("runyard.server")

PUBLIC = frozenset({"/", "/health", "/open", "/static/open.js", "/static/page.css"})
PUBLIC_PAGES = "/runs/"
"""Paths, and the start of paths, that need no credential. Without one they say nothing but how to get one."""
MAX_JSON = 64 << 20
"""Bytes of a request's body, except where a route streams it to disk."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_PAGE_CSP = b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"content-security-policy", _PAGE_CSP + b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
"""Set on every answer that does not set them itself."""


class Interrupted(Exception):  # noqa: N818  the client went away or the server stops: no error
    """A stream cannot go on, though it is not at its end: the connection is broken off so that the client knows."""


def host_name(netloc: str) -> str:
    """Return the host of ``host[:port]`` in lower case, without brackets."""
    host, colon, port = netloc.rpartition(":")
    if not colon or not port.isdigit():
        host = netloc
    return host.strip("[]").rstrip(".").lower()


def host_allowed(netloc: str, hosts: frozenset[str]) -> bool:
    """Tell whether a Host header names this server.

    A page of another site can make its own name resolve to this machine (DNS rebinding); it then sends that name here.
    An address in digits cannot be made to point elsewhere, so ``*`` admits those.
    """
    host = host_name(netloc)
    if host in hosts:
        return True
    if "*" not in hosts:
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class _Exchange:
    """One request on its way through."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.headers = Headers(scope=scope)
        self._receive = receive
        self._send = send
        self.number = uuid.uuid4().hex[:12]
        self.started = time.monotonic()
        self.status = 0
        self.received = 0
        scope["runyard.body_limit"] = MAX_JSON
        scope["runyard.number"] = self.number

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            limit = self.scope["runyard.body_limit"]
            if limit is not None and self.received > limit:
                raise too_large(limit)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            names = {name.lower() for name, _ in headers}
            headers += [item for item in _HEADERS if item[0] not in names]
            headers.append((b"x-request-id", self.number.encode()))
            message = {**message, "headers": headers}
        await self._send(message)

    @property
    def route(self) -> str:
        """The route's pattern, for counters; ``-`` where none matched."""
        return str(getattr(self.scope.get("route"), "path", "-"))


def too_large(limit: int) -> errors.TooLargeError:
    """Return the refusal of a body over ``limit`` bytes."""
    return errors.TooLargeError(
        f"the body of this request is larger than {limit >> 20} MB", "send it in several requests", limit=limit
    )


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self.app = app
        self.context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event (ASGI)."""
        if scope["type"] != "http":
            return
        scope = {**scope}  # the server reads its own later
        exchange = _Exchange(scope, receive, send)
        request_number.set(exchange.number)
        # The server decodes a path as UTF-8 and loses other bytes; names of files keep theirs (PEP 383).
        scope["path"] = urllib.parse.unquote_to_bytes(scope["raw_path"]).decode("utf-8", "surrogateescape")
        try:
            await self._admit(exchange)
            await self.app(scope, exchange.receive, exchange.send)
        except Interrupted:
            pass  # an answer without its end: the connection is closed
        except RunyardError as exc:
            if not exchange.status:
                await error_reply(exc)(scope, receive, exchange.send)
        except Exception:  # the boundary: whatever it was, the client gets an answer and the log the traceback
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if exchange.status:
                return
            await error_reply(errors.internal(exchange.number))(scope, receive, exchange.send)
        finally:
            self._finish(exchange)

    async def _admit(self, exchange: _Exchange) -> None:
        scope, headers = exchange.scope, exchange.headers
        peer_uid = scope.get("state", {}).get("peer_uid")
        if scope.get("state", {}).get("refused"):
            raise ForbiddenError(
                f"this server belongs to another user (you are uid {peer_uid})",
                "start your own: `runyard start`, or ask its owner for a token and use its web address",
            )
        host = headers.get("host", "")
        if not host_allowed(host, self.context.hosts):
            raise ForbiddenError(f"this server does not answer for the host name {host!r}", "use " + self.context.url)
        if "\0" in scope["path"]:
            raise UsageError("the address holds a zero byte")
        self._check_origin(scope, headers, host)
        scope["runyard.actor"] = await self._identify(scope, headers, local=peer_uid is not None)
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > MAX_JSON and not _streams(scope):
            raise too_large(MAX_JSON)

    def _check_origin(self, scope: Scope, headers: Headers, host: str) -> None:
        """Refuse requests that a page of another site makes a browser send."""
        if scope["method"] in SAFE_METHODS:
            return
        origin = headers.get("origin")
        if origin is None:
            if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
                return
        elif urllib.parse.urlsplit(origin).netloc.lower() == host.lower() and origin.startswith(("http:", "https:")):
            return
        raise ForbiddenError(f"a page of another site ({origin}) may not change anything here")

    async def _identify(self, scope: Scope, headers: Headers, local: bool) -> Actor | None:
        gates = self.context.gates
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind:
            token = token.strip()
            if kind.lower() != "bearer" or not token:
                raise AuthError("the Authorization header must be: Bearer TOKEN")
            if gates.is_local(token):
                return gates.owner
            return await run_in_threadpool(self.context.yard.authenticate, token)
        if local:
            return gates.owner
        secret = cookie_parser(headers.get("cookie", "")).get(gates.cookie)
        actor = gates.session(secret) if secret else None
        if actor is not None and (scope["method"] in SAFE_METHODS or "origin" in headers):
            return actor
        if scope["path"] in PUBLIC or scope["path"].startswith(PUBLIC_PAGES):
            return None
        raise AuthError(
            "this needs a credential", "browsers: run `runyard open`; programs: Authorization: Bearer TOKEN"
        )

    def _finish(self, exchange: _Exchange) -> None:
        scope = exchange.scope
        seconds = time.monotonic() - exchange.started
        self.context.counters.count(scope["method"], exchange.route, exchange.status, seconds)
        level = logging.INFO if exchange.status >= 400 else logging.DEBUG
        if scope["method"] not in SAFE_METHODS and not exchange.route.startswith(
            ("/api/v1/agents", "/api/v1/attempts")
        ):
            level = logging.INFO
        if not logger.isEnabledFor(level):
            return
        actor = scope.get("runyard.actor")
        client = scope.get("client")
        path = scope["path"].encode("ascii", "backslashreplace").decode("ascii")
        logger.log(
            level, "%s %s %d %.1f ms %s %s", scope["method"], _printable(path), exchange.status, seconds * 1000,
            f"{actor.user}/{actor.scope}" if actor else "-", client[0] if client else "socket",
        )  # fmt: skip


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)[:300]


def _streams(scope: Scope) -> bool:
    """Tell whether the route behind a path writes its body to disk as it comes (`attempts.put_log`, `put_file`)."""
    parts = scope["path"].split("/")
    return (
        scope["method"] == "PUT" and parts[:4] == ["", "api", "v1", "attempts"] and parts[5:6] in (["log"], ["files"])
    )
