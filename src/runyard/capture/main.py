"""What is known of a program before it has parsed anything: its command line, and the constants of its script."""

from __future__ import annotations

import os
import re

from runyard.capture import program
from runyard.capture.commandline import options
from runyard.capture.constants import constants

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.capture.session import Session

MAX_SCRIPT = 1 << 20
"""Bytes of a script that is looked at."""
_MAY_HAVE = re.compile(
    rb"^\s*(\(?[A-Z][A-Z0-9_]*\b|(?i:params|parameters|h(yper)?param(eter)?s|config|cfg|settings|options|defaults)\b).*=",
    re.MULTILINE,
)
"""Lines without which there is no constant, so that most scripts are not parsed a second time."""


def begin(session: Session) -> None:
    """Record both, and mark the processes that this one starts as children of a program of the run."""
    os.environ[program.MARK] = str(os.getpid())
    found = session.program()
    guess = {} if found.runner else options(session.argv[1:])
    if guess:
        session.params(guess, "command", "command line")
    by_line: dict[int, dict[str, Any]] = {}
    for name, (value, line) in (_constants(found.script) if found.script else {}).items():
        by_line.setdefault(line, {})[name] = value
    source = os.path.relpath(found.script, session.tree) if found.script else ""
    for line, values in by_line.items():
        session.params(values, "constant", "%s:%d" % (source, line))
    session.announce()


def _constants(script: str) -> dict[str, tuple[Any, int]]:
    if not script.endswith(".py"):
        return {}
    try:
        with open(script, "rb") as file:
            text = file.read(MAX_SCRIPT + 1)
    except OSError:
        return {}  # in an archive
    if len(text) > MAX_SCRIPT or not _MAY_HAVE.search(text):
        return {}
    try:
        return constants(text)
    except (SyntaxError, ValueError, RecursionError):
        return {}  # Python itself says so to the user
