"""Constants at the top of a script: ``LR = 0.1``, ``LAYERS: int = 3``, ``CONFIG = {"lr": 0.1}``. Nothing is executed."""

from __future__ import annotations

import _ast
import re

from runyard.wire import values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

ONLY_AST = 0x400
"""``ast.PyCF_ONLY_AST``; importing ``ast`` would take longer than all else here."""
_UPPER = re.compile(r"[A-Z][A-Z0-9_]*\Z")
_DICTS = frozenset("params parameters hparams hyperparams hyperparameters config cfg settings options defaults".split())
"""Names of dicts that count without being in capitals."""
_LARGE = 1e300


class _NotLiteralError(Exception):
    pass


def constants(source: str | bytes) -> dict[str, tuple[Any, int]]:
    """Return the constants of a script by name, each with the line of its assignment.

    Names in capitals, and dicts whose name says that they are parameters, that the top level or ``if __name__ ==
    "__main__":`` assigns a literal (numbers, text, lists, dicts, ``dict(...)``, arithmetic of numbers). Dicts are flattened,
    names joined with ``.``. The last assignment counts; a name that is also assigned something else is left out.

    Raises:
        SyntaxError, ValueError, RecursionError: the source is no Python of this version.
    """
    tree = compile(source, "<script>", "exec", ONLY_AST, dont_inherit=True)
    found: dict[str, tuple[Any, int] | None] = {}
    for statement in _statements(tree.body):
        for name, node in _assigned(statement):
            if name in found and found[name] is None:
                continue
            try:
                value = None if node is None else (_literal(node), statement.lineno)
            except (_NotLiteralError, ArithmeticError):
                value = None
            if _UPPER.match(name) or (value is not None and isinstance(value[0], dict) and name.lower() in _DICTS):
                found[name] = value
            elif name in found:
                found[name] = None
    flat: dict[str, tuple[Any, int]] = {}
    for name, entry in found.items():
        if entry is not None:
            for key, item in values.flatten(entry[0], name)[0].items():
                if len(flat) < values.MAX_VALUES:
                    flat[key] = (item, entry[1])
    return flat


def _statements(body: Sequence[Any]) -> Iterator[Any]:
    for statement in body:
        if isinstance(statement, _ast.If) and _is_main(statement.test):
            yield from statement.body
        else:
            yield statement


def _is_main(test: Any) -> bool:
    return (
        isinstance(test, _ast.Compare)
        and isinstance(test.left, _ast.Name)
        and test.left.id == "__name__"
        and isinstance(test.ops[0], _ast.Eq)
    )


def _assigned(statement: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and value of what a statement assigns to plain names; no value where it is not to be known."""
    if isinstance(statement, _ast.Assign):
        for target in statement.targets:
            if isinstance(target, _ast.Name):
                yield target.id, statement.value
            elif isinstance(target, (_ast.Tuple, _ast.List)):
                yield from _unpacked(target.elts, statement.value)
            elif isinstance(target, _ast.Subscript) and isinstance(target.value, _ast.Name):
                yield target.value.id, None
    elif isinstance(statement, _ast.AnnAssign) and isinstance(statement.target, _ast.Name):
        if statement.value is not None:
            yield statement.target.id, statement.value
    elif isinstance(statement, _ast.AugAssign) and isinstance(statement.target, _ast.Name):
        yield statement.target.id, None


def _unpacked(targets: Sequence[Any], value: Any) -> Iterator[tuple[str, Any]]:
    items = value.elts if isinstance(value, (_ast.Tuple, _ast.List)) and len(value.elts) == len(targets) else None
    for index, target in enumerate(targets):
        if isinstance(target, _ast.Name):
            yield target.id, items[index] if items else None


def _literal(node: Any) -> Any:
    if isinstance(node, _ast.Constant):
        if node.value is None or isinstance(node.value, (bool, int, float, str)):
            return node.value
    elif isinstance(node, (_ast.List, _ast.Tuple)):
        return [_literal(item) for item in node.elts]
    elif isinstance(node, (_ast.Dict, _ast.Call)):
        return {key: _literal(value) for key, value in _items(node)}
    elif isinstance(node, _ast.UnaryOp):
        return _unary(node.op, _number(node.operand))
    elif isinstance(node, _ast.BinOp):
        return _binary(node.op, _number(node.left), _number(node.right))
    raise _NotLiteralError


def _items(node: Any) -> list[tuple[Any, Any]]:
    """Return keys and nodes of values of ``{...}`` with literal keys, or of ``dict(name=...)``."""
    if isinstance(node, _ast.Dict):
        if all(isinstance(key, _ast.Constant) for key in node.keys):
            return [(getattr(key, "value", None), value) for key, value in zip(node.keys, node.values)]
    elif isinstance(node.func, _ast.Name) and node.func.id == "dict" and not node.args:
        pairs = [(item.arg, item.value) for item in node.keywords]
        if all(key for key, _ in pairs):
            return pairs
    raise _NotLiteralError


def _number(node: Any) -> Any:
    value = _literal(node)
    if not isinstance(value, (int, float)) or abs(value) > _LARGE:
        raise _NotLiteralError
    return value


def _unary(operator: Any, value: Any) -> Any:
    if isinstance(operator, _ast.USub):
        return -value
    if isinstance(operator, _ast.Not):
        return not value
    if isinstance(operator, _ast.UAdd):
        return value
    raise _NotLiteralError


def _binary(operator: Any, left: Any, right: Any) -> Any:
    if isinstance(operator, _ast.Add):
        return left + right
    if isinstance(operator, _ast.Sub):
        return left - right
    if isinstance(operator, _ast.Mult):
        return left * right
    if isinstance(operator, _ast.Div):
        return left / right
    if isinstance(operator, _ast.FloorDiv):
        return left // right
    if isinstance(operator, _ast.Mod):
        return left % right
    if isinstance(operator, _ast.Pow) and abs(right) <= 64 and abs(left) <= 1024:
        result = left**right
        if isinstance(result, (int, float)):
            return result
    if isinstance(operator, _ast.LShift) and isinstance(left, int) and isinstance(right, int) and 0 <= right <= 64:
        return left << right
    raise _NotLiteralError
