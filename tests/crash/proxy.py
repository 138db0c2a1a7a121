"""A proxy between one agent and the server that loses, repeats, delays and reorders whole messages.

HTTP/1.1 as the agent speaks it: one request at a time per connection, bodies with a length or in chunks.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

KINDS = (
    ("hello", r"PUT /api/v1/agents/[^/]+$"), ("heartbeat", r"POST .*/heartbeat$"), ("poll", r"POST .*/poll$"),
    ("phase", r"POST .*/phase$"), ("finish", r"POST .*/finish$"), ("hand-back", r"POST .*/hand-back$"),
    ("log", r"PUT .*/log\?"), ("spool", r"PUT .*/spool/"), ("outputs", r"PUT .*/outputs$"),
    ("files", r"PUT .*/files/"), ("tree", r"GET .*/trees/"),
)  # fmt: skip
FAULTS = ("drop", "swallow", "lose", "twice", "late", "delay", "overtaken")
"""What can happen to a message: it is not forwarded and the connection breaks; or the sender hears nothing; its answer is
lost; it arrives twice; it arrives once more, later; it is late; its connection breaks and it arrives after others."""


@dataclass
class Message:
    """One request."""

    head: bytes
    body: bytes

    @property
    def kind(self) -> str:
        """One of `KINDS`, ``other`` for the rest."""
        line = self.head.partition(b"\r\n")[0].decode("latin-1").rpartition(" ")[0]
        return next((kind for kind, pattern in KINDS if re.match(pattern, line)), "other")

    @property
    def data(self) -> bytes:
        """The bytes on the wire."""
        return self.head + b"\r\n\r\n" + self.body


@dataclass
class Trap:
    """Something to be done when a certain message passes: once."""

    kind: str
    when: str
    """``request``: before it is forwarded; ``answer``: when it is answered, before the agent hears it."""
    action: Callable[[Message], None]
    contains: bytes = b""
    deliver: bool = False
    """Whether the message, or the answer, is delivered after the action."""
    sprung: threading.Event = field(default_factory=threading.Event)


class _Stream:
    """Reading messages from a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""

    def _more(self) -> bool:
        data = self.sock.recv(1 << 16)
        self.buffer += data
        return bool(data)

    def message(self) -> Message | None:
        """Return the next message whole, None at the end of the connection."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                return None
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        low = head.lower()
        if b"transfer-encoding: chunked" in low:
            return Message(head, self._chunked())
        found = re.search(rb"content-length: *(\d+)", low)
        return Message(head, self._take(int(found[1]) if found else 0))

    def _take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            if not self._more():
                raise ConnectionError("cut off")
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def _line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            if not self._more():
                raise ConnectionError("cut off")
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line + b"\r\n"

    def _chunked(self) -> bytes:
        parts = []
        while True:
            line = self._line()
            size = int(line.split(b";")[0], 16)
            parts += [line, self._take(size), self._line()]
            if not size:
                return b"".join(parts)


class Proxy:
    """Listens for one agent. ``upstream`` connects to the server, and raises OSError when it is not there."""

    def __init__(self, path: str, upstream: Callable[[], socket.socket], seed: int) -> None:
        self.upstream = upstream
        self.random = random.Random(seed)
        self.noise = 0.0
        """Probability that something happens to a message."""
        self.cut = False
        """No message passes."""
        self.generation = 0
        """Messages on their way are lost when this changes: the server has gone."""
        self.counts: dict[str, int] = {}
        self.traps: list[Trap] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        if path:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(path)
            self.url = "unix:" + path
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.url = "http://127.0.0.1:%d" % self._listener.getsockname()[1]
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening and break all connections."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.break_all()

    def break_all(self) -> None:
        """Break all connections, and forget what is on its way."""
        with self._lock:
            self.generation += 1
            victims = list(self._open)
        for sock in victims:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def trap(self, kind: str, when: str, action: Callable[[Message], None], **fields: object) -> Trap:
        """Set a trap; see `Trap`."""
        trap = Trap(kind, when, action, **fields)  # type: ignore[arg-type]
        self.traps.append(trap)
        return trap

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            self._open.add(client)
        try:
            with client, contextlib.suppress(OSError, ValueError):
                self._exchange_all(client)
        finally:
            with self._lock:
                self._open.discard(client)

    def _exchange_all(self, client: socket.socket) -> None:
        stream = _Stream(client)
        server: _Stream | None = None
        try:
            while True:
                message = stream.message()
                if message is None or self.cut or self._closed:
                    return
                server = server or _Stream(self.upstream())
                if not self._exchange(client, server, message):
                    return
        finally:
            if server is not None:
                server.sock.close()

    def _exchange(self, client: socket.socket, server: _Stream, message: Message) -> bool:
        """Pass one message and its answer on, or not; False: the connection ends."""
        fault = self._fault(message)
        if not self._spring("request", message) or fault in ("drop", "overtaken"):
            if fault == "overtaken":
                self._send_later(message)
            return False
        if fault == "swallow":
            time.sleep(1.2)
            return False
        if fault == "delay":
            time.sleep(self.random.uniform(0.05, 0.8))
        if fault == "late":
            self._send_later(message)
        for _ in range(2 if fault == "twice" else 1):
            if self.cut:
                return False
            server.sock.sendall(message.data)
            answer = server.message()
            if answer is None:
                return False
        if fault == "lose" or self.cut or not self._spring("answer", message):
            return False
        client.sendall(answer.data if answer is not None else b"")
        return True

    def _fault(self, message: Message) -> str:
        with self._lock:
            if self.random.random() >= self.noise:
                return ""
            fault = self.random.choice(FAULTS)
            name = fault + " " + message.kind
            self.counts[name] = self.counts.get(name, 0) + 1
            return fault

    def _spring(self, when: str, message: Message) -> bool:
        """Spring a trap, if this message does; tell whether it goes on."""
        with self._lock:
            found = next(
                (t for t in self.traps if (t.kind, t.when) == (message.kind, when) and t.contains in message.body), None
            )
            if found is None:
                return True
            self.traps.remove(found)
        found.action(message)
        found.sprung.set()
        return found.deliver

    def _send_later(self, message: Message) -> None:
        generation, wait = self.generation, self.random.uniform(0.1, 2.5)

        def send() -> None:
            time.sleep(wait)
            self.send_copy(message, generation)

        threading.Thread(target=send, daemon=True).start()

    def send_copy(self, message: Message, generation: int | None = None) -> bytes:
        """Send a message on a connection of its own and return the answer's body; nothing if it cannot be sent."""
        if self._closed or (generation is not None and generation != self.generation):
            return b""
        try:
            with self.upstream() as sock:
                sock.settimeout(5.0)
                sock.sendall(message.data)
                answer = _Stream(sock).message()
                return answer.body if answer is not None else b""
        except OSError:
            return b""


def unix_upstream(path: str) -> Callable[[], socket.socket]:
    """Return a connector to a Unix socket."""

    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        return sock

    return connect


def tcp_upstream(server_json: str) -> Callable[[], socket.socket]:
    """Return a connector to the web address of the server that ``server.json`` names now."""

    def connect() -> socket.socket:
        import json

        with open(server_json, encoding="utf-8") as file:
            host, _, port = json.load(file)["url"].rpartition("://")[2].rpartition(":")
        return socket.create_connection((host, int(port)), 2.0)

    return connect
