"""Conditions of the query language as SQL: text of our own, in which everything that users wrote is a bound value.

Each condition is true or false of a run (the row ``r``), never NULL, so that `not` means the opposite.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from runyard.model.fields import (
    DATA,
    ENV,
    METRICS,
    PARAMS,
    RUN,
    SWITCH,
    TAGS,
    TEXT,
    TIME,
    Field,
)
from runyard.model.times import Moment
from runyard.model.tree import (
    All,
    Compare,
    CompareFields,
    Either,
    Has,
    Holds,
    IsNan,
    Named,
    Not,
    OneOf,
    Query,
    Value,
    Whole,
    Words,
)
from runyard.store import words
from runyard.store.dialects import Dialect
from runyard.store.outputs import path_hash
from runyard.store.types import dump_json, escape
from runyard.store.words import joined
from runyard.wire.goals import smaller_is_better

HEAD = 100
"""Characters of a parameter's value in ``params.head``."""
_RUN = {
    "id": "r.id", "project": "r.project", "name": "r.name", "message": "r.message", "user": "r.user_name",
    "state": "r.state", "host": "COALESCE((SELECT h.name FROM hosts h WHERE h.id = r.host_id), r.host_id)",
    "command": "r.command_text", "created": "r.created_at", "started": "r.started_at", "ended": "r.ended_at",
    "exit_code": "r.exit_code", "signal": "r.signal", "reason": "r.reason", "origin": "r.origin",
    "priority": "-r.priority_rank", "attempts": "r.attempts", "sweep": "r.sweep",
    "archived": "CASE WHEN r.archived_at IS NULL THEN 0 ELSE 1 END",
    "goal": "CASE r.goal_sign WHEN 1 THEN 'max ' || r.goal_metric WHEN -1 THEN 'min ' || r.goal_metric END",
}  # fmt: skip
_CODE = {"commit": "r.code_commit", "branch": "r.code_branch", "tree": "r.tree", "dirty": "r.code_dirty"}
_SQL_OPS = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_WHOLE = ("count", "step")
_BOUND = re.compile(r":(v\d+)")
INDEXED = ("last", "min", "max")
"""Statistics of metrics that have an index."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the value of a field stands: rows of a table that belong to the run, or an expression of ``r`` alone."""

    value: str
    table: str = ""
    where: str = ""
    """What picks the rows, but for the run."""


