"""Parameters on the command line of a program that no hook was in: one that is not Python, or is started with ``-I``."""

from __future__ import annotations

import os
import time

from runyard.agent.sources import Source
from runyard.capture.commandline import parse_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.client.spool import Message, Row

SHELLS = frozenset("sh bash dash zsh ksh fish".split())
AFTER_S = 5.0
"""By then a Python program has said that it is one."""


def is_script(command: list[str]) -> bool:
    """Tell whether a script of a shell is started, whose arguments are not those of the Python programs that it starts."""
    return command[0].endswith(".sh") or (os.path.basename(command[0]) in SHELLS and not is_text(command))


def is_text(command: list[str]) -> bool:
    """Tell whether a shell is given its commands as a text (``-c``), which says nothing of parameters."""
    options = [word for word in command[1:2] if word.startswith("-") and not word.startswith("--")]
    return os.path.basename(command[0]) in SHELLS and any("c" in word for word in options)


class Typed(Source):
    """The words of the command, once it is clear that nobody else says what they mean."""

    name = "params"

    def __init__(self, facts: dict[str, Any]) -> None:
        self._spool = facts["spool"]
        self._command = facts["command"]
        self._due = time.monotonic() + AFTER_S
        self._done = False

    def turn(self, over: bool) -> tuple[list[Row], list[Message]]:
        """Return the parameters, once."""
        if self._done or not (over or time.monotonic() >= self._due):
            return [], []
        self._done = True
        script = is_script(self._command)
        silent = is_text(self._command) or (self._is_hooked() and not script)
        values = {} if silent else parse_command(self._command)
        message = {
            "type": "params", "origin": "script" if script else "command", "source": "command line", "values": values,
        }  # fmt: skip
        return [], [(message, b"")] if values else []

    def state(self) -> Any:
        """Return whether they were said."""
        return self._done

    def restore(self, value: Any) -> None:
        """Say them no more."""
        self._done = bool(value)

    def _is_hooked(self) -> bool:
        from runyard.wire import spool

        for stream in spool.streams(self._spool):
            reader = spool.StreamReader(self._spool, stream)
            for record in reader.read():
                if record.kind == spool.MESSAGE and spool.parse_message(record.body)[0].get("writer") == "capture":
                    return True
        return False
