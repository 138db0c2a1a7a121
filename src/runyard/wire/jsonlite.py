"""JSON for processes that must start fast: the C half of the standard library's ``json``, without the rest of it.

Importing ``json`` (which needs ``re``, ``enum``, ``functools``) takes about as long as starting Python does. Where the C
half is not as expected, its counterparts from ``json`` serve. Strings may carry lone surrogates.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class _Context:
    """What ``_json.make_scanner`` wants to know, as in ``json.decoder.JSONDecoder``."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": -float("inf")}.__getitem__


def _primitives() -> tuple[Callable[[str, int], tuple[Any, int]], Callable[[str], str]]:
    """Return the function that scans one value from an index on, and the one that quotes a string."""
    try:
        from _json import encode_basestring_ascii, make_scanner

        return make_scanner(_Context), encode_basestring_ascii  # type: ignore[arg-type]
    except (ImportError, AttributeError, TypeError):
        from json import JSONDecoder, encoder

        return JSONDecoder().scan_once, encoder.encode_basestring_ascii  # type: ignore[attr-defined]


_scan, _quote = _primitives()


def loads(data: bytes) -> Any:
    """Return the value of a JSON text in UTF-8; raise ValueError when it is not exactly one value."""
    text = data.decode("utf-8").strip(" \t\r\n")
    try:
        value, end = _scan(text, 0)
    except (StopIteration, SystemError):
        # Python 3.10 and 3.11 have no error to raise as long as json.decoder has not been imported: SystemError.
        raise ValueError("no JSON value") from None
    if end != len(text):
        raise ValueError("more than one JSON value")
    return value


def dumps(value: Any) -> str:
    """Return a value as JSON text in ASCII.

    Known are None, bool, int, finite float, str, list, tuple and dict with str keys; others raise TypeError or ValueError.
    """
    if isinstance(value, str):
        return _quote(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        if isinstance(value, float) and value - value != 0.0:
            raise ValueError("%r has no form in JSON" % value)
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join([dumps(item) for item in value]) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join([_quote(name) + ": " + dumps(item) for name, item in value.items()]) + "}"
    raise TypeError("%s is no JSON" % type(value).__name__)
