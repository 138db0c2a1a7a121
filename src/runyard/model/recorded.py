"""Conditions about the recorded environment, which is one JSON value that many runs share (``env.*``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from runyard.model.fields import ENV_TABLES, Field
from runyard.model.tree import Compare, Has, Holds, OneOf, Query

_PIECES = re.compile(r"\d+|[a-zA-Z]+")
_BEFORE = {"dev": -5, "a": -4, "alpha": -4, "b": -3, "beta": -3, "c": -2, "rc": -2, "pre": -2, "preview": -2}
"""Letters of versions that come before the release, in their order (PEP 440)."""


def value_of(field: Field, content: Mapping[str, Any]) -> str | None:
    """Return what a recorded environment says of a field; None when it says nothing."""
    found: Any = content.get(field.part)
    if field.part == "python" or field.part in ENV_TABLES:
        found = found.get(field.name) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else None


def holds(query: Query, content: Mapping[str, Any]) -> bool:
    """Tell whether a condition on one field of ``env`` holds of an environment."""
    if not isinstance(query, Has | Compare | OneOf | Holds):
        raise TypeError(f"{query} is no condition about an environment")
    text = value_of(query.field, content)
    if text is None:
        return False
    if isinstance(query, Compare):
        return _compares(text, query.op, str(query.value))
    if isinstance(query, OneOf):
        return (text in query.values) != query.none
    if isinstance(query, Holds):
        if query.how in ("in", "not in"):
            return (query.text in text) == (query.how == "in")
        return text.startswith(query.text) if query.how == "startswith" else text.endswith(query.text)
    return bool(text)


def _compares(text: str, op: str, other: str) -> bool:
    if op in ("==", "!="):
        return (text == other) == (op == "==")
    one, two = version_key(text), version_key(other)
    return {"<": one < two, "<=": one <= two, ">": one > two, ">=": one >= two}[op]


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Return what versions are sorted by: numbers as numbers, ``2.1rc1`` before ``2.1``, and that before ``2.1.post1``.

    What stands behind a ``+`` counts last, and zeros at the end do not count. Source: PEP 440, in short.
    """
    public, _, local = version.partition("+")
    found: list[tuple[int, int, str]] = []
    for piece in _PIECES.findall(public):
        if piece.isdigit():
            found.append((2, int(piece), ""))
            continue
        while found and found[-1] == (2, 0, ""):
            found.pop()
        found.append((_BEFORE.get(piece.lower(), 1), 0, piece.lower()))
    while found and found[-1] == (2, 0, ""):
        found.pop()
    return (*found, (0, 0, local))
