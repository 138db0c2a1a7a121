"""The query language of runs (docs/search.md): from text to a checked, frozen tree.

The structure is that of a Python expression, so `ast` finds it. Names, numbers and texts are kept from it: each token is
given to `ast` under a name of its own, so that keywords (``params.lambda``), characters that Python would normalize, and
columns stay as they were typed.
"""

from __future__ import annotations

import ast
import itertools
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from runyard.model import tokens
from runyard.model.comparing import VALUES_MAX, MisfitError, Operand, compare, text_field
from runyard.model.fields import (
    ANY,
    CODE,
    DATA,
    ENV,
    RUN,
    SPACES,
    TAGS,
    TIME,
    Field,
    Part,
    meant,
    near,
    read,
)
from runyard.model.tokens import Token, wrong
from runyard.model.tree import FLOATS_END, All, Either, Has, Holds, Not, Query, Whole, Words
from runyard.wire.errors import InvalidError

TERMS_MAX = 200
"""Conditions in a query."""
ORDER_MAX = 5
"""Fields of an order."""


def parse(query: str, now_us: int) -> Query:
    """Return the tree of a query; ``now_us``: what ``2h ago`` is reckoned from.

    Raises:
        InvalidError: ``details`` have the query and the ``column`` (from 1), where there is one.
    """
    found = tokens.split(query)
    if tokens.is_expression(query, found):
        tokens.check(query, found)
        return _Reader(query, found, now_us).read()
    words = All((Words(tuple(query.split())),)) if query.split() else All(())
    field = _lone(query, found)
    if field is None:
        return words
    return Has(field) if field.space in (RUN, CODE, TAGS) else Either((words, Has(field)))


def _lone(query: str, found: Sequence[Token]) -> Field | None:
    """Return the field that a query of a single word names, e.g. ``params.lr``."""
    if len(query.split()) != 1 or not found or found[0].text not in SPACES:
        return None
    if query.strip() in (TAGS, DATA) or not _is_reference(found):
        return None
    try:
        field = parse_field(query.strip())
    except InvalidError:
        return None
    return field if field.space else None


def _is_reference(found: Sequence[Token]) -> bool:
    """Tell whether there is nothing but what a reference is made of."""
    return all(token.kind in (tokens.NAME, tokens.TEXT) or token.text in (".", "[", "]") for token in found)


def parse_field(text: str) -> Field:
    """Return the field that an order or a column names.

    Besides what a query may say: ``metrics.val/acc`` without brackets, and a bare ``loss``.

    Raises:
        InvalidError: there is no such field.
    """
    found = tokens.split(text)
    if len(found) > 1 and found[0].text in SPACES and _is_reference(found):
        tokens.check(text, found)
        return _Reader(text, found, 0).field()
    space, dot, name = text.strip().partition(".")
    if dot and space in SPACES:
        return read(space, [Part(part, quoted=False) for part in name.split(".")])
    if not text.strip():
        raise InvalidError("a name is empty", "name a field, e.g. metrics.loss")
    try:
        return read(RUN, [Part(text.strip(), quoted=False)])
    except InvalidError:
        return Field("", text.strip(), kind=ANY)


_COMPARES: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.In: "in",
    ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not",
}  # fmt: skip
_CONSTANTS: dict[str, float | bool | None] = {
    "true": True, "True": True, "false": False, "False": False, "None": None, "null": None, "inf": math.inf,
    "nan": math.nan,
}  # fmt: skip
_METHODS = ("startswith", "endswith")


