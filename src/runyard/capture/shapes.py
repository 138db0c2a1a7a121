"""From the shape of a line (every number replaced by a mark) to the plan of what such lines hold.

A program prints lines of few shapes. Each is looked at closely once; a plan depends on nothing but the shape.
"""

from __future__ import annotations

import re

from runyard.capture import objects, rows, words
from runyard.capture.plans import BAR, CELL, HF, MARK, ROW, TABLE, TABLE_END, TEXT, TRACE, WARNED, Item, Plan

_BAR = re.compile(
    (
        r"\|[^|]*\|\s+MARK\w?/\S+ \[|[^\s\[]\w{0,12} \[MARK:MARK|^\s*MARK/\S+ +(?:[━\[]|- )|[━╸╺]{3,}\s+MARK/"
        r"|^\s{16,}[\w./@\-]+: MARK(?:\s|$)"
    ).replace("MARK", MARK)
)
_TRACEBACK = re.compile(r"\s*File \"[^\"]*\", line |Fatal Python error")
_EXCEPTION = re.compile(r"[\w.]*[a-z](?:Error|Exception|Exit|Interrupt)(?::(?!\s*%s$)|$)" % rows.VALUE)
_WARNING = re.compile(r"\w+:%s: \w*Warning: |\b[A-Z]\w*Warning: " % MARK)
_TABLE = re.compile(r"[│┃|]\s+(?:Validate|Test|Runningstage\.\w+) metric\s")
_CELL = re.compile(r"[│|]\s+([^\W\d][\w./@\-]*)\s+[│|]\s+%s\s+[│|]\s*$" % MARK)
_CODE = re.compile(
    r"\s*(?:>>> |\.\.\. |[$+#@] |//|python[0-9.]* |pip |[│┃╭╰┏└┡╞├━]|[\"'`]|print\()"
    r"|\s*(?:import|from|def|return|if|for|while|with) "
)


def plan(shape: str) -> Plan:
    """Return what lines of a shape hold."""
    count = shape.count(MARK)
    if _TRACEBACK.match(shape) or "Traceback (most" in shape:
        return Plan(count, TRACE)
    if "Warning: " in shape and _WARNING.search(shape):
        return Plan(count, WARNED)
    if ("|" in shape or "/" in shape or "[" in shape or shape[:1] == " ") and _BAR.search(shape):
        return Plan(count, BAR)
    table = _table(shape, count)
    if table is not None:
        return table
    start = rows.prefix_end(shape)
    if _CODE.match(shape, start) or _EXCEPTION.match(shape, start):
        return Plan(count)
    return _object(shape, start, count) or _row(shape, start, count)


def _table(shape: str, count: int) -> Plan | None:
    if _TABLE.match(shape):
        return Plan(count, TABLE)
    if shape.startswith("└"):
        return Plan(count, TABLE_END)
    cell = _CELL.match(shape)
    return Plan(count, CELL, [Item(cell.group(1), 0)]) if cell else None


def _object(shape: str, start: int, count: int) -> Plan | None:
    """Return the plan of a line that ends in a JSON object or a dict; a step may stand before it."""
    begin = shape.find("{", start)
    if begin < 0 or not shape.rstrip().endswith("}"):
        return None
    found = objects.plan(shape, begin, count)
    if found is None:
        return Plan(count)
    if found.kind == HF or found.steps:
        return found
    before = shape[start:begin]
    items, steps = rows.read(shape[:begin], start)
    if "=" in before and not items:
        return Plan(count)  # source
    if before.strip() and not steps and not any(words.METRIC.search(item.name) for item in found.items):
        return Plan(count)
    return Plan(count, ROW, [*items, *found.items], steps)


def _row(shape: str, start: int, count: int) -> Plan:
    items, steps = rows.read(shape, start)
    if not items and all(step.word == "step" for step in steps) and rows.has_prose(shape, start):
        return Plan(count, TEXT)  # `WARNING: batch 3 is empty`
    return Plan(count, ROW, items, steps) if items or steps else Plan(count, TEXT)
