"""The nodes of a query. All are frozen, and each is either true or false of every run, never unknown."""

from __future__ import annotations

from dataclasses import dataclass

from runyard.model.fields import Field
from runyard.model.times import Moment

FLOATS_END = float(1 << 53)
"""From here on floats do not have all whole numbers."""


class Whole(float):
    """A whole number that floats may not have; as a float, the one that is next to it."""

    exact: int

    def __new__(cls, exact: int) -> Whole:
        """``exact``: less than the largest float."""
        found = super().__new__(cls, exact)
        found.exact = exact
        return found

    def __neg__(self) -> Whole:
        return Whole(-self.exact)


Value = float | str | bool | Moment


class Query:
    """Root of the nodes."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class All(Query):
    """Every one of these is true; of no part, true."""

    of: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Either(Query):
    """One of these is true at least."""

    of: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Not(Query):
    """This is false."""

    of: Query


@dataclass(frozen=True, slots=True)
class Words(Query):
    """Free text: each of these occurs somewhere, whatever the case of the letters a to z."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Has(Query):
    """There is a value (of a switch: it is on)."""

    field: Field


@dataclass(frozen=True, slots=True)
class IsNan(Query):
    """The value is NaN."""

    field: Field


@dataclass(frozen=True, slots=True)
class Compare(Query):
    """There is a value, and it compares so with this one; ``op``: one of ``== != < <= > >=``."""

    field: Field
    op: str
    value: Value


@dataclass(frozen=True, slots=True)
class CompareFields(Query):
    """There are two values, and they compare so."""

    left: Field
    op: str
    right: Field


@dataclass(frozen=True, slots=True)
class OneOf(Query):
    """There is a value, and it equals one of these; ``none``: and it equals none of these."""

    field: Field
    values: tuple[Value, ...]
    none: bool = False


@dataclass(frozen=True, slots=True)
class Holds(Query):
    """There is a text, and ``how`` (``in``, ``not in``, ``startswith``, ``endswith``) this one is part of it."""

    field: Field
    how: str
    text: str


@dataclass(frozen=True, slots=True)
class Named(Query):
    """A tag, or a data file, has this name."""

    field: Field
    name: str


def fields_of(query: Query) -> list[Field]:
    """Return the fields that a query speaks of, in order."""
    if isinstance(query, All | Either):
        return [field for part in query.of for field in fields_of(part)]
    if isinstance(query, Not):
        return fields_of(query.of)
    if isinstance(query, CompareFields):
        return [query.left, query.right]
    field = getattr(query, "field", None)
    return [field] if isinstance(field, Field) else []
