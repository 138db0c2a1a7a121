"""Text for people: sizes, times, tables, and characters that must not act on a terminal."""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from runyard.wire.errors import RunyardError

_CONTROL = {code: "\\x%02x" % code for code in (*range(32), *range(127, 160))}
_CONTROL.update({10: "\\n", 9: "\\t", 13: "\\r"})
_CONTROL.update({code: "\\u%04x" % code for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F)})
COLOURS = {"finished": "32", "failed": "31", "killed": "33", "lost": "35", "running": "36", "held": "2", "queued": "34"}


def plain(text: str) -> str:
    """Return text in which control characters, and bytes that are no UTF-8, are escaped: one printable line."""
    text = text.translate(_CONTROL)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def notice(text: str) -> None:
    """Print one line for people, on stderr; data goes to stdout."""
    sys.stderr.write(plain(text) + "\n")
    sys.stderr.flush()


def place(query: str, column: int, width: int = 100) -> list[str]:
    """Return the line of a query and one with a caret below its ``column`` (from 1); of a long one what is around it."""
    at = max(0, min(column - 1, len(query)))
    start = max(0, at - width // 2) if len(query) > width else 0
    piece = query[start : start + width]
    before = ("…" if start else "") + plain(query[start:at])
    return [
        ("…" if start else "") + plain(piece) + ("…" if start + width < len(query) else ""),
        " " * len(before) + "^",
    ]


def hint(error: RunyardError, command: str) -> str:
    """Return what a person can do after an error; what the server tells programs to read is replaced."""
    if "/openapi.json" not in error.hint and "docs/protocol.md" not in error.hint:
        return error.hint
    if error.code == "invalid":
        return "see `runyard %s --help`" % command
    return "the server may be of another version than this command: runyard restart"


def size(number: float | None) -> str:
    """Return bytes as ``512 B``, ``1.5 MB`` (binary multiples)."""
    if number is None:
        return "-"
    value = float(number)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1024 or unit == "TB":
            break
        value /= 1024
    return "%d %s" % (value, unit) if unit == "B" or value >= 100 else "%.1f %s" % (value, unit)


def duration(seconds: float | None) -> str:
    """Return seconds as ``3.2s``, ``2m05s``, ``1h30m``, ``2d04h``."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return "%.1fs" % max(seconds, 0.0)
    whole = int(seconds)
    if whole < 3600:
        return "%dm%02ds" % divmod(whole, 60)
    if whole < 86400:
        return "%dh%02dm" % divmod(whole // 60, 60)
    return "%dd%02dh" % divmod(whole // 3600, 24)


def parse_iso(text: str | None) -> float | None:
    """Return seconds since 1970 of an ISO 8601 time in UTC; None for None or something else."""
    if not text:
        return None
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def age(text: str | None, now: float | None = None) -> str:
    """Return how long ago an ISO time was: ``5s``, ``12m``, ``3h``, ``2d``."""
    then = parse_iso(text)
    if then is None:
        return "-"
    seconds = max(0, int((time.time() if now is None else now) - then))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return "%d%s" % (seconds // length, unit)
    return "%ds" % seconds


def local_time(text: str | None) -> str:
    """Return an ISO time in the local time zone, ``2026-11-20 09:30:05``."""
    then = parse_iso(text)
    return "-" if then is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(then))


def command_line(words: Sequence[str]) -> str:
    """Return a command as one line that a shell would read back."""
    return " ".join(quote(word) for word in words)


def quote(word: str) -> str:
    """Quote one word for a shell, only where needed."""
    safe = "@%+=:,./-_"
    if word and all((c.isalnum() and c.isascii()) or c in safe for c in word):
        return word
    return "'" + word.replace("'", "'\"'\"'") + "'"


def colour(text: str, state: str, stream: Any = None) -> str:
    """Return text in the colour of a run state, where the stream is a terminal that wants colours."""
    code = COLOURS.get(state)
    if not code or os.environ.get("NO_COLOR") or not (stream or sys.stdout).isatty():
        return text
    return "\x1b[%sm%s\x1b[0m" % (code, text)


def table(rows: Sequence[Sequence[str]], head: Sequence[str], states: Sequence[str] = ()) -> str:
    """Return rows under a head, in columns; the last column is cut to the terminal's width on a terminal only.

    ``states``: the run state of each row; its cell that equals the state is coloured on a terminal.
    """
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(head), *cells]) for i in range(len(head))]
    limit = _width()
    lines = []
    for number, row in enumerate([list(head), *cells]):
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        line = "  ".join(padded).rstrip()
        if limit and len(line) > limit:
            line = line[: limit - 1] + "…"
        state = states[number - 1] if number and states else ""
        lines.append(line.replace(state, colour(state, state), 1) if state else line)
    return "\n".join(lines)


def _width() -> int:
    """Return the width of the terminal on stdout in columns; 0 when stdout is none."""
    try:
        return os.get_terminal_size(1).columns if os.isatty(1) else 0
    except (OSError, ValueError):
        return 0


def pairs(rows: Sequence[tuple[str, str]], indent: str = "") -> str:
    """Return ``name  value`` lines with the values aligned; rows without a value are left out."""
    kept = [(name, value) for name, value in rows if value]
    width = max((len(name) for name, _ in kept), default=0)
    return "\n".join("%s%s  %s" % (indent, name.ljust(width), plain(value)) for name, value in kept)


def count(number: int, noun: str, plural: str = "") -> str:
    """Return ``1 file``, ``3 files``."""
    return "%d %s" % (number, noun if number == 1 else plural or noun + "s")


def reasons(values: Sequence[Any]) -> str:
    """Return the reasons a run waits as one text."""
    texts = [value.get("message") or value.get("code") if isinstance(value, dict) else value for value in values]
    return "; ".join(str(item) for item in texts)
