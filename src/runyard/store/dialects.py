"""What databases say differently in the SQL of searches."""

from __future__ import annotations


class Dialect:
    """SQLite; the others say where they differ."""

    name = "sqlite"

    def contains(self, value: str, part: str) -> str:
        """Return the condition that a text holds another."""
        return f"INSTR({value}, {part}) > 0"

    def ends(self, value: str, part: str, length: int) -> str:
        """Return the condition that a text ends with another of so many characters."""
        return f"SUBSTR({value}, -{length}) = {part}" if length else f"{value} IS NOT NULL"

    def decoded(self, value: str) -> str:
        """Return the text that a JSON string stands for."""
        return f"JSON_EXTRACT({value}, '$')"

    def undecodable(self, value: str) -> str:
        """Return the condition that `decoded` would fail: SQLite ends some texts at U+0000."""
        return rf"INSTR({value}, '\u0000') > 0"

    def listing(self, array: str) -> str:
        """Return a statement that makes rows of a JSON array of texts: one value, however many they are."""
        return f"SELECT value FROM json_each({array})"  # noqa: S608 - the name of a bound value

    def numbers(self, array: str) -> str:
        """Return a statement that makes rows of a JSON array of whole numbers."""
        return self.listing(array)

    def like(self, value: str, pattern: str) -> str:
        """Return the condition that a text is like a pattern in lower case; only the letters A to Z are folded."""
        return f"{value} LIKE {pattern} ESCAPE '!'"


class Postgresql(Dialect):
    """PostgreSQL."""

    name = "postgresql"

    def like(self, value: str, pattern: str) -> str:
        """Return the condition that a text is like a pattern in lower case; in the collation C only A to Z are folded."""
        return f"LOWER({value}) LIKE {pattern} ESCAPE '!'"

    def contains(self, value: str, part: str) -> str:
        """Return the condition that a text holds another."""
        return f"STRPOS({value}, {part}) > 0"

    def ends(self, value: str, part: str, length: int) -> str:
        """Return the condition that a text ends with another of so many characters."""
        return f"RIGHT({value}, {length}) = {part}" if length else f"{value} IS NOT NULL"

    def decoded(self, value: str) -> str:
        """Return the text that a JSON string stands for."""
        return f"(CAST({value} AS json) #>> CAST('{{}}' AS text[]))"

    def undecodable(self, value: str) -> str:
        """Return the condition that `decoded` would fail: at U+0000, and at surrogates without their other half."""
        return rf"{value} ~ '\\u0000|\\ud[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..)\\ud[c-f]'"

    def listing(self, array: str) -> str:
        """Return a statement that makes rows of a JSON array of texts."""
        return f"SELECT value FROM json_array_elements_text(CAST({array} AS json))"  # noqa: S608 - as above

    def numbers(self, array: str) -> str:
        """Return a statement that makes rows of a JSON array of whole numbers."""
        return f"SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST({array} AS json))"  # noqa: S608 - as above


DIALECTS: dict[str, type[Dialect]] = {"sqlite": Dialect, "postgresql": Postgresql}
