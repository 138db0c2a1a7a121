"""Runs as a LaTeX table (booktabs): groups of runs, mean and deviation over e.g. seeds, the best in bold."""

from __future__ import annotations

import math

from runyard.client import columns
from runyard.client.exports import word
from runyard.client.texmarkup import Cell, Number, column, escape, of_several
from runyard.wire.errors import NotFoundError, UsageError
from runyard.wire.goals import sign

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from runyard.client.columns import Columns

DIGITS = 3
STATE, GOAL = "run.state", "run.goal"
_WIDTH = 110


class Layout:
    """What stands in a table.

    ``shown``: the columns; by default the metrics, and without ``rows`` the id and the parameters that differ, too.
    ``rows``: fields whose values make the groups, one line each; without any each run has a line. ``over``: fields in
    which the runs of a group may differ, e.g. ``params.seed``. ``digits``: significant digits.

    Raises `UsageError` for what does not go together.
    """

    def __init__(
        self, shown: Sequence[str] = (), rows: Sequence[str] = (), over: Sequence[str] = (), digits: int = DIGITS
    ) -> None:
        if over and not rows:
            raise UsageError("--over needs --rows", "e.g. --rows params.model --over params.seed")
        if not 1 <= digits <= 17:
            raise UsageError("--digits %d: 1 to 17 are possible" % digits, "significant digits; default %d" % DIGITS)
        self.rows, self.over, self.digits = list(rows), list(over), digits
        self.given = bool(shown)
        self.shown = list(shown) or (["metrics.*"] if rows else [columns.ID, "params.*", "metrics.*"])

    def fields(self) -> list[str]:
        """Return the columns that `render` needs of the runs."""
        bare = [name for name in self.shown if _is_bare(name)]
        needed = [*self.rows, *self.over, *self.shown, *(columns.quoted("metrics", name) + ".count" for name in bare)]
        if self.over:
            needed.append("params.*")
        return list(dict.fromkeys([columns.ID, STATE, GOAL, *needed]))


def _is_bare(name: str) -> bool:
    return "." not in name and "[" not in name


class _Group:
    """Runs of one line."""

    def __init__(self, key: tuple[Any, ...]) -> None:
        self.key = key
        self.places: list[int] = []


def render(found: Columns, layout: Layout, made: str, ordered: bool = False) -> tuple[str, list[str]]:
    """Return the table as text, and what a person should know of it.

    ``found``: the columns of `Layout.fields`; ``made``: the command that made it, for a comment; ``ordered``: the lines
    stand as the runs come, else groups are sorted by their values.

    Raises:
        NotFoundError: there are no runs.
        UsageError: there is nothing to show, or a column has several texts in a group.
    """
    if not found.count:
        raise NotFoundError("no runs fit", "see what there is with: runyard ls")
    shown = _shown(found, layout)
    if not shown:
        raise UsageError("there is nothing to show: the runs have no metrics", "name some with --columns")
    groups = _groups(found, layout, ordered)
    heads = [*layout.rows, *shown]
    numbers = [layout.rows != [] or _is_numeric(found.values[name]) for name in shown]
    lines = _body(found, layout, shown, groups)
    titles = [escape(title) for title in _titles(heads)] + (["$n$"] if layout.rows else [])
    form = "l" * len(layout.rows) + "".join("r" if number else "l" for number in numbers) + ("r" if layout.rows else "")
    text = "\n".join(
        [*_comments(found, layout, made), r"\begin{tabular}{%s}" % form, r"\toprule", _line(titles), r"\midrule",
         *map(_line, lines), r"\bottomrule", r"\end{tabular}", ""]
    )  # fmt: skip
    return text, _notes(found, layout, groups)


def _shown(found: Columns, layout: Layout) -> list[str]:
    """Return the names of the columns that are shown; of parameters that were not asked for those that differ."""
    if layout.given and not any(name.endswith(".*") for name in layout.shown):
        return layout.shown
    names = []
    for wanted in layout.shown:
        if not wanted.endswith(".*"):
            names.append(wanted)
            continue
        every = [name for name in found.names if name.startswith(wanted[:-1])]
        if wanted == "params.*" and not layout.given:
            every = [name for name in every if len({(type(value), value) for value in found.values[name]}) > 1]
        names += [name for name in every if name not in (*layout.rows, *layout.over)]
    return list(dict.fromkeys(names))


def _is_numeric(values: Sequence[Any]) -> bool:
    kinds = {type(value) for value in values if value is not None}
    return bool(kinds) and kinds <= {int, float}


def _groups(found: Columns, layout: Layout, ordered: bool) -> list[_Group]:
    groups: dict[Any, _Group] = {}
    for place in range(found.count):
        key = tuple(found.values[name][place] for name in layout.rows)
        told: Any = tuple(map(_told, key)) if layout.rows else place
        groups.setdefault(told, _Group(key)).places.append(place)
    listed = list(groups.values())
    return listed if ordered or not layout.rows else sorted(listed, key=lambda group: [_rank(v) for v in group.key])


