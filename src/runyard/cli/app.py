"""The click program: ``--help``, completion, and every command but run. Modules load when a command is used."""

from __future__ import annotations

import importlib
from typing import Any

import click

from runyard import __version__
from runyard.cli import options as tables
from runyard.cli.parse import nearest
from runyard.wire.errors import UsageError

PROGRAM = "runyard"


class RunyardCommand(click.Command):
    """A command that also takes -v, which `main` looks for itself."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's parameters, with -v before --help."""
        params = super().get_params(ctx)
        verbose = click.Option(["-v", "--verbose"], is_flag=True, expose_value=False, help=tables.VERBOSE.help)
        return [*params[:-1], verbose, *params[-1:]] if self.add_help_option else [*params, verbose]


class RunyardGroup(click.Group):
    """Commands of `options.COMMANDS`, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return [command.name for command in tables.COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module that has a command and return the command; None when there is none of that name."""
        for row in tables.COMMANDS:
            if row.name == cmd_name:
                module = importlib.import_module("runyard.cli." + row.module)
                command: click.Command = module.COMMANDS[cmd_name]
                return command
        return None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command of a command line; unknown names get the nearest one."""
        if args and self.get_command(ctx, args[0]) is None:
            near = nearest(args[0], sorted(tables.NAMES))
            raise UsageError("no command %r" % args[0], "did you mean: runyard %s" % near if near else "runyard --help")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section, from the table: no module is imported for it."""
        for section in tables.SECTIONS:
            rows = [(row.name, row.help) for row in tables.COMMANDS if row.section == section]
            with formatter.section(section):
                formatter.write_dl(rows)


HELP = """Put `runyard run` (or just `runyard`, or `ry`) in front of any command: Runyard freezes the code, queues the
run for a free GPU or CPU slot, runs it in the background in its own directory and keeps what it prints and writes.

\b
  runyard python train.py --lr 0.1      queue a run
  runyard -f python train.py            queue it and show its output
  runyard ls                            see all runs

RUN is an id, the start of one, a name, or @last (your last submitted run)."""


def program() -> click.Group:
    """Return the whole command line as a click program."""
    group = RunyardGroup(
        PROGRAM,
        help=HELP,
        subcommand_metavar="COMMAND [ARGS]...",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    group.params.append(
        click.Option(["-V", "--version"], is_flag=True, expose_value=False, is_eager=True, callback=_version,
                     help="Show the version.")
    )  # fmt: skip
    return group


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        click.echo("runyard " + __version__)
        ctx.exit()


def main(words: list[str]) -> int:
    """Run a command line through click and return its exit status; click's errors become ours."""
    try:
        # Not click's `main`: it ends the process with status 1 when the reader of a pipe goes away.
        group = program()
        with group.make_context(PROGRAM, list(words or ["--help"])) as context:
            result = group.invoke(context)
    except click.exceptions.Abort:
        return 130
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.exceptions.NoArgsIsHelpError as exc:
        raise UsageError("what to do was not said", "see `%s --help`" % exc.ctx.command_path) from exc
    except click.UsageError as exc:
        named = words[:1] if words[:1] and words[0] in tables.NAMES else []
        path = exc.ctx.command_path if exc.ctx is not None else " ".join([PROGRAM, *named])
        raise UsageError(" ".join(exc.format_message().split()), "see `%s --help`" % path) from exc
    except click.ClickException as exc:
        raise UsageError(exc.format_message()) from exc
    return result if isinstance(result, int) else 0
