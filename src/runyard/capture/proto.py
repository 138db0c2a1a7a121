"""Decoding the protocol buffers of TensorBoard's event files by hand.

Sources: the encoding guide of protocol buffers; TensorFlow's event.proto, summary.proto, tensor.proto, types.proto and
histogram.proto; TensorBoard's plugin_data.proto of hparams; Google's struct.proto.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_DOUBLE = struct.Struct("<d")
_FLOAT = struct.Struct("<f")
_FORMATS = {
    1: "f", 2: "d", 3: "i", 4: "B", 5: "h", 6: "b", 9: "q", 10: "?", 17: "H", 19: "e", 22: "I", 23: "Q",
}  # fmt: skip
"""struct formats of the data types of tensors (DT_FLOAT, DT_DOUBLE, DT_INT32, ...)."""
_HALF, _BFLOAT16, _STRING = 19, 14, 7
_NUMBER_FIELDS = {5: "f", 6: "d", 7: "", 10: "", 11: "", 13: "", 16: "", 17: ""}
"""Fields of TensorProto that hold numbers; those without a format are varints."""
MAX_NUMBERS = 100_000
"""Numbers of one tensor or histogram; what has more is no histogram of TensorBoard."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a varint and the offset behind it; raises ValueError when it is cut off or too long."""
    value = shift = 0
    while True:
        try:
            byte = data[at]
        except IndexError:
            raise ValueError("a number is cut off") from None
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Yield number, wire type and value (int for a varint, else bytes) of each field; raises ValueError."""
    at, size = 0, len(data)
    while at < size:
        key = data[at]
        at += 1
        if key >= 128:
            key, at = varint(data, at - 1)
        kind = key & 7
        if key < 8:
            raise ValueError("there is no field 0")
        if kind == VARINT:
            value, at = varint(data, at)
            yield key >> 3, kind, value
            continue
        if kind == BYTES:
            length, at = varint(data, at)
        elif kind == FIXED64:
            length = 8
        elif kind == FIXED32:
            length = 4
        else:
            raise ValueError("wire type %d is not used" % kind)
        end = at + length
        if end > size:
            raise ValueError("a field is cut off")
        yield key >> 3, kind, data[at:end]
        at = end


def signed(value: int) -> int:
    """Return a varint as the int64 that it stands for."""
    return value - (1 << 64) if value >> 63 else value


def text(data: Any) -> str:
    """Return a string field; raises ValueError when it is none."""
    return _bytes(data).decode("utf-8", "replace")


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where bytes belong")  # noqa: TRY004 - all that is malformed is a ValueError
    return value


def number(value: Any) -> float:
    """Return a float or double field; raises ValueError when it is none."""
    size = len(_bytes(value))
    if size not in (4, 8):
        raise ValueError("a floating-point number has 4 or 8 bytes")
    found: float = (_FLOAT if size == 4 else _DOUBLE).unpack(value)[0]
    return found


class Value:
    """One entry of a Summary: what was logged under one tag."""

    __slots__ = ("audio", "content", "histogram", "image", "plugin", "scalar", "tag", "tensor")

    def __init__(self) -> None:
        self.tag = ""
        self.plugin = ""
        self.content = b""
        """Data of the plugin (`hparams`)."""
        self.scalar: float | None = None
        self.image: bytes | None = None
        self.audio: bytes | None = None
        self.histogram: bytes | None = None
        self.tensor: Tensor | None = None


def event(data: bytes) -> tuple[float, int, list[bytes]]:
    """Return wall time (seconds since 1970), step and the values of an Event, not decoded; raises ValueError."""
    wall, step = 0.0, 0
    found: list[bytes] = []
    for field, kind, value in fields(data):
        if field == 1 and kind == FIXED64:
            wall = number(value)
        elif field == 2 and kind == VARINT:
            step = signed(value)
        elif field == 5 and kind == BYTES:
            found += [item for inner, inner_kind, item in fields(value) if inner == 1 and inner_kind == BYTES]
    return wall, step, found


def summary_value(data: bytes) -> Value:
    """Return a Summary.Value; raises ValueError."""
    found = Value()
    for field, _, value in fields(data):
        if field == 1:
            found.tag = text(value)
        elif field == 2:
            found.scalar = number(value)
        elif field == 4:
            found.image = _field(value, 4)
        elif field == 5:
            found.histogram = _bytes(value)
        elif field == 6:
            found.audio = _field(value, 4)
        elif field == 8:
            found.tensor = Tensor(_bytes(value))
        elif field == 9:
            plugin = _field(value, 1)
            found.plugin, found.content = text(_field(plugin, 1)), _field(plugin, 2)
    return found


def _field(data: Any, wanted: int) -> bytes:
    """Return the last bytes field of that number; none when there is none."""
    found = b""
    for field, kind, value in fields(_bytes(data)):
        if field == wanted and kind == BYTES:
            found = value
    return found


class Tensor:
    """A TensorProto. ``shape``: its dimensions. Raises ValueError for what is none, or has more than `MAX_NUMBERS`."""

    __slots__ = ("_content", "_type", "_values", "shape", "strings")

    def __init__(self, data: bytes) -> None:
        self._type = 0
        self._content = b""
        self._values: list[Any] = []
        self.shape: list[int] = []
        self.strings: list[bytes] = []
        for field, kind, value in fields(data):
            if field == 1 and kind == VARINT:
                self._type = value
            elif field == 2:
                self.shape = [_dimension(item) for inner, _, item in fields(_bytes(value)) if inner == 2]
            elif field == 4:
                self._content = _bytes(value)
            elif field == 8:
                self.strings.append(_bytes(value))
            elif field in _NUMBER_FIELDS:
                self._values += _numbers(_NUMBER_FIELDS[field], kind, value)
                if len(self._values) > MAX_NUMBERS:
                    raise ValueError("the tensor has too many numbers")

    def numbers(self) -> list[float]:
        """Return its numbers, however they are written down; none when it is of no numbers."""
        if self._content:
            return _unpack(self._content, self._type)
        if self._type in (_HALF, _BFLOAT16):
            bits = [struct.pack("<H", value & 0xFFFF) for value in self._values if isinstance(value, int)]
            return _unpack(b"".join(bits), self._type)
        if self._type in (3, 5, 6, 9):
            return [float(signed(value) if isinstance(value, int) else value) for value in self._values]
        return [float(value) for value in self._values]


def _dimension(data: Any) -> int:
    for field, kind, value in fields(_bytes(data)):
        if field == 1 and kind == VARINT:
            return signed(value)
    return 0


def _numbers(form: str, kind: int, value: Any) -> list[Any]:
    """Return the numbers of a repeated field, packed or not."""
    if kind == VARINT:
        return [value]
    if form:
        return _unpack(_bytes(value), 1 if form == "f" else 2)
    found, at = [], 0
    while at < len(value):
        item, at = varint(value, at)
        found.append(item)
        if len(found) > MAX_NUMBERS:
            raise ValueError("the tensor has too many numbers")
    return found


def _unpack(data: bytes, kind: int) -> list[float]:
    if kind == _BFLOAT16:
        data = b"".join([b"\0\0" + data[at : at + 2] for at in range(0, len(data) & ~1, 2)])
        kind = 1
    form = _FORMATS.get(kind)
    if form is None:
        return []
    count, left = divmod(len(data), struct.calcsize("<" + form))
    if left or count > MAX_NUMBERS:
        raise ValueError("the tensor has half a number, or too many")
    return [float(value) for value in struct.unpack("<%d%s" % (count, form), data)]


def histogram(data: bytes) -> tuple[list[float], list[float]]:
    """Return edges and counts of a HistogramProto, without empty buckets at the ends; raises ValueError.

    Its outermost limits may be -DBL_MAX and DBL_MAX; least and greatest value take their place, as in TensorBoard.
    """
    least = greatest = 0.0
    limits: list[float] = []
    counts: list[float] = []
    for field, kind, value in fields(data):
        if field == 1:
            least = number(value)
        elif field == 2:
            greatest = number(value)
        elif field == 6:
            limits += _numbers("d", kind, value)
        elif field == 7:
            counts += _numbers("d", kind, value)
    if len(limits) != len(counts) or len(counts) > MAX_NUMBERS:
        raise ValueError("a histogram has as many limits as buckets")
    filled = [place for place, count in enumerate(counts) if count > 0]
    if not filled:
        return [], []
    first, last = filled[0], filled[-1]
    return [least, *limits[first:last], greatest], counts[first : last + 1]


def hparams(content: bytes) -> dict[str, Any]:
    """Return the parameters in the plugin data of a session's start; none when it is of something else.

    Raises ValueError.
    """
    found: dict[str, Any] = {}
    for field, kind, value in fields(content):
        if field != 3 or kind != BYTES:
            continue
        for inner, inner_kind, entry in fields(value):
            if inner == 1 and inner_kind == BYTES:
                found[text(_field(entry, 1))] = _struct_value(_field(entry, 2), 0)
    return found


def _struct_value(data: bytes, depth: int) -> Any:
    """Return a google.protobuf.Value as JSON has it."""
    if depth > 20:
        raise ValueError("a parameter is nested too deeply")
    found: Any = None
    for field, kind, value in fields(data):
        if field == 2:
            found = number(value)
            found = int(found) if found.is_integer() and abs(found) < 1 << 53 else found
        elif field == 3:
            found = text(value)
        elif field == 4 and kind == VARINT:
            found = bool(value)
        elif field == 5:
            pairs = [item for inner, _, item in fields(_bytes(value)) if inner == 1]
            found = {text(_field(item, 1)): _struct_value(_field(item, 2), depth + 1) for item in pairs}
        elif field == 6:
            found = [_struct_value(_bytes(item), depth + 1) for inner, _, item in fields(_bytes(value)) if inner == 1]
    return found
