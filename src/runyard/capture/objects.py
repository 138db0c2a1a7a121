"""Metrics in lines that are an object: JSON, or a dict as Python prints it."""

from __future__ import annotations

import re

from runyard.capture import words
from runyard.capture.plans import HF, MARK, ROW, Item, Plan, Step
from runyard.wire import jsonlite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STEPS = {
    "epoch": "epoch", "step": "step", "iter": "step", "iteration": "step", "batch": "step", "update": "step",
    "episode": "step", "global_step": "global", "trainer/global_step": "global", "_step": "global", "num_updates": "global",
    "total_timesteps": "global",
}  # fmt: skip
_TIMES = frozenset(("time", "t", "wall_time", "_timestamp", "_runtime", "asctime", "now"))
_TRAINER = frozenset(("grad_norm", "eval_runtime", "train_runtime", "eval_samples_per_second", "train_loss"))
"""What the Trainer of Transformers says beside `epoch` (trainer.py `_maybe_log_save_evaluate`, trainer_utils.py
`speed_metrics`); its step is only in the bar."""

_BASE = 7000000000
"""Stands, with the index added, for the numbers of a line."""
_WRAPPED = re.compile(r"(?:\w+\.)?(?:float|int|bfloat|[tT]ensor|[aA]rray|Decimal)\d*\(\s*([67][0-9]{9})[^()]*\)")
_ODD = re.compile(r"\b(?:nan|NaN|inf|Infinity)\b")
_NAN, _INF, _LOW = 6000000001, 6000000002, 6000000003
_CONSTANTS = {_NAN: float("nan"), _INF: float("inf"), _LOW: -float("inf")}
_PYTHON = {"True": "true", "False": "false", "None": "null"}
_TOKEN = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"|\b(True|False|None)\b|([()])|,\s*([}\]])")


def plan(shape: str, start: int, count: int) -> Plan | None:
    """Return the plan of a line whose object begins at ``start``; None when there are no metrics in it."""
    index = shape.count(MARK, 0, start) - 1

    def stand_in(found: re.Match[str]) -> str:
        nonlocal index
        if found.group() == MARK:
            index += 1
            return str(_BASE + index)
        odd = found.group()
        return str(_NAN if odd.strip("-").lower() == "nan" else _LOW if odd[0] == "-" else _INF)

    text = re.sub("%s|-?%s" % (MARK, _ODD.pattern), stand_in, shape[start:].rstrip())
    value = _loads(_WRAPPED.sub(r"\1", text))
    if not isinstance(value, dict):
        return None
    leaves: list[tuple[str, Any]] = []
    _walk(value, "", leaves, 0)
    return _chosen(leaves, count)


def _loads(text: str) -> Any:
    try:
        return jsonlite.loads(text.encode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        pass
    try:
        return jsonlite.loads(_TOKEN.sub(_as_json, text).encode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return None


def _as_json(found: re.Match[str]) -> str:
    """Return what of a Python literal is written otherwise in JSON."""
    single, double, word, bracket, closing = found.groups()
    if word:
        return _PYTHON[word]
    if bracket:
        return "[" if bracket == "(" else "]"
    if closing:
        return str(closing)
    return jsonlite.dumps(single if single is not None else double)


def _walk(value: dict[str, Any], before: str, leaves: list[tuple[str, Any]], depth: int) -> None:
    for key, item in value.items():
        name = before + str(key)
        if isinstance(item, dict) and depth < 4:
            _walk(item, name + "/", leaves, depth + 1)
        else:
            leaves.append((name, item))


def _code(value: Any) -> int:
    """Return what stands in for the number that a leaf is (numbers may be quoted); 0 when it is none."""
    if isinstance(value, str) and value.isdigit() and len(value) == 10:
        value = int(value)
    return value if isinstance(value, int) and value >= _NAN else 0


def _chosen(leaves: list[tuple[str, Any]], count: int) -> Plan | None:
    items, steps, others = [], [], 0
    # Before it said the norm of the gradient, it said just these.
    trainer = (
        leaves[-1:] != [] and leaves[-1][0] == "epoch" and [key for key, _ in leaves[:2]] == ["loss", "learning_rate"]
    )
    for key, value in leaves:
        code = _code(value)
        if not code:
            others += 1
            continue
        index = code - _BASE if code >= _BASE else -1
        word = _STEPS.get(key.lower())
        if word and index >= 0:
            steps.append(Step(word, index))
        trainer = trainer or key in _TRAINER
        name = words.normalised(key)
        if not name or words.NO_METRIC.match(name) or name.lower() in _TIMES:
            continue
        if index < 0:
            items.append(Item(name, -1, _CONSTANTS[code]))
        elif not word or word == "epoch":
            items.append(Item(name, index))
    if trainer and steps and all(step.word == "epoch" for step in steps):
        return Plan(count, HF, items)
    if not steps and others and not any(words.METRIC.search(item.name) for item in items):
        return None
    items = [item for item in items if item.name.lower() != "epoch" or len(steps) > 1]
    return Plan(count, ROW, items, steps) if items else None
