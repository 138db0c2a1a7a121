"""What people log besides numbers, turned into bytes: without importing any library that the program has not imported."""

from __future__ import annotations

import json
import math
import struct
import sys
import zlib

from runyard.wire import spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

BINS = 64
MAX_DEPTH = 20
"""Of nested values; what is deeper is text."""
MAX_BITS = 4096
"""Of whole numbers: Python itself refuses to write down those of 14,000 and more."""
MAX_ROWS = 100_000
TEXT_MAX = 1 << 24
CONTENT_MAX = spool.MAX_RECORD - (1 << 16)
"""Bytes: a record holds them, and what is said of them."""
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
GIF = b"GIF8"


class Medium:
    """Something to look at: ``kind`` and ``format`` as in docs/spool.md, ``content`` the bytes of the file."""

    __slots__ = ("caption", "content", "format", "kind")

    def __init__(self, kind: str, format: str, content: bytes, caption: str = "") -> None:
        self.kind = kind
        self.format = format
        self.content = content
        self.caption = caption


class Image:
    """An image: PNG or JPEG bytes, a PIL image, or an array of pixels (height, width[, 1, 3 or 4]), with a caption.

    Pixels of floating point are from 0 to 1, of whole numbers from 0 to 255.
    """

    def __init__(self, value: Any, caption: str = "") -> None:
        self.value = value
        self.caption = caption


class Table:
    """A table: ``rows`` are lists, or dicts by column. At most `MAX_ROWS` rows are kept."""

    def __init__(self, rows: Iterable[Any], columns: Sequence[str] | None = None, caption: str = "") -> None:
        self.rows = rows
        self.columns = columns
        self.caption = caption


class Histogram:
    """How values are distributed: of any iterable of numbers; ``bins`` of equal width between the least and the greatest."""

    def __init__(self, values: Iterable[Any], bins: int = BINS, caption: str = "") -> None:
        self.values = values
        self.bins = bins
        self.caption = caption