class Conditions:
    """Makes the SQL of one statement and collects its values.

    ``ids``: numbers of the names that are known. ``environments``: returns the hashes of the recorded environments of
    which a condition about ``env`` holds; ``names``: the numbers of the names that are like a pattern.
    """

    def __init__(
        self,
        dialect: Dialect,
        ids: Mapping[str, int],
        now_us: int,
        environments: Callable[[Query], list[str]],
        names: Callable[[str], list[int]],
    ) -> None:
        self.dialect, self.now_us = dialect, now_us
        self.values: dict[str, Any] = {}
        self.seq = "r.seq"
        """The number of the run; where another table leads to the runs, its column: what it rules out needs no look at them."""
        self._ids, self._environments, self._names = ids, environments, names
        self._aliases = 0

    def bind(self, value: Any) -> str:
        """Return what stands for a value in the statement."""
        name = f"v{len(self.values)}"
        self.values[name] = float(value) if isinstance(value, Whole) else value
        return ":" + name

    def values_of(self, statement: str) -> dict[str, Any]:
        """Return the values that a statement has; those of others are left out."""
        return {name: self.values[name] for name in _BOUND.findall(statement)}

    def name_id(self, name: str) -> int | None:
        """Return the number of a parameter's or metric's name, None for one that no run has."""
        return self._ids.get(name)

    def source(self, field: Field, alias: str) -> Source | None:
        """Return where a field's value stands; None where no run has one."""
        if field.space in (PARAMS, METRICS):
            number = self.name_id(field.name)
            if number is None:
                return None
            value = f"{alias}.number" if field.space == PARAMS else self.statistic(field, alias)
            return Source(value, field.space, f"{alias}.name_id = {self.bind(number)}")
        if field.space == DATA:
            path = f"{alias}.path_hash = {self.bind(path_hash(field.name))}"
            ends = self.dialect.ends(f"{alias}.path", self.bind("/" + escape(field.name)), len(escape(field.name)) + 1)
            return Source(f"{alias}.{field.part}", "data_files", f"({path} OR {ends})")
        if field.space == RUN and field.name == "duration":
            now = self.bind(self.now_us)
            return Source(f"(CAST(COALESCE(r.ended_at, {now}) - r.started_at AS DOUBLE PRECISION) / 1000000)")
        return Source(_RUN[field.name] if field.space == RUN else _CODE[field.name])

    def statistic(self, field: Field, alias: str) -> str:
        """Return the expression of a metric's statistic; NULL is NaN, or of ``step`` nothing."""
        if field.part == "mean":
            return f"CASE WHEN {alias}.count > {alias}.nans THEN {alias}.total / ({alias}.count - {alias}.nans) END"
        if field.part != "best":
            return f"{alias}.{field.part}"
        usual = "min" if smaller_is_better(field.name) else "max"
        goal = f"CASE WHEN r.goal_metric = {self.bind(escape(field.name))} THEN r.goal_sign END"
        return f"CASE {goal} WHEN 1 THEN {alias}.max WHEN -1 THEN {alias}.min ELSE {alias}.{usual} END"

    # Nodes

    def sql(self, query: Query) -> str:
        """Return the condition of a query."""
        found: str = _MAKERS[type(query)](self, query)
        return found

    def _all(self, query: All) -> str:
        return joined([self.sql(part) for part in query.of], "AND") if query.of else "1 = 1"

    def _either(self, query: Either) -> str:
        return joined([self.sql(part) for part in query.of], "OR")

    def _not(self, query: Not) -> str:
        return f"NOT ({self.sql(query.of)})"

    def _has(self, query: Has) -> str:
        field = query.field
        if field.space == TAGS:
            return "EXISTS (SELECT 1 FROM run_tags t WHERE t.run_id = r.id)"
        if field.space == DATA and not field.name:
            return "EXISTS (SELECT 1 FROM data_files d WHERE d.run_seq = r.seq)"
        if field.space == ENV:
            return self._env(query)
        alias, source = self._source(field)
        if source is None:
            return "1 = 0"
        if field.kind == SWITCH:
            return f"COALESCE({source.value} = 1, FALSE)"
        if not source.table:
            return f"COALESCE({source.value} <> '', FALSE)" if field.kind == TEXT else f"{source.value} IS NOT NULL"
        return self._exists([(alias, source)], self._is_there(field, alias, source))

    def _is_nan(self, query: IsNan) -> str:
        alias, source = self._source(query.field)
        return "1 = 0" if source is None else self._exists([(alias, source)], f"{source.value} IS NULL")

    def _named(self, query: Named) -> str:
        if query.field.space == DATA:
            return self._has(Has(Field(DATA, query.name)))
        return f"EXISTS (SELECT 1 FROM run_tags t WHERE t.run_id = r.id AND t.tag = {self.bind(escape(query.name))})"

    def _compare(self, query: Compare) -> str:
        return self._on_value(query, query.field, lambda alias, value: self.compared(query, alias, value))

    def _one_of(self, query: OneOf) -> str:
        return self._on_value(query, query.field, lambda alias, value: self._listed(query, alias, value))

    def _holds(self, query: Holds) -> str:
        return self._on_value(query, query.field, lambda alias, value: self._held(query, alias, value))

    def _on_value(self, query: Query, field: Field, condition: Callable[[str, str], str]) -> str:
        if field.space == ENV:
            return self._env(query)
        alias, source = self._source(field)
        if source is None:
            return "1 = 0"
        if not source.table:
            return f"COALESCE({condition(alias, source.value)}, FALSE)"
        return self._exists([(alias, source)], condition(alias, source.value))

    def _compare_fields(self, query: CompareFields) -> str:
        (one, left), (two, right) = self._source(query.left), self._source(query.right)
        if left is None or right is None:
            return "1 = 0"
        op = "=" if query.op == "!=" else _SQL_OPS[query.op]
        condition = f"{left.value} {op} {right.value}"
        if {query.left.space, query.right.space} == {PARAMS}:
            texts = "value" if op == "=" else "head"
            both = f"{one}.kind = 'text' AND {two}.kind = 'text'"
            condition = f"({condition} OR ({both} AND {one}.{texts} {op} {two}.{texts}))"
        if query.op == "!=":
            there = f"{self._is_there(query.left, one, left)} AND {self._is_there(query.right, two, right)}"
            condition = f"({there} AND NOT COALESCE({condition}, FALSE))"
        sources = [(alias, source) for alias, source in ((one, left), (two, right)) if source.table]
        return self._exists(sources, condition) if sources else f"COALESCE({condition}, FALSE)"

    @staticmethod
    def _is_there(field: Field, alias: str, source: Source) -> str:
        """Return the condition that a row, or the run, has a value; NaN is one."""
        if field.space == PARAMS:
            return f"{alias}.kind <> 'null'"
        if field.space == METRICS and field.part != "step":
            return "1 = 1"
        return "1 = 1" if field.space == DATA and not field.part else f"{source.value} IS NOT NULL"

    # Values

    def compared(self, query: Compare, alias: str, value: str) -> str:
        """Return the comparison of an expression with a value; NULL or false where there is nothing to compare."""
        field, op, other = query.field, query.op, query.value
        if isinstance(other, Moment):
            return self._in_time(value, op, other)
        if field.space == PARAMS:
            return self._param(alias, op, other)
        bound = self.bind(escape(other) if isinstance(other, str) else int(other) if isinstance(other, bool) else other)
        condition = f"{value} {_SQL_OPS[op]} {bound}"
        if op == "!=" and field.space == METRICS and field.part not in _WHOLE:
            return f"({value} IS NULL OR {condition})"  # NaN is not equal to anything
        return condition

    def _in_time(self, value: str, op: str, moment: Moment) -> str:
        start, end = self.bind(moment.start), self.bind(moment.end)
        return {
            "==": f"({value} >= {start} AND {value} < {end})",
            "!=": f"({value} < {start} OR {value} >= {end})",
            "<": f"{value} < {start}",
            "<=": f"{value} < {end}",
            ">": f"{value} >= {end}",
            ">=": f"{value} >= {start}",
        }[op]

    def _param(self, alias: str, op: str, other: Value) -> str:
        if not isinstance(other, str):
            number = other if isinstance(other, Whole) else float(other)  # type: ignore[arg-type]  # or a switch
            if op == "!=":
                return f"({alias}.kind <> 'null' AND NOT COALESCE({self._same_number(alias, number)}, FALSE))"
            return (
                self._same_number(alias, number) if op == "==" else f"{alias}.number {_SQL_OPS[op]} {self.bind(number)}"
            )
        if op in ("==", "!="):
            same = f"{alias}.kind = 'text' AND {self._same_text(alias, other)}"
            return same if op == "==" else f"({alias}.kind <> 'null' AND NOT ({same}))"
        return f"{alias}.kind = 'text' AND {alias}.head {_SQL_OPS[op]} {self.bind(escape(other[:HEAD]))}"

    def _same_number(self, alias: str, number: float) -> str:
        """Return whether a parameter is a number; of a large whole one each digit counts."""
        same = f"{alias}.number = {self.bind(number)}"
        if not isinstance(number, Whole):
            return same
        forms = [dump_json(number.exact)] + [dump_json(float(number))] * (float(number) == number.exact)
        return f"{same} AND {alias}.value IN ({', '.join(map(self.bind, forms))})"

    def _same_text(self, alias: str, text: str) -> str:
        head = f"{alias}.head = {self.bind(escape(text[:HEAD]))}"
        if len(text) < HEAD:
            return head
        return f"{head} AND {alias}.value IN ({self.bind(dump_json(text))}, {self.bind(escape(text))})"

    def _listed(self, query: OneOf, alias: str, value: str) -> str:
        field = query.field
        if field.space == PARAMS:
            return self._listed_param(query, alias)
        if field.kind == TIME:
            same = joined([self._in_time(value, "==", item) for item in query.values if isinstance(item, Moment)], "OR")
        else:
            texts = [escape(item) if isinstance(item, str) else int(item) if isinstance(item, bool) else item
                     for item in query.values]  # fmt: skip
            same = f"{value} IN ({', '.join(map(self.bind, texts))})"
        if not query.none:
            return same
        if field.space == METRICS and field.part not in _WHOLE:
            return f"({value} IS NULL OR NOT ({same}))"
        return f"NOT ({same})"

    def _listed_param(self, query: OneOf, alias: str) -> str:
        numbers = [self.bind(float(item)) for item in query.values
                   if isinstance(item, float | int) and not isinstance(item, Whole)]  # fmt: skip
        short = [self.bind(escape(item)) for item in query.values if isinstance(item, str) and len(item) < HEAD]
        whole = [self.bind(form(item)) for item in query.values if isinstance(item, str) and len(item) >= HEAD
                 for form in (dump_json, escape)]  # fmt: skip
        same = [f"({self._same_number(alias, item)})" for item in query.values if isinstance(item, Whole)]
        if numbers:
            same.append(f"COALESCE({alias}.number IN ({', '.join(numbers)}), FALSE)")
        if short:
            same.append(f"({alias}.kind = 'text' AND {alias}.head IN ({', '.join(short)}))")
        if whole:
            same.append(f"({alias}.kind = 'text' AND {alias}.value IN ({', '.join(whole)}))")
        found = joined(same, "OR")
        return f"({alias}.kind <> 'null' AND NOT ({found}))" if query.none else found

    def _held(self, query: Holds, alias: str, value: str) -> str:
        text = escape(query.text)
        if query.field.space != PARAMS:
            found = self._part(query.how, value, text)
            return f"NOT ({found})" if query.how == "not in" else found
        found = f"({self._part(query.how, alias + '.head', text)} AND LENGTH({alias}.head) < {HEAD})"
        found += f" OR (LENGTH({alias}.head) >= {HEAD} AND {self._held_whole(query, alias)})"
        return f"{alias}.kind = 'text' AND {'NOT ' if query.how == 'not in' else ''}({found})"

    def _held_whole(self, query: Holds, alias: str) -> str:
        """Return the condition on a value of which the head is only the beginning: JSON of a text, or of a list.

        Where a database cannot decode the JSON, and for what it cannot hold, the JSON is searched as it is.
        """
        value, text = f"{alias}.value", escape(query.text)
        inner = json.dumps(query.text)[1:-1]
        raw = self._part(query.how, value, {"startswith": '"' + inner, "endswith": inner + '"'}.get(query.how, inner))
        decoded = raw if text != query.text else self._part(query.how, self.dialect.decoded(value), text)
        return (
            f"CASE WHEN SUBSTR({value}, 1, 1) <> '\"' THEN {self._part(query.how, value, text)} "
            f"WHEN {self.dialect.undecodable(value)} THEN {raw} ELSE {decoded} END"
        )

    def _part(self, how: str, value: str, text: str) -> str:
        bound = self.bind(text)
        if how == "startswith":
            return f"SUBSTR({value}, 1, {len(text)}) = {bound}"
        return self.dialect.ends(value, bound, len(text)) if how == "endswith" else self.dialect.contains(value, bound)

    # Free text

    def _words(self, query: Words) -> str:
        return joined(
            [words.condition(word, self.dialect, self.bind, self.seq, self._names) for word in query.words], "AND"
        )

    # Pieces

    def _env(self, query: Query) -> str:
        hashes = self.bind(dump_json(self._environments(query)))
        return f"COALESCE(r.env_hash IN ({self.dialect.listing(hashes)}), FALSE)"

    def _source(self, field: Field) -> tuple[str, Source | None]:
        self._aliases += 1
        alias = f"{field.space[0]}{self._aliases}"
        return alias, self.source(field, alias)

    def _exists(self, sources: Iterable[tuple[str, Source]], condition: str) -> str:
        listed = list(sources)
        tables = ", ".join(f"{source.table} {alias}" for alias, source in listed)
        where = " AND ".join(f"{alias}.run_seq = {self.seq} AND {source.where}" for alias, source in listed)
        return f"EXISTS (SELECT 1 FROM {tables} WHERE {where} AND {condition})"

    def rows_of(self, query: Query) -> str | None:
        """Return a statement of the runs (``run_seq``) of which a condition holds, where an index has them together."""
        field = getattr(query, "field", None)
        if not isinstance(query, Compare | OneOf | Named) or not isinstance(field, Field):
            return None
        if isinstance(query, Named) and field.space == TAGS:
            tag = self.bind(escape(query.name))
            return f"SELECT x.seq AS run_seq FROM run_tags t JOIN runs x ON x.id = t.run_id WHERE t.tag = {tag}"
        if isinstance(query, Named) or (query.none if isinstance(query, OneOf) else query.op == "!="):
            return None
        if field.space != PARAMS and (field.space != METRICS or field.part not in INDEXED):
            return None
        alias, source = self._source(field)
        if source is None:
            return None
        found = (
            self.compared(query, alias, source.value)
            if isinstance(query, Compare)
            else self._listed(query, alias, source.value)
        )
        return f"SELECT {alias}.run_seq FROM {source.table} {alias} WHERE {source.where} AND {found}"


_MAKERS: dict[type[Query], Callable[[Conditions, Any], str]] = {
    All: Conditions._all, Either: Conditions._either, Not: Conditions._not, Words: Conditions._words,
    Has: Conditions._has, IsNan: Conditions._is_nan, Named: Conditions._named, Compare: Conditions._compare,
    CompareFields: Conditions._compare_fields, OneOf: Conditions._one_of, Holds: Conditions._holds,
}  # fmt: skip
