"""Sending what runs log, and logs and outputs to a server with which no directory is shared.

The server says which records it wants, how many bytes of a log it holds, and which outputs it lacks; nothing is remembered
here, and everything can be taken up again anywhere.
"""

from __future__ import annotations

import functools
import os
import threading
import time

from runyard.agent.collecting import is_collected
from runyard.agent.link import FailedError, Link
from runyard.agent.spools import SpoolShipper
from runyard.agent.stage import places, written
from runyard.wire import paths, states
from runyard.wire.errors import NotFoundError, RunyardError, StaleError, UnavailableError
from runyard.wire.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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


class _Rounds:
    """A thread that gives each of some attempts a turn, over and over. One that is refused must not hold up the others."""

    def __init__(
        self, context: Context, attempts: Callable[[], list[Attempt]], work: Callable[[Link, Attempt], bool]
    ) -> None:
        """``work`` does a turn; False when the attempt needs another one."""
        self._context = context
        self._attempts = attempts
        self._work = work
        self._link = Link(context.links.target)
        self.wake = threading.Event()
        self._again: dict[str, float] = {}
        """Attempts whose files were refused, and when they are tried again."""

    def run(self) -> None:
        """The thread: works until the agent stops."""
        state, backoff = self._context.state, self._context.links.target.backoff()
        self._context.wait_introduced()
        while not state.stopping.is_set():
            attempts = self._attempts()
            wait = INTERVAL_S if attempts else IDLE_S
            try:
                if not self._round(attempts):
                    wait = 0.0
                backoff.reset()
            except UnavailableError:
                wait = backoff.next_s()
            self.wake.wait(wait)
            self.wake.clear()
        self._link.close()

    def _round(self, attempts: list[Attempt]) -> bool:
        """Give each attempt a turn; False when one needs another. Raises `UnavailableError` while the server is away."""
        done = True
        for attempt in attempts:
            if self._again.get(attempt.id, 0.0) > time.monotonic():
                continue
            self._again.pop(attempt.id, None)
            try:
                done = self._work(self._link, attempt) and done
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


SPOOL, LOG, FILES = "spool", "log", "files"


