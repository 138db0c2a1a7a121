"""A small HTTP/1.1 client over a Unix socket or TCP.

``http.client`` costs more start-up time than everything else that a command needs, and 7 MB of the agent's memory; what
Runyard's own server sends is a small part of HTTP (RFC 9112): one response per request, with Content-Length or chunked.
"""

from __future__ import annotations

import json
import os
import socket
import struct

from runyard.wire.errors import RunyardError, UnavailableError, from_body

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

CONNECT_TIMEOUT_S = 5.0
FOREVER = float("inf")
"""The timeout of an answer that may be silent for as long as a program prints nothing."""
KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""After a minute without a sign of life the kernel gives a TCP connection up (tcp(7)), however long its timeout is."""
READ_SIZE = 1 << 16


class Address:
    """Where a server listens: ``unix:/path``, ``http://host:port[/prefix]`` or ``https://...``."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.path = self.host = self.prefix = ""
        self.port = 0
        self.tls = url.startswith("https://")
        if url.startswith("unix:"):
            self.path = url[5:]
            return
        if not url.startswith(("http://", "https://")):
            raise UnavailableError("not a server address: %r" % url, "use http://HOST:PORT or unix:/PATH")
        rest = url.split("://", 1)[1]
        netloc, slash, prefix = rest.partition("/")
        self.prefix = (slash + prefix).rstrip("/")
        host, colon, port = netloc.rpartition(":")
        if not colon or "]" in port:
            host, port = netloc, "443" if self.tls else "80"
        self.host = host.strip("[]")
        if not port.isdigit():
            raise UnavailableError("not a server address: %r" % url, "use http://HOST:PORT or unix:/PATH")
        self.port = int(port)

    def connect(self, timeout: float) -> socket.socket:
        """Open a connection; raises OSError, and `UnavailableError` for a socket that another user listens on."""
        if self.path:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(timeout)
            try:
                sock.connect(self.path)
                _refuse_others(sock, self.path)
            except (OSError, UnavailableError):
                sock.close()
                raise
            return sock
        sock = socket.create_connection((self.host, self.port), timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        if self.tls:
            import ssl

            return ssl.create_default_context().wrap_socket(sock, server_hostname=self.host)
        return sock


def _refuse_others(sock: socket.socket, path: str) -> None:
    """Make sure that this user, or root, listens there: with a long home the socket lies in /tmp (`paths.Home.socket`).

    Source: unix(7), SO_PEERCRED: ``struct ucred {pid, uid, gid}``, of the process that called listen(2). macOS has none.
    """
    if hasattr(socket, "SO_PEERCRED"):
        uid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[1]
        if uid not in (os.geteuid(), 0):
            raise UnavailableError(
                "another user (uid %d) listens at %s; nothing was sent there" % (uid, path),
                "have the socket removed; or, if that server is the right one, be the user that it belongs to",
            )


class Response:
    """Status, headers (names in lower case) and a body that is read once."""

    def __init__(self, sock: socket.socket, buffered: bytes = b"") -> None:
        self._sock = sock
        self._buffer = buffered
        head = self._until(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        parts = lines[0].split(" ", 2)
        if len(parts) < 2 or not parts[1].isdecimal():
            raise UnavailableError("the server's answer is not HTTP: %r" % lines[0][:80])
        self.status = int(parts[1])
        self.headers = {}  # type: dict[str, str]
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self.reusable = self.headers.get("connection", "").lower() != "close"

    def _more(self) -> bytes:
        data = self._sock.recv(READ_SIZE)
        if not data:
            raise ConnectionError("the server closed the connection in the middle of its answer")
        return data

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            if len(self._buffer) > 1 << 20:
                raise UnavailableError("the server's answer is not HTTP")
            self._buffer += self._more()
        head, _, self._buffer = self._buffer.partition(mark)
        return head

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size > 0:
            data = self._buffer or self._more()
            self._buffer = data[size:]
            yield data[:size]
            size -= len(data[:size])

    def stream(self) -> Iterator[bytes]:
        """Yield the body in pieces."""
        if self.status in (204, 304):
            return
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while True:
                size = _number(self._until(b"\r\n").split(b";")[0], 16)
                yield from self._exactly(size)
                if not size:
                    self._until(b"\r\n")
                    return
                self._until(b"\r\n")
        elif "content-length" in self.headers:
            yield from self._exactly(_number(self.headers["content-length"].encode("latin-1"), 10))
        else:
            self.reusable = False
            if self._buffer:
                yield self._buffer
                self._buffer = b""
            while True:
                data = self._sock.recv(READ_SIZE)
                if not data:
                    return
                yield data

    def read(self) -> bytes:
        """Return the whole body."""
        return b"".join(self.stream())


def _number(text: bytes, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise UnavailableError("the server's answer is not HTTP: %r is no number" % text[:80]) from None


class Http:
    """One keep-alive connection to a server. Not thread-safe: each thread has its own.

    Network trouble raises `UnavailableError`; an error answer raises the error that the server meant.
    """

    def __init__(self, url: str, token: str = "", timeout: float = 60.0) -> None:
        self.address = Address(url)
        self.token = token
        self.timeout = timeout
        self._sock = None  # type: socket.socket | None

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def detach(self) -> socket.socket | None:
        """Return the open connection, None when there is none, and leave it to the caller."""
        sock, self._sock = self._sock, None
        return sock

    def __enter__(self) -> Http:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _head(self, method: str, path: str, headers: dict[str, str]) -> bytes:
        host = "localhost" if self.address.path else "%s:%d" % (self.address.host, self.address.port)
        lines = ["%s %s HTTP/1.1" % (method, self.address.prefix + path), "Host: " + host]
        if self.token:
            lines.append("Authorization: Bearer " + self.token)
        lines += ["%s: %s" % item for item in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _send(
        self, method: str, path: str, body: bytes | Iterable[bytes], headers: dict[str, str], timeout: float
    ) -> Response:
        if self._sock is None:
            self._sock = self._connect(min(timeout, CONNECT_TIMEOUT_S))
        self._sock.settimeout(None if timeout == FOREVER else timeout)
        if isinstance(body, bytes):
            self._sock.sendall(self._head(method, path, dict(headers, **{"Content-Length": str(len(body))})) + body)
        else:
            self._sock.sendall(self._head(method, path, dict(headers, **{"Transfer-Encoding": "chunked"})))
            for piece in body:
                if piece:
                    self._sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            self._sock.sendall(b"0\r\n\r\n")
        return Response(self._sock)

    def _connect(self, timeout: float) -> socket.socket:
        return self.address.connect(timeout)

    def open(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] = b"",
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> Response:
        """Send a request and return the response once its head is there; an error answer raises.

        A connection that the server closed while it was idle is opened again once, before anything was answered.
        """
        limit = self.timeout if timeout is None else timeout
        reused = self._sock is not None
        response = None  # type: Response | None
        try:
            try:
                response = self._send(method, path, body, headers or {}, limit)
            except (BrokenPipeError, ConnectionError):
                self.close()
                if not reused or not isinstance(body, bytes):
                    raise
                response = self._send(method, path, body, headers or {}, limit)
            if response.status >= 400:
                raise _error(response.status, response.read())
        except RunyardError:
            if response is None or not response.reusable:
                self.close()
            raise
        except OSError as exc:
            self.close()
            raise UnavailableError(
                "no answer from %s: %s" % (self.address.url, str(exc) or type(exc).__name__),
                "does the server run? On its host: runyard status",
            ) from exc
        return response

    def stream(self, method: str, path: str, body: bytes = b"", timeout: float | None = None) -> Iterator[bytes]:
        """Yield the body of a response in pieces."""
        yield from self.body(self.open(method, path, body, timeout=timeout))

    def body(self, response: Response) -> Iterator[bytes]:
        """Yield the body of a response in pieces."""
        try:
            yield from response.stream()
        except OSError as exc:
            self.close()
            raise UnavailableError("the connection to %s broke: %s" % (self.address.url, exc)) from exc
        if not response.reusable:
            self.close()

    def json(self, method: str, path: str, value: Any = None, timeout: float | None = None) -> Any:
        """Send a value as JSON and return the JSON answer (None for an empty one)."""
        body = b"" if value is None else json.dumps(value).encode("ascii")
        headers = {"Content-Type": "application/json"} if body else {}
        response = self.open(method, path, body, headers, timeout)
        try:
            data = response.read()
        except OSError as exc:
            self.close()
            raise UnavailableError("the connection to %s broke: %s" % (self.address.url, exc)) from exc
        if not response.reusable:
            self.close()
        try:
            return json.loads(data) if data else None
        except ValueError:
            self.close()
            raise UnavailableError(
                "%s answered %s with something that is no Runyard answer: %s"
                % (self.address.url, path, data[:80].decode("utf-8", "replace")),
                "is another program listening there? On the server's host: runyard status",
            ) from None


def _error(status: int, body: bytes) -> RunyardError:
    try:
        return from_body(status, json.loads(body))
    except ValueError:
        error = from_body(status, None)
        error.message = "the server answered %d: %s" % (status, body[:200].decode("utf-8", "replace"))
        return error


def quote(text: str) -> str:
    """Percent-encode everything but RFC 3986's unreserved characters and ``/``; bytes are kept (surrogateescape)."""
    safe = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/"
    return "".join(chr(b) if b in safe else "%%%02X" % b for b in text.encode("utf-8", "surrogateescape"))


def query(**params: object) -> str:
    """Return ``?a=1&b=x`` of the parameters that are not None (``""`` when there are none); lists repeat the name."""
    pairs = []
    for name, value in params.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if item is not None:
                text = ("true" if item else "false") if isinstance(item, bool) else str(item)
                pairs.append("%s=%s" % (name, quote(text).replace("/", "%2F")))
    return "?" + "&".join(pairs) if pairs else ""
