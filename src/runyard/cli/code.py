"""``diff`` and ``checkout``: the frozen code of runs."""

from __future__ import annotations

import os
import sys
from typing import IO, Any, cast

import click

from runyard.cli import common, complete, differences, environment, freeze, parse, submit, text
from runyard.client import connect
from runyard.client.api import Api
from runyard.wire import paths, tree
from runyard.wire.errors import ConflictError, NotFoundError
from runyard.wire.gitobjects import EMPTY_TREE

Json = dict[str, Any]
COLOURED = {b"+": b"32", b"-": b"31", b"@": b"36"}


class Side:
    """One side of a comparison: a run, or the working tree (``.``)."""

    def __init__(
        self, name: str, spec: Json, command: list[str], recorded: Json, source: str = "", run: Json | None = None
    ) -> None:
        self.name = name
        self.run = run
        """None of the working tree, which has neither parameters nor metrics."""
        self.tree = str((spec.get("snapshot") or {}).get("tree") or "")
        self.beside = {str(other["path"]): str(other["tree"]) for other in spec.get("also") or []}
        self.command = command
        self.environment = recorded
        self.source = source


def _run_side(api: Api, ref: str) -> Side:
    run = api.run(ref)
    recorded = run.get("environment") or {}
    return Side(run["id"], run, list(run["command"]), recorded, run=run)


def _tree_side(other: Side, run: Json) -> Side:
    environ, program = dict(os.environ), str(run.get("program") or "")
    also = [item["source"] for item in run.get("also") or [] if os.path.isdir(item["source"])]
    code = freeze.freeze({**parse.defaults(), "also": also}, submit.working_directory(), program, environ)
    recorded = environment.gather(program, environ, code.directory, code.source, paths.home(environ))
    return Side(".", code.spec, other.command, recorded, code.source)


@common.command(
    "diff",
    help="Compare command, parameters, environment, data, metrics and code of two runs, or what there is of a run and the "
    "working tree (.): command, environment and code.",
)
@click.argument("old", metavar="RUN", shell_complete=complete.run_refs)
@click.argument("new", metavar="RUN|.", shell_complete=complete.run_refs)
@click.option("--stat", is_flag=True, help="Of the code only name the files that differ.")
@common.json_option
def diff(old: str, new: str, stat: bool, as_json: bool) -> int:
    """Compare two runs."""
    if old == "." and new == ".":
        raise click.UsageError("name at least one run")
    with common.server() as api:
        freeze.check_reach(api, os.environ)
        run = api.run(new if old == "." else old)
        known = _run_side(api, run["id"])
        if "." in (old, new):
            here = _tree_side(known, run)
            if here.source != run.get("source"):
                text.notice("note: %s is compared, and the run came from %s" % (here.source, run.get("source")))
            left, right = (here, known) if old == "." else (known, here)
        else:
            left, right = known, _run_side(api, new)
    live = [side.name for side in (left, right) if not side.tree]
    if live and "." in (old, new):
        raise ConflictError("the code of %s was not frozen" % live[0], "it ran in place")
    home, pairs = paths.home(os.environ), [] if live else _pairs(left, right)
    if as_json:
        common.print_json(_value(home, left, right, pairs))
        return 0
    _print_words(left, right)
    _print_files(home, pairs, live, stat)
    return 0


def _value(home: str, left: Side, right: Side, pairs: list[tuple[str, str, str]]) -> Json:
    """Return what differs as JSON; ``code`` is null where one was not frozen."""
    from runyard.snapshot.diff import changes

    files = [vars_of(change) for pair in pairs for change in changes(home, *pair)]
    value: Json = {"code": files if pairs else None, "command": [left.command, right.command]}
    value["environment"] = env_changes(left, right)
    if left.run is not None and right.run is not None:
        value.update(differences.differences(left.run, right.run))
    return value


def _print_files(home: str, pairs: list[tuple[str, str, str]], live: list[str], stat: bool) -> None:
    from runyard.snapshot.diff import changes
    from runyard.snapshot.diff import diff as code_diff

    if live:
        click.echo("code: that of %s was not frozen" % " and ".join(live))
    elif all(old_tree == new_tree for old_tree, new_tree, _ in pairs):
        click.echo("code: the same")
    for old_tree, new_tree, place in pairs:
        if not stat:
            _print_code(code_diff(home, old_tree, new_tree, place=place))
            continue
        for change in changes(home, old_tree, new_tree, place):
            lines = "binary" if change.binary else "+%d -%d" % (change.added or 0, change.removed or 0)
            click.echo("%-8s %s  %s" % (change.kind, text.plain(change.path), lines))


