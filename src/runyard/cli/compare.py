"""``compare``: the parameters that differ, and the metrics, of several runs; the best first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import click

from runyard.cli import common, complete, curves, text, tracked
from runyard.client import columns
from runyard.client.api import Api
from runyard.wire import goals
from runyard.wire.errors import AmbiguousError, NotFoundError, UsageError
from runyard.wire.settings import parse_goal

Json = dict[str, Any]
DEFAULT_LIMIT = 20
PLOTTED = 8
"""Curves at most."""


@common.command(
    "compare",
    help="Compare runs: the parameters that differ, last and best values of metrics, and curves; the best run first, and "
    "marked. Name runs, or give a QUERY as in `runyard ls`.",
)
@click.argument("words", metavar="QUERY | RUN RUN...", nargs=-1, shell_complete=complete.run_refs)
@click.option("-m", "--metric", multiple=True, metavar="METRIC", shell_complete=complete.metrics,
              help="Show this one; the first sorts (repeat). Default: that of the goal, else all that they share.")  # fmt: skip
@click.option("-n", "--limit", type=click.IntRange(1), metavar="N", help="At most N runs; default %d." % DEFAULT_LIMIT)
@common.json_option
def compare(words: tuple[str, ...], metric: tuple[str, ...], limit: int | None, as_json: bool) -> int:
    """Compare runs."""
    with common.server() as api:
        asked = [columns.metric_name(name) for name in metric]
        runs = named(api, words)
        if runs is None:
            runs = _best(api, " ".join(words) or None, asked, limit or DEFAULT_LIMIT)
        if not runs:
            common.nothing_fits(api, "no runs fit", {"q": " ".join(words) or None})
            return 0
        goal = next((found for found in map(goal_of, runs) if found), "")
        metrics = _chosen(runs, asked, goal)
        runs = ranked(runs, metrics[0], goal) if metrics else runs
        if as_json:
            common.print_json(_value(runs, metrics, goal))
            return 0
        click.echo(table(runs, metrics, goal))
        plot = curves.plot(api, [run for run in runs if metrics][:PLOTTED], metrics[0] if metrics else "")
    if plot:
        click.echo("\n" + plot)
    if len(runs) == DEFAULT_LIMIT and not limit:
        text.notice("the first %d; more with --limit" % DEFAULT_LIMIT)
    return 0


def goal_of(run: Json) -> str:
    """Return the goal that a run was submitted with, ``""`` for none."""
    return str((run.get("tracking") or {}).get("goal") or "")


def named(api: Api, words: Sequence[str]) -> list[Json] | None:
    """Return the runs that all of two or more words name; None where some do not: they are a query."""
    if len(words) < 2 or any(" " in word or "/" in word for word in words):
        return None
    found: dict[str, Json] = {}
    for word in words:
        try:
            run = api.run(word)
        except (NotFoundError, AmbiguousError):
            return None
        found[run["id"]] = run
    return list(found.values())


def _best(api: Api, query: str | None, asked: Sequence[str], limit: int) -> list[Json]:
    """Return the best runs that a query finds; the newest, where nothing says what is best."""
    newest: list[Json] = api.runs(q=query, limit=1)["runs"]
    goal = goal_of(newest[0]) if newest else ""
    wanted = parse_goal(goal)
    metric = asked[0] if asked else wanted[1] if wanted else ""
    if not metric:
        return list(api.all_runs(limit, q=query))
    order = ("-" if goals.sign(metric, goal) > 0 else "") + columns.quoted("metrics", metric) + ".best"
    return list(api.all_runs(limit, q=query, order=order))


def _chosen(runs: Sequence[Json], asked: Sequence[str], goal: str) -> list[str]:
    """Return the metrics that are shown; raises UsageError for one that no run has."""
    every = sorted({name for run in runs for name in run.get("metrics") or {}})
    for name in asked:
        if name not in every:
            raise UsageError(
                "none of these runs has a metric %s" % name, "they have: %s" % (", ".join(every[:20]) or "none")
            )
    if asked:
        return list(asked)
    wanted = parse_goal(goal)
    if wanted is not None and wanted[1] in every:
        return [wanted[1]]
    common_ones = [name for name in every if all(name in (run.get("metrics") or {}) for run in runs)]
    return common_ones or every


def _number(value: Any) -> float:
    """Return a value of a metric; NaN for none."""
    return float(value) if value is not None else math.nan


def best_of(run: Json, metric: str, sign: int) -> float:
    """Return the best value of a metric; NaN for none."""
    return _number(((run.get("metrics") or {}).get(metric) or {}).get("max" if sign > 0 else "min"))


def ranked(runs: Sequence[Json], metric: str, goal: str) -> list[Json]:
    """Return runs sorted by the best value of a metric; those without one last."""
    sign = goals.sign(metric, goal)

    def key(run: Json) -> tuple[bool, float]:
        value = best_of(run, metric, sign)
        return (True, 0.0) if math.isnan(value) else (False, -sign * value)

    return sorted(runs, key=key)


def differing(runs: Sequence[Json]) -> list[str]:
    """Return the parameters that are not the same in all runs."""
    names = sorted({name for run in runs for name in run.get("params") or {}})

    def told(run: Json, name: str) -> Any:
        params = run.get("params") or {}
        return (name in params, type(params.get(name)) is bool, params.get(name))

    return [name for name in names if any(told(run, name) != told(runs[0], name) for run in runs)]


def _is_best(runs: Sequence[Json], run: Json, metric: str, sign: int) -> bool:
    values = [value for value in (best_of(other, metric, sign) for other in runs) if not math.isnan(value)]
    value = best_of(run, metric, sign)
    return len(values) > 1 and value == (max(values) if sign > 0 else min(values))


def table(runs: Sequence[Json], metrics: Sequence[str], goal: str) -> str:
    """Return runs as a table; the best value of each metric has a star."""
    params = differing(runs)
    signs = {metric: goals.sign(metric, goal) for metric in metrics}
    head = ["ID", "STATE", "NAME/MESSAGE", *map(tracked.name, params)]
    for metric in metrics:
        head += [tracked.name(metric), "max" if signs[metric] > 0 else "min"]
    rows = []
    for run in runs:
        values = run.get("params") or {}
        row = [run["id"], run["state"], (run.get("name") or run.get("message") or "-")[:30]]
        row += [tracked.plain(values[name]) if name in values else "-" for name in params]
        for metric, sign in signs.items():
            found = (run.get("metrics") or {}).get(metric) or {}
            best, star = best_of(run, metric, sign), _is_best(runs, run, metric, sign)
            shown = "-" if found.get("max") is None else tracked.number(best)
            row += [
                "-" if found.get("last") is None else tracked.number(found["last"]), shown + (" *" if star else ""),
            ]  # fmt: skip
        rows.append(row)
    return text.table(rows, head, [run["state"] for run in runs])


def _value(runs: Sequence[Json], metrics: Sequence[str], goal: str) -> Json:
    params = differing(runs)
    signs = {metric: goals.sign(metric, goal) for metric in metrics}
    return {
        "goal": goal,
        "metrics": [{"name": name, "best": "max" if sign > 0 else "min"} for name, sign in signs.items()],
        "params": params,
        "runs": [
            {
                **{name: run.get(name) for name in ("id", "project", "name", "message", "state")},
                "params": {name: run["params"][name] for name in params if name in (run.get("params") or {})},
                "metrics": {name: run["metrics"][name] for name in metrics if name in (run.get("metrics") or {})},
                "best": [name for name, sign in signs.items() if _is_best(runs, run, name, sign)],
            }
            for run in runs
        ],
    }


COMMANDS = {"compare": compare}
