"""Column types that mean the same on every database.

Text: SQLite, PostgreSQL and MariaDB differ in what a string may hold (PostgreSQL refuses U+0000, none takes lone
surrogates, which is how Python shows bytes of file names that are no UTF-8) and in how strings compare (MariaDB without
case by default). `Name` escapes reversibly and compares bytewise.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import BigInteger, Dialect, Double, Integer, LargeBinary, String, Text, TypeDecorator
from sqlalchemy.dialects.mysql import LONGBLOB
from sqlalchemy.types import TypeEngine

ESCAPE = "\x1a"
_UNSAFE = re.compile("[\x00\x1a\ud800-\udfff]")
_ESCAPED = re.compile("\x1a(?:([0-9a-f]{2})|u([0-9a-f]{4}))")


def escape(text: str) -> str:
    """Return text that every database can hold.

    U+0000, U+001A and escaped bytes (U+DC80 to U+DCFF) become U+001A and two hex digits, other lone surrogates (which
    JSON can carry) U+001A, ``u`` and four.
    """
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code <= 0xFF or 0xDC80 <= code <= 0xDCFF:
        return f"{ESCAPE}{code & 0xFF:02x}"
    return f"{ESCAPE}u{code:04x}"


def unescape(text: str) -> str:
    """Undo `escape`."""
    if ESCAPE not in text:
        return text
    return _ESCAPED.sub(_unescape, text)


def _unescape(match: re.Match[str]) -> str:
    if match[2] is not None:
        return chr(int(match[2], 16))
    code = int(match[1], 16)
    return chr(code + (0xDC00 if code >= 0x80 else 0))


def _unescaped(value: str | None) -> str | None:
    return value if value is None or ESCAPE not in value else unescape(value)


_DECODE: Callable[[str], Any] = json.JSONDecoder().decode


def _decoded(value: str | None) -> Any:
    return None if value is None else _DECODE(value)


def converter(kind: TypeEngine[Any]) -> Callable[[str], Any] | None:
    """Return what makes a value of the text that the database has for a type; None where it is the value already."""
    if isinstance(kind, Name):
        return unescape
    return _DECODE if isinstance(kind, Json) else None


def _binary_collation(kind: type[String], length: int | None, dialect: Dialect) -> TypeEngine[Any]:
    collation = {"postgresql": "C", "mysql": "utf8mb4_bin", "mariadb": "utf8mb4_bin"}.get(dialect.name)
    return kind(length, collation=collation)


class Name(TypeDecorator[str]):
    """Any text a user may give: messages, names, paths."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return _binary_collation(Text, None, dialect)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else escape(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str | None], str | None]:
        return _unescaped  # itself, as it is called for each value of each row


class Word(TypeDecorator[str]):
    """Short ASCII text of our own: ids, states, hashes; at most ``length`` characters."""

    impl = String
    cache_ok = True

    def __init__(self, length: int = 64) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return _binary_collation(String, self.length, dialect)


class Json(TypeDecorator[Any]):
    """A JSON value, stored as ASCII text (so that any database keeps every character)."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else dump_json(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str | None], Any]:
        return _decoded


class Number(TypeDecorator[float]):
    """A double; NaN is NULL, which sorts after everything else."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        return None if value is None or math.isnan(value) else float(value)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def dump_json(value: Any) -> str:
    """Return the canonical text of a JSON value: sorted keys, ASCII, no spaces."""
    return _ENCODER.encode(value)


Bytes = LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb")
BigInt = BigInteger()
"""Counts of bytes, and times: microseconds since 1970 UTC."""
Serial = BigInteger().with_variant(Integer(), "sqlite")
"""A number that the database hands out."""