class _Reader:
    """Makes the tree of one expression."""

    def __init__(self, query: str, found: Sequence[Token], now_us: int) -> None:
        self.query, self.tokens, self.now_us = query, found, now_us
        self.terms = 0
        self._by_name: dict[str, Token] = {}
        self._by_offset: dict[int, Token] = {}
        text = ""
        for number, token in enumerate(found):
            shown = token.text
            if token.kind in (tokens.NAME, tokens.VALUE, tokens.TEXT) or (number and found[number - 1].text == "."):
                shown = f"n{number}"
                self._by_name[shown] = token
            self._by_offset[len(text)] = token
            text += shown + " "
        self._source = text

    def read(self) -> Query:
        """Return the tree."""
        return self._condition(self._body())

    def field(self) -> Field:
        """Return the field that is all of the text."""
        body = self._body()
        if not isinstance(body, ast.Attribute | ast.Subscript):
            raise self._wrong(body, "this is no field")
        return self._field(body)

    def _body(self) -> ast.expr:
        try:
            return ast.parse(self._source, mode="eval").body
        except SyntaxError as exc:  # what `tokens.check` lets pass, as `(a b c)[0](1)`
            at = self._by_offset.get((exc.offset or 1) - 1)
            raise wrong(self.query, at.at if at else 0, "this is no expression") from None

    def _at(self, node: ast.AST) -> int:
        token = self._by_offset.get(getattr(node, "col_offset", 0))
        return token.at if token else 0

    def _wrong(self, node: ast.AST | int, message: str, hint: str = "") -> InvalidError:
        return wrong(self.query, node if isinstance(node, int) else self._at(node), message, hint)

    # Conditions

    def _condition(self, node: ast.expr) -> Query:
        if isinstance(node, ast.BoolOp):
            parts = tuple(self._condition(value) for value in node.values)
            return All(parts) if isinstance(node.op, ast.And) else Either(parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return Not(self._condition(node.operand))
        self._count(node, 1)
        if isinstance(node, ast.Compare):
            return self._chain(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        operand = self._operand(node)
        if operand.field is not None:
            return Has(operand.field)
        if isinstance(operand.value, str):
            return Words((operand.value,)) if operand.value.strip() else All(())
        raise self._wrong(node, "a condition is expected, found a value", "compare it with a field: params.lr == 0.1")

    def _count(self, node: ast.expr, terms: int) -> None:
        self.terms += terms
        if self.terms > TERMS_MAX:
            raise self._wrong(node, "the query has too many conditions", f"at most {TERMS_MAX}")

    def _chain(self, node: ast.Compare) -> Query:
        operands = [self._operand(item) for item in (node.left, *node.comparators)]
        for place, op in enumerate(node.ops, 1):
            if isinstance(op, ast.In | ast.NotIn) and self._is_list_of_one(operands[place]):
                operands[place] = Operand(operands[place].at, values=(operands[place],))
        pairs = zip(operands, node.ops, operands[1:], strict=False)
        try:
            found = tuple(compare(left, _COMPARES[type(op)], right, self.now_us) for left, op, right in pairs)
        except MisfitError as exc:
            raise self._wrong(exc.at, exc.message, exc.hint) from None
        self._count(node, len(found) - 1)
        return found[0] if len(found) == 1 else All(found)

    def _is_list_of_one(self, operand: Operand) -> bool:
        """Tell whether a value stands in parentheses, as ``("failed")``, which is no list in Python."""
        before = next((one for one, two in itertools.pairwise(self.tokens) if two.at == operand.at), None)
        return operand.is_value and before is not None and before.text == "("

    def _call(self, node: ast.Call) -> Query:
        if node.keywords or len(node.args) != 1:
            raise self._wrong(
                node, "one value is expected in the parentheses", 'e.g. has(params.lr), run.name.startswith("a")'
            )
        if isinstance(node.func, ast.Name):
            token = self._by_name[node.func.id]
            argument = self._operand(node.args[0])
            if token.text == "has" and argument.field is not None:
                return Has(argument.field)
            if token.text == "has":
                raise self._wrong(argument.at, "has() asks for a field", "e.g. has(params.lr)")
        elif isinstance(node.func, ast.Attribute) and (how := self._by_name[node.func.attr].text) in _METHODS:
            field = self._operand(node.func.value)
            text = self._operand(node.args[0])
            if not isinstance(text.value, str):
                raise self._wrong(text.at, f"{how} needs a text in quotes")
            try:
                return Holds(text_field(field), how, text.value)
            except MisfitError as exc:
                raise self._wrong(exc.at, exc.message, exc.hint) from None
        raise self._wrong(
            node, "there is no such function", "there are has(FIELD), FIELD.startswith(TEXT), FIELD.endswith(TEXT)"
        )

    # Operands

    def _operand(self, node: ast.expr) -> Operand:
        at = self._at(node)
        if isinstance(node, ast.Tuple | ast.List):
            if len(node.elts) > VALUES_MAX:
                raise self._wrong(node, "the list has too many values", f"at most {VALUES_MAX}")
            return Operand(at, values=tuple(self._operand(item) for item in node.elts))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            inner = self._operand(node.operand)
            if not isinstance(inner.value, float) or isinstance(node.operand, ast.UnaryOp):
                raise self._wrong(node, "a sign stands before a number only")
            return Operand(at, value=-inner.value if isinstance(node.op, ast.USub) else inner.value)
        if isinstance(node, ast.Name):
            return self._word(self._by_name[node.id], at)
        if isinstance(node, ast.Attribute | ast.Subscript):
            return Operand(at, field=self._field(node))
        raise self._wrong(node, "a field, a number or a text in quotes is expected", "conditions are joined by and, or")

    def _word(self, token: Token, at: int) -> Operand:
        if token.kind == tokens.TEXT:
            return Operand(at, value=tokens.text_of(token))
        if token.kind == tokens.VALUE:
            return Operand(at, value=_number(token.text))
        if token.text in _CONSTANTS:
            return Operand(at, value=_CONSTANTS[token.text])
        if token.text in (TAGS, DATA):
            return Operand(at, field=read(token.text, ()))
        if token.text in SPACES:
            raise self._located(at, token.text, ())
        found = near(token.text, SPACES, 1)
        hint = f'in quotes it is a text, or a word to search for: "{token.text}"'
        likely = meant(found)
        if not likely and self._is_compared(token):
            likely = f"did you mean metrics.{token.text} or params.{token.text}?"
        raise self._wrong(at, f"there is no {token.text}", f"{likely} Or {hint}" if likely else hint)

    def _is_compared(self, token: Token) -> bool:
        place = self.tokens.index(token)
        around = (*self.tokens[max(0, place - 1) : place], *self.tokens[place + 1 : place + 2])
        return any(other.text in (*tokens.COMPARISONS, "in", "is") for other in around)

    def _field(self, node: ast.expr) -> Field:
        parts: list[Part] = []
        last = at = self._at(node)
        while isinstance(node, ast.Attribute | ast.Subscript):
            if isinstance(node, ast.Attribute):
                token = self._by_name[node.attr]
                parts.append(Part(token.text, quoted=False))
                last = max(last, token.at)
            else:
                parts.append(Part(self._subscript(node.slice), quoted=True))
            node = node.value
        if not isinstance(node, ast.Name) or (root := self._by_name[node.id]).kind == tokens.VALUE:
            raise self._wrong(at, "this has no fields")
        if root.kind == tokens.TEXT:
            raise self._wrong(at, "a text has no fields", "field.startswith(TEXT) asks how a text begins")
        try:
            return read(root.text, parts[::-1])
        except InvalidError as exc:
            place = at if root.text not in SPACES else self._first_part(root)
            raise wrong(self.query, place, exc.message, exc.hint) from None

    def _first_part(self, root: Token) -> int:
        place = self.tokens.index(root) + 2
        return self.tokens[place].at if place < len(self.tokens) else root.at

    def _located(self, at: int, space: str, parts: Sequence[Part]) -> InvalidError:
        try:
            read(space, parts)
        except InvalidError as exc:
            return wrong(self.query, at, exc.message, exc.hint)
        raise AssertionError("unreachable")

    def _subscript(self, node: ast.expr) -> str:
        token = self._by_name.get(node.id) if isinstance(node, ast.Name) else None
        if token is None or token.kind != tokens.TEXT:
            raise self._wrong(node, "a name in quotes is expected in the brackets", 'e.g. params["batch-size"]')
        return tokens.text_of(token)


class Key(NamedTuple):
    """One key of an order."""

    field: Field
    descending: bool


NEWEST = Key(Field(RUN, "created", kind=TIME), descending=True)


def parse_order(order: str) -> tuple[Key, ...]:
    """Return the keys of ``metrics.loss``, ``-metrics.acc``, ``params.model,-metrics.acc``; of an empty one, newest first.

    Raises:
        InvalidError: a key is no field that runs can be sorted by.
    """
    texts = [text.strip() for text in _COMMA.split(order)] if order.strip() else []
    if len(texts) > ORDER_MAX:
        raise InvalidError(f"the order has {len(texts)} keys", f"at most {ORDER_MAX}")
    return tuple(_key(text) for text in texts) or (NEWEST,)


_COMMA = re.compile(r",(?![^\[]*\])")
"""One that stands in no brackets."""


def _key(text: str) -> Key:
    try:
        field = parse_field(text.removeprefix("-"))
    except InvalidError as exc:
        raise InvalidError(f"order {text}: {exc.details.get('problem', exc.message)}", exc.hint) from None
    if field.space in (TAGS, DATA, ENV):
        raise InvalidError(f"runs cannot be sorted by {field}", "they can by run.*, params.*, metrics.* and code.*")
    return Key(field, text.startswith("-"))


def _number(text: str) -> float:
    number = float(text)
    exact = text.isdecimal() and FLOATS_END <= number < math.inf
    return Whole(int(text)) if exact else number
