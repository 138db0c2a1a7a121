"""Sending what a run logs: the records of its spool streams, until the server has each of them (docs/spool.md).

Nothing is remembered here that the files and the server do not know: the server says which record of a stream it wants.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time

from runyard.wire import spool
from runyard.wire.errors import ConflictError, InvalidError, RunyardError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.agent.context import Context
    from runyard.agent.link import Link
    from runyard.agent.state import Attempt

TIMEOUT_S = 60.0


class _Stream:
    """One stream: its reader, what was read and not yet sent, and what the server wants next (None: not known yet)."""

    def __init__(self, directory: str, name: str) -> None:
        self.directory = directory
        self.name = name
        self.wanted: int | None = None
        self.lost = 0
        """Records that the server refused."""
        self._rewind(0)

    def _rewind(self, first: int) -> None:
        self.reader = spool.StreamReader(self.directory, self.name)
        self.reader.skip_missing()
        self.reader.next = first
        self.pending: list[spool.Record] = []

    def send(self, link: Link, path: str, dead: bool) -> bool:
        """Send one batch; False when there was nothing to send. ``dead``: nobody writes it any more."""
        if not self.pending:
            self.reader.dead = dead
            self.pending = self.reader.read()
        if not self.pending:
            return False
        first = self.pending[0].number
        lost = self.wanted is not None and first > self.wanted
        try:
            self._put(link, path, self.pending, lost)
        except ConflictError as exc:
            wanted = exc.details.get("next")
            if not isinstance(wanted, int) or wanted >= first:
                raise
            self.wanted = wanted
            self._rewind(wanted)
            return True
        self.pending = []
        for segment in range(self.reader.segment - 1, -1, -1):
            try:
                os.unlink(self.reader.path(segment))
            except FileNotFoundError:
                break  # and those before it
        return True

    def _put(self, link: Link, path: str, records: list[spool.Record], lost: bool) -> None:
        """Send records; one that the server refuses is left out, so that the others arrive."""
        first = records[0].number
        needed = {record.shape for record in records if record.kind == spool.ROW}
        said = {record.shape for record in records if record.kind == spool.SHAPE}
        shapes = [self.reader.shapes[shape] for shape in sorted(needed - said) if shape in self.reader.shapes]
        # A shape that is said again in these records may be used before that: then it is the one from before.
        shapes += [self.reader.shapes[shape] for shape in sorted(needed & said) if _used_before_said(records, shape)]
        body = spool.join(shapes + [record.raw for record in records])
        address = "%s/%s?first=%d%s" % (path, self.name, first, "&lost=true" if lost else "")
        try:
            answer = link.put(address, body, TIMEOUT_S)
        except InvalidError:
            if len(records) == 1:
                self.lost += 1
                self.wanted = first  # the next one leaves a gap
                return
            half = len(records) // 2
            self._put(link, path, records[:half], lost)
            self._put(link, path, records[half:], self.wanted is not None and records[half].number > self.wanted)
            return
        following = answer.get("next")
        self.wanted = following if isinstance(following, int) else None


def _used_before_said(records: list[spool.Record], shape: int) -> bool:
    for record in records:
        if record.shape == shape and record.kind in (spool.ROW, spool.SHAPE):
            return record.kind == spool.ROW
    return False


class SpoolShipper:
    """Sends all streams of one attempt."""

    def __init__(self, context: Context, attempt: Attempt) -> None:
        self._context = context
        self._attempt = attempt
        self._directory = attempt.path("spool")
        self._path = "/api/v1/attempts/%s/spool" % attempt.id
        self._streams: dict[str, _Stream] = {}
        self._said = False
        self.lock = threading.Lock()

    def any(self) -> bool:
        """Tell whether anything was logged."""
        return os.path.isdir(self._directory)

    def send(self, link: Link, until: float | None = None, dead: bool = False) -> bool:
        """Send what is there; True when all was sent, False when time ran out (``until``: monotonic seconds).

        ``dead``: no process of the attempt lives any more.
        """
        with self.lock:
            if not self.any():
                return True
            for name in spool.streams(self._directory):
                stream = self._streams.get(name)
                if stream is None:
                    stream = self._streams[name] = _Stream(self._directory, name)
                while stream.send(link, self._path, dead):
                    if until is not None and time.monotonic() >= until:
                        return False
            if dead and not self._said:
                self._say_missing(link)
                self._said = True
            return True

    def _say_missing(self, link: Link) -> None:
        """Say what could not be kept or not be read. The stream that says it has a name that is always the same."""
        for name, stream in sorted(self._streams.items()):
            damage = stream.reader.damage
            if damage.lost:
                self._say(link, name + " lost", damage.lost, "disk full")
            if damage.bytes or damage.records or stream.lost:
                self._say(link, name + " damaged", max(damage.records + stream.lost, 1), "damaged")

    def _say(self, link: Link, key: str, records: int, why: str) -> None:
        message: dict[str, Any] = {"type": "missing", "at": time.time_ns() // 1000, "records": records, "why": why}
        stream = hashlib.sha256(key.encode("ascii")).hexdigest()[:16]
        body = spool.join([spool.record(0, spool.MESSAGE, 0, spool.message_body(message))])
        try:
            link.put("%s/%s?first=0" % (self._path, stream), body, TIMEOUT_S)
        except InvalidError as exc:
            raise RunyardError("the server does not take what is missing: %s" % exc.message) from exc
