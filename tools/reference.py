"""Write the reference pages of docs/reference from the code: settings, and the command line.

Usage: python tools/reference.py            writes them
       python tools/reference.py --check    writes nothing; exit status 1 when one is stale
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runyard.cli import app, options
from runyard.wire import settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
NOTE = "<!-- Written by `make docs` from {source}; do not edit. -->\n"

SETTINGS_INTRO = """\
# Settings

{note}
Every setting can stand in a file or in an environment variable. Of several, the first of these counts:

1. the option of the command, where there is one;
2. the variable `RUNYARD_<NAME>`;
3. for settings of a project: `runyard.toml` in the top directory of your repository, or else the table `[tool.runyard]`
   of its `pyproject.toml`;
4. `config.toml` in the home (`$RUNYARD_HOME`, by default `~/.runyard`);
5. the default.

In variables a list is separated by commas, and a yes or no is `1` or `0`. Sizes are `512`, `10k`, `2GB`, `1.5GiB`, always
in powers of 1024. An unknown name in a file is an error, and the message lists the valid ones.
"""

CLI_INTRO = """\
# Command line

{note}
`ry` is short for `runyard`, and in front of a program the word `run` may be left out: `ry python train.py`. Options
come before the command that is to run; everything from its first word on belongs to it.

`RUN` is an id, any unique beginning of one, a name, or `@last`: your last submitted run. Data goes to stdout and
notices to stderr. Exit status: 0 done, 1 what was asked failed, 2 bad usage; with `--follow` and `--wait` that of the
run.
"""

TABLES = (
    (
        settings.HOME,
        "Settings of the server",
        """\
In `config.toml` of the home, or as a variable of the server. They are read when the server starts: after a change,
`runyard restart`. `cpu_slots` and those that begin with `gpu` are of one host: `runyard agent` on another host takes them
from `config.toml` or the variables there.""",
    ),
    (
        settings.PROJECT,
        "Settings of a project",
        "In `runyard.toml` or `[tool.runyard]`, or as a variable when submitting; for all projects in `config.toml`.",
    ),
)

VARIABLES = """\
## Variables that are no settings

| variable | meaning |
|---|---|
| `RUNYARD_HOME` | the home; default `~/.runyard`. In a run on the server's host: the home that it belongs to |
| `RUNYARD_SERVER`, `RUNYARD_TOKEN` | of a command: the address of a server elsewhere, to look at its runs, and a token for it |
| | in a run: address of the server, and a token that may read there until the attempt ends |
| `RUNYARD_RUN_ID`, `RUNYARD_ATTEMPT`, `RUNYARD_PROJECT` | in a run: which one it is (`id` and `attempts[].id` in `show --json`) |
| `RUNYARD_RUN_DIR` | in a run: the top of its working tree; with `--in-place` a directory for its outputs |
| `RUNYARD_OWN_RUN` | where a program has begun a run by itself: its directory, for the workers of `multiprocessing` |
| `RUNYARD_SPOOL` | in a run: the directory that `runyard.log` and its kin write to |
| `RUNYARD_RESUMED` | in a run: `1` when an earlier attempt left its files in the directory |
| `CUDA_VISIBLE_DEVICES`, `CUDA_DEVICE_ORDER` | in a run: its GPUs, in the order of the bus; empty without GPUs |
| `OMP_NUM_THREADS`, `MKL_NUM_THREADS`, `OPENBLAS_NUM_THREADS` | in a run on CPU slots: its cores, unless you set them |
| `PYTHONUNBUFFERED`, `MASTER_PORT` | in a run: `1`, and a free port, unless you set them |
"""


def cell(text: str) -> str:
    """Return text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("\n", " ")


def show_default(value: Any) -> str:
    """Return a default as it would stand in a TOML file."""
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, list):
        return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def settings_page() -> str:
    """Return docs/reference/settings.md."""
    parts = [SETTINGS_INTRO.format(note=NOTE.format(source="src/runyard/wire/settings.py"))]
    for file, title, where in TABLES:
        rows = [
            f"| `{s.name}` | `{s.variable}` | {show_default(s.default)} | {cell(s.unit)} | {cell(s.help)} |"
            for s in settings.SETTINGS
            if s.file == file
        ]
        head = ["| name | variable | default | unit or values | meaning |", "|---|---|---|---|---|"]
        parts.append("\n".join([f"## {title}", "", where, "", *head, *rows]) + "\n")
    parts.append(VARIABLES)
    return "\n".join(parts)


def command_parts(command: click.Command, ctx: click.Context, level: int) -> Iterator[str]:
    """Yield the paragraphs about one command, and about its subcommands."""
    yield f"{'#' * level} {ctx.command_path}"
    yield "```text\n" + " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)]) + "\n```"
    yield inspect.cleandoc(command.help or "").replace("\b\n", "").replace("<", "&lt;")
    given = [param for param in command.get_params(ctx) if isinstance(param, click.Option)]
    records = [record for option in given if (record := option.get_help_record(ctx))]
    rows = [f"| `{names}` | {cell(' '.join(meaning.split()))} |" for names, meaning in records]
    yield "\n".join(["| option | meaning |", "|---|---|", *rows])
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            if child is not None:
                yield from command_parts(child, click.Context(child, parent=ctx, info_name=name), level + 1)


def cli_page() -> str:
    """Return docs/reference/cli.md."""
    group = app.program()
    ctx = click.Context(group, info_name=app.PROGRAM, **group.context_settings)
    parts = [CLI_INTRO.format(note=NOTE.format(source="src/runyard/cli"))]
    for section in options.SECTIONS:
        parts.append(f"## {section}")
        for row in options.COMMANDS:
            command = group.get_command(ctx, row.name)
            if row.section == section and command is not None:
                parts.extend(command_parts(command, click.Context(command, parent=ctx, info_name=row.name), 3))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def pages() -> dict[str, str]:
    """Return ``{file name: content}`` of all reference pages."""
    return {"cli.md": cli_page(), "settings.md": settings_page()}


def stale(current: dict[str, str]) -> Iterable[str]:
    """Yield the names of pages whose file is missing or differs."""
    for name, content in current.items():
        path = REFERENCE / name
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            yield name


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` report stale ones; return the exit status."""
    names = list(stale(pages()))
    if arguments == ["--check"]:
        for name in names:
            print(f"docs/reference/{name} is stale: run `make docs`", file=sys.stderr)
        return 1 if names else 0
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name in names:
        (REFERENCE / name).write_text(pages()[name], encoding="utf-8")
        print(f"wrote docs/reference/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
