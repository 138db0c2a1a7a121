"""Sending what a run logs: the records of its spool streams, until the server has each of them (docs/spool.md).

Nothing is remembered here that the files and the server do not know: the server says which record of a stream it wants.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time

from runyard.agent.link import FailedError
from runyard.wire import spool
from runyard.wire.errors import ConflictError, InvalidError, RunyardError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runyard.agent.context import Context
    from runyard.agent.link import Link
    from runyard.agent.state import Attempt

TIMEOUT_S = 60.0
DISK_FULL = "disk full"
MAX_NAME = 300


class _Stream:
    """One stream: its reader, what was read and not yet sent, and what the server wants next (None: not known yet)."""

    def __init__(self, directory: str, path: str, name: str) -> None:
        """``path``: of the streams of the attempt at the server."""
        self.directory = directory
        self.path = path
        self.name = name
        self.wanted: int | None = None
        self._rewind(0)

    def _rewind(self, first: int) -> None:
        self.reader = spool.StreamReader(self.directory, self.name)
        self.reader.skip_missing()
        self.reader.next = max(self.reader.next, first)
        self.pending: list[spool.Record] = []

    def send(self, link: Link, dead: bool) -> bool:
        """Send one batch; False when there was nothing to send. ``dead``: nobody writes it any more."""
        if not self.pending:
            self.reader.dead = dead
            self.pending = self.reader.read()
        if not self.pending:
            return False
        first = self.pending[0].number
        try:
            self._put(link, self.pending)
        except ConflictError as exc:
            wanted = exc.details.get("next")
            if not isinstance(wanted, int) or wanted >= first:
                raise
            self.wanted = wanted
            self._rewind(wanted)
            return True
        self.pending = []
        for segment in range(self.reader.segment - 1, -1, -1):
            self._say_lost(link, segment)
            try:
                os.unlink(self.reader.path(segment))
            except FileNotFoundError:
                break  # and those before it
        return True

    def _put(self, link: Link, records: list[spool.Record], stand_in: bool = False) -> None:
        """Send records. In the place of one that the server refuses it is said what was refused, and why."""
        first = records[0].number
        gap = self.wanted is not None and first > self.wanted
        body = spool.join(self._shapes_for(records) + [record.raw for record in records])
        address = "%s/%s?first=%d%s" % (self.path, self.name, first, "&lost=true" if gap else "")
        try:
            answer = link.put(address, body, TIMEOUT_S)
        except InvalidError as exc:
            if stand_in:
                raise RunyardError("the server does not take that it refused something: %s" % exc.message) from exc
            half = len(records) // 2
            if not half:
                return self._put(link, [self._refused(records[0], exc.message)], stand_in=True)
            self._put(link, records[:half])
            return self._put(link, records[half:])
        following = answer.get("next")
        self.wanted = following if isinstance(following, int) else None
        return None

    def _shapes_for(self, records: list[spool.Record]) -> list[bytes]:
        """Return the shapes that rows among these records have, and that are not said there before them."""
        needed = {record.shape for record in records if record.kind == spool.ROW}
        said = {record.shape for record in records if record.kind == spool.SHAPE}
        shapes = [self.reader.shapes[shape] for shape in sorted(needed - said) if shape in self.reader.shapes]
        # A shape that is said again in these records may be used before that: then it is the one from before.
        return shapes + [
            self.reader.shapes[shape] for shape in sorted(needed & said) if _used_before_said(records, shape)
        ]

    def _refused(self, record: spool.Record, why: str) -> spool.Record:
        """Return what takes the place of a record that the server refuses, under its number."""
        name = "a record of the spool"
        try:
            if record.kind == spool.MESSAGE:
                name = "a message about %s" % spool.parse_message(record.body)[0]["type"]
            elif record.kind == spool.ROW:
                name = ", ".join(spool.parse_shape(self.reader.shapes[record.shape][spool.RECORD_BYTES :]))
        except (ValueError, KeyError):
            pass  # that is why it is refused
        message = {"type": "refused", "at": time.time_ns() // 1000, "name": name[:MAX_NAME], "why": why, "count": 1}
        raw = spool.record(record.number, spool.MESSAGE, 0, spool.message_body(message))
        return spool.Record(record.number, spool.MESSAGE, 0, raw, 0)

    def say_missing(self, link: Link) -> None:
        """At the end: say what could not be kept or not be read, as far as it has not been said."""
        for segment in sorted(self.reader.lost):
            self._say_lost(link, segment)
        damage = self.reader.damage
        if damage.bytes and not damage.records:  # at the end; elsewhere the server sees the gap
            self.say(link, "damaged", 1, "damaged")

    def _say_lost(self, link: Link, segment: int) -> None:
        lost = self.reader.lost.get(segment, 0)
        if lost:
            self.say(link, "%d lost" % segment, lost, DISK_FULL)

    def say(self, link: Link, key: str, records: int, why: str) -> None:
        """Say that records are missing: in a stream of its own, named by the key, so that it is said once."""
        message = {"type": "missing", "at": time.time_ns() // 1000, "records": records, "why": why}
        stream = hashlib.sha256(("%s %s" % (self.name, key)).encode("utf-8")).hexdigest()[:16]
        body = spool.join([spool.record(0, spool.MESSAGE, 0, spool.message_body(message))])
        link.put("%s/%s?first=0" % (self.path, stream), body, TIMEOUT_S)


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

        ``dead``: no process of the attempt lives any more. Raises FailedError, at the end, if the server fails over a
        stream: the others are sent.
        """
        with self.lock:
            if not self.any():
                return True
            failed: FailedError | None = None
            for name in spool.streams(self._directory):
                try:
                    while self._stream(name).send(link, dead):
                        if until is not None and time.monotonic() >= until:
                            return False
                except FailedError as exc:
                    failed = exc
            if failed is not None:
                raise failed
            if dead and not self._said:
                self._say_missing(link)
                self._said = True
            return True

    def _stream(self, name: str) -> _Stream:
        if name not in self._streams:
            self._streams[name] = _Stream(self._directory, self._path, name)
        return self._streams[name]

    def _say_missing(self, link: Link) -> None:
        for _, stream in sorted(self._streams.items()):
            stream.say_missing(link)
        for name, records in sorted(spool.lost_without_segment(self._directory).items()):
            self._stream(name).say(link, "lost", records, DISK_FULL)
