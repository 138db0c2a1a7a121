"""The words of a query: cut into tokens, checked for order, and told apart from free text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from runyard.model.fields import METRICS, PARAMS, RUN, SPACES
from runyard.wire.errors import InvalidError

LENGTH_MAX = 10_000
"""Characters of a query."""
TOKENS_MAX = 3000
DEPTH_MAX = 40
"""Parentheses in parentheses, and `not` before `not`."""
NAME, WORD, VALUE, TEXT, OPERATOR, OTHER = "name", "word", "number", "text", "operator", "other"
_PATTERN = re.compile(
    r"""(?P<blank>\s+)
    |(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<name>[^\W\d]\w*)
    |(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<operator>==|!=|<=|>=|<>|&&|\|\||[-+<>=()\[\],.!&|~])
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_KEYWORDS = frozenset({"and", "or", "not", "in", "is"})
COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">="})
_INSTEAD = {"=": "==", "<>": "!=", "&&": "and", "&": "and", "||": "or", "|": "or", "!": "not", "~": "not"}
_A_VALUE = "a field such as run.state or params.lr, a number, or a text in quotes"
_AN_OPERATOR = "an operator such as ==, <, in, and, or"
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_ESCAPED = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U000([0-9a-fA-F]{5})|U0010([0-9a-fA-F]{4})|(.))", re.DOTALL
)
PAGE = "see docs/search.md"


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its kind, its text as typed, and where it begins (from 0)."""

    kind: str
    text: str
    at: int


def wrong(query: str, at: int, message: str, hint: str = "") -> InvalidError:
    """Return the error of a query: what is wrong at which column (from 1)."""
    return InvalidError(
        f"column {at + 1} of the query: {message}", hint or PAGE, query=query, column=at + 1, problem=message
    )


def split(query: str) -> list[Token]:
    """Return the tokens of a query, whatever it is.

    Raises:
        InvalidError: it is too long.
    """
    if len(query) > LENGTH_MAX:
        raise InvalidError(f"the query has {len(query)} characters", f"at most {LENGTH_MAX}")
    found = []
    for match in _PATTERN.finditer(query):
        kind = str(match.lastgroup)
        if kind == NAME and match[0] in _KEYWORDS:
            kind = OPERATOR
        if kind != "blank":
            found.append(Token(kind, match[0], match.start()))
    return found


def is_expression(query: str, tokens: Sequence[Token]) -> bool:
    """Tell whether a query is an expression; else it is words.

    It is one if something is compared in it, a text stands in quotes, or a field meets an operator. Words such as
    ``it's``, ``--lr=0.1`` and ``run.py`` are none, nor are ``and``, ``in`` and ``not`` among words.
    """
    if any(token.text in COMPARISONS for token in tokens) or _is_equation(query, tokens):
        return True
    if any(token.kind == TEXT and _stands_alone(query, token) for token in tokens):
        return True
    texts = [token.text for token in tokens]
    if any(pair == ("has", "(") for pair in itertools.pairwise(texts)):
        return True
    refers = any(
        one.text in SPACES and one.at + len(one.text) == two.at and two.text in ".["
        for one, two in itertools.pairwise(tokens)
    )
    return refers and (_meets_equals(query, tokens) or not {"and", "or", "not", "in", "is", "(", "["}.isdisjoint(texts))


def _meets_equals(query: str, tokens: Sequence[Token]) -> bool:
    """Tell whether ``=`` was written for ``==``; ``lr=0.1`` and ``data.size=3`` are words of a command."""
    begins = tokens[0].text in (PARAMS, METRICS, RUN)
    return any(token.text == "=" and (begins or query[token.at - 1 : token.at].isspace()) for token in tokens)


def _is_equation(query: str, tokens: Sequence[Token]) -> bool:
    """Tell whether a query is ``lr = 0.3``: a name, and a sign for equality that belongs to no word."""
    return len(tokens) > 2 and tokens[0].kind == NAME and tokens[1].text == "=" and query.split()[1:2] == ["="]


def _stands_alone(query: str, token: Token) -> bool:
    before, after = query[: token.at][-1:], query[token.at + len(token.text) :][:1]
    return (not before or before.isspace() or before in "([,") and (not after or after.isspace() or after in ")],.")


def check(query: str, tokens: Sequence[Token]) -> None:
    """See that values and operators take turns and that brackets match.

    Raises:
        InvalidError: at the first token that cannot stand where it does.
    """
    if len(tokens) > TOKENS_MAX:
        raise InvalidError(f"the query has {len(tokens)} words and signs", f"at most {TOKENS_MAX}")
    _Order(query, tokens).check()


class _Order:
    """Goes through the tokens once. After each it knows whether a value must follow, and which brackets are open."""

    def __init__(self, query: str, tokens: Sequence[Token]) -> None:
        self.query, self.tokens = query, tokens
        self.open: list[Token] = []
        self.nots = 0
        self.value_due = True

    def check(self) -> None:
        for place, token in enumerate(self.tokens):
            before = self.tokens[place - 1] if place else None
            if before is not None and before.text == ".":
                self._name(token)
            elif token.text in _INSTEAD and not (token.text == "=" and self.value_due):
                self._fail(token, f"{token.text} is no operator here", f"write {_INSTEAD[token.text]}")
            elif self.value_due:
                self._value(token, before)
            else:
                self._operator(token, place)
            if len(self.open) + self.nots > DEPTH_MAX:
                self._fail(token, "this is nested too deeply", f"at most {DEPTH_MAX} levels")
        end = len(self.query.rstrip())
        if self.value_due:
            raise wrong(self.query, end, f"the query ends where {_A_VALUE} is expected")
        if self.open:
            raise wrong(self.query, self.open[-1].at, f"this {self.open[-1].text} is never closed")

    def _fail(self, token: Token, message: str, hint: str = "") -> NoReturn:
        raise wrong(self.query, token.at, message, hint)

    def _name(self, token: Token) -> None:
        if token.kind != NAME and token.text not in _KEYWORDS:
            self._fail(token, f"a name is expected after the dot, found {_shown(token)}", 'other names: params["NAME"]')

    def _value(self, token: Token, before: Token | None) -> None:
        if token.kind in (NAME, VALUE, TEXT):
            self.value_due, self.nots = False, 0
        elif token.text in ("(", "["):
            self.open.append(token)
        elif token.text == "not":
            self.nots += 1
        elif token.text in (")", "]") and before is not None and before.text in ("(", "[", ","):
            self._close(token)  # what is in them is for later to judge
        elif token.text not in ("-", "+") or (before is not None and before.text in ("-", "+")):
            self._fail(token, f"{_A_VALUE} is expected, found {_shown(token)}", _quote_it(token))

    def _operator(self, token: Token, place: int) -> None:
        before, after = self.tokens[place - 1], self.tokens[place + 1 :][:1]
        if token.text in (")", "]"):
            self._close(token)
        elif token.text in ("(", "[") and before.kind != VALUE:
            self.open.append(token)
            self.value_due = True
        elif token.text == "," and self.open:
            self.value_due = True
        elif token.text == ".":
            if not after:
                self._fail(token, "a name is expected after the dot")
        elif token.text == "not":
            if not after or after[0].text != "in":
                self._fail(
                    token, f"{_AN_OPERATOR} is expected, found not", "not stands before a comparison, or in `not in`"
                )
        elif token.text in COMPARISONS or token.text in _KEYWORDS:
            self.value_due = True
        elif token.kind == VALUE and token.text.startswith("."):
            self._fail(token, "a name does not begin with a digit", 'in brackets it may: params["3d"]')
        else:
            self._fail(token, f"{_AN_OPERATOR} is expected, found {_shown(token)}", _quote_it(token))

    def _close(self, token: Token) -> None:
        if not self.open or self.open[-1].text + token.text not in ("()", "[]"):
            self._fail(token, f"this {token.text} closes nothing")
        self.open.pop()
        self.value_due = False


def _shown(token: Token) -> str:
    return token.text if len(token.text) <= 30 else token.text[:30] + "…"


def _quote_it(token: Token) -> str:
    if token.kind == OTHER and token.text in "\"'":
        return "this quote is never closed"
    if token.text in ("*", "/", "%", "+", "-"):
        return 'there is no arithmetic; a name with other characters stands in brackets: metrics["val/acc"]'
    return 'words to search for stand in quotes: "baseline" and metrics.loss < 1'


def text_of(token: Token) -> str:
    """Return what stands in quotes, with the escapes of Python; a backslash before anything else is one."""
    return _ESCAPED.sub(_character, token.text[1:-1])


def _character(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3] or (match[4] and "10" + match[4])
    if code:
        return chr(int(code, 16))
    return _ESCAPES.get(match[5]) or (match[5] if match[5] in "\\\"'" else "" if match[5] == "\n" else "\\" + match[5])