def _told(value: Any) -> Any:
    """Return what tells values apart: 1 and 1.0 are one, 1 and true are not."""
    return (isinstance(value, bool), isinstance(value, str), "NaN" if _is_nan(value) else value)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _rank(value: Any) -> tuple[int, float, str]:
    """Return what values are sorted by: numbers, then texts, then none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (0, math.inf, "NaN") if _is_nan(value) else (0, value, "")
    return (2, 0.0, "") if value is None else (1, 0.0, word(value))


def _body(found: Columns, layout: Layout, shown: Sequence[str], groups: Sequence[_Group]) -> list[list[str]]:
    """Return the texts of all cells."""
    table = [[Cell(escape(word(value)) if value is not None else "--") for value in group.key] for group in groups]
    if not layout.rows:
        table = [[] for _ in groups]
    goal = _goal(found)
    for name in shown:
        cells = _cells([_content(found, layout, name, group) for group in groups], layout.digits)
        metric, part = _metric(found, name)
        if metric and part not in ("count", "step"):
            _embolden(cells, sign(metric, goal))
        for line, cell in zip(table, cells):
            line.append(cell)
    if layout.rows:
        for line, group in zip(table, groups):
            line.append(Cell(str(len(group.places))))
    return [[cell.text for cell in line] for line in table]


def _metric(found: Columns, name: str) -> tuple[str, str]:
    """Return metric and statistic of a column; of a bare name, where it is a metric."""
    if not _is_bare(name):
        return columns.metric_of(name)
    counts = found.values.get(columns.quoted("metrics", name) + ".count") or []
    return (name, "last") if any(count is not None for count in counts) else ("", "")


def _goal(found: Columns) -> str:
    """Return the goal of the first run that has one: in their order, the newest."""
    return next((goal for goal in found.values[GOAL] if goal), "")


def _cells(contents: Sequence[Number | str], digits: int) -> list[Cell]:
    numbers = iter(column([content for content in contents if isinstance(content, Number)], digits))
    return [next(numbers) if isinstance(content, Number) else Cell(content) for content in contents]


def _content(found: Columns, layout: Layout, name: str, group: _Group) -> Number | str:
    """Return what a cell shows: a number that is to be rounded, or LaTeX."""
    metric = bool(_metric(found, name)[0])
    values = [found.values[name][place] for place in group.places]
    there = [value for value in values if value is not None]
    if not there:
        return "--"
    if not metric and len({_told(value) for value in there}) == 1:
        return escape(word(there[0]))
    if not _is_numeric(there):
        raise UsageError(
            "%s has several values in one line of the table, and they are no numbers: %s"
            % (name, ", ".join(sorted({word(value) for value in there})[:3])),
            "put it into --rows, or leave it out of --columns",
        )
    return of_several(there, len(there) if len(there) != len(values) else None)


def _embolden(cells: Sequence[Cell], direction: int) -> None:
    """Set the best of a column in bold, and what is shown by the same digits; nothing where there is nothing to choose."""
    rated = [cell for cell in cells if cell.value is not None and not math.isnan(cell.value)]
    if len(rated) < 2:
        return
    best = max(rated, key=lambda cell: direction * (cell.value or 0.0))
    for cell in rated:
        if cell.is_like(best):
            cell.bold()


def _titles(names: Sequence[str]) -> list[str]:
    """Return heads: ``lr`` for ``params.lr``, ``loss (max)`` for ``metrics.loss.max``; in full where two are the same."""
    short = [_title(name) for name in names]
    return [name if short.count(title) > 1 else title for name, title in zip(names, short)]


def _title(name: str) -> str:
    metric, part = columns.metric_of(name)
    if metric:
        return metric if part == "last" else "%s (%s)" % (metric, part)
    for space in ("params", "run", "code"):
        if name.startswith(space + "."):
            return name[len(space) + 1 :]
        if name.startswith(space + "["):
            return columns.metric_of("metrics" + name[len(space) :])[0]
    return name


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _comments(found: Columns, layout: Layout, made: str) -> list[str]:
    ids = found.values[columns.ID]
    lines = ["% Written by: " + _comment(made), r"% Needs \usepackage{booktabs}."]
    if layout.rows:
        over = ", which differ in %s" % ", ".join(map(_comment, layout.over)) if layout.over else ""
        lines.append("% Mean and sample standard deviation of n runs" + over + "; the best mean of a metric is bold.")
    lines.append("% " + ("1 run:" if len(ids) == 1 else "%d runs:" % len(ids)))
    line = "%"
    for run in ids:
        if len(line) + len(run) > _WIDTH:
            lines.append(line)
            line = "%"
        line += " " + _comment(run)
    return [*lines, line]


def _comment(text: str) -> str:
    """Return a text that no line end of any kind can lead out of a comment."""
    return "".join(char if char.isprintable() else " " for char in text)


def _notes(found: Columns, layout: Layout, groups: Sequence[_Group]) -> list[str]:
    """Return what may be wrong with the numbers."""
    notes = []
    unfinished = sum(state != "finished" for state in found.values[STATE])
    if unfinished:
        notes.append(
            '%d of the runs %s not finished; `run.state == "finished"` in the query leaves such runs out'
            % (unfinished, "has" if unfinished == 1 else "have")
        )
    if layout.over:
        for group in groups:
            note = _repeated(found, layout, group)
            if note:
                notes.append(note)
                break
    return notes


def _repeated(found: Columns, layout: Layout, group: _Group) -> str:
    """Return a note where runs of a group do not differ in the fields of ``over``, and what they differ in instead."""
    seen: dict[Any, int] = {}
    for place in group.places:
        key = tuple(_told(found.values[name][place]) for name in layout.over)
        if key not in seen:
            seen[key] = place
            continue
        other = seen[key]
        differ = [
            name for name, values in found.values.items()
            if name.startswith("params.") and _told(values[place]) != _told(values[other])
        ]  # fmt: skip
        label = ", ".join("%s %s" % (n, word(v) or "none") for n, v in zip(layout.rows, group.key))
        return "%s and %s, of the line %s, have the same %s%s; both count" % (
            found.values[columns.ID][other], found.values[columns.ID][place], label, ", ".join(layout.over),
            " and differ in " + ", ".join(differ[:5]) if differ else "",
        )  # fmt: skip
    return ""