def _pairs(left: Side, right: Side) -> list[tuple[str, str, str]]:
    """Return (old tree, new tree, place) of the code, and of each directory that was frozen beside it."""
    beside = [
        (left.beside.get(path, EMPTY_TREE), right.beside.get(path, EMPTY_TREE), path + "/")
        for path in sorted({*left.beside, *right.beside})
    ]
    return [(left.tree, right.tree, ""), *beside]


def vars_of(change: Any) -> Json:
    """Return a change of a file as JSON."""
    return {"path": change.path, "kind": change.kind, "added": change.added, "removed": change.removed}


def env_changes(left: Side, right: Side) -> Json:
    """Return ``{name: [old, new]}`` of what differs in the recorded environments; None where one has it not."""
    one, two = flat(left.environment), flat(right.environment)
    return {name: [one.get(name), two.get(name)] for name in sorted({*one, *two}) if one.get(name) != two.get(name)}


def flat(value: Json, prefix: str = "") -> dict[str, str]:
    """Return a nested object as ``{"packages.numpy": "2.1"}``."""
    found: dict[str, str] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            found.update(flat(item, prefix + name + "."))
        else:
            found[prefix + name] = ", ".join(map(str, item)) if isinstance(item, list) else str(item)
    return found


def _print_words(left: Side, right: Side) -> None:
    """Print the sections before the code; the working tree has neither parameters nor data nor metrics."""
    found = differences.sections(left.run, right.run) if left.run is not None and right.run is not None else {}
    if left.command != right.command:
        click.echo("command\n- %s\n+ %s\n" % (text.plain(text.command_line(left.command)),
                                              text.plain(text.command_line(right.command))))  # fmt: skip
    else:
        click.echo("command: the same")
    if found:
        click.echo(found["parameters"])
    _print_environment(env_changes(left, right))
    for title in ("data", "metrics"):
        if found:
            click.echo(found[title])


def _print_environment(changed: Json) -> None:
    if not changed:
        click.echo("environment: the same")
    else:
        click.echo("environment")
        for name, (old, new) in changed.items():
            for sign, value in (("-", old), ("+", new)):
                if value is not None:
                    click.echo("%s %s = %s" % (sign, text.plain(name), text.plain(value)))
        click.echo("")


def _print_code(data: bytes) -> None:
    out = sys.stdout.buffer
    sys.stdout.flush()
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        out.write(data)
    else:
        for line in data.splitlines(keepends=True):
            code = COLOURED.get(line[:1])
            out.write(b"\x1b[%sm%s\x1b[0m\n" % (code, line.rstrip(b"\n")) if code else line)
    out.flush()


@common.command(
    "checkout", help="Write the exact code of a run into DIR (default ./<run id>), which must be new or empty."
)
@common.run_argument
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path())
def checkout(run: str, directory: str | None) -> int:
    """Write the code of a run."""
    with common.server() as api:
        found = api.run(run)
        shot = found.get("snapshot") or {}
        if not shot.get("tree"):
            raise ConflictError(
                "the code of %s was not frozen" % found["id"], "it ran in place, in %s" % found["source"]
            )
        target = directory or found["id"]
        places = [(shot, target)]
        places += [(other, os.path.normpath(os.path.join(target, other["path"]))) for other in found.get("also") or []]
        for other, place in places:  # all of them, before anything is written
            if not tree.is_free(os.fsencode(place)):
                raise _in_the_way(other, place)
        count = sum(_fill(api, other, place) for other, place in places)
    click.echo("%s  %s, tree %s" % (target, text.count(count, "file"), shot["tree"]))
    return 0


def _in_the_way(shot: Json, place: str) -> ConflictError:
    if "path" not in shot:
        return ConflictError("%s is not empty" % place, "name a directory that does not exist yet")
    return ConflictError(
        "%s is in the way: the code that the run took along (--also) goes there" % place,
        "name a directory inside of a new one, such as new/code",
    )


def _fill(api: Api, shot: Json, target: str) -> int:
    """Fill a directory with a tree: from the home where it is at hand, else over HTTP."""
    from runyard.snapshot import restore

    home = paths.home(os.environ)
    here = connect.find(paths.Home(home))
    if here is not None and here.alive:
        try:
            return restore.checkout(home, shot["tree"], target, shot.get("commit"), shot.get("branch"))
        except NotFoundError:
            pass  # this home has another server than the one that was asked
    stream = cast("IO[bytes]", restore.ArchiveStream(api.tree(shot["tree"])))
    return tree.fill(stream, target, shot["tree"], shot.get("commit"), shot.get("branch"))


COMMANDS = {"diff": diff, "checkout": checkout}
