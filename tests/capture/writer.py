"""A small writer of event files, and what tests of readers share."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runyard.capture.events import masked_crc
from runyard.capture.found import Found, Ledger, Sink
from runyard.capture.watch import FileWatcher

if TYPE_CHECKING:
    from collections.abc import Iterable

FIXTURES = Path(__file__).parent / "fixtures"
Point = tuple[str, int, str]


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def field(number: int, content: bytes | str | int) -> bytes:
    """A field of bytes, or a varint."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    data = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(data)) + data


def double(number: int, value: float) -> bytes:
    return varint(number << 3 | 1) + struct.pack("<d", value)


def single(number: int, value: float) -> bytes:
    return varint(number << 3 | 5) + struct.pack("<f", value)


def record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", masked_crc(length)) + content + struct.pack("<I", masked_crc(content))


def event(step: int, *values: bytes, wall: float = 1.7e9) -> bytes:
    """A record with an Event whose Summary has these values."""
    content = double(1, wall) + (field(2, step) if step else b"")
    return record(content + (field(5, b"".join(field(1, value) for value in values)) if values else b""))


def scalar(tag: str, value: float) -> bytes:
    return field(1, tag) + single(2, value)


def plugin(name: str, content: bytes = b"") -> bytes:
    """The metadata of a value."""
    return field(9, field(1, field(1, name) + (field(2, content) if content else b"")))


def tensor_scalar(tag: str, value: float, *, told: bool = True) -> bytes:
    """As TensorFlow 2 writes it: a tensor of one double. ``told``: with the plugin that it is of."""
    tensor = field(1, 2) + field(2, b"") + field(4, struct.pack("<d", value))
    return field(1, tag) + field(8, tensor) + (plugin("scalars") if told else b"")


def opening() -> bytes:
    """The record that every event file begins with."""
    return record(double(1, 1.7e9) + field(3, "brain.Event:2"))


def sink(seconds: float = 60.0, ledger: Ledger | None = None) -> Sink:
    return Sink(ledger or Ledger(), time.monotonic() + seconds)


def points(found: Iterable[Found]) -> list[Point]:
    """All values in order: name, step, repr of the value (NaN is no equal of itself)."""
    return [
        (name, step, repr(value)) for one in found for values, step, _ in one.rows for name, value in values.items()
    ]


def messages(found: Iterable[Found], kind: str) -> list[tuple[dict[str, Any], bytes]]:
    return [item for one in found for item in one.messages if item[0]["type"] == kind]


def said(found: Iterable[Found]) -> list[tuple[str, bytes]]:
    """All messages but what was refused, which is counted turn by turn."""
    return [
        (json.dumps({key: value for key, value in message.items() if key != "at"}), content)
        for one in found
        for message, content in one.messages
        if message["type"] != "refused"
    ]


def read_all(tree: Path, *, final: bool = True) -> Found:
    """What a watcher finds in one go."""
    watcher = FileWatcher(str(tree))
    found = watcher.turn(60.0, final=final)
    assert not watcher.behind
    return found
