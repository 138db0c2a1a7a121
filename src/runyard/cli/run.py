"""``run`` as click sees it: only for --help and completion; `parse` and `submit` do the work."""

from __future__ import annotations

import click

from runyard.cli import options as tables
from runyard.cli.app import RunyardCommand
from runyard.cli.complete import program_words, run_refs

_TYPES: dict[str, click.ParamType[int]] = {tables.INT: click.INT}
_COMPLETE = {"after": run_refs}


def click_option(row: tables.Option) -> click.Option:
    """Return a row of the table as a click option."""
    declared = (["-" + row.short] if row.short else []) + [row.flag]
    if row.kind == tables.FLAG:
        return click.Option(declared, is_flag=True, help=row.help)
    return click.Option(
        declared,
        metavar=row.metavar,
        help=row.help,
        multiple=row.repeat,
        type=_TYPES.get(row.kind, click.Path() if row.metavar in ("PATH", "DIR") else click.STRING),
        shell_complete=_COMPLETE.get(row.name),
    )


class RunCommand(RunyardCommand):
    """``run``, whose options are listed in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by group."""
        by_name = {param.name: param for param in self.get_params(ctx)}
        for group in tables.GROUPS:
            keys = [row.key for row in tables.RUN_OPTIONS if row.group == group]
            if group == tables.SHOW:
                keys += ["verbose", "help"]
            records = [by_name[key].get_help_record(ctx) for key in keys if key in by_name]
            with formatter.section(group):
                formatter.write_dl([record for record in records if record])


HELP = """Freeze the code of the current repository, queue COMMAND and run it in the background, in its own directory.

Options come before the command; everything from the first word that is no option belongs to the command. No shell is
involved (see --shell). The run gets your environment and program as they are now; the code may be edited at once."""

COMMANDS = {
    "run": RunCommand(
        "run",
        params=[
            *[click_option(row) for row in tables.RUN_OPTIONS],
            click.Argument(["command"], nargs=-1, type=click.UNPROCESSED, shell_complete=program_words),
        ],
        help=HELP,
        context_settings={"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]},
    )
}
