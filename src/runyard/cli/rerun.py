"""``rerun``: a run again, with other parameters, other code or other needs."""

from __future__ import annotations

import os
from typing import Any

import click

from runyard.cli import common, freeze, parse, program, submit, text
from runyard.cli import options as tables
from runyard.cli.app import RunyardCommand
from runyard.cli.run import click_option
from runyard.wire.errors import ConflictError, UsageError

Json = dict[str, Any]
KEPT_OUT = ("shell", "in-place", "namespace", "no-pty", "also", "data", "dry-run")
"""Options of ``run`` that ``rerun`` does not take: they belong to what is run again."""


def _same(word: str, name: str) -> bool:
    return word.startswith("-") and word.lstrip("-").replace("-", "_") == name.replace("-", "_")


def set_value(command: list[str], name: str, value: str) -> list[str]:
    """Return a command with an option set: ``--name value``, ``--name=value`` or ``name=value`` as it stands there.

    The last one counts, as in most parsers. Where there is none, ``--name value`` is added.
    """
    name = name.lstrip("-")
    for at in range(len(command) - 1, 0, -1):
        word, equals, _ = command[at].partition("=")
        if equals and (_same(word, name) or word == name):
            return [*command[:at], "%s=%s" % (word, value), *command[at + 1 :]]
        if not equals and _same(word, name):
            follows = at + 1 < len(command) and not _is_option(command[at + 1])
            return [*command[: at + 1], value, *command[at + (2 if follows else 1) :]]
    return [*command, "--" + name, value]


def _is_option(word: str) -> bool:
    """Tell whether a word is an option, not a value: ``-5`` and ``-.1e-3`` are numbers."""
    return len(word) > 1 and word[0] == "-" and not (word[1].isdigit() or word[1] == ".")


def merge(command: list[str], changed: list[str]) -> list[str]:
    """Return a command with changed arguments: options replace their likes or are added; a program replaces all."""
    if not changed:
        return command
    if not _is_option(changed[0]):
        return list(changed)
    at = 0
    while at < len(changed):
        word, equals, value = changed[at].partition("=")
        if not _is_option(word):
            command = [*command, changed[at]]
        elif equals:
            command = set_value(command, word, value)
        elif at + 1 < len(changed) and not _is_option(changed[at + 1]):
            at += 1
            name = word if word.startswith("--") else word[1:]
            command = set_value(command, name, changed[at]) if _has(command, word) else [*command, word, changed[at]]
        elif not _has(command, word):
            command = [*command, word]
        at += 1
    return command


def _has(command: list[str], option: str) -> bool:
    return any(_same(word.partition("=")[0], option.lstrip("-")) for word in command[1:])


def _pairs(values: tuple[str, ...]) -> list[tuple[str, str]]:
    found = []
    for pair in values:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError("--set %s: expected NAME=VALUE" % pair, "e.g. --set lr=0.2")
        found.append((name, value))
    return found


def _options(old: Json, given: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the new run: those of the old one, except what was given now."""
    options = parse.defaults()
    resources = old.get("resources") or {}
    options.update(
        message=old.get("message"),
        project=old.get("project"),
        tag=list(old.get("tags") or []),
        priority=old.get("priority"),
        retries=old.get("retries"),
        time_limit=old.get("time_limit_s"),
        no_requeue=old.get("requeue") is False,
        fresh=bool(old.get("fresh")),
        shell=bool(old.get("shell")),
        no_pty=old.get("pty") is False,
        in_place=old.get("code_frozen") is False,
        **{name: resources.get(name) for name in ("gpus", "cpus", "mem", "gpu_model", "host")},
    )
    for row in tables.RUN_OPTIONS:
        value = given.get(row.key)
        if value is None or value is False or value == ():
            continue
        if row.repeat:
            options[row.key] = [*options[row.key], *value]
        elif row.kind in (tables.SIZE, tables.TIME, tables.INT):
            options[row.key] = parse.convert(row, str(value))
        else:
            options[row.key] = value
    return options


def _rerun(run: str, changed: tuple[str, ...], sets: tuple[str, ...], code: str, **given: Any) -> int:
    """Submit a run like another one."""
    environ = dict(os.environ)
    with common.server() as api:
        old = api.run(run)
        options = _options(old, given)
        command = merge(list(old["command"]), list(changed))
        for name, value in _pairs(sets):
            command = set_value(command, name, value)
        place = os.path.join(old["source"], old.get("cwd") or "")
        path = _program(old, command, place, environ)
        if code == "now" or options["in_place"]:
            if not os.path.isdir(place):
                raise ConflictError("%s is gone" % place, "use the frozen code: runyard rerun %s" % run)
            freeze.check_reach(api, environ)
            frozen = freeze.freeze(options, place, path, environ)
        else:
            frozen = freeze.again(old, options["link"], submit.working_directory())
            frozen.tracking["pattern"] = [*freeze.patterns(options), *(frozen.tracking.get("pattern") or [])]
        if options["no_capture"]:
            frozen.tracking["capture"] = []
        given = submit.variables(options["env"])
        missing = [name for name in (old.get("environment") or {}).get("set") or [] if name not in given]
        if missing:
            text.notice("note: %s had --env %s; values are not kept: give them again" % (old["id"], ", ".join(missing)))
        environ.update(given)
        environ.update(program.uv_variables(path, place, frozen.source, environ))
        spec = dict(submit.build(options, command, path, frozen, environ), rerun_of=old["id"])
        return submit.send(api, spec, frozen, options)


def _program(old: Json, command: list[str], place: str, environ: dict[str, str]) -> str:
    """Return the program: the one of the old run where it is still meant and there, else the one on PATH now."""
    path = str(old.get("program") or "")
    inside = path.startswith(str(old["source"]).rstrip("/") + "/")
    if command[0] == old["command"][0] and path and (inside or os.access(path, os.X_OK)):
        return path
    return program.resolve(command, place if os.path.isdir(place) else submit.working_directory(), environ, named=True)


COMMANDS = {
    "rerun": RunyardCommand(
        "rerun",
        callback=_rerun,
        params=[
            common.run_parameter(),
            click.Argument(["changed"], nargs=-1, type=click.UNPROCESSED, metavar="[-- CHANGED ARGS]"),
            click.Option(["--set", "sets"], multiple=True, metavar="NAME=VALUE", help="Change or add --NAME VALUE (repeat)."),
            click.Option(["--code"], type=click.Choice(["same", "now"]), default="same", show_default=True,
                         help="The frozen code again, or that of the directory as it is now."),
            *[click_option(row) for row in tables.RUN_OPTIONS if row.name not in KEPT_OUT],
        ],
        help="Run a run again. It keeps what is not changed here: code, arguments, needs, tags. It gets your "
        "environment as it is now. After `--`: options to change or add, or a whole new command.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
}  # fmt: skip
