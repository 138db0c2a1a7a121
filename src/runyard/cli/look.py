"""``ls`` and ``show``."""

from __future__ import annotations

import time
from typing import Any

import click

from runyard.cli import common, complete, text, tracked
from runyard.cli.columns import columns_of, split_columns
from runyard.cli.follow import detail_label, ended_text
from runyard.cli.submit import code_text
from runyard.client.api import Api
from runyard.wire import states
from runyard.wire.errors import UsageError

Json = dict[str, Any]
DEFAULT_LIMIT = 20
FILES = {
    "here": "",
    "none yet": "from its start on",
    "thinned": "unchanged code removed: runyard checkout RUN",
    "trashed": "in the trash: runyard rm --undo RUN",
    "gone": "files gone",
}
"""What became of a run's directory, in words."""


@common.command(
    "ls",
    help="List runs, newest first. QUERY: words that must all occur, or an expression such as "
    "'metrics.loss < 0.1 and params.lr >= 1e-3' (docs/search.md).",
)
@click.argument("query", nargs=-1)
@click.option("-p", "--project", metavar="NAME", help="Only this project.", shell_complete=complete.projects)
@click.option(
    "-s", "--state", multiple=True, metavar="STATE", help="Only this state (repeat): " + ", ".join(states.RUN_STATES)
)
@click.option(
    "-t", "--tag", multiple=True, metavar="TAG", help="Only with this tag (repeat).", shell_complete=complete.tags
)
@click.option("-u", "--user", metavar="NAME", help="Only runs of this user.")
@click.option("--name", metavar="NAME", help="Only the run of this name.")
@click.option("--trash", is_flag=True, help="The runs in the trash instead.")
@click.option("--archived", is_flag=True, help="The archived runs instead.")
@click.option("-o", "--order", metavar="FIELDS", help="E.g. metrics.loss, or -metrics.acc for the largest first.")
@click.option("-c", "--columns", metavar="FIELDS", help="Show these parameters, metrics and fields, e.g. lr,loss.")
@click.option("-n", "--limit", type=click.IntRange(1), metavar="N", help="At most N runs; default %d." % DEFAULT_LIMIT)
@click.option("-a", "--all", "everything", is_flag=True, help="All runs.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only, of all runs that fit.")
@common.json_option
def ls(
    query: tuple[str, ...], state: tuple[str, ...], limit: int | None, everything: bool, quiet: bool, as_json: bool,
    trash: bool, tag: tuple[str, ...], columns: str | None, **filters: Any
) -> int:  # fmt: skip
    """List runs."""
    wrong = [name for name in state if name not in states.RUN_STATES]
    if wrong:
        raise UsageError("no state %r" % wrong[0], "states: " + ", ".join(states.RUN_STATES))
    narrowed = bool(query or state or tag or trash or any(filters.values()))
    most = limit or (None if everything or quiet or as_json else DEFAULT_LIMIT)
    filters.update(
        q=" ".join(query) or None,
        state=list(state),
        trashed=trash or None,
        archived=filters["archived"] or None,
        tag=list(tag),
    )
    with common.server() as api:
        if columns is not None and not quiet:
            shown = columns_of(api, split_columns(columns), most, filters, as_json)
        else:
            shown = _list(api, most, filters, quiet, as_json)
        if not shown and not quiet and not as_json:
            common.nothing_fits(api, "no runs%s" % (" fit" if narrowed else " yet; try: runyard demo"), filters)
            for word in set(query).intersection(states.RUN_STATES):
                text.notice("  %s as a word; runs in that state: runyard ls -s %s" % (word, word))
    if most and shown == most and not limit:
        text.notice("%s %d; all: runyard ls -a" % ("the first" if filters["order"] else "the newest", most))
    return 0


def _list(api: Api, most: int | None, filters: Json, quiet: bool, as_json: bool) -> int:
    """Print runs; return how many."""
    found = api.all_runs(most, outputs=(as_json and not quiet) or None, **filters)
    if quiet:
        for run in found:
            click.echo(run["id"])
        return 0
    runs = list(found)
    if as_json:
        common.print_json(runs)
        return 0
    if runs:
        click.echo(listing(runs))
    return len(runs)


def listing(runs: list[Json]) -> str:
    """Return runs as a table."""
    rows = [
        (
            run["id"],
            run["state"],
            text.age(run.get("created_at")),
            took(run),
            ",".join(run.get("slots") or []) or "-",
            run["project"],
            run.get("name") or run.get("message") or "-",
            text.command_line(run["command"]),
        )
        for run in runs
    ]
    rows = [(*row[:6], row[6][:30], row[7]) for row in rows]
    head = ("ID", "STATE", "AGE", "TOOK", "SLOT", "PROJECT", "NAME/MESSAGE", "COMMAND")
    return text.table(rows, head, [run["state"] for run in runs])


def took(run: Json) -> str:
    """Return how long a run took, or has been running."""
    started, ended = text.parse_iso(run.get("started_at")), text.parse_iso(run.get("ended_at"))
    if started is None:
        return "-"
    return text.duration((time.time() if ended is None else ended) - started)


@common.command(
    "show", help="Show a run: state, why it waits, code, program, environment, attempts, outputs. --json has all of it."
)
@common.run_argument
@click.option("-a", "--all", "everything", is_flag=True, help="All rows of the tables.")
@common.json_option
def show(run: str, everything: bool, as_json: bool) -> int:
    """Show one run."""
    with common.server() as api:
        found = api.run(run)
    if as_json:
        common.print_json(found)
    else:
        click.echo(description(found, everything))
    return 0


