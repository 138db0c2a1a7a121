"""A user's own patterns for metrics in printed lines, as Guild AI has them (`output-scalars`)."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PARTS = {
    r"\key": r"[_a-zA-Z]\S*",
    r"\step": r"[0-9]+",
    r"\value": r"(?:[-+]?[0-9]*\.?(?:[0-9]+)?(?:[eE][-+]?[0-9]+)?|[nN][aA][nN]|[-+]?[iI][nN][fF])",
}
_WORD_BEFORE = re.compile(r"([^\W\d][\w./@\-]*)[^\w(]*\((?!\?)")


class Patterns:
    r"""Regular expressions, tried in order on every line.

    A list of patterns, or a mapping from names to them. In a pattern ``\key``, ``\value`` and ``\step`` stand for what
    Guild takes for these. Its groups say what is found:

    * one group: the value; its name is that of the mapping, else the word before the group (``loss=(\value)``);
    * two groups: name and value;
    * named groups: values of these names, but ``step`` is the step; or ``_key`` and ``_val``.

    Raises ValueError for a pattern that is no regular expression or has no such groups.
    """

    def __init__(self, patterns: Sequence[str] | Mapping[str, str]) -> None:
        if isinstance(patterns, str):
            patterns = [patterns]
        pairs = list(patterns.items()) if hasattr(patterns, "items") else [("", pattern) for pattern in patterns]
        self._patterns = [(_compiled(pattern), name or _name(pattern)) for name, pattern in pairs]

    def __len__(self) -> int:
        return len(self._patterns)

    def find(self, line: str) -> tuple[dict[str, float], int | None] | None:
        """Return metrics and step in a line, None when no pattern is in it."""
        values: dict[str, float] = {}
        step: int | None = None
        seen = False
        for pattern, name in self._patterns:
            for found in pattern.finditer(line):
                seen = True
                for key, text in _found(found, name):
                    value = _float(text)
                    if value is None:
                        continue
                    if key == "step":
                        step = int(value) if abs(value) < 1e18 else step
                    else:
                        values[key] = value
        return (values, step) if seen else None


def _compiled(pattern: str) -> re.Pattern[str]:
    for part, meaning in _PARTS.items():
        pattern = pattern.replace(part, meaning)
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as exc:
        raise ValueError("the pattern %r is no regular expression: %s" % (pattern, exc)) from exc
    if not compiled.groupindex and compiled.groups not in (1, 2):
        raise ValueError("the pattern %r needs one group (value), two (name, value) or named groups" % pattern)
    return compiled


def _name(pattern: str) -> str:
    found = _WORD_BEFORE.search(pattern)
    return found.group(1) if found else "value"


def _found(found: re.Match[str], name: str) -> list[tuple[str, str | None]]:
    named = found.groupdict()
    if named:
        if "_key" in named and "_val" in named:
            step = [("step", named["step"])] if "step" in named else []
            return [*step, (named["_key"] or "", named["_val"])]
        return list(named.items())
    if len(found.groups()) == 1:
        return [(name, found.group(1))]
    return [(found.group(1) or "", found.group(2))]


def _float(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return float(text.replace(",", "").rstrip("%"))
    except ValueError:
        return None
