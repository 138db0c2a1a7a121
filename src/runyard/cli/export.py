"""``export``: runs and their metrics as CSV, Parquet, JSON or a LaTeX table."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from runyard.cli import common, complete, text
from runyard.client import columns, exports, latex
from runyard.client.api import Api
from runyard.wire.errors import ConflictError, UsageError
from runyard.wire.files import write_output

Json = dict[str, Any]
FORMATS = ("csv", "parquet", "json", "tex")
LAYOUT = ("rows", "over", "digits")


@common.command(
    "export",
    help="Write runs into a file: CSV, Parquet, JSON or a LaTeX table. QUERY is as in `runyard ls` (docs/results.md).",
)
@click.argument("query", nargs=-1)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    required=True,
    type=click.Path(),
    help="FILE.csv, .parquet, .json or .tex; - for stdout.",
)
@click.option("--format", "form", type=click.Choice(FORMATS), help="Where the name of the file does not say it.")
@click.option("-c", "--columns", "shown", metavar="FIELDS", shell_complete=complete.fields,
              help='E.g. id,params.lr,metrics["val/acc"].max; default: parameters and metrics.')  # fmt: skip
@click.option(
    "--order",
    metavar="FIELDS",
    shell_complete=complete.fields,
    help="E.g. metrics.loss, or -metrics.acc for the largest first.",
)
@click.option("-n", "--limit", type=click.IntRange(1), metavar="N", help="At most N runs.")
@click.option("--history", multiple=True, metavar="METRIC", shell_complete=complete.metrics,
              help="Instead of runs all points of a metric: run, metric, step, time, value (repeat).")  # fmt: skip
@click.option("--rows", metavar="FIELDS", shell_complete=complete.fields,
              help="LaTeX: a line for each value of these, e.g. params.model.")  # fmt: skip
@click.option("--over", metavar="FIELDS", shell_complete=complete.fields,
              help="LaTeX: what the runs of a line may differ in, e.g. params.seed; cells are mean and deviation.")  # fmt: skip
@click.option(
    "--digits", type=click.IntRange(1, 17), metavar="N", help="LaTeX: significant digits; default %d." % latex.DIGITS
)
def export(
    query: tuple[str, ...], output: str, form: str | None, history: tuple[str, ...], limit: int | None, **options: Any
) -> int:
    """Write runs into a file."""
    form = form or _format_of(output)
    _check(form, history, options)
    filters = {"q": " ".join(query) or None, "order": options["order"]}
    with common.server() as api:
        if form == "tex":
            given = {"query": filters["q"], "output": output, "limit": limit, **options}
            data = _tex(api, filters, limit, options, _command(given))
        else:
            data = _plain(api, form, history, filters, limit, options["shown"])
    if output == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        try:
            write_output(output, data)
        except OSError as exc:
            raise ConflictError(
                "%s cannot be written: %s" % (output, exc.strerror), "name a file in a directory that exists"
            ) from exc
    return 0


def _format_of(output: str) -> str:
    end = os.path.splitext(output)[1].lower()[1:]
    if end not in FORMATS:
        raise UsageError(
            "what to write is not clear from the name %s" % output,
            "end it in .csv, .parquet, .json or .tex, or say it with --format",
        )
    return end


def _check(form: str, history: tuple[str, ...], options: Json) -> None:
    """Raise UsageError for options that do not go together."""
    layout = [name for name in LAYOUT if options[name] is not None]
    if layout and form != "tex":
        raise UsageError("--%s is for LaTeX tables, and this is %s" % (layout[0], form), "write into a .tex file")
    if history and form == "tex":
        raise UsageError("the points of a metric are no LaTeX table", "write them as csv, parquet or json")
    if history and options["shown"] is not None:
        raise UsageError("--columns and --history exclude each other", "join the two exports by the id of the run")
    for name in ("shown", "rows", "over"):
        if options[name] is not None and not columns.split(options[name]):
            raise UsageError(
                "--%s names nothing" % name.replace("shown", "columns"), "e.g. --columns params.lr,metrics.loss"
            )


def _plain(api: Api, form: str, history: tuple[str, ...], filters: Json, limit: int | None, shown: str | None) -> bytes:
    if form == "parquet":
        exports.needed("pyarrow")  # before anything is asked for
    if history:
        table = exports.long_columns(columns.history(api, history, 0, limit, **filters))
        if form != "parquet":
            table = exports.with_dates(table)
    else:
        table = columns.fetch(api, columns.split(shown), limit, **filters)
    if not table.count:
        common.nothing_fits(api, "no points of %s" % ", ".join(history) if history else "no runs fit", filters)
    if form == "parquet":
        return exports.parquet(table)
    return exports.csv(table) if form == "csv" else exports.json_records(table)


def _tex(api: Api, filters: Json, limit: int | None, options: Json, made: str) -> bytes:
    rows, over, shown = (columns.split(options[name]) for name in ("rows", "over", "shown"))
    layout = latex.Layout(shown, rows, over, options["digits"] or latex.DIGITS)
    found = columns.fetch(api, layout.fields(), limit, **filters)
    table, notes = latex.render(found, layout, made, ordered=bool(options["order"]))
    for note in notes:
        text.notice("note: " + note)
    return table.encode("utf-8")


def _command(given: Json) -> str:
    """Return the command line again, from its options."""
    words = ["runyard", "export", *([given["query"]] if given["query"] else []), "-o", given["output"]]
    for name in ("columns", "order", "limit", *LAYOUT):
        value = given["shown" if name == "columns" else name]
        if value is not None:
            words += ["--" + name, str(value)]
    return text.command_line(words)


COMMANDS = {"export": export}
