"""Reading TensorBoard's event files (``*tfevents*``) while they are written.

A file is a row of records (TFRecord; source: TensorFlow's record_writer.cc): length (uint64), masked CRC-32C of these 8
bytes (uint32), that many bytes, and their masked CRC-32C; all little-endian. Each record is an Event (`capture.proto`).

The CRC of the length is checked, since all that follows hangs on it. That of the content is not: in Python it takes
longer than all the rest (docs/capture.md). What cannot be decoded is counted and passed over.
"""

from __future__ import annotations

import os
import struct

from runyard.capture import proto
from runyard.capture.tail import Tail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.capture.found import Sink

CHUNK = 1 << 18
MAX_RECORD = 64 << 20
"""A longer record (the graph of a model, mostly) is passed over."""
SPLITS = frozenset("train training val valid validation dev test eval evaluation".split())
MAX_KNOWN = 10_000
"""So many tags are remembered with what has been found out about them."""
MAX_FAILED = 1000
"""So often it is tried to find out more."""
MIN_EVENT = 16
WALL_TIME, STEP = 0x09, 0x10
"""Bytes that the first fields of an Event begin with."""
MAX_FLOAT = 3e38
TRIED = -1234.5
_HEADER = struct.Struct("<QI")
_FLOAT = struct.Struct("<f")
_POLYNOMIAL = 0x82F63B78
_FORMATS = ((b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpg"), (b"GIF8", "gif"), (b"BM", "bmp"))


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)  # noqa: PLW2901 - eight steps of one division
        table.append(value)
    return table


_TABLE = _crc_table()


def masked_crc(data: bytes) -> int:
    """Return the masked CRC-32C (Castagnoli) of some bytes, as TFRecord has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def metric_name(directory: str, tag: str) -> str:
    """Return what a tag is called that was written in a directory of event files.

    A directory that is called as a part of the data (``train``, ``validation``, ...) goes before it, as Keras means it;
    ``loss_val`` with the tag ``loss`` is how `SummaryWriter.add_scalars` of PyTorch says ``loss/val``.
    """
    last = directory.rpartition("/")[2]
    if last.lower() in SPLITS:
        return tag if tag.startswith(last + "/") else last + "/" + tag
    start = tag.replace("/", "_") + "_"
    if last.startswith(start) and len(last) > len(start):
        return tag + "/" + last[len(start) :]
    return tag


class EventsReader:
    """Reads one event file. ``path``: where it is; ``name``: its path in the run's directory."""

    def __init__(self, path: str, name: str) -> None:
        self._tail = Tail(path)
        self._name = name
        self._source = name.rpartition("/")[0]
        self._plugins: dict[str, str] = {}
        self._lengths: dict[int, int] = {}
        self._scalars: dict[int, tuple[int, struct.Struct, dict[bytes, str]]] = {}
        """By length from the step on: place and form of the number, and names by what is around it."""
        self._failed = 0

    def turn(self, sink: Sink, final: bool = False) -> bool:
        """Give what is new to the sink; return whether the turn ended before all was read. Raises OSError."""
        fd = self._tail.open(final)
        if fd is None:
            return False
        try:
            if not self._tail.is_same(fd):
                # Cut off: what is there has been read. Otherwise it is another file, and read from its start.
                self._tail.jump(self._tail.size if self._tail.is_cut(fd) else 0)
            return self._read(fd, sink)
        finally:
            os.close(fd)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON."""
        return {"tail": self._tail.state(), "plugins": self._plugins}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken; raises KeyError, TypeError, ValueError for what is none."""
        self._tail.restore(state["tail"])
        self._plugins = dict(state["plugins"])

    def _read(self, fd: int, sink: Sink) -> bool:
        size = CHUNK
        while True:
            data = self._tail.read(fd, size)
            used = self._records(data, sink, self._tail.offset + len(data) >= self._tail.size)
            if used:
                self._tail.advance(data[:used])
                size = CHUNK
            else:
                wanted = self._wanted(data)
                if wanted <= len(data) or self._tail.offset + wanted > self._tail.size:
                    return False  # the end, or what is there of the last record
                if wanted > MAX_RECORD:
                    sink.refuse(self._name, "records of more than %d MiB" % (MAX_RECORD >> 20))
                    self._tail.jump(self._tail.offset + wanted)
                else:
                    size = wanted
            if sink.over():
                self._tail.unsettle()
                return True

    def _wanted(self, data: bytes) -> int:
        """Return how many bytes the record at the start has; 0 when that is not known yet."""
        if len(data) < _HEADER.size:
            return 0
        length, check = _HEADER.unpack_from(data)
        return _HEADER.size + length + 4 if self._check(data[:8], length) == check else 0

    def _check(self, raw: bytes, length: int) -> int:
        """Return the CRC of a length; most records of a file have one of few."""
        known = self._lengths.get(length)
        if known is None:
            if len(self._lengths) >= MAX_KNOWN:
                self._lengths.clear()
            known = self._lengths[length] = masked_crc(raw)
        return known

    def _records(self, data: bytes, sink: Sink, ends: bool) -> int:
        """Take the whole records at the start; return how many bytes they have. ``ends``: the file has no more."""
        at, size = 0, len(data)
        while at + _HEADER.size <= size:
            length, check = _HEADER.unpack_from(data, at)
            if self._check(data[at : at + 8], length) != check:
                after = self._next(data, at, ends)
                if after > at:
                    sink.refuse(self._name, "damaged bytes", after - at)
                if after <= at or after + _HEADER.size > size:
                    return after
                at = after
                continue
            end = at + _HEADER.size + length + 4
            if end > size:
                break
            self._event(data[at + _HEADER.size : end - 4], sink)
            at = end
        return at

    def _next(self, data: bytes, at: int, ends: bool) -> int:
        """Return where the next record may begin, behind damage at ``at``; ``at`` itself when that cannot be told yet.

        A record begins with a length of less than 4 GiB and its CRC; the Event in it, with the field of its time.
        """
        import re

        start = re.compile(rb"\0\0\0\0.{4}\t", re.DOTALL)
        found = start.search(data, at + 5)
        while found is not None:
            place = found.start() - 4
            length, check = _HEADER.unpack_from(data, place)
            if self._check(data[place : place + 8], length) == check:
                return place
            found = start.search(data, found.start() + 1)
        # Zeros at the end of a file may be room that was reserved, and is still to be written.
        size = len(data.rstrip(b"\0")) if ends else len(data)
        return max(at, size - _HEADER.size + 1)

    def _event(self, data: bytes, sink: Sink) -> None:
        try:
            if self._known_scalar(data, sink):
                return
            wall, step, values = proto.event(data)
            for item in values:
                value = proto.summary_value(item)
                self._take(value, step, _microseconds(wall), sink)
                if len(values) == 1 and self._failed < MAX_FAILED:
                    self._learn(data, value)
        except ValueError:
            sink.refuse(self._name, "damaged records")

    def _known_scalar(self, data: bytes, sink: Sink) -> bool:
        """Take an event that is known, from its step on, but for the bytes of its number: nearly all of most files."""
        if len(data) < MIN_EVENT or data[0] != WALL_TIME:
            return False
        step, at = proto.varint(data, 10) if data[9] == STEP else (0, 9)
        known = self._scalars.get(len(data) - at)
        if known is None:
            return False
        start, number, names = known
        name = names.get(data[at : at + start] + data[at + start + number.size :])
        if name is None:
            return False
        (wall,) = _DOUBLE.unpack_from(data, 1)
        (value,) = number.unpack_from(data, at + start)
        sink.scalar(self._source, name, value, proto.signed(step), _microseconds(wall))
        return True

    def _learn(self, data: bytes, value: proto.Value) -> None:
        """Remember an event of one number: where it stands, and what is around it.

        That it stands there is tried out: with other bytes in its place, the event is the same with another number.
        """
        number = self._number(value)
        if number is None or len(data) < MIN_EVENT or data[0] != WALL_TIME:
            return
        (wall,) = _DOUBLE.unpack_from(data, 1)
        step, at = proto.varint(data, 10) if data[9] == STEP else (0, 9)
        step = proto.signed(step)
        for form in (_FLOAT, _DOUBLE):
            spot = data.find(form.pack(number), at) if abs(number) < MAX_FLOAT else -1
            if spot < 0:
                continue
            event = proto.event(data[:spot] + form.pack(TRIED) + data[spot + form.size :])
            if event[:2] != (wall, step) or len(event[2]) != 1:
                continue
            tried = proto.summary_value(event[2][0])
            if tried.tag == value.tag and self._number(tried) == TRIED != number:
                start, known, names = self._scalars.setdefault(len(data) - at, (spot - at, form, {}))
                if start == spot - at and known is form and len(names) < MAX_KNOWN:
                    names[data[at:spot] + data[spot + form.size :]] = metric_name(self._source, value.tag)
                return
        self._failed += 1

    def _number(self, value: proto.Value) -> float | None:
        """Return the number of a value that is a scalar."""
        if value.scalar is not None or value.tensor is None:
            return value.scalar
        kind = value.plugin or self._plugins.get(value.tag, "")
        found = value.tensor.numbers() if kind in ("scalars", "") else []
        return found[0] if len(found) == 1 else None

    def _take(self, value: proto.Value, step: int, at: int, sink: Sink) -> None:
        """Give one value to the sink; what belongs to other plugins (graphs, curves, meshes) is left out."""
        if value.plugin and value.tensor is not None and len(self._plugins) < MAX_KNOWN:
            # Writers may say it with the first value of a tag only.
            self._plugins[value.tag] = value.plugin
        kind = value.plugin or self._plugins.get(value.tag, "")
        number = self._number(value)
        name = metric_name(self._source, value.tag)
        if kind == "hparams":
            sink.params(
                self._source, proto.hparams(value.content), at, "TensorBoard, %s" % (self._source or self._name)
            )
        elif number is not None:
            sink.scalar(self._source, name, number, step, at)
        elif value.image is not None:
            self._image(name, step, at, [value.image], sink)
        elif value.audio is not None:
            sink.medium(self._source, name, step, at, "audio", "wav", value.audio)
        elif value.histogram is not None:
            self._histogram(name, step, at, proto.histogram(value.histogram), sink)
        elif value.tensor is not None:
            self._tensor(kind, name, step, at, value.tensor, sink)

    def _tensor(self, kind: str, name: str, step: int, at: int, tensor: proto.Tensor, sink: Sink) -> None:
        """Take a value as the plugins of TensorFlow 2 write it."""
        if kind == "text":
            content = b"\n\n".join(tensor.strings)
            name = name[: -len("/text_summary")] if name.endswith("/text_summary") else name
            sink.medium(self._source, name, step, at, "text", "md", content)
        elif kind == "images":
            self._image(name, step, at, tensor.strings[2:], sink)  # before them: width and height
        elif kind == "audio":
            sounds = tensor.strings[::2] if len(tensor.shape) == 2 else tensor.strings
            for content in sounds:
                sink.medium(self._source, name, step, at, "audio", "wav", content)
        elif kind == "histograms":
            numbers = tensor.numbers()
            lefts, rights, counts = numbers[::3], numbers[1::3], numbers[2::3]
            if len(lefts) == len(counts):
                self._histogram(name, step, at, (lefts + rights[-1:], counts), sink)

    def _image(self, name: str, step: int, at: int, images: list[bytes], sink: Sink) -> None:
        for number, content in enumerate(images, 1):
            form = next((form for start, form in _FORMATS if content.startswith(start)), "")
            if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
                form = "webp"
            if not form:
                sink.refuse(name, "an image of unknown format")
                continue
            caption = "%d of %d" % (number, len(images)) if len(images) > 1 else ""
            sink.medium(self._source, name, step, at, "image", form, content, caption)

    def _histogram(self, name: str, step: int, at: int, found: tuple[list[float], list[float]], sink: Sink) -> None:
        """Take a histogram, as JSON: ``edges`` (one more than there are buckets) and ``counts``."""
        import json

        edges, counts = found
        if counts:
            content = json.dumps({"edges": edges, "counts": counts}, separators=(",", ":")).encode("ascii")
            sink.medium(self._source, name, step, at, "histogram", "json", content)


_DOUBLE = struct.Struct("<d")


def _microseconds(wall: float) -> int:
    """Return a time in seconds since 1970 as microseconds; 0 when it is none."""
    return int(wall * 1e6) if 0 < wall < 1e11 else 0