def description(run: Json, everything: bool = False) -> str:
    """Return a run for people; ``everything``: all parameters, metrics, files and so on, not only the first ones."""
    shot = run.get("snapshot") or {}
    ended = run.get("end") and run["state"] not in (states.QUEUED, states.HELD, states.RUNNING)
    state = ended_text(run) if ended else ", ".join(dict.fromkeys([run["state"], run.get("phase") or run["state"]]))
    attempts = run.get("attempts") or []
    rows = [
        ("id", run["id"]),
        ("state", state),
        (detail_label(run), str((run.get("end") or {}).get("detail") or "")),
        ("progress", tracked.progress(run)),
        ("waits", text.reasons(run.get("wait_reasons") or [])),
        ("expected", text.local_time(run.get("expected_start")) if run.get("expected_start") else ""),
        ("project", run["project"]),
        ("name", run.get("name") or ""),
        ("message", run.get("message") or ""),
        ("tags", ", ".join(run.get("tags") or [])),
        ("command", text.command_line(run["command"])),
        ("directory", run.get("cwd") or ""),
        ("user", run.get("user") or ""),
        ("slot", " ".join([run.get("host") or "", ", ".join(run.get("slots") or [])]).strip()),
        ("needs", needs(run.get("resources") or {})),
        ("limit", text.duration(run["time_limit_s"]) if run.get("time_limit_s") else ""),
        ("retries", str(run.get("retries") or "")),
        ("priority", str(run.get("priority") or "")),
        ("created", text.local_time(run.get("created_at"))),
        ("started", text.local_time(run.get("started_at")) if run.get("started_at") else ""),
        ("ended", text.local_time(run.get("ended_at")) if run.get("ended_at") else ""),
        ("code", code_text(shot, not shot.get("tree"), [])),
        ("tree", shot.get("tree") or ""),
        ("links", ", ".join("%s -> %s" % (link["path"], link["target"]) for link in run.get("links") or [])),
        ("also", ", ".join("%s from %s" % (other["path"], other["source"]) for other in run.get("also") or [])),
        ("source", run.get("source") or ""),
        ("rerun of", run.get("rerun_of") or ""),
        ("program", run.get("program") or ""),
        *_environment(run.get("environment") or {}),
        ("files", _place(run)),
        ("warning", _warning(attempts)),
        ("captured", ", ".join((run.get("capture") or {}).get("active") or [])),
        ("notes", "; ".join(tracked.remarks(run))),
    ]
    parts = [text.pairs(rows)]
    if len(attempts) > 1 or (attempts and not ended):
        parts.append(text.table([_attempt(a) for a in attempts], ("ATTEMPT", "HOST", "SLOTS", "STARTED", "END")))
    parts += tracked.tables(run, everything)
    outputs = run.get("outputs") or []
    if outputs:
        shown = outputs if everything else outputs[:20]
        parts.append(text.table([(o["path"], text.size(o.get("size")), o.get("type") or "") for o in shown],
                                ("OUTPUT", "SIZE", "TYPE")))  # fmt: skip
        if len(outputs) > len(shown):
            parts.append("%d more: runyard outputs %s" % (len(outputs) - 20, run["id"]))
    return "\n\n".join(parts)


def _environment(recorded: Json) -> list[tuple[str, str]]:
    """Return what was recorded of a run's environment, in short; `--json` has all of it."""
    python, packages = recorded.get("python") or {}, recorded.get("packages") or {}
    parts = [
        "Python " + str(python["version"]) if python.get("version") else "",
        text.count(len(packages), "package") if packages else "",
        str(recorded.get("os") or ""),
        "NVIDIA driver " + _version(str(recorded["driver"])) if recorded.get("driver") else "",
        "in " + str(recorded["container"]) if recorded.get("container") else "",
        *(recorded.get("files") or []),
    ]
    editable = recorded.get("editable") or {}
    variables = recorded.get("variables") or {}
    return [
        ("env", ", ".join(part for part in parts if part)),
        ("editable", ", ".join("%s: %s" % item for item in editable.items())),
        ("set", ", ".join(recorded.get("set") or []) + " (--env)" if recorded.get("set") else ""),
        ("variables", " ".join("%s=%s" % (name, text.quote(value)) for name, value in variables.items())),
    ]


def _version(driver: str) -> str:
    """Return the version in the line that the NVIDIA driver says of itself."""
    return next((word for word in driver.split() if word[0].isdigit() and "." in word), driver)


def _warning(attempts: list[Json]) -> str:
    """Return what is missing from the newest attempt's log."""
    dropped = attempts[-1].get("log_dropped") if attempts else 0
    return "%s of its output are not in the log: the disk was full" % text.size(dropped) if dropped else ""


def _place(run: Json) -> str:
    """Return where a run's files are, and what became of them."""
    state = str(run.get("files") or "here")
    note = FILES.get(state, state).replace("RUN", run["id"])
    return str(run.get("run_dir") or "") + (" (%s)" % note if note else "")


def needs(resources: Json) -> str:
    """Return what a run asked for: ``gpus 2, mem 8.0 GB``."""
    shown = {**resources, "mem": text.size(resources["mem"]) if resources.get("mem") else None}
    return ", ".join("%s %s" % (name, value) for name, value in shown.items() if value is not None)


def _attempt(attempt: Json) -> tuple[str, ...]:
    from runyard.cli.follow import reason

    end = attempt.get("end") or {}
    how = reason(end) or ("exit code 0" if end else str(attempt.get("phase") or ""))
    return (
        str(attempt.get("number") or ""),
        str(attempt.get("host") or ""),
        ", ".join(attempt.get("slots") or []),
        text.local_time(attempt.get("started_at")),
        how,
    )


COMMANDS = {"ls": ls, "show": show}
