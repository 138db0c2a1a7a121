"""A user's own patterns for metrics in printed lines, as Guild AI has them (`output-scalars`)."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PARTS = {
    r"\key": r"[_a-zA-Z]\S*",
    r"\step": r"[0-9]+",
    r"\value": r"(?:[-+]?[0-9]*\.?(?:[0-9]+)?(?:[eE][-+]?[0-9]+)?|[nN][aA][nN]|[-+]?[iI][nN][fF])",
}
_NAME = re.compile(r"\(\?#([^)]+)\)")
_WORD_BEFORE = re.compile(r"([^\W\d][\w./@\-]*)[^\w(]*\((?!\?)")


class Patterns:
    r"""Regular expressions, tried in order on every line.

    In a pattern ``\key``, ``\value`` and ``\step`` stand for what Guild takes for these. Its groups say what is found:

    * one group: the value; its name is a comment that the pattern begins with (``(?#val/acc)best: (\value)``), else the
      word before the group (``loss=(\value)``);
    * two groups: name and value;
    * named groups: values of these names, but ``step`` is the step; or ``_key`` and ``_val``.

    Raises ValueError for a pattern that is no regular expression or has no such groups.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [(_compiled(pattern), _name(pattern)) for pattern in patterns]

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
    whole = pattern
    for part, meaning in _PARTS.items():
        whole = whole.replace(part, meaning)
    try:
        compiled = re.compile(whole)
    except (re.error, OverflowError, RecursionError) as exc:
        why = getattr(exc, "msg", exc)  # and not where, as that is told of the whole
        raise ValueError("%s is no regular expression: %s" % (pattern, why)) from exc
    if not compiled.groupindex and compiled.groups not in (1, 2):
        raise ValueError("%s needs one group (the value), two (name and value) or named groups" % pattern)
    return compiled


def _name(pattern: str) -> str:
    found = _NAME.match(pattern) or _WORD_BEFORE.search(pattern)
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
