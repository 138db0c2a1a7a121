"""What completion offers for runs, programs and tags. It never starts a server, and never complains."""

from __future__ import annotations

import os
import re
from typing import Any

import click
from click.shell_completion import CompletionItem

from runyard.client import columns, connect
from runyard.wire.errors import RunyardError

LIMIT = 50
TIMEOUT_S = 2.0
_PLAIN = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*").fullmatch


def _recent() -> list[dict[str, Any]]:
    try:
        api = connect.connect(os.environ, autostart=False)
        api.http.timeout = TIMEOUT_S
        with api:
            return list(api.runs(limit=LIMIT)["runs"])
    except (RunyardError, OSError, KeyError, ValueError):
        return []


def run_refs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer ids and names of the newest runs, and @last."""
    offered = [CompletionItem("@last", help="my last submitted run")] if "@last".startswith(incomplete) else []
    for run in _recent():
        about = "%s %s" % (run.get("state"), " ".join(run.get("command") or [])[:60])
        offered += [
            CompletionItem(ref, help=about)
            for ref in (run["id"], run.get("name"))
            if ref and ref.startswith(incomplete)
        ]
    return offered


def tags(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the tags of the newest runs."""
    found = sorted({tag for run in _recent() for tag in run.get("tags") or []})
    return [CompletionItem(tag) for tag in found if tag.startswith(incomplete)]


def projects(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the projects of the newest runs."""
    found = sorted({str(run.get("project")) for run in _recent()})
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]


def metrics(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the metrics of the newest runs."""
    found = sorted({name for run in _recent() for name in run.get("metrics") or {}})
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]


def fields(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the parameters and metrics of the newest runs, as fields; behind a comma the next one."""
    before, comma, word = incomplete.rpartition(",")
    found = {
        "%s.%s" % (space, name) if _PLAIN(name) else columns.quoted(space, name)
        for run in _recent()
        for space in ("params", "metrics")
        for name in run.get(space) or {}
    }
    return [CompletionItem(before + comma + field) for field in sorted(found) if field.startswith(word)]


def program_words(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer files; the first word may also be a program."""
    return [CompletionItem(incomplete, type="file")]
