"""What may be compared with what: from two sides and an operator to a node of the tree."""

from __future__ import annotations

import math
from dataclasses import dataclass

from runyard.model import times
from runyard.model.fields import (
    ANY,
    DATA,
    DURATION,
    NUMBER,
    RUN,
    SET,
    SWITCH,
    TEXT,
    TIME,
    Field,
    meant,
    near,
)
from runyard.model.tree import Compare, CompareFields, Has, Holds, IsNan, Named, Not, OneOf, Query, Value
from runyard.wire import states

VALUES_MAX = 1000
"""Values after `in`."""
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_EQUALITY = ("==", "!=")
_NUMBERS = (NUMBER, DURATION, ANY)


@dataclass(frozen=True, slots=True)
class Operand:
    """A side of a comparison: a field, a value (None too), or a list of values; ``at``: where it begins."""

    at: int
    field: Field | None = None
    value: float | str | bool | None = None
    values: tuple[Operand, ...] | None = None

    @property
    def is_value(self) -> bool:
        """A single value."""
        return self.field is None and self.values is None


class MisfitError(ValueError):
    """Two sides that cannot be compared so; ``at``: which one is wrong."""

    def __init__(self, at: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.at, self.message, self.hint = at, message, hint


def compare(left: Operand, op: str, right: Operand, now_us: int) -> Query:
    """Return the node of ``left op right``; ``now_us``: what ``2h ago`` is reckoned from. Raises `MisfitError`."""
    if op in ("in", "not in"):
        return _within(left, op, right, now_us)
    for side in (left, right):
        if side.values is not None:
            raise MisfitError(side.at, "a list can stand only after in", 'e.g. run.state in ("failed", "lost")')
    if left.field is None and right.field is None:
        raise MisfitError(
            left.at, "this compares two values, and nothing of a run", "a text to search for stands alone"
        )
    if op in ("is", "is not"):
        return _is(left, op, right, now_us)
    if left.field is not None and right.field is not None:
        return _fields(left, op, right)
    if left.field is None:
        left, right, op = right, left, _MIRRORED.get(op, op)
    return _value(left, op, right, now_us)


def _value(side: Operand, op: str, other: Operand, now_us: int) -> Query:
    field = _field(side)
    if other.value is None:
        if op not in _EQUALITY:
            raise MisfitError(other.at, f"nothing is {op} None", f"{field} is None")
        return Has(field) if op == "!=" else Not(Has(field))
    return Compare(field, op, _literal(field, other, op, now_us))


def _field(side: Operand) -> Field:
    field = side.field
    if field is None:
        raise MisfitError(side.at, "a field is expected", "e.g. params.lr")
    if field.kind == SET:
        raise MisfitError(side.at, f"{field} has any number of names", f'"NAME" in {field}')
    if field.space == DATA and not field.part:
        raise MisfitError(side.at, f"{field} is a file", f"compare {field}.sha256 or {field}.size, or ask has({field})")
    return field


def _is(left: Operand, op: str, right: Operand, now_us: int) -> Query:
    if left.field is None or right.field is not None:
        raise MisfitError(right.at, f"None or nan is expected after {op}", "e.g. params.lr is None")
    found: Query
    if right.value is None:
        return Has(left.field) if op == "is not" else Not(Has(left.field))
    if isinstance(right.value, float) and math.isnan(right.value):
        if left.field.space != "metrics" or left.field.part in ("count", "step"):
            raise MisfitError(left.at, f"{left.field} is never nan", "the values of metrics may be")
        found = IsNan(left.field)
    elif isinstance(right.value, bool):
        found = _value(left, "==", right, now_us)
    else:
        raise MisfitError(right.at, f"None or nan is expected after {op}", "values are compared with ==")
    return Not(found) if op == "is not" else found


def _within(left: Operand, op: str, right: Operand, now_us: int) -> Query:
    if right.values is not None:
        if left.field is None:
            raise MisfitError(left.at, "a field is expected before in", 'e.g. run.state in ("failed", "lost")')
        field = _field(left)
        if not right.values:
            raise MisfitError(right.at, "the list is empty")
        if len(right.values) > VALUES_MAX:
            raise MisfitError(right.at, f"the list has {len(right.values)} values", f"at most {VALUES_MAX}")
        for item in right.values:
            if not item.is_value or item.value is None:
                raise MisfitError(item.at, "a value is expected in the list", "None is asked for with: is None")
        values = tuple(_literal(field, item, "==", now_us) for item in right.values)
        return OneOf(field, values, none=op == "not in")
    if right.field is None:
        raise MisfitError(right.at, f"a list, or a field that is a text, is expected after {op}",
                          'e.g. params.lr in (0.1, 0.2), "adam" in params.optimizer')  # fmt: skip
    if not isinstance(left.value, str):
        raise MisfitError(
            left.at, f"a text in quotes is expected before {op} {right.field}", f'"NAME" in {right.field}'
        )
    if right.field.kind == SET:
        named = Named(right.field, left.value)
        return Not(named) if op == "not in" else named
    return Holds(text_field(right), op, left.value)


def text_field(side: Operand) -> Field:
    """Return the field of a side that must be a text; raises `MisfitError`."""
    field = _field(side)
    if field.kind not in (TEXT, ANY):
        raise MisfitError(side.at, f"{field} is no text", f"it is a {field.kind}")
    return field


def _fields(left: Operand, op: str, right: Operand) -> Query:
    one, two = _field(left), _field(right)
    alike = one.kind == two.kind or (one.kind in _NUMBERS and two.kind in _NUMBERS)
    if not alike or "env" in (one.space, two.space):
        raise MisfitError(right.at, f"{one} and {two} cannot be compared", "two numbers, two texts or two times can")
    if one.kind == SWITCH and op not in _EQUALITY:
        raise MisfitError(left.at, f"{one} is on or off", f"{one} == {two}")
    return CompareFields(one, op, two)


def _literal(field: Field, item: Operand, op: str, now_us: int) -> Value:
    """Return the value that is compared with a field, as its kind has it; raises `MisfitError`."""
    value = item.value
    if isinstance(value, float) and math.isnan(value):
        raise MisfitError(item.at, "nothing equals nan", f"{field} is nan")
    if isinstance(value, bool) and (field.kind not in (SWITCH, ANY) or op not in _EQUALITY):
        raise MisfitError(item.at, f"{field} cannot be compared so with true and false", _what(field))
    if field.kind == SWITCH and not isinstance(value, bool):
        raise MisfitError(item.at, f"{field} is on or off", f"write {field}, or not {field}")
    if field.kind in (TIME, DURATION) and isinstance(value, str):
        return _time(field, item, value, now_us)
    if field.kind == TEXT and isinstance(value, str):
        _known_state(field, item, value)
    elif field.kind == TEXT:
        raise MisfitError(item.at, f"{field} is a text", "put what it is compared with in quotes")
    elif field.kind == TIME:
        raise MisfitError(item.at, f"{field} is a time", times.HOW)
    elif field.kind == NUMBER and isinstance(value, str):
        raise MisfitError(item.at, f"{field} is a number", "write what it is compared with without quotes")
    if value is None:
        raise MisfitError(item.at, "a value is expected")
    return value


def _what(field: Field) -> str:
    return {TEXT: "it is a text", TIME: times.HOW, NUMBER: "it is a number"}.get(field.kind, f"{field} == true")


def _known_state(field: Field, item: Operand, value: str) -> None:
    if field.space == RUN and field.name == "state" and value not in states.RUN_STATES:
        raise MisfitError(item.at, f"no run is ever {value!r}",
                          meant(near(value, states.RUN_STATES), f"states: {', '.join(states.RUN_STATES)}"))  # fmt: skip


def _time(field: Field, item: Operand, value: str, now_us: int) -> Value:
    try:
        return times.parse_moment(value, now_us) if field.kind == TIME else times.parse_duration(value)
    except ValueError:
        if field.kind == TIME:
            raise MisfitError(item.at, f"{value!r} is no time", times.HOW) from None
        raise MisfitError(item.at, f"{value!r} is no duration", 'seconds, or e.g. "90s", "2h", "1h30m"') from None
