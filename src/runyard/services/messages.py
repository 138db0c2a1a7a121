"""What the messages of a spool say (docs/spool.md), put into the store."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeGuard

from runyard.model.spec import is_tag
from runyard.services.api import Json
from runyard.services.configs import parse_config
from runyard.services.context import Change, Context
from runyard.services.views import base_dir
from runyard.store import metrics, outputs, runs, tracked
from runyard.store.metrics import Summary
from runyard.store.types import dump_json
from runyard.wire.files import sync_path, write_atomic
from runyard.wire.paths import RECORDS

RANKS = {"constant": 0, "default": 1, "file": 2, "command": 3, "script": 4, "call": 5, "cli": 6}
"""Origins of parameters; a higher one goes over a lower one, of equal ones the later over the earlier."""
GUESS = RANKS["command"]
UNDER = "under"
"""Of what is captured: parameters that a guess stands for, by the number of their name; not shown."""
KNOWING = frozenset(RANKS[origin] for origin in ("default", "call", "cli"))
"""A program that says what it takes its arguments to mean is not guessed at."""
MEDIA_KINDS = frozenset("text image figure table histogram html audio video".split())
HEAD = 100
VALUE_MAX = 1 << 20
"""Characters of a parameter that are kept."""
NOTES_MAX = 50
FILES_MAX = 1 << 31
NAME_MAX = 1000
BAD_NAME = "a name has 1 to 1000 characters"
TEXT_MAX = 1000
"""Characters of a sentence for people."""
VALUES_MAX = 10000
"""Parameters or results of one message; each is stored with the message's source."""
PATH_MAX = 4096
SYNCS = 4
PROGRESS = ("at", "done", "total", "left_s", "source")
PROCESS = ("at", "writer", "pid", "start", "boot_id", "rank", "python", "program")
I64 = range(-(1 << 63), 1 << 63)


def flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield names joined with ``.`` and plain values; lists, and what else JSON has, stay whole."""
    if not isinstance(values, dict):
        return
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _first(values: Any) -> Iterator[tuple[str, Any]]:
    return islice(flat(values), VALUES_MAX)


def read_config(message: Json) -> list[Json]:
    """Return what a configuration file says as messages about parameters, and what could not be read of it as a note."""
    form, text, path = (message.get(name) for name in ("format", "text", "path"))
    if not (isinstance(form, str) and isinstance(text, str) and isinstance(path, str)):
        return []
    found = parse_config(form, text)
    said = [{"type": "params", "at": message.get("at"), "origin": "file", "source": path, "values": found.values}]
    return said + ([{"type": "capture", "notes": [f"{path}: {found.note}"]}] if found.note else [])


def media_path(base: str, sha256: str, form: str) -> str:
    """Return where the content of a medium is, given the run's directory."""
    return os.path.join(base, RECORDS, "media", f"{sha256}.{form}")


def keep_attachments(context: Context, run: Any, messages: Sequence[tuple[Json, bytes]]) -> None:
    """Write the contents of media to files named by their hash, so that repeating it is harmless.

    They are durable when this returns: what is stored of them after it makes the agent forget them.
    """
    places = []
    for message, content in messages:
        if message["type"] != "media" or not _is_medium(message):
            continue
        path = media_path(base_dir(context, run), hashlib.sha256(content).hexdigest(), message["format"])
        if _size(path) != len(content):  # a power loss may have left an empty one
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write_atomic(path, content, 0o644)
        places.append(path)
    if places:
        with ThreadPoolExecutor(SYNCS) as pool:  # a disk takes several at once in little more time than one
            list(pool.map(sync_path, places))
        directory = os.path.dirname(places[0])
        sync_path(directory)
        sync_path(os.path.dirname(directory))


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


def _is_medium(message: Json) -> bool:
    form, kind = message.get("format"), message.get("kind")
    return (
        isinstance(kind, str)
        and kind in MEDIA_KINDS
        and isinstance(form, str)
        and form.isascii()
        and form.isalnum()
        and len(form) <= 16
        and _is_name(message.get("name"))
        and _is_step(message.get("step"))
    )


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name) <= NAME_MAX


def _is_path(path: Any) -> TypeGuard[str]:
    return isinstance(path, str) and 0 < len(path) <= PATH_MAX


def _is_step(step: Any) -> bool:
    return step is None or _is_whole(step)


