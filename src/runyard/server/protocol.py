"""uvicorn as it is needed here: it says who is at the other end of a Unix socket, and it is stopped by us."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from runyard.server.replies import JsonReply
from runyard.wire.errors import UsageError


def peer_uid(sock: socket.socket) -> int | None:
    """Return the uid of the process at the other end of a Unix socket; None for TCP.

    Source: unix(7), SO_PEERCRED: ``struct ucred {pid, uid, gid}``. Where the system has none (macOS), the 0700
    directory of the socket alone keeps others out, and the answer is the server's own uid.
    """
    if sock.family != socket.AF_UNIX:
        return None
    if not hasattr(socket, "SO_PEERCRED"):
        return os.geteuid()
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", data)[1])


class Protocol(HttpToolsProtocol):
    """Adds ``peer_uid`` and ``refused`` to the state of the requests of a Unix socket."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Look who it is (asyncio)."""
        super().connection_made(transport)
        uid = peer_uid(transport.get_extra_info("socket"))
        if uid is not None:
            refused = uid not in (os.geteuid(), 0)
            self.app_state = {**self.app_state, "peer_uid": uid, "refused": refused}

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with the one error body."""
        body = bytes(JsonReply(UsageError("this is not a valid HTTP/1.1 request").body()).body)
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[400] + head + body)
        self.transport.close()


class _NotBroken(logging.Filter):
    """Drops uvicorn's complaint about streams that are broken off on purpose (`gate.Interrupted`)."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "without completing response" not in str(record.msg)


class Server(uvicorn.Server):
    """uvicorn's server on given sockets; ``ready`` is set once it accepts, and signals are left to the caller."""

    def __init__(self, app: Any, drain_s: int) -> None:
        super().__init__(
            uvicorn.Config(
                app, http=Protocol, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
                proxy_headers=False, timeout_keep_alive=75, timeout_graceful_shutdown=drain_s, backlog=1024,
            )
        )  # fmt: skip
        self.ready = asyncio.Event()
        logging.getLogger("uvicorn.error").addFilter(_NotBroken())

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections."""
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
