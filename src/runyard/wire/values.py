"""Parameters as they are recorded: flat names, and numbers, text, true, false or null as values."""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MAX_VALUES = 1000
"""Of one source: a file, a parser, a script."""
MAX_DEPTH = 10
"""Of nested names; what is deeper is kept as text."""
MAX_TEXT = 500
"""Characters of a value; what is longer is cut, with ``…`` at its end."""
HIDDEN = "(hidden)"
_SECRET = re.compile(
    r"(^|[._-])(password|passwd|passphrase|secret|api_?key|access_?key|private_?key|secret_?key|credentials?)$"
    r"|(^|[._-])(auth|access|api|bearer|refresh|hf|hub|github|gitlab|wandb|bot)[._-]?token$|^token$",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}\Z")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?\Z|[-+]?inf\Z|nan\Z", re.IGNORECASE)
_WORDS = {"true": True, "false": False, "null": None, "none": None}


def typed(text: str) -> Any:
    """Return what a word of a command line or of an INI file stands for: a number, true, false, null, else the text."""
    if _INTEGER.match(text):
        return int(text)
    if _NUMBER.match(text):
        return float(text)
    return _WORDS.get(text.lower(), text)


def flatten(value: Any, name: str = "") -> tuple[dict[str, Any], bool]:
    """Return the values below a (nested) value by their flat names, and whether some were left out.

    Mappings and dataclasses are nested, names joined with ``.``; lists are text. At most `MAX_VALUES` are kept. Values
    whose names say that they are secret are hidden.
    """
    found: dict[str, Any] = {}
    for number, (key, item) in enumerate(_leaves(value, name, 0)):
        # Names may be alike, once they are cut, and a file of a few lines may have more of them than one can count.
        if number > 2 * MAX_VALUES or (key not in found and len(found) == MAX_VALUES):
            return found, True
        found[key] = HIDDEN if isinstance(item, str) and item and _SECRET.search(key) else item
    return found, False


def _leaves(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    inner = _fields(value) if depth < MAX_DEPTH else None
    if inner is None or (not inner and name):
        yield name[:MAX_TEXT], scalar(value)
    else:
        for key, item in inner.items():
            yield from _leaves(item, "%s.%s" % (name, key) if name else str(key), depth + 1)


def _fields(value: Any) -> dict[Any, Any] | None:
    """Return what a nested value is made of; None for one that is not nested."""
    if isinstance(value, dict):
        return value
    names = getattr(value, "__dataclass_fields__", None)
    if isinstance(names, dict) and not isinstance(value, type):
        return {key: getattr(value, key, None) for key in names}
    if type(value).__name__ in ("Namespace", "SimpleNamespace"):
        return dict(vars(value))
    return None


def scalar(value: Any) -> Any:
    """Return a value as it is recorded; what is no number, text, true, false or null becomes text."""
    if value is None or value is True or value is False:
        return value
    if type(value) is int:
        return value if -(1 << 63) <= value < 1 << 63 else cut(str(value) if value.bit_length() < 4096 else "(large)")
    if type(value) is float:
        return value
    if isinstance(value, str):
        return cut(str.__str__(value))
    return cut(_text(value))


def _text(value: Any) -> str:
    if not isinstance(value, (list, tuple, dict)):
        return str(_inside(value))
    parts: list[str] = []
    size = 0
    try:
        # Piece by piece: it may be huge, or say the same thing over and over (aliases in YAML).
        for part in json.JSONEncoder(ensure_ascii=False, default=_inside).iterencode(value):
            parts.append(part)
            size += len(part)
            if size > MAX_TEXT:
                break
    except (TypeError, ValueError, RecursionError):
        return "(%s of %d)" % (type(value).__name__, len(value))
    return "".join(parts)


def _inside(value: Any) -> Any:
    """Return text or a number for an object: paths, members of enums, numbers of libraries, functions and classes."""
    if hasattr(value, "__fspath__"):
        path = value.__fspath__()
        return path if isinstance(path, str) else repr(path)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "_value_") and hasattr(value, "_name_"):
        return value._value_ if isinstance(value._value_, (int, float, str)) else value._name_
    if hasattr(value, "__index__"):
        return value.__index__()
    if hasattr(value, "__float__") and getattr(value, "ndim", 0) == 0 and not hasattr(value, "requires_grad"):
        return float(value)
    if callable(value) and hasattr(value, "__qualname__"):
        return "%s.%s" % (getattr(value, "__module__", ""), value.__qualname__)
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr) if len(value) <= MAX_TEXT else "(%s of %d)" % (type(value).__name__, len(value))
    return _ADDRESS.sub("", repr(value))


def cut(text: str) -> str:
    """Return at most `MAX_TEXT` characters of a text, in which a lone surrogate is replaced."""
    text = text[: MAX_TEXT - 1] + "…" if len(text) > MAX_TEXT else text
    return text.encode("utf-8", "replace").decode("utf-8")