def _is_whole(value: Any) -> bool:
    """Tell whether a value is a whole number as databases know them; to some of them true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value in I64


class Messages:
    """Takes in the messages of one batch, in one transaction; `flush` writes what is collected."""

    def __init__(self, changes: Change, run: Any, attempt: Any, ids: dict[str, int], kept: Any) -> None:
        """``ids``: the numbers of all names in the messages; ``kept``: the row of `runyard.store.tracked`."""
        self._changes = changes
        self._run = run
        self._attempt = attempt
        self._ids = ids
        self._params: dict[int, Json] = {}
        self._ranks: dict[int, int] | None = None
        self._media: list[Json] = []
        self._data: list[Json] = []
        self._output_steps: dict[str, int] = {}
        self._progress: Json | None = None
        self._capture: Json = dict(kept.capture or {})
        self._capture_before = dump_json(self._capture)
        self.process: Json | None = None
        self.missing = 0
        self.summaries: dict[int, Summary] = {}

    @staticmethod
    def names_in(message: Json) -> set[str]:
        """Return the names of parameters, metrics and media that a message speaks of."""
        if message["type"] in ("params", "summary"):
            return {name for name, _ in _first(message.get("values"))}
        return {message["name"]} if message["type"] == "media" and _is_name(message.get("name")) else set()

    def take(self, message: Json, content: bytes) -> None:
        """Take in one message; one of a type that is not known here is left out."""
        method = getattr(self, "_take_" + message["type"], None)
        if method is not None:
            method(message, content)

    def flush(self) -> None:
        """Write what was collected."""
        connection, seq = self._changes.connection, self._run.seq
        if self._params:
            self._drop_guesses()
            tracked.save_params(connection, seq, self._params, self._known())
        tracked.add_media(connection, self._media)
        tracked.save_data(connection, seq, self._data)
        outputs.set_steps(connection, self._run.id, self._output_steps)
        changed: Json = {}
        if self._progress is not None:
            changed["progress"] = self._progress
        if dump_json(self._capture) != self._capture_before:
            changed["capture"] = self._capture
        if changed:
            tracked.change(connection, seq, **changed)

    def _drop_guesses(self) -> None:
        """Forget what the command line seemed to set, once the program has said what it does."""
        known = self._known()
        if not KNOWING.intersection([*known.values(), *(row["rank"] for row in self._params.values())]):
            return
        self._params = {name_id: row for name_id, row in self._params.items() if row["rank"] != GUESS}
        guessed = [name_id for name_id, rank in known.items() if rank == GUESS]
        tracked.remove_params(self._changes.connection, self._run.seq, guessed)
        for name_id in guessed:
            del known[name_id]
        for name_id, row in self._capture.pop(UNDER, {}).items():
            if int(name_id) not in known:
                number = None if row["number"] is None else float(row["number"])
                self._params.setdefault(int(name_id), {**row, "number": number})

    def _known(self) -> dict[int, int]:
        if self._ranks is None:
            self._ranks = tracked.param_ranks(self._changes.connection, self._run.seq)
        return self._ranks

    def _take_process(self, message: Json, _content: bytes) -> None:
        self.process = _plain_fields(message, PROCESS)

    def _take_params(self, message: Json, _content: bytes) -> None:
        rank, source = RANKS.get(str(message.get("origin")), 0), _text(message.get("source"))
        for name, value in self._values(message):
            name_id = self._ids.get(name)
            if name_id is None:
                self._refuse(name, BAD_NAME)
                continue
            before = self._params.get(name_id)
            row = {**_value(value), "rank": rank, "source": source}
            above = before["rank"] if before else self._known().get(name_id, -1)
            if rank >= above:
                self._params[name_id] = row
            elif above == GUESS:
                # JSON has no infinity; `_drop_guesses` makes it a number again.
                self._capture.setdefault(UNDER, {})[str(name_id)] = {**row, "number": _plain(row["number"])}

    def _values(self, message: Json) -> Iterator[tuple[str, Any]]:
        values = message.get("values")
        for name, _ in islice(flat(values), VALUES_MAX, VALUES_MAX + 1):
            self._refuse(name, f"it and what follows it are more than {VALUES_MAX} values at once")
        return _first(values)

    def _take_summary(self, message: Json, _content: bytes) -> None:
        for name, value in self._values(message):
            number = _number(value)
            if name not in self._ids or number is None:
                self._refuse(name, "a summary is a number" if name in self._ids else BAD_NAME)
            else:
                self.summaries[self._ids[name]] = metrics.of_value(self._attempt.number, number, _time(message))

    def _take_tags(self, message: Json, _content: bytes) -> None:
        given = message.get("add")
        tags = given if isinstance(given, list) else []
        for tag in tags:
            if not is_tag(tag):
                self._refuse(str(tag), "a tag has 1 to 200 printable characters")
        runs.set_tags(self._changes.connection, self._run.id, [tag for tag in tags if is_tag(tag)], [])

    def _take_media(self, message: Json, content: bytes) -> None:
        if not _is_medium(message) or message["name"] not in self._ids:
            known = _is_name(message.get("name"))
            self._refuse(str(message.get("name")), "this is no medium" if known else BAD_NAME)
            return
        self._media.append(
            {
                "run_seq": self._run.seq, "attempt": self._attempt.number, "name_id": self._ids[message["name"]],
                "step": message.get("step"), "at": _time(message), "kind": message["kind"],
                "format": message["format"], "caption": _text(message.get("caption")),
                "sha256": hashlib.sha256(content).hexdigest(), "size": len(content),
            }
        )  # fmt: skip

    def _take_data(self, message: Json, _content: bytes) -> None:
        files = message.get("files")
        for item in files if isinstance(files, list) else []:
            path = item.get("path") if isinstance(item, dict) else None
            if not _is_path(path):
                continue
            numbers = {name: item.get(name) for name in ("size", "mtime_us", "files")}
            numbers["files"] = numbers["files"] or item.get("count")
            if not all(value is None or _is_whole(value) for value in numbers.values()):
                continue
            if not 0 <= (numbers["files"] or 0) < FILES_MAX:
                continue
            self._data.append(
                {
                    "path": path, "size": numbers["size"], "mtime": numbers["mtime_us"],
                    "sha256": _word(item.get("sha256"), 64), "via": _word(item.get("via")),
                    "files": numbers["files"],
                }
            )  # fmt: skip

    def _take_output(self, message: Json, _content: bytes) -> None:
        path, step = message.get("path"), message.get("step")
        if _is_path(path) and step is not None and _is_step(step):
            self._output_steps[path] = step

    def _take_progress(self, message: Json, _content: bytes) -> None:
        self._progress = _plain_fields(message, PROGRESS)

    def _take_capture(self, message: Json, _content: bytes) -> None:
        for name in ("active", "off", "notes"):
            have, said = self._capture.setdefault(name, []), message.get(name)
            for item in said if isinstance(said, list) else []:
                if isinstance(item, str) and item[:TEXT_MAX] not in have and len(have) < NOTES_MAX:
                    have.append(item[:TEXT_MAX])

    def _take_refused(self, message: Json, _content: bytes) -> None:
        self._refuse(str(message.get("name")), str(message.get("why")), _count(message.get("count")) or 1)

    def _take_missing(self, message: Json, _content: bytes) -> None:
        self.miss(_count(message.get("records")), _text(message.get("why")))

    def miss(self, records: int, why: str) -> None:
        """Note that records are missing for good."""
        self.missing += records
        self._capture["missing"] = self._capture.get("missing", 0) + records
        self._capture["missing_why"] = why

    def _refuse(self, name: str, why: str, count: int = 1) -> None:
        refused = self._capture.setdefault("refused", [])
        name, why = name[:NAME_MAX], why[:TEXT_MAX]
        for item in refused:
            if item["name"] == name and item["why"] == why:
                item["count"] += count
                return
        if len(refused) < NOTES_MAX:
            refused.append({"name": name, "why": why, "count": count})


def _word(value: Any, length: int = 16) -> str | None:
    """Return a short text as `store.types.Word` takes it, None for what is none."""
    return value[:length] if isinstance(value, str) and value.isascii() and value.isprintable() else None


def _time(message: Json) -> int:
    at = message.get("at", 0)
    return int(at) if _is_whole(at) else 0


def _number(value: Any) -> float | None:
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            return None
    return None


def _count(value: Any) -> int:
    return int(value) if _is_whole(value) and 0 <= value < 1 << 40 else 0


def _text(value: Any) -> str:
    return value[:TEXT_MAX] if isinstance(value, str) else ""


def _plain_fields(message: Json, names: Sequence[str]) -> Json:
    """Return those of these fields that are text, numbers, true, false or null."""
    fields = {name: message[name] for name in names if name in message and _is_plain(message[name])}
    return {name: value[:TEXT_MAX] if isinstance(value, str) else value for name, value in fields.items()}


def _is_plain(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, (str, bool))
        or _is_whole(value)
        or (isinstance(value, float) and math.isfinite(value))
    )


def _value(value: Any) -> Json:
    """Return a parameter as it is stored: kind, number, head, value."""
    if isinstance(value, bool):
        return {"kind": "bool", "number": float(value), "head": "true" if value else "false", "value": value}
    if value is None:
        return {"kind": "null", "number": None, "head": "null", "value": None}
    number = _number(value)
    if number is not None and isinstance(value, (int, float)):
        plain = _plain(value)
        stored = None if math.isnan(number) else number  # as `store.types.Number` has it
        return {"kind": "number", "number": stored, "head": str(plain)[:HEAD], "value": plain}
    text = value if isinstance(value, str) else dump_json(_plain(value))
    if len(text) > VALUE_MAX:
        text = text[:VALUE_MAX]
        value = text
    return {
        "kind": "text",
        "number": None,
        "head": text[:HEAD],
        "value": value if isinstance(value, str) else _plain(value),
    }


def _plain(value: Any) -> Any:
    """Return JSON without numbers that it does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return value
