"""What several commands share: their RUN arguments and --json, the connection, and going over many runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click

from runyard.cli import complete, submit, text
from runyard.cli.app import RunyardCommand
from runyard.client.api import Api
from runyard.wire.errors import RunyardError, UsageError

Json = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])


def run_parameter() -> click.Argument:
    """Return the argument that names one run."""
    return click.Argument(["run"], metavar="RUN", shell_complete=complete.run_refs)


run_argument = click.argument("run", metavar="RUN", shell_complete=complete.run_refs)
runs_argument = click.argument("runs", metavar="RUN...", nargs=-1, shell_complete=complete.run_refs)
query_option = click.option("--query", "-q", metavar="QUERY", help="Also all runs that `runyard ls QUERY` finds.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def command(name: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Declare a command of Runyard: click's decorator with -v added."""
    settings.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
    return click.command(name, cls=RunyardCommand, **settings)


def server() -> Api:
    """Connect to the server, starting it when needed."""
    return submit.server(os.environ)


def targets(
    api: Api, refs: Sequence[str], query: str | None, state: Sequence[str] = (), *, archived: bool = False
) -> list[str]:
    """Return the ids of the runs that are named or found. Every name is resolved before anything is changed.

    ``state``: those in which a run that the query finds can be meant, e.g. none that has ended for kill; empty: all.
    ``archived``: the query looks among the archived runs.

    Raises:
        UsageError: nothing is named.
        NotFoundError, AmbiguousError: a name fits no run, or several.
    """
    if query is not None and not query.split():
        raise UsageError("the query is empty: it would mean every run", "all of them are named by $(runyard ls -q)")
    if not refs and query is None:
        raise UsageError("no run was given", "name runs (an id, the start of one, a name, @last), or use --query")
    ids = [str(api.run(ref)["id"]) for ref in refs]
    filters: dict[str, Any] = {}
    if query is not None:
        filters = {"q": query, "state": list(state), "archived": archived or None}
        ids += [str(run["id"]) for run in api.all_runs(**filters)]
    if not ids:
        nothing_fits(api, "no run fits", filters)
    return list(dict.fromkeys(ids))


def nothing_fits(api: Api, message: str, filters: Mapping[str, Any]) -> None:
    """Say that nothing fits, and what the query may have meant."""
    text.notice(message)
    for hint in api.runs(**{**filters, "limit": 1}).get("hints") or ():
        text.notice("  " + hint)


def each(ids: Iterable[str], act: Callable[[str], Any], done: str | Callable[[Any], str]) -> int:
    """Do something with each run and say so; go on after an error. Returns the exit status of the last error, else 0.

    ``done``: what to say, or what says it of the answer.
    """
    status = 0
    for run_id in ids:
        try:
            answer = act(run_id)
        except RunyardError as exc:
            status = exc.exit_status
            then = text.hint(exc, str(click.get_current_context().info_name))
            text.notice("runyard: %s: %s" % (run_id, exc.message) + (" (%s)" % then if then else ""))
        else:
            click.echo("%s %s" % (run_id, done if isinstance(done, str) else done(answer)))
    return status


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    submit.print_json(value)