def flat(values: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield ``("train/loss", value)`` of nested dicts; one that is nested deeper than `MAX_DEPTH` as it is."""
    for name, value in values.items():
        if isinstance(value, dict) and depth < MAX_DEPTH:
            yield from flat(value, "%s%s/" % (prefix, name), depth + 1)
        else:
            yield prefix + str(name), value


def number(value: Any) -> float | None:
    """Return a value as a number: of Python, numpy, torch and others, 0-dimensional or of one element; else None."""
    if isinstance(value, (float, int)):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    shape = getattr(value, "shape", ())
    if isinstance(value, (str, bytes, bytearray)) or any(length != 1 for length in shape):
        return None
    try:
        if getattr(value, "requires_grad", False):
            value = value.detach()  # torch warns of what it takes for a mistake
        return float(value.item() if shape else value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def step(value: Any) -> int:
    """Return a step as a 64-bit whole number; raises ValueError or OverflowError for what is none."""
    try:
        found = int(value)
    except (TypeError, ValueError, OverflowError):
        found = None
    if found is None or found != value:
        raise ValueError("a step is a whole number, not %r" % (value,))
    if not -(1 << 63) <= found < 1 << 63:
        raise OverflowError("a step has 64 bits")
    return found


def plain(value: Any, depth: int = 0) -> Any:
    """Return a parameter as JSON: what it does not have is the text that Python shows of it.

    Raises what the methods of a value raise, and ValueError for a whole number that is too large.
    """
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ValueError("a whole number of %d bits is too large" % value.bit_length())
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    nested = _nested(value)
    if nested is not None:
        if depth == MAX_DEPTH:
            return repr(value)[:1000]
        if isinstance(nested, dict):
            return {str(name): plain(item, depth + 1) for name, item in nested.items()}
        return [plain(item, depth + 1) for item in nested]
    found = number(value)
    if found is not None:
        return _whole(value, found)
    if hasattr(value, "tolist") and getattr(value, "size", 0) <= 100:
        return plain(value.tolist(), depth + 1)
    return repr(value)[:1000]


def _nested(value: Any) -> Any:
    """Return the dict or the collection that a value is made of; None for one that is not nested."""
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        return value
    fields = getattr(type(value), "__dataclass_fields__", None)
    if fields:
        return {name: getattr(value, name, None) for name in fields}
    return vars(value) if type(value).__name__ == "Namespace" and hasattr(value, "__dict__") else None


def _whole(value: Any, found: float) -> float:
    """Return a number of a library as a whole one if it is one by its type; arrays and tensors have the method in any case."""
    try:
        return int(value.__index__())
    except (AttributeError, TypeError, ValueError):
        return found


def medium(value: Any) -> Medium:
    """Return what is to be stored of a value that is no number; raises TypeError for what cannot be shown."""
    caption = str(getattr(value, "caption", "") or "") if isinstance(value, (Image, Table, Histogram)) else ""
    if isinstance(value, Image):
        found = _image(value.value)
    elif isinstance(value, Table):
        found = _table(list(value.rows), value.columns)
    elif isinstance(value, Histogram):
        found = _histogram(_numbers(value.values), value.bins)
    elif isinstance(value, str):
        found = Medium("text", "txt", value[:TEXT_MAX].encode("utf-8", "backslashreplace"))
    else:
        found = _guess(value)
    if len(found.content) > CONTENT_MAX:
        raise ValueError("%d bytes are more than can be kept of one value (%d)" % (len(found.content), CONTENT_MAX))
    found.caption = caption
    return found


def _guess(value: Any) -> Medium:
    """Return a medium for a value of a library, which is known by what it can do."""
    if hasattr(value, "to_plotly_json") and hasattr(value, "to_json"):
        return Medium("figure", "json", str(value.to_json()).encode("utf-8"))
    if hasattr(value, "savefig"):
        return Medium("figure", "png", _saved(value.savefig, format="png", bbox_inches="tight"))
    if hasattr(value, "to_dict") and hasattr(value, "columns") and hasattr(value, "iloc"):
        head = value.iloc[:MAX_ROWS]
        return _table([list(row) for row in head.itertuples(index=False)], [str(name) for name in value.columns])
    if isinstance(value, (bytes, bytearray)) or (hasattr(value, "save") and hasattr(value, "mode")):
        return _image(value)
    shape = getattr(value, "shape", None)
    if shape is not None:
        if len(shape) > 3:
            raise TypeError(
                "an array of %d dimensions is no image: log one of them (x[0]), or runyard.Histogram(x)" % len(shape)
            )
        return _image(value) if len(shape) in (2, 3) else _histogram(_numbers(value), BINS)
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, dict) for item in value):
        return _table(list(value), None)
    if isinstance(value, (list, tuple)) and value and all(number(item) is not None for item in value):
        return _histogram(_numbers(value), BINS)
    if isinstance(value, dict):
        raise TypeError("it is nested more than %d deep, or in itself" % MAX_DEPTH)
    raise TypeError("what is of type %s is neither a number nor something to look at" % type(value).__name__)


def _saved(save: Any, **options: Any) -> bytes:
    import io

    buffer = io.BytesIO()
    save(buffer, **options)
    return buffer.getvalue()


def _image(value: Any) -> Medium:
    if hasattr(value, "save") and hasattr(value, "mode"):
        return Medium("image", "png", _saved(value.save, format="PNG"))
    if isinstance(value, (bytes, bytearray)):
        for start, form in ((PNG, "png"), (JPEG, "jpg"), (GIF, "gif")):
            if value.startswith(start):
                return Medium("image", form, bytes(value))
        raise TypeError("these bytes are no PNG, JPEG or GIF")
    return Medium("image", "png", _png(value))


def _png(array: Any) -> bytes:
    """Return an array of pixels as PNG. Source: https://www.w3.org/TR/png-3/ (8 bits, no filter)."""
    if hasattr(array, "detach"):
        array = array.detach().cpu().numpy()
    numpy = sys.modules.get("numpy")
    if numpy is None:
        raise TypeError("pixels are a numpy array")
    array = numpy.asarray(array)
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)  # as torch has them
    if array.ndim == 2:
        array = array[:, :, None]
    kinds = {1: 0, 3: 2, 4: 6}
    if array.ndim != 3 or array.shape[2] not in kinds or 0 in array.shape:
        raise TypeError("pixels of the shape %s are no image" % (array.shape,))
    if array.dtype.kind == "f":
        array = numpy.nan_to_num(array) * 255.0
    elif array.dtype.kind == "b":
        array = array.astype("uint8") * 255
    pixels = (
        array.clip(0, 255).round().astype("uint8") if array.dtype.kind == "f" else array.clip(0, 255).astype("uint8")
    )
    height, width, depth = pixels.shape
    lines = numpy.zeros((height, 1 + width * depth), dtype="uint8")
    lines[:, 1:] = pixels.reshape(height, width * depth)
    parts = [PNG]
    head = struct.pack(">IIBBBBB", width, height, 8, kinds[depth], 0, 0, 0)
    for name, data in ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 3)), (b"IEND", b"")):
        parts += [struct.pack(">I", len(data)), name, data, struct.pack(">I", zlib.crc32(name + data))]
    return b"".join(parts)


def _table(rows: list[Any], columns: Sequence[str] | None) -> Medium:
    """Return ``{"columns": [...], "rows": [[...]]}``."""
    if columns is None:
        columns = list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row))
    named = [str(name) for name in columns]
    cells = [
        [_cell(row.get(name)) for name in columns] if isinstance(row, dict) else [_cell(item) for item in row]
        for row in rows[:MAX_ROWS]
    ]
    return Medium("table", "json", json.dumps({"columns": named, "rows": cells, "of": len(rows)}).encode("ascii"))


def _cell(value: Any) -> Any:
    found = plain(value)
    if isinstance(found, float) and not math.isfinite(found):
        return "NaN" if math.isnan(found) else "Infinity" if found > 0 else "-Infinity"
    return found


def _numbers(values: Any) -> list[float]:
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    if hasattr(values, "ravel"):
        values = values.ravel()
    if hasattr(values, "tolist"):
        values = values.tolist()
    found = []
    for item in values:
        value = number(item)
        if value is None:
            raise TypeError("a histogram is of numbers, not of %s" % type(item).__name__)
        found.append(value)
    return found


def _histogram(values: list[float], bins: int) -> Medium:
    """Return ``{"edges": [bins + 1], "counts": [bins], "others": how many were no finite number}``."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    bins = max(1, min(int(bins), 4096))
    scale = 1.0 if math.isfinite(high - low) else 0.5  # the difference may be more than a float can be
    start = low * scale
    width = (high * scale - start) / bins
    counts = [0] * bins
    for value in finite:
        counts[min(bins - 1, max(0, int((value * scale - start) / width)))] += 1
    edges = [(start + width * place) / scale for place in range(bins)] + [high]
    content = {"edges": edges, "counts": counts, "others": len(values) - len(finite)}
    return Medium("histogram", "json", json.dumps(content).encode("ascii"))
