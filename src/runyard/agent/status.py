"""status.json, the supervisor's word to the agent, written so that a full disk cannot lose the end."""

from __future__ import annotations

import os
import time

from runyard.wire import files, jsonlite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "status.json"
_RESERVE = 8192
"""Bytes set aside at the start for the end."""
_RETRY_S = 60.0


class StatusFile:
    """Writer of one attempt's status.json."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, NAME)
        self._spare = self._path + ".end"
        self._fd = -1
        self._value: dict[str, Any] = {}

    def begin(self, value: dict[str, Any]) -> None:
        """Set space aside for the end, then write the status. Raise OSError when the disk has no room for both."""
        self._fd = os.open(self._spare, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        if os.write(self._fd, b" " * _RESERVE) != _RESERVE:
            raise OSError("no room for the end of the attempt")
        self._value = value
        files.write_json(self._path, value)

    def finish(self, end: dict[str, Any]) -> bool:
        """Add the end; keep trying for a minute when the disk refuses. Return whether it was written.

        The blocks are there already, and blanks after a JSON value mean nothing, so this is an overwrite and a rename.
        """
        data = jsonlite.dumps(dict(self._value, end=end)).encode("ascii")
        if len(data) > _RESERVE:
            data = jsonlite.dumps(dict(self._value, end=dict(end, detail=end["detail"][:200], leftover=[]))).encode(
                "ascii"
            )
        deadline = time.monotonic() + _RETRY_S
        while True:
            try:
                os.pwrite(self._fd, data.ljust(_RESERVE), 0)
                os.rename(self._spare, self._path)
                break
            except OSError:
                if not os.path.isdir(os.path.dirname(self._path)) or time.monotonic() > deadline:
                    return False
                time.sleep(0.5)
        self._sync()
        return True

    def _sync(self) -> None:
        """Make the end survive a power loss; after the rename, because readers need not wait for that."""
        try:
            os.fsync(self._fd)
            directory = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError:
            pass  # written it is; more cannot be done
