"""The form in which points of metrics are stored: compressed columns, exact to the bit.

A block is ``version, columns, rows, CRC-32 of what follows`` (``<BxHII``, 12 bytes), the ids of the columns' names (int64
each), and one zstd frame. In it come the times and the steps, each as the differences of neighbours (int64, modulo 2^64,
the first from 0), then the values of each column (float64); every one of these has its bytes transposed: all first bytes,
then all second bytes, and so on, because the high bytes of neighbours are alike. Everything is little-endian.
"""

from __future__ import annotations

import operator
import struct
import sys
import zlib
from array import array
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import zstandard

HEADER = struct.Struct("<BxHII")
VERSION = 1
LEVEL = 3
MAX_COLUMNS = 32
"""Reading one metric decodes the whole block, so wide rows are cut into blocks of so many."""
WORD = 8
_WRAP = 1 << 64
_NATIVE = sys.byteorder == "little"


class DamagedBlockError(ValueError):
    """A block is not what was written."""


class Points(NamedTuple):
    """Points of one metric: numpy arrays of the same length."""

    times: Any
    """int64: microseconds since 1970 UTC."""
    steps: Any
    """int64."""
    values: Any
    """float64."""

    def part(self, start: int, stop: int) -> Points:
        """Return some of the points, by place."""
        return Points(self.times[start:stop], self.steps[start:stop], self.values[start:stop])

    def pick(self, places: Any) -> Points:
        """Return the points at these places."""
        return Points(self.times[places], self.steps[places], self.values[places])


def joined(parts: Sequence[Points]) -> Points:
    """Return the points of all parts, one after the other; there is at least one part."""
    import numpy as np

    if len(parts) == 1:
        return parts[0]
    return Points(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class Block(NamedTuple):
    """Rows of several metrics that were logged together."""

    names: list[int]
    points: list[Points]


def encode(names: Sequence[int], times: array[int], steps: array[int], columns: Sequence[array[float]]) -> bytes:
    """Return a block of at most `MAX_COLUMNS` columns, all of the same length."""
    ids = array("q", names)
    planes = [*_planes(_differences(times)), *_planes(_differences(steps))]
    for column in columns:
        planes += _planes(column)
    payload = little_endian(ids) + zstandard.ZstdCompressor(level=LEVEL).compress(b"".join(planes))
    return HEADER.pack(VERSION, len(names), len(times), zlib.crc32(payload)) + payload


def encode_one(name: int, points: Points) -> bytes:
    """Return a block of one metric."""
    times, steps = array("q", points.times.tobytes()), array("q", points.steps.tobytes())
    return encode([name], times, steps, [array("d", points.values.tobytes())])


def decode(data: bytes) -> Block:
    """Undo `encode`; raises DamagedBlockError."""
    names, rows = _header(data)
    return Block(names, _decoded(data, names, rows, range(len(names))))


def decode_one(data: bytes, name: int) -> Points | None:
    """Return the points of one metric, None when the block has none; raises DamagedBlockError."""
    names, rows = _header(data)
    return _decoded(data, names, rows, [names.index(name)])[0] if name in names else None


def _header(data: bytes) -> tuple[list[int], int]:
    if len(data) < HEADER.size:
        raise DamagedBlockError("a block is cut off")
    version, count, rows, check = HEADER.unpack_from(data)
    end = HEADER.size + count * WORD
    if version != VERSION or end > len(data):
        raise DamagedBlockError("a block has a form that is not known")
    if zlib.crc32(memoryview(data)[HEADER.size :]) != check:
        raise DamagedBlockError("a block does not fit its checksum")
    return list(array("q", _swapped(data[HEADER.size : end]))), rows


def _decoded(data: bytes, names: list[int], rows: int, wanted: Sequence[int]) -> list[Points]:
    import numpy as np

    size = rows * WORD
    try:
        payload = zstandard.ZstdDecompressor().decompress(
            data[HEADER.size + len(names) * WORD :], max_output_size=max(size * (len(names) + 2), 1)
        )
    except zstandard.ZstdError as exc:
        raise DamagedBlockError(f"a block cannot be decompressed: {exc}") from exc
    if len(payload) != size * (len(names) + 2):
        raise DamagedBlockError("a block has not the length that it says")

    def column(kind: str, place: int) -> Any:
        planes = np.frombuffer(payload, dtype=np.uint8, count=size, offset=place * size).reshape(WORD, rows)
        return np.ascontiguousarray(planes.T).view("<" + kind).reshape(rows)

    times, steps = (np.cumsum(column("u8", place), dtype=np.uint64).view(np.int64) for place in (0, 1))
    return [Points(times, steps, column("f8", 2 + index)) for index in wanted]


def _planes(words: array[int] | array[float]) -> list[bytes]:
    data = little_endian(words)
    return [data[byte::WORD] for byte in range(WORD)]


def _differences(values: array[int]) -> array[int]:
    try:
        return array("q", chain(values[:1], map(operator.sub, values[1:], values)))
    except OverflowError:
        found = [(one - other) % _WRAP for one, other in zip(values[1:], values, strict=False)]
        return array("Q", [values[0] % _WRAP, *found])


def little_endian(words: array[int] | array[float]) -> bytes:
    """Return numbers of 64 bits as bytes."""
    return _swapped(words.tobytes())


def _swapped(data: bytes) -> bytes:
    """Return 64-bit words of this machine as little-endian ones, and the other way round."""
    if _NATIVE:
        return data
    words = array("q", data)
    words.byteswap()
    return words.tobytes()
