"""Runs with the parameters and metrics that were asked for, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from runyard.cli import common, text, tracked
from runyard.client.api import Api
from runyard.client.columns import split
from runyard.wire.errors import UsageError

Json = dict[str, Any]
ALWAYS = ("id", "run.state", "run.created", "run.project", "run.name", "run.message")
PAGE = 10_000


def split_columns(columns: str) -> list[str]:
    """Return the fields of ``lr,loss,metrics["a,b"]``."""
    found = split(columns)
    if not found:
        raise UsageError("--columns names nothing", "e.g. --columns lr,loss")
    return found


def columns_of(api: Api, wanted: list[str], most: int | None, filters: Mapping[str, Any], as_json: bool) -> int:
    """Print runs with these columns; return how many, of JSON 0."""
    head: list[str] = []
    rows: list[list[Any]] = []
    for names, page in _pages(api, [*ALWAYS, *wanted], most, filters):
        head = names[len(ALWAYS) :]
        rows += page
    if as_json:
        names = ["id", *head]
        common.print_json([dict(zip(names, [row[0], *row[len(ALWAYS) :]], strict=True)) for row in rows])
        return 0
    if rows:
        shown = [_shown(row) for row in rows]
        titles = ("ID", "STATE", "AGE", "PROJECT", "NAME/MESSAGE", *map(tracked.name, head))
        click.echo(text.table(shown, titles, [row[1] for row in rows]))
    return len(rows)


def _pages(
    api: Api, names: list[str], most: int | None, filters: Mapping[str, Any]
) -> Iterator[tuple[list[str], list[list[Any]]]]:
    before, left = None, most
    while left is None or left > 0:
        table = api.table(columns=names, limit=min(left or PAGE, PAGE), before=before, **filters)
        rows = [list(row) for row in zip(*table["data"], strict=True)]
        yield table["columns"], rows
        left = None if left is None else left - len(rows)
        before = table["next"]
        if not before:
            return


def _shown(row: list[Any]) -> list[str]:
    run_id, state, created, project, name, message = row[: len(ALWAYS)]
    return [run_id, state, text.age(created), project, (name or message or "-")[:30], *map(cell, row[len(ALWAYS) :])]


def cell(value: Any) -> str:
    """Return a value for people: numbers with six digits, ``-`` for none."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "%.6g" % value if isinstance(value, float) else tracked.name(str(value))