class Shipper:
    """Ships for all attempts of an agent: what they log, and, where no directory is shared, their logs and outputs.

    Outputs have a thread of their own: they may be so large that the others cannot wait.
    """

    def __init__(self, context: Context, shared: bool) -> None:
        self._context = context
        self._parts = (SPOOL,) if shared else (SPOOL, LOG, FILES)
        self._spools: dict[str, SpoolShipper] = {}
        self._logs: dict[str, LogShipper] = {}
        self._ended: dict[str, tuple[Attempt, set[str]]] = {}
        """Attempts whose end has been reported, and what of each is still to be sent."""
        self._lock = threading.Lock()
        works = {SPOOL: self._send_spool, LOG: self._send_log, FILES: self._send_files}
        self._rounds = {
            part: _Rounds(context, functools.partial(self._with, part), works[part]) for part in self._parts
        }
        self.threads = tuple(rounds.run for rounds in self._rounds.values())
        """What its threads do, until the agent stops."""

    def _spool_of(self, attempt: Attempt) -> SpoolShipper:
        with self._lock:
            if attempt.id not in self._spools:
                self._spools[attempt.id] = SpoolShipper(self._context, attempt)
            return self._spools[attempt.id]

    def _log_of(self, attempt: Attempt) -> LogShipper:
        with self._lock:
            if attempt.id not in self._logs:
                self._logs[attempt.id] = LogShipper(self._context, attempt)
            return self._logs[attempt.id]

    def flush(self, attempts: Sequence[Attempt]) -> None:
        """Send what attempts that have ended have logged, each for a moment and if the server is there."""
        link = Link(self._context.links.target)
        for attempt in attempts:
            until = time.monotonic() + FLUSH_WITHIN_S
            spool = self._spool_of(attempt)
            try:
                if spool.any():
                    spool.send(link, until, dead=not is_collected(attempt))
                if LOG in self._parts:
                    self._log_of(attempt).send(link, until)
                attempt.flushed = True
            except FailedError:
                pass  # the threads try for as long as it takes
            except UnavailableError:
                break
            except (RunyardError, OSError):
                pass
        link.close()

    def left(self, attempt: Attempt) -> bool:
        """Tell whether anything of an ended attempt may still have to be sent."""
        return len(self._parts) > 1 or self._spool_of(attempt).any() or is_collected(attempt)

    def add(self, attempt: Attempt) -> None:
        """Take an attempt whose end has been reported: the rest of it is to be sent, and then it is forgotten."""
        with self._lock:
            self._ended[attempt.id] = (attempt, set(self._parts))
        for rounds in self._rounds.values():
            rounds.wake.set()

    def wake(self, attempt: Attempt) -> None:
        """Look at once: an attempt has been launched."""
        for rounds in self._rounds.values():
            rounds.wake.set()

    def idle(self) -> bool:
        """Tell whether everything of ended attempts has been sent."""
        with self._lock:
            return not self._ended

    def _with(self, part: str) -> list[Attempt]:
        """Return the attempts of which a part may have to be sent. Outputs come when all of the log is there."""
        with self._lock:
            ended = [
                attempt
                for attempt, parts in self._ended.values()
                if part in parts and (part != FILES or LOG not in parts)
            ]
        if part == FILES:
            return ended
        return [a for a in self._context.state.all() if a.phase in (states.PHASE_RUNNING, states.STOPPING)] + ended

    def _send_spool(self, link: Link, attempt: Attempt) -> bool:
        """Send what was logged. While processes that look at the run from outside go on, it is not all."""
        with self._lock:
            ended = attempt.id in self._ended
        dead = ended and not is_collected(attempt)
        try:
            if not self._spool_of(attempt).send(link, time.monotonic() + TURN_S, dead):
                return False
        except (NotFoundError, StaleError) as exc:
            return self._unwanted(SPOOL, attempt, exc)
        if dead:
            self._done(SPOOL, attempt)
        return True

    def _send_log(self, link: Link, attempt: Attempt) -> bool:
        try:
            if not self._log_of(attempt).send(link, time.monotonic() + TURN_S):
                return False
        except (NotFoundError, StaleError) as exc:
            return self._unwanted(LOG, attempt, exc)
        self._done(LOG, attempt)
        return True

    def _send_files(self, link: Link, attempt: Attempt) -> bool:
        try:
            self._send_outputs(link, attempt)
        except (NotFoundError, StaleError) as exc:
            return self._unwanted(FILES, attempt, exc)
        self._done(FILES, attempt)
        return True

    def _unwanted(self, part: str, attempt: Attempt, error: RunyardError) -> bool:
        """Give up a part of an ended attempt that the server does not want; of one that goes on raise the error."""
        with self._lock:
            ended = attempt.id in self._ended
        if not ended:
            raise error
        self._context.log("attempt %s: the server does not want its %s: %s" % (attempt.id, part, error.message))
        self._done(part, attempt)
        return True

    def _done(self, part: str, attempt: Attempt) -> None:
        """Note that a part of an ended attempt is sent; with the last one the attempt goes from the journal."""
        with self._lock:
            if attempt.id not in self._ended:
                return
            parts = self._ended[attempt.id][1]
            parts.discard(part)
            if part == LOG and FILES in parts:
                self._rounds[FILES].wake.set()
            if parts:
                return
            del self._ended[attempt.id]
            self._logs.pop(attempt.id, None)
            self._spools.pop(attempt.id, None)
        self._context.forget(attempt)

    def _send_outputs(self, link: Link, attempt: Attempt) -> None:
        staged = places(self._context.home.path, attempt)
        listed = attempt.outputs
        if listed is None:
            listed = written(attempt.spec, staged)
        if not listed:
            return
        base = "/api/v1/attempts/%s/" % attempt.id
        wanted = link.call("PUT", base + "outputs", {"outputs": listed}).get("wanted")
        known = {output["path"] for output in listed}
        for path in wanted if isinstance(wanted, list) else []:
            if path in known:
                where = os.path.join(os.fsencode(staged.tree), path.encode("utf-8", "surrogateescape"))
                if os.path.isfile(where) and not os.path.islink(where):
                    self._send_file(link, base + "files/" + quote(path), os.fsdecode(where))

    def _send_file(self, link: Link, address: str, path: str) -> None:
        """Send an output; one that cannot be read, as the root of a container may have left it, is left out."""
        try:
            link.put(address, _pieces(path), FILE_TIMEOUT_S)
        except UnreadableError as exc:
            link.close()  # in the middle of the request
            self._context.log("an output cannot be read and is not sent: %s" % exc)
