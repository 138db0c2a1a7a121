"""Sending logs and outputs to a server with which no directory is shared. Everything can be taken up again anywhere.

The server says how many bytes of a log it holds, and which outputs it lacks; nothing is remembered here.
"""

from __future__ import annotations

import os
import threading
import time

from runyard.agent.link import FailedError, Link
from runyard.agent.stage import places, written
from runyard.wire import paths, states
from runyard.wire.errors import NotFoundError, RunyardError, StaleError, UnavailableError
from runyard.wire.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from runyard.agent.context import Context
    from runyard.agent.state import Attempt

INTERVAL_S = 0.5
IDLE_S = 60.0
PIECE = 1 << 20
TURN_S = 0.5
"""How long the log of one attempt is sent before it is the turn of the others."""
FLUSH_WITHIN_S = 5.0
"""How long the report of an end waits for the rest of the log, so that who sees the end sees the whole log."""
FILE_TIMEOUT_S = 300.0


class LogShipper:
    """Sends one attempt's raw log from where the server has got to."""

    def __init__(self, context: Context, attempt: Attempt) -> None:
        run_dir = places(context.home.path, attempt).run_dir
        self._file = paths.log_path(run_dir, attempt.number)
        self._path = "/api/v1/attempts/%s/log?offset=" % attempt.id
        self._held = -1
        self.lock = threading.Lock()

    def pending(self) -> bool:
        """Tell whether the file is longer than what the server is known to hold."""
        try:
            return os.stat(self._file).st_size > max(self._held, 0)
        except OSError:
            return False

    def send(self, link: Link, until: float | None = None) -> bool:
        """Send what is there; True when all was sent, False when time ran out (``until``: monotonic seconds)."""
        with self.lock:
            if self._held < 0 and os.path.exists(self._file):
                self._put(link, 0, b"")  # asks what it has; a log that stays empty is a log, too
            while self.pending():
                with open(self._file, "rb") as file:
                    file.seek(self._held)
                    piece = file.read(PIECE)
                before = self._held
                self._put(link, before, piece)
                if until is not None and time.monotonic() >= until:
                    return not self.pending()
                if self._held == before:
                    raise FailedError("the server takes no more of the log for now")
            return True

    def _put(self, link: Link, offset: int, piece: bytes) -> None:
        try:
            held = link.put(self._path + str(offset), piece).get("size")
        except RunyardError as exc:
            held = exc.details.get("size")
            if exc.status != 409 or not isinstance(held, int):
                raise
        if not isinstance(held, int) or held < 0:
            raise UnavailableError("the server did not say how much of the log it holds")
        self._held = held


class UnreadableError(Exception):
    """A file of this host cannot be read. No OSError, which would look like trouble with the connection."""


def _pieces(path: str) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            while True:
                piece = file.read(PIECE)
                if not piece:
                    return
                yield piece
    except OSError as exc:
        raise UnreadableError(str(exc)) from exc


class Shipper:
    """The thread that ships for all attempts of an agent."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._link = Link(context.links.target)
        self._logs: dict[str, LogShipper] = {}
        self._ended: list[Attempt] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._again: dict[str, float] = {}
        """Attempts whose files were refused, and when they are tried again."""

    def _log_of(self, attempt: Attempt) -> LogShipper:
        with self._lock:
            if attempt.id not in self._logs:
                self._logs[attempt.id] = LogShipper(self._context, attempt)
            return self._logs[attempt.id]

    def flush(self, attempt: Attempt) -> None:
        """Send the rest of the log of an attempt that has just ended, for a moment and if the server is there."""
        link = Link(self._context.links.target)
        try:
            self._log_of(attempt).send(link, time.monotonic() + FLUSH_WITHIN_S)
        except (RunyardError, OSError):
            pass  # `run` tries for as long as it takes
        finally:
            link.close()

    def add(self, attempt: Attempt) -> None:
        """Take an attempt whose end has been reported: the rest of its log, and its outputs, are to be sent."""
        with self._lock:
            self._ended.append(attempt)
        self._wake.set()

    def wake(self, attempt: Attempt) -> None:
        """Look at once: an attempt has been launched."""
        self._wake.set()

    def idle(self) -> bool:
        """Tell whether everything of ended attempts has been sent."""
        with self._lock:
            return not self._ended

    def run(self) -> None:
        """The thread: ships until the agent stops."""
        state, backoff = self._context.state, self._context.links.target.backoff()
        self._context.wait_introduced()
        while not state.stopping.is_set():
            live = [a for a in state.all() if a.phase in (states.PHASE_RUNNING, states.STOPPING)]
            wait = INTERVAL_S if live else IDLE_S
            try:
                if not self._round(live):
                    wait = 0.0
                backoff.reset()
            except UnavailableError:
                wait = backoff.next_s()
            self._wake.wait(wait)
            self._wake.clear()
        self._link.close()

    def _round(self, live: list[Attempt]) -> bool:
        """Give each attempt a turn; False when one needs another. Raises `UnavailableError` while the server is away.

        One that is refused must not hold up the others.
        """
        done = True
        for work, attempts in ((self._send_log, live), (self._finish, list(self._ended))):
            for attempt in attempts:
                if self._again.get(attempt.id, 0.0) > time.monotonic():
                    continue
                self._again.pop(attempt.id, None)
                try:
                    done = work(attempt) and done
                except FailedError as exc:
                    self._put_off(attempt, exc)
                except UnavailableError:
                    raise
                except (RunyardError, OSError) as exc:
                    self._put_off(attempt, exc)
        return done

    def _put_off(self, attempt: Attempt, error: Exception) -> None:
        self._context.log("attempt %s: its files cannot be sent: %s" % (attempt.id, error))
        self._again[attempt.id] = time.monotonic() + self._context.timing.refused_s

    def _send_log(self, attempt: Attempt) -> bool:
        return self._log_of(attempt).send(self._link, time.monotonic() + TURN_S)

    def _finish(self, attempt: Attempt) -> bool:
        """Send all that is left of an attempt, then forget it; False when its log needs another turn."""
        try:
            if not self._send_log(attempt):
                return False
            self._send_outputs(attempt)
        except (NotFoundError, StaleError) as exc:
            self._context.log("attempt %s: the server does not want its files: %s" % (attempt.id, exc.message))
        with self._lock:
            self._ended.remove(attempt)
            self._logs.pop(attempt.id, None)
        self._context.forget(attempt)
        return True

    def _send_outputs(self, attempt: Attempt) -> None:
        staged = places(self._context.home.path, attempt)
        listed = attempt.outputs
        if listed is None:
            listed = written(attempt.spec, staged)
        if not listed:
            return
        base = "/api/v1/attempts/%s/" % attempt.id
        wanted = self._link.call("PUT", base + "outputs", {"outputs": listed}).get("wanted")
        known = {output["path"] for output in listed}
        for path in wanted if isinstance(wanted, list) else []:
            if path in known:
                where = os.path.join(os.fsencode(staged.tree), path.encode("utf-8", "surrogateescape"))
                if os.path.isfile(where) and not os.path.islink(where):
                    self._send_file(base + "files/" + quote(path), os.fsdecode(where))

    def _send_file(self, address: str, path: str) -> None:
        """Send an output; one that cannot be read, as the root of a container may have left it, is left out."""
        try:
            self._link.put(address, _pieces(path), FILE_TIMEOUT_S)
        except UnreadableError as exc:
            self._link.close()  # in the middle of the request
            self._context.log("an output cannot be read and is not sent: %s" % exc)
