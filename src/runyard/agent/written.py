"""Metrics, images and parameters in files that the run writes (`runyard.capture.watch`)."""

from __future__ import annotations

from runyard.agent.sources import Source
from runyard.capture.watch import FileWatcher
from runyard.wire.errors import SnapshotError
from runyard.wire.tree import read_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.client.spool import Message, Row

TURN_S = 0.5


class Written(Source):
    """The files below the run's directory but for the code as it was filled in."""

    name = "files"
    lasting = True

    def __init__(self, facts: dict[str, Any]) -> None:
        self._watcher = FileWatcher(facts["tree"], _code(facts["manifest"]))

    def turn(self, over: bool) -> tuple[list[Row], list[Message]]:
        """Return what is new."""
        found = self._watcher.turn(TURN_S, over)
        self.behind = self._watcher.behind
        return list(found.rows), list(found.messages)

    def state(self) -> Any:
        """Return where every file has been read to."""
        return self._watcher.state()

    def restore(self, value: Any) -> None:
        """Go on from there."""
        self._watcher.restore(value)


def _code(manifest: str) -> set[str]:
    """Return the paths of the code."""
    try:
        return {record.path.decode("utf-8", "surrogateescape") for record in read_manifest(manifest)}
    except (OSError, SnapshotError):
        return set()
