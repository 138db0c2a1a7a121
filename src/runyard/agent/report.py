"""Telling the server how attempts ended, in batches, until it has answered: an end is never given up.

Outputs are listed before the end, so that whoever waits for the end finds them.
"""

from __future__ import annotations

import threading

from runyard.agent.link import FailedError, Link
from runyard.agent.state import REPORTED
from runyard.wire import files
from runyard.wire.errors import RunyardError, UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.agent.context import Context
    from runyard.agent.ship import Shipper
    from runyard.agent.state import Attempt

BATCH = 100
OUTPUTS_TRIES = 8
"""Times that the server may fail over an attempt's outputs, until its end is reported without them."""
ANSWERS = frozenset(("accepted", "recorded", "duplicate", "unknown"))


class Reporter:
    """A queue of ended attempts and the thread that empties it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ready = threading.Condition()
        self._queue: list[Attempt] = []
        self._link = Link(context.links.target)
        self._backoff = context.links.target.backoff()
        self.shipper: Shipper | None = None
        """Takes reported attempts of which something has to be sent; None until the agent has been introduced."""

    def add(self, *attempts: Attempt) -> None:
        """Queue attempts whose end is known."""
        with self._ready:
            self._queue.extend(attempts)
            self._ready.notify()

    def run(self) -> None:
        """The thread: reports until the agent stops."""
        state = self._context.state
        self._context.wait_introduced()
        while not state.stopping.is_set():
            with self._ready:
                while not self._queue and not state.stopping.is_set():
                    self._ready.wait(60.0)
                batch, self._queue = self._queue[:BATCH], self._queue[BATCH:]
            left = self._send(batch)
            if left:
                with self._ready:
                    self._queue = left + self._queue
                state.stopping.wait(self._backoff.next_s())
            else:
                self._backoff.reset()

    def _send(self, batch: list[Attempt]) -> list[Attempt]:
        """Report a batch; returns what has to be tried again."""
        if self.shipper is not None:
            self.shipper.flush([attempt for attempt in batch if not attempt.flushed])
        try:
            ready = [attempt for attempt in batch if self._send_outputs(attempt)]
            ends = {"ends": [_end(attempt) for attempt in ready]}
            answer = self._link.call("POST", "/api/v1/attempts/finish", ends) if ready else {}
        except FailedError as exc:
            if len(batch) > 1:
                return [left for attempt in batch for left in self._send([attempt])]
            self._context.log("attempt %s: the server fails over its end: %s" % (batch[0].id, exc.message))
            return batch
        except UnavailableError:
            return batch
        except RunyardError as exc:
            return self._send_singly(batch, exc)
        results = answer.get("results")
        results = results if isinstance(results, dict) else {}
        return [attempt for attempt in batch if not self._answered(attempt, results.get(attempt.id))]

    def _send_singly(self, batch: list[Attempt], error: RunyardError) -> list[Attempt]:
        """One bad end must not hold up the others; it is tried again, at long intervals."""
        if len(batch) > 1:
            return [left for attempt in batch for left in self._send([attempt])]
        self._context.log("attempt %s: the server refuses its end: %s" % (batch[0].id, error.message))
        timer = threading.Timer(self._context.timing.refused_s, self.add, batch)
        timer.daemon = True
        timer.start()
        return []

    def _send_outputs(self, attempt: Attempt) -> bool:
        """List the outputs of an attempt; False when that has to be tried again before its end is reported."""
        if not attempt.outputs:
            return True
        path = "/api/v1/attempts/%s/outputs" % attempt.id
        try:
            self._link.call("PUT", path, {"outputs": attempt.outputs})
        except RunyardError as exc:
            if isinstance(exc, FailedError):
                attempt.outputs_failed += 1
                if attempt.outputs_failed < OUTPUTS_TRIES:
                    return False
            elif isinstance(exc, UnavailableError):
                raise
            self._context.log("attempt %s: the server refuses its outputs: %s" % (attempt.id, exc.message))
        if self._context.shared:
            attempt.outputs = None
        return True

    def _answered(self, attempt: Attempt, result: Any) -> bool:
        if result not in ANSWERS:
            return False
        if self.shipper is None or result == "unknown" or not self.shipper.left(attempt):
            self._context.forget(attempt)
            return True
        try:
            files.write_json(attempt.path(REPORTED), result)
        except OSError:
            pass  # then it is reported once more after a restart, which is harmless
        self.shipper.add(attempt)
        self._context.state.remove(attempt.id)
        self._context.look_whether_done()
        return True


def _end(attempt: Attempt) -> dict[str, Any]:
    return dict(attempt.end or {}, attempt=attempt.id, epoch=attempt.epoch)
