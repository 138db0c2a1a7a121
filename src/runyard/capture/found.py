"""What the readers of files find, under names that say which file meant what."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = tuple[dict[str, float], int, int]
    Message = tuple[dict[str, Any], bytes]

MAX_ROWS = 20_000
MAX_BYTES = 16 << 20
"""A turn ends after so many rows, or so many bytes of media."""
MAX_MEDIUM = 16 << 20
"""Bytes of one image, text or recording; a larger one stays in its file only."""
MAX_NAMES = 20_000
MAX_NAME = 1000
"""Characters of a name (docs/spool.md)."""
KEPT_MEDIA = 100
"""So many media of each name are all kept, then every second of the next hundred, every fourth of the next 200, ..."""
TOGETHER_US = 1_000_000
"""Values of one step become one row if no more time than this is between them."""
I64 = 1 << 63
_SUFFIXES = frozenset("csv tsv json jsonl ndjson log txt".split())


class Found:
    """What is new. ``rows``: values by name, step, time (microseconds since 1970 UTC; 0: not known).

    ``messages``: a message as in docs/spool.md (``params``, ``summary``, ``media``, ``refused``), and its attachment.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.messages: list[Message] = []


class Ledger:
    """What must be remembered over all files: which file a name belongs to, and how many media it has.

    The first file (or directory of event files) with a name has it as it is. What another one calls the same gets the
    part of its path before the name that tells the two apart: ``fold2/loss``.
    """

    def __init__(self) -> None:
        self._owners: dict[str, dict[str, str]] = {"metrics": {}, "media": {}, "params": {}}
        self._media: dict[str, int] = {}
        self._known: dict[tuple[str, str, str], str | None] = {}
        self.chains: dict[str, Any] = {}
        """State of what several files say together (``trainer_state.json`` of all checkpoints)."""

    def name(self, kind: str, source: str, name: str) -> str | None:
        """Return the name under which a source's value goes; None when it can have none."""
        try:
            return self._known[kind, source, name]
        except KeyError:
            pass
        found = self._find(self._owners[kind], source, name)
        self._known[kind, source, name] = found
        return found

    @staticmethod
    def _find(owners: dict[str, str], source: str, name: str) -> str | None:
        name = plain(name)
        if not name or len(name) > MAX_NAME:
            return None
        first = owners.get(name, "")
        for before in ("", apart(_stem(source), _stem(first)), apart(source, first), source):
            candidate = plain(before) + "/" + name if before else name
            owner = owners.get(candidate)
            if owner == source:
                return candidate
            if owner is None and len(owners) < MAX_NAMES and len(candidate) <= MAX_NAME:
                owners[candidate] = source
                return candidate
        return None

    def wants(self, name: str) -> bool:
        """Tell whether the next medium of a name is one to keep."""
        count = self._media.get(name, 0)
        self._media[name] = count + 1
        return count < KEPT_MEDIA or not count % (1 << (count // KEPT_MEDIA).bit_length())

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON."""
        return {"owners": self._owners, "media": self._media, "chains": self.chains}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken; raises KeyError, TypeError, ValueError, AttributeError for what is none."""
        self._owners = {kind: dict(state["owners"][kind]) for kind in self._owners}
        self._media = {str(name): int(count) for name, count in state["media"].items()}
        self.chains = dict(state["chains"])
        self._known = {}


def _stem(path: str) -> str:
    """Return the path of a table without its suffix."""
    start, _, suffix = path.rpartition(".")
    return start if suffix in _SUFFIXES else path


def apart(path: str, other: str) -> str:
    """Return the part of a path that another path does not have at its start and its end; all of it, if none is left."""
    mine, theirs = path.split("/"), other.split("/")
    start = 0
    while start < min(len(mine), len(theirs)) and mine[start] == theirs[start]:
        start += 1
    end = 0
    while end < min(len(mine), len(theirs)) - start and mine[-1 - end] == theirs[-1 - end]:
        end += 1
    return "/".join(mine[start : len(mine) - end]) or path


class Sink:
    """Takes what the readers find in one turn. ``deadline``: when the turn is to end, on the monotonic clock."""

    def __init__(self, ledger: Ledger, deadline: float) -> None:
        self.found = Found()
        self.ledger = ledger
        self._deadline = deadline
        self._bytes = 0
        self._refused: dict[tuple[str, str], int] = {}
        self._last: tuple[str, int, int] | None = None
        self._row: dict[str, float] = {}

    def over(self) -> bool:
        """Tell whether the turn should end here."""
        return (
            time.monotonic() >= self._deadline or len(self.found.rows) >= MAX_ROWS or self._bytes >= MAX_BYTES
        )  # fmt: skip

    def scalar(self, source: str, name: str, value: float, step: int, at: int) -> None:
        """Take one value; those of one step that follow one another become one row."""
        known = self.ledger.name("metrics", source, name)
        if known is None:
            self.refuse(name, "there are too many names, or it is too long")
            return
        last = self._last
        if (
            last is not None
            and last[1] == step
            and last[0] == source
            and 0 <= at - last[2] <= TOGETHER_US
            and known not in self._row
        ):
            self._row[known] = value
            return
        self._row = {known: value}
        self._last = (source, step, at)
        self.found.rows.append((self._row, step, at))

    def row(self, source: str, values: dict[str, float], step: int, at: int) -> None:
        """Take the values of one row of a table."""
        named = {}
        for name, value in values.items():
            known = self.ledger.name("metrics", source, name)
            if known is None:
                self.refuse(name, "there are too many names, or it is too long")
            else:
                named[known] = value
        if named and -I64 <= step < I64:
            self.found.rows.append((named, step, at))

    def params(self, source: str, values: dict[str, Any], at: int, said_by: str) -> None:
        """Take parameters; ``said_by``: for people, where they are from."""
        named = {self.ledger.name("params", source, name): value for name, value in values.items()}
        named.pop(None, None)
        if named:
            self._say({"type": "params", "values": named, "origin": "call", "source": plain(said_by)}, at)

    def summary(self, source: str, values: dict[str, float], at: int) -> None:
        """Take results that have no step."""
        named = {self.ledger.name("metrics", source, name): value for name, value in values.items()}
        named.pop(None, None)
        if named:
            self._say({"type": "summary", "values": named}, at)

    def medium(
        self, source: str, name: str, step: int, at: int, kind: str, form: str, content: bytes, caption: str = ""
    ) -> None:
        """Take an image, a text, a histogram or a recording, unless there are many of its name already."""
        known = self.ledger.name("media", source, name)
        if known is None:
            self.refuse(name, "there are too many names, or it is too long")
        elif len(content) > MAX_MEDIUM:
            self.refuse(known, "larger than %d MiB" % (MAX_MEDIUM >> 20))
        elif not self.ledger.wants(known):
            self.refuse(known, "one of many: it is in its file only")
        else:
            self._bytes += len(content)
            message = {"type": "media", "name": known, "step": step, "kind": kind, "format": form, "caption": caption}
            self._say(message, at, content)

    def refuse(self, name: str, why: str, count: int = 1) -> None:
        """Note that something was not taken."""
        key = (plain(name)[:MAX_NAME], why)
        self._refused[key] = self._refused.get(key, 0) + count

    def finish(self) -> Found:
        """Return what was found, with what was refused."""
        for (name, why), count in self._refused.items():
            self._say({"type": "refused", "name": name, "why": why, "count": count}, 0)
        self._refused = {}
        return self.found

    def _say(self, message: dict[str, Any], at: int, attachment: bytes = b"") -> None:
        self.found.messages.append((dict(message, at=at) if at else message, attachment))


def plain(text: str) -> str:
    """Return a text, or a path, without what UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
