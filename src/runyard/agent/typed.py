"""Parameters on the command line of a program that no hook was in: one that is not Python, or is started with ``-I``."""

from __future__ import annotations

import os
import re
import time

from runyard.agent.sources import Source
from runyard.capture.commandline import parse_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from runyard.client.spool import Message, Row

_PYTHON = re.compile(r"(?:python|pypy)([0-9]?)\.?([0-9]*)$")
_OLDEST = (3, 8)
SHELLS = frozenset("sh bash dash zsh ksh fish".split())
AFTER_S = 5.0
"""By then a Python program has said that it is one."""


MEANS = "not seen from inside; parameters are guessed from the command line, data that was open only for a moment is missing"


def out_of_reach(command: Sequence[str], program: str) -> str:
    """Return why no hook can be in a Python program; ``""`` where one can, or it is no Python program."""
    found = _PYTHON.match(os.path.basename(os.path.realpath(program or command[0])))
    if found is None:
        return ""
    if found.group(1) and (int(found.group(1)), int(found.group(2) or _OLDEST[1])) < _OLDEST:
        return "its Python is older than 3.8"
    words = iter(command[1:])
    for word in words:
        if not word.startswith("-") or word[1:2] in ("", "-"):
            break
        option = re.split("[cmWX]", word[1:], maxsplit=1)
        keeping = set("ISE").intersection(option[0])
        if keeping:
            return "its Python was started with -%s" % min(keeping)
        if len(option) > 1:
            if word[1 + len(option[0])] in "cm":
                break
            if not option[1]:
                next(words, "")
    return ""


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
        self._program = facts.get("program") or ""
        self._due = time.monotonic() + AFTER_S
        self._done = False

    def turn(self, over: bool) -> tuple[list[Row], list[Message]]:
        """Return the parameters, once."""
        if self._done or not (over or time.monotonic() >= self._due):
            return [], []
        self._done = True
        script = is_script(self._command)
        hooked = self._is_hooked()
        messages: list[dict[str, Any]] = []
        values = {} if is_text(self._command) or (hooked and not script) else parse_command(self._command)
        if values:
            origin = "script" if script else "command"
            messages.append({"type": "params", "origin": origin, "source": "command line", "values": values})
        why = "" if hooked else out_of_reach(self._command, self._program)
        if why:
            messages.append({"type": "capture", "notes": ["%s: %s" % (why, MEANS)]})
        return [], [(message, b"") for message in messages]

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
