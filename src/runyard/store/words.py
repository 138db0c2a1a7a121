"""Free text as SQL: where a word may stand in what is known of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runyard.store.dialects import Dialect
from runyard.store.types import dump_json, escape

SIGNS_MAX = 8
"""Signs ``=`` of a word that may be the one between the name and the value of a parameter."""
Bind = Callable[[object], str]


def condition(word: str, dialect: Dialect, bind: Bind, seq: str, names: Callable[[str], list[int]]) -> str:
    """Return the condition that a word occurs in a run ``r``: message, command, name, project, id, tag, parameter, log.

    ``bind``: returns what stands for a value; ``seq``: the run's number; ``names``: returns the numbers of the names that
    are like a pattern.
    """
    # What databases do not fold (they know ASCII only) must stay here too.
    folded = "".join(char.lower() if char.isascii() else char for char in escape(word))
    bound = bind(pattern(folded))

    def like(value: str) -> str:
        return dialect.like(value, bound)

    def in_param() -> str:
        """Return the condition that ``name=value`` holds the word: in the value, in the name, or across the sign."""
        found = [like("p.head")]
        for name, value in _ways(folded):
            if ids := names(name):
                named = f"p.name_id IN ({dialect.numbers(bind(dump_json(ids)))})"
                begins = dialect.like("p.head", bind(pattern(value, before=""))) if value else "1 = 1"
                found.append(f"({named} AND {begins})")
        return joined(found, "OR")

    columns = [like(f"r.{name}") for name in ("message", "command_text", "project", "id")]
    columns += [
        f"COALESCE({like('r.name')}, FALSE)",
        f"EXISTS (SELECT 1 FROM run_tags t WHERE t.run_id = r.id AND {like('t.tag')})",
        f"EXISTS (SELECT 1 FROM tracked k WHERE k.run_seq = {seq} AND {like('k.log_tail')})",
        f"EXISTS (SELECT 1 FROM params p WHERE p.run_seq = {seq} AND {in_param()})",
    ]
    return joined(columns, "OR")


def _ways(word: str) -> list[tuple[str, str]]:
    """Return patterns of names with what their values must begin with."""
    parts = word.split("=")
    cuts = range(1, min(len(parts), SIGNS_MAX + 1))
    return [(pattern(word), ""), *((pattern("=".join(parts[:n]), after=""), "=".join(parts[n:])) for n in cuts)]


def pattern(text: str, before: str = "%", after: str = "%") -> str:
    """Return what LIKE takes for a text that may stand between others; ``!`` escapes."""
    return before + text.replace("!", "!!").replace("%", "!%").replace("_", "!_") + after


def joined(parts: Sequence[str], word: str) -> str:
    """Join conditions; in halves, as databases bound how deep an expression may be."""
    if len(parts) == 1:
        return parts[0]
    if len(parts) <= 20:
        return f"({f' {word} '.join(parts)})"
    half = len(parts) // 2
    return f"({joined(parts[:half], word)} {word} {joined(parts[half:], word)})"
