"""Commands that change runs: kill, hold, release, rm, archive, note, tag, rename, move."""

from __future__ import annotations

from typing import Any

import click

from runyard.cli import common, complete
from runyard.cli.common import query_option, run_argument, runs_argument
from runyard.wire import states
from runyard.wire.errors import UsageError

ALIVE = (states.QUEUED, states.HELD, states.RUNNING, states.LOST)


@common.command("kill", help="Stop runs: SIGTERM, time to clean up, then SIGKILL to all their processes.")
@runs_argument
@query_option
@click.option("--now", is_flag=True, help="SIGKILL at once.")
def kill(runs: tuple[str, ...], query: str | None, now: bool) -> int:
    """Stop runs."""
    with common.server() as api:
        return common.each(common.targets(api, runs, query, ALIVE), lambda ref: api.kill(ref, now), _killed)


def _killed(run: dict[str, Any]) -> str:
    return "killed" if run["state"] == states.KILLED else "stopping"


@common.command("hold", help="Keep queued runs from starting until `runyard release`.")
@runs_argument
@query_option
def hold(runs: tuple[str, ...], query: str | None) -> int:
    """Hold runs."""
    with common.server() as api:
        return common.each(common.targets(api, runs, query, [states.QUEUED]), api.hold, "held")


@common.command("release", help="Let held runs start.")
@runs_argument
@query_option
def release(runs: tuple[str, ...], query: str | None) -> int:
    """Release runs."""
    with common.server() as api:
        return common.each(common.targets(api, runs, query, [states.HELD]), api.release, "queued")


@common.command("rm", help="Move ended runs to the trash, which empties by itself after some days.")
@runs_argument
@query_option
@click.option("--now", is_flag=True, help="Remove them for good, at once.")
@click.option("--undo", is_flag=True, help="Bring runs back from the trash.")
def rm(runs: tuple[str, ...], query: str | None, now: bool, undo: bool) -> int:
    """Remove runs, or bring them back."""
    if now and undo:
        raise UsageError("--now and --undo exclude each other", "what is removed with --now cannot come back")
    with common.server() as api:
        if undo:
            found = [str(run["id"]) for run in api.all_runs(q=query, trashed=True)] if query is not None else []
            if not runs and query is None:
                raise UsageError("no run was given", "runyard ls --trash lists the trash")
            return common.each([*runs, *found], api.restore, "is back")

        def remove(run_id: str) -> str:
            api.remove(run_id, now)
            return "removed" if now else "in the trash (back: runyard rm --undo %s)" % run_id

        return common.each(common.targets(api, runs, query), remove, str)


@common.command("archive", help="Take runs out of the lists; they keep all they have, and `ls --archived` shows them.")
@runs_argument
@query_option
@click.option("--undo", is_flag=True, help="Bring runs back into the lists.")
def archive(runs: tuple[str, ...], query: str | None, undo: bool) -> int:
    """Archive runs, or bring them back."""
    with common.server() as api:
        ids = common.targets(api, runs, query, archived=undo)
        done = "is back" if undo else "archived"
        return common.each(ids, lambda ref: api.edit(ref, {"archived": not undo}), done)


@common.command("note", help="Set the message of a run.")
@run_argument
@click.argument("message")
def note(run: str, message: str) -> int:
    """Set a message."""
    with common.server() as api:
        click.echo("%s %s" % (api.edit(run, {"message": message})["id"], "noted"))
    return 0


@common.command("tag", help="Add and remove tags: runyard tag RUN... -t good -d old.")
@runs_argument
@query_option
@click.option(
    "-t", "--tag", "add", multiple=True, metavar="TAG", help="Add this tag (repeat).", shell_complete=complete.tags
)
@click.option(
    "-d",
    "--delete",
    "remove",
    multiple=True,
    metavar="TAG",
    help="Remove this tag (repeat).",
    shell_complete=complete.tags,
)
def tag(runs: tuple[str, ...], query: str | None, add: tuple[str, ...], remove: tuple[str, ...]) -> int:
    """Change tags."""
    if not add and not remove:
        raise UsageError("no tag was given", "runyard tag RUN... -t TAG adds one, -d TAG removes one")
    changes: dict[str, Any] = {"add_tags": list(add), "remove_tags": list(remove)}
    with common.server() as api:
        return common.each(common.targets(api, runs, query), lambda ref: api.edit(ref, changes), "tagged")


@common.command("rename", help="Give a run a name, which can then stand for its id; '' takes it away.")
@run_argument
@click.argument("name")
def rename(run: str, name: str) -> int:
    """Name a run."""
    with common.server() as api:
        changed = api.edit(run, {"name": name or None})
        click.echo("%s %s" % (changed["id"], "is " + name if name else "has no name"))
    return 0


@common.command("move", help="Move runs to another project: runyard move RUN... -p PROJECT.")
@runs_argument
@query_option
@click.option("-p", "--project", required=True, metavar="NAME", help="The project.", shell_complete=complete.projects)
def move(runs: tuple[str, ...], query: str | None, project: str) -> int:
    """Move runs."""
    with common.server() as api:
        return common.each(
            common.targets(api, runs, query), lambda ref: api.edit(ref, {"project": project}), "in " + project
        )


COMMANDS = {
    "kill": kill, "hold": hold, "release": release, "rm": rm, "archive": archive, "note": note, "tag": tag,
    "rename": rename, "move": move,
}  # fmt: skip
