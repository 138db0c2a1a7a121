"""``du``, ``gc``, ``backup`` and ``restore``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import click

from runyard.cli import common, text
from runyard.client import connect
from runyard.wire.errors import ConflictError, HomeError, NotFoundError, RunyardError, from_body
from runyard.wire.paths import Home
from runyard.wire.paths import home as home_path
from runyard.wire.serverenv import server_environment


@common.command("du", help="Show what uses disk space.")
@common.json_option
def du(as_json: bool) -> int:
    """Show disk use."""
    with common.server() as api:
        found = api.du()
    if as_json:
        common.print_json(found)
        return 0
    rows = [(name, *_cost(cost)) for name, cost in (found.get("parts") or {}).items()]
    rows += [("runs of " + name, *_cost(cost)) for name, cost in (found.get("projects") or {}).items()]
    click.echo(text.table([*rows, ("total", text.size(found.get("total")), "")], ("WHAT", "SIZE", "FILES")))
    click.echo("%s: %s free" % (found.get("home"), text.size(found.get("free"))))
    return 0


def _cost(cost: dict[str, Any]) -> tuple[str, str]:
    return text.size(cost.get("bytes")), str(cost.get("inodes", "-"))


def _item(item: Any) -> str:
    if not isinstance(item, dict):
        return text.plain(str(item))
    parts = [
        text.size(v) if isinstance(v, (int, float)) and k in ("bytes", "size") else str(v) for k, v in item.items()
    ]
    return text.plain("  ".join(parts))


@common.command("gc", help="Say what disk space can be freed; with --yes free it.")
@click.option("-y", "--yes", is_flag=True, help="Free it.")
@click.option("--checkpoints", is_flag=True, help="Also old checkpoints: outputs that fit the setting `checkpoints`.")
@common.json_option
def gc(yes: bool, checkpoints: bool, as_json: bool) -> int:
    """Free disk space."""
    with common.server() as api:
        found = api.gc({"do": yes, "checkpoints": checkpoints})
    if as_json:
        common.print_json(found)
        return 0
    verb = "freed" if yes else "would free"
    code, old, trees = (found.get(name) or {} for name in ("code", "checkpoints", "snapshots"))
    click.echo(
        "%s %s: unchanged code of %s" % (verb, text.size(code.get("bytes")), text.count(code.get("runs", 0), "run"))
    )
    click.echo(
        "%s %s: %s that no run needs"
        % (verb, text.size(trees.get("bytes")), text.count(trees.get("trees", 0), "snapshot"))
    )
    if checkpoints:
        click.echo("%s %s: %s" % (verb, text.size(old.get("bytes")), text.count(old.get("count", 0), "old checkpoint")))
        for item in old.get("files") or []:
            click.echo("  " + _item(item))
    if not yes:
        again = "runyard gc --yes" + (" --checkpoints" if checkpoints else "")
        text.notice("Nothing was removed. To free it: %s (code comes back with runyard checkout)" % again)
    return 0


@common.command("backup", help="Write database and snapshots into FILE. Runs go on meanwhile.")
@click.argument("file")
def backup(file: str) -> int:
    """Write a backup."""
    path = os.path.abspath(file)
    if os.path.exists(path):
        raise ConflictError("%s exists already" % path, "choose another name, or remove it first")
    with common.server() as api:
        found = api.backup(path)
    size = found.get("size") or found.get("bytes")
    click.echo("%s%s" % (path, " (%s)" % text.size(size) if size else ""))
    return 0


@common.command(
    "restore", help="Bring a backup back into this home, which must have no runs and whose server must be stopped."
)
@click.argument("file")
def restore(file: str) -> int:
    """Restore a backup."""
    path = os.path.abspath(file)
    if not os.path.isfile(path):
        raise NotFoundError("%s is no file" % path, "give a file that `runyard backup` wrote")
    home = Home(home_path(os.environ))
    connect.prepare(home)
    found = connect.find(home)
    if found is not None and found.alive:
        raise HomeError("the server is running", "stop it first: runyard stop")
    command = [sys.executable, "-P", "-m", "runyard.services.backup", "--home", home.path, path]
    done = subprocess.run(command, env=server_environment(os.environ), capture_output=True, text=True, check=False)
    answers = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    try:
        answer = json.loads(answers[-1])
    except (ValueError, IndexError):
        raise RunyardError(
            "the restore failed: %s" % done.stderr.strip()[-500:],
            "see the whole error with: %s" % text.command_line(command),
        ) from None
    if done.returncode:
        raise from_body(0, answer)
    click.echo(
        "restored %s from version %s"
        % (text.count((answer.get("rows") or {}).get("runs", 0), "run"), answer.get("version"))
    )
    text.notice("Logs, outputs and environments are in no backup: a run that was queued has to be run again, with")
    text.notice("runyard rerun. If the queue waits for the agents to report, runyard status says for how long.")
    return 0


COMMANDS = {"du": du, "gc": gc, "backup": backup, "restore": restore}
