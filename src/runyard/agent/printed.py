"""Metrics and progress in what the run prints (`runyard.capture.lines`)."""

from __future__ import annotations

import time

from runyard.agent.sources import Source
from runyard.capture.lines import LineParser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.client.spool import Message, Row

PIECE = 1 << 20
TURN_BYTES = 16 << 20
TURN_S = 0.5
"""A turn ends after so much of the log, or so many seconds."""
PROGRESS_EVERY_S = 1.0


class Printed(Source):
    """The raw log of the attempt."""

    name = "logs"

    def __init__(self, facts: dict[str, Any]) -> None:
        self._path = facts["log"]
        self._parser = LineParser(facts["pattern"])
        self._offset = 0
        self._flushed = False
        self._progress: Any = None
        self._said_at = 0.0

    def turn(self, over: bool) -> tuple[list[Row], list[Message]]:
        """Return what is new."""
        rows: list[Row] = []
        until = time.monotonic() + TURN_S
        now_us = time.time_ns() // 1000
        self.behind = False
        try:
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                for _ in range(TURN_BYTES // PIECE):
                    data = file.read(PIECE)
                    self._take(self._parser.feed(data, now_us), rows)
                    self._offset += len(data)
                    if len(data) < PIECE:
                        break
                    if time.monotonic() >= until:
                        self.behind = True
                        break
                else:
                    self.behind = True
        except FileNotFoundError:
            pass  # nothing was printed yet
        if over and not self.behind and not self._flushed:
            self._flushed = True
            self._take(self._parser.flush(now_us), rows)
        return rows, self._say_progress(over)

    def state(self) -> Any:
        """Return how far the log is read, and what the parser has to know."""
        return {"offset": self._offset, "flushed": self._flushed, "parser": self._parser.state()}

    def restore(self, value: Any) -> None:
        """Go on from there."""
        self._offset = int(value["offset"])
        self._flushed = bool(value["flushed"])
        self._parser.restore(value["parser"])

    @staticmethod
    def _take(points: list[Any], rows: list[Row]) -> None:
        rows += [(point.values, point.step, point.at) for point in points]

    def _say_progress(self, over: bool) -> list[Message]:
        progress = self._parser.progress
        now = time.monotonic()
        if progress is None or progress == self._progress or (now < self._said_at + PROGRESS_EVERY_S and not over):
            return []
        self._progress, self._said_at = progress, now
        done, total, left_s, description = progress
        return [({"type": "progress", "done": done, "total": total, "left_s": left_s, "source": description}, b"")]
