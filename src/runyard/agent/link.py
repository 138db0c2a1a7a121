"""The agent's side of HTTP: what may pass by itself is told from what the server refuses, and waits grow with jitter.

Every request that the agent makes may be repeated without harm, so a lost answer is answered by asking again.
"""

from __future__ import annotations

import os
import threading

from runyard.wire.errors import RunyardError, UnavailableError
from runyard.wire.http import Http
from runyard.wire.timing import Timing

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable
    from typing import Any

BACKOFF_FIRST_S = 0.05
IDLE_LINKS = 4


def jitter() -> float:
    """Return a random number from 0 to 1. The module of that name would cost the agent a megabyte."""
    return int.from_bytes(os.urandom(2), "little") / 65535.0


class Backoff:
    """Waits that double up to a cap, each cut by up to a half so that agents do not come back in step."""

    def __init__(self, cap_s: float) -> None:
        self.cap_s = cap_s
        self._tries = 0

    def next_s(self) -> float:
        """Return the next wait in seconds."""
        wait = min(self.cap_s, BACKOFF_FIRST_S * 2.0 ** min(self._tries, 30))
        self._tries += 1
        return wait * (0.5 + jitter() / 2.0)

    def reset(self) -> None:
        """Begin again after a success."""
        self._tries = 0


class FailedError(UnavailableError):
    """The server is there and failed over this very request (500). That may pass, or be due to what the request says."""


def _meant(error: RunyardError) -> RunyardError:
    """Return the error of a server that refused, which repeating the request will not change, else what may pass."""
    if error.status < 500:
        return error
    kind = UnavailableError if isinstance(error, UnavailableError) else FailedError
    return kind(error.message, error.hint, **error.details)


class Target:
    """Where the server is and what credential to show; the same for all connections, which take up a new token."""

    def __init__(self, url: str, token: str = "", timing: Timing | None = None) -> None:
        self.url = url
        self.token = token
        self.timing = timing or Timing()

        self.yard = ""
        """The yard that answered first; the token is shown to no other."""

    def backoff(self) -> Backoff:
        """Return the waits between repetitions of one request."""
        return Backoff(self.timing.backoff_cap_s)


class _YardHttp(Http):
    """Shows the token once it knows which yard answers: another program may have taken the port since."""

    def __init__(self, target: Target) -> None:
        super().__init__(target.url, target.token, target.timing.answer_s)
        self._target = target

    def _connect(self, timeout: float) -> socket.socket:
        if not self.token:
            return super()._connect(timeout)
        stranger = Http(self._target.url, timeout=timeout)
        try:
            yard = stranger.json("GET", "/health")["yard"]
        except UnavailableError:
            raise
        except (RunyardError, LookupError, TypeError, ValueError) as exc:
            stranger.close()
            raise UnavailableError("%s does not say which yard it is: %s" % (self._target.url, exc)) from exc
        if yard != (self._target.yard or yard):
            stranger.close()
            raise UnavailableError(
                "another yard is at %s now, which is not given this agent's token" % self._target.url,
                "if it is meant, start the agent again; else see which address its server has: runyard status",
            )
        self._target.yard = str(yard)
        return stranger.detach() or super()._connect(timeout)


class Link:
    """One connection. Not thread-safe. Answers that are not what the protocol promises count as no answer."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._connection = _YardHttp(target)

    @property
    def _http(self) -> Http:
        """The connection, with the credential of now."""
        self._connection.token = self._target.token
        return self._connection

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        self._connection.close()

    def call(self, method: str, path: str, value: Any = None, timeout: float | None = None) -> dict[str, Any]:
        """Send JSON, return the JSON object of the answer.

        Raises `UnavailableError` when nothing sensible came back, and the server's own error when it refused.
        """
        try:
            answer = self._http.json(method, path, value, timeout)
        except RunyardError as exc:
            raise _meant(exc) from exc
        except (ValueError, OSError) as exc:
            self.close()
            raise UnavailableError("the server's answer cannot be read: %s" % exc) from exc
        if not isinstance(answer, dict):
            raise UnavailableError("the server answered %s with something else than an object" % path)
        return answer

    def put(self, path: str, body: bytes | Iterable[bytes], timeout: float | None = None) -> dict[str, Any]:
        """Send raw bytes; else like `call`."""
        import json

        headers = {"Content-Type": "application/octet-stream"}
        try:
            response = self._http.open("PUT", path, body, headers, timeout)
            answer = json.loads(response.read())
        except RunyardError as exc:
            raise _meant(exc) from exc
        except (ValueError, OSError) as exc:
            self.close()
            raise UnavailableError("the server's answer cannot be read: %s" % exc) from exc
        if not response.reusable:
            self.close()
        if not isinstance(answer, dict):
            raise UnavailableError("the server answered %s with something else than an object" % path)
        return answer

    def download(self, path: str, fd: int) -> None:
        """Write the body of a GET to a file descriptor; raises like `call`, and OSError for the file."""
        pieces = self._http.stream("GET", path)
        while True:
            try:
                piece = next(pieces, None)
            except RunyardError as exc:
                raise _meant(exc) from exc
            except (ValueError, OSError) as exc:
                self.close()
                raise UnavailableError("the connection broke: %s" % exc) from exc
            if piece is None:
                return
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]


class Links:
    """A few idle connections for threads that need one now and then."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._idle: list[Link] = []
        self._lock = threading.Lock()

    def _take(self) -> Link:
        with self._lock:
            return self._idle.pop() if self._idle else Link(self.target)

    def _give(self, link: Link) -> None:
        with self._lock:
            if len(self._idle) < IDLE_LINKS:
                self._idle.append(link)
                return
        link.close()

    def call(self, method: str, path: str, value: Any = None, timeout: float | None = None) -> dict[str, Any]:
        """`Link.call` on a connection of its own."""
        link = self._take()
        try:
            return link.call(method, path, value, timeout)
        finally:
            self._give(link)

    def download(self, path: str, fd: int) -> None:
        """`Link.download` on a connection of its own."""
        link = Link(self.target)
        try:
            link.download(path, fd)
        finally:
            link.close()

    def persist(self, method: str, path: str, value: Any, stopping: threading.Event) -> dict[str, Any] | None:
        """Ask until the server answers; None when the agent is stopping. A refusal raises the server's error."""
        backoff = self.target.backoff()
        while not stopping.is_set():
            try:
                return self.call(method, path, value)
            except UnavailableError:
                stopping.wait(backoff.next_s())
        return None
