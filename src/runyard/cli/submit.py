"""``runyard run``: freeze the code, hand the run spec to the server, say what happened in at most six lines."""

from __future__ import annotations

import os
import sys
import time

from runyard.cli import freeze, program, text
from runyard.client import connect
from runyard.wire import ids, paths, states
from runyard.wire.errors import UsageError
from runyard.wire.settings import DEFAULT_PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from runyard.client.api import Api

    Json = dict[str, Any]

SHELL = "/bin/sh"
AGENT_WAIT_S = 10.0
OWN_VARIABLES = (
    "RUNYARD_RUN_ID",
    "RUNYARD_ATTEMPT",
    "RUNYARD_RUN_DIR",
    "RUNYARD_RESUMED",
    "RUNYARD_SPOOL",
    "RUNYARD_TOKEN",
)
"""Variables of the run that this submit may come from: they must not reach the new one."""


def run(options: dict[str, Any], command: list[str], named: bool) -> int:
    """Submit a run (options: keys of `parse.defaults`) and return the exit status."""
    environ, cwd = dict(os.environ), working_directory()
    if options["shell"]:
        if not " ".join(command).strip():
            raise UsageError("no command was given", "e.g. runyard run --shell 'python a.py && python b.py'")
        command, path = [" ".join(command)], SHELL
    else:
        path = program.resolve(command, cwd, environ, named)
    environ.update(variables(options["env"]))
    if options["dry_run"]:
        return _dry_run(*prepare(options, command, path, cwd, environ), options["json"])
    with server(environ) as api:
        freeze.check_reach(api, environ)
        spec, code = prepare(options, command, path, cwd, environ)
        return send(api, spec, code, options)


def prepare(
    options: Mapping[str, Any], command: list[str], path: str, cwd: str, environ: dict[str, str]
) -> tuple[Json, freeze.Code]:
    """Freeze the code of a directory and return the run spec."""
    code = freeze.freeze(options, cwd, path, environ)
    if not options["in_place"]:
        code.notes += [
            "%s is your file of now, not the frozen one; name it by a relative path" % word
            for word in live_arguments(command, code)
        ]
    environ.update(program.uv_variables(path, cwd, code.source, environ))
    return build(options, command, path, code, environ), code


def live_arguments(command: list[str], code: freeze.Code) -> list[str]:
    """Return the arguments that are absolute paths of files in the tree: the run would use those, not its copy."""
    top = os.path.realpath(code.source) + os.sep
    linked = [os.path.realpath(link["target"]) for link in code.spec["links"]]
    found = []
    for word in command[1:]:
        path = word.partition("=")[2] if word.startswith("-") else word
        real = os.path.realpath(path)
        live = os.path.isabs(path) and real.startswith(top) and os.path.isfile(real)
        if live and not any(real == target or real.startswith(target + os.sep) for target in linked):
            found.append(path)
    return found


def send(api: Api, spec: Json, code: freeze.Code, options: Mapping[str, Any]) -> int:
    """Submit a run spec, say so, follow it if asked, and return the exit status."""
    spec["after"] = [api.run(ref)["id"] for ref in options["after"]]
    try:
        new = api.submit(spec)
        if new.get("state") == states.QUEUED and not options["json"]:
            new = api.run(new["id"])  # by now it may have a slot
        return report(api, new, spec, code, options)
    except KeyboardInterrupt:
        text.notice("")
        text.notice("Interrupted; if it was queued already, it goes on: runyard show %s" % spec["id"])
        raise


def working_directory() -> str:
    """Return the current directory; raises `UsageError` when it has been removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise UsageError("the current directory no longer exists", "cd to another one") from None


def server(environ: Mapping[str, str]) -> Api:
    """Connect to the server; when that starts it, say so, and wait a little for the agent that it starts."""
    started: list[Mapping[str, Any]] = []
    api = connect.connect(environ, started=started.append)
    if started:
        text.notice(started_text(started[0], environ))
        _await_agent(api)
    return api


def _await_agent(api: Api) -> None:
    """Wait until an agent is connected, so that what is said of a run next is not that there is none."""
    deadline = time.monotonic() + AGENT_WAIT_S
    while time.monotonic() < deadline:
        if any(agent.get("connected") for agent in api.status().get("agents") or []):
            return
        time.sleep(0.05)
    text.notice("The agent of this host is not connected yet; runs start once it is (runyard doctor looks after it).")


def started_text(info: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """Return what is to be said when a server was started from this environment."""
    line = "Started the server at %s%s (stop it with: runyard stop)" % (info.get("url", "this home"), moved_text(info))
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        line += "; its runs get the GPUs of CUDA_VISIBLE_DEVICES=%s only, as it is set here" % visible
    return line


def moved_text(info: Mapping[str, Any]) -> str:
    """Return what is to be said of a server whose address is not the usual one, because another program has that."""
    return " because port %d is taken" % DEFAULT_PORT if info.get("moved") else ""


def variables(pairs: list[str]) -> dict[str, str]:
    """Return the variables of ``KEY=VALUE`` words; raises `UsageError`."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError("--env %s: expected KEY=VALUE" % pair, "e.g. --env WANDB_MODE=offline")
        found[name] = value
    return found


def build(
    options: Mapping[str, Any], command: list[str], path: str, code: freeze.Code, environ: Mapping[str, str]
) -> Json:
    """Return the run spec of docs/protocol.md."""
    from runyard.cli import environment

    env = {name: value for name, value in environ.items() if name not in OWN_VARIABLES}
    recorded = environment.gather(path, environ, code.directory, code.source, paths.home(environ))
    if code.editable:
        recorded["editable"] = code.editable
    if options["env"]:
        recorded["set"] = sorted(variables(options["env"]))  # their names: a value may be a secret
    return {
        "id": ids.new_run_id(),
        "project": code.project,
        "name": options["name"] or None,
        "message": options["message"] or "",
        "tags": list(dict.fromkeys(options["tag"])),
        "priority": options["priority"] or 0,
        "after": options["after"],
        "hold": options["hold"],
        "retries": options["retries"] or 0,
        "requeue": not options["no_requeue"],
        "fresh": options["fresh"],
        "time_limit_s": options["time_limit"],
        "resources": {
            **{name: options[name] for name in ("gpus", "cpus", "mem")},
            **{name: options[name] or None for name in ("gpu_model", "host")},  # --host '' asks for none
        },
        "command": command,
        "program": path,
        "in_place": options["in_place"],
        "shell": options["shell"],
        "pty": not options["no_pty"],
        **code.spec,
        "tracking": code.tracking,
        "environment": recorded,
        "env": env,
    }


def _dry_run(spec: Json, code: freeze.Code, as_json: bool) -> int:
    if as_json:
        print_json({name: value for name, value in spec.items() if name != "env"})
        return 0
    print("Would queue (nothing was submitted)")
    for line in lines(spec, code, None, ""):
        print(line)
    return 0


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    import json

    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def report(api: Api, new: Json, spec: Json, code: freeze.Code, options: Mapping[str, Any]) -> int:
    """Say what was submitted; follow or wait if asked; return the exit status."""
    attend = options["follow"] or options["wait"]
    if options["json"] and not attend:
        print_json(new)
        return 0
    for note in code.notes:
        text.notice("note: " + note)
    where = sys.stderr if attend else sys.stdout
    if attend:  # loaded before anything is said, so that Ctrl-C finds somebody who answers it
        from runyard.cli import follow
    for line in lines(spec, code, new, page(api, new["id"])):
        where.write(text.plain(line) + "\n")
    where.flush()
    if not attend:
        return 0
    # With --json, stdout is for programs: the output of the run goes where the notices go.
    status = follow.attend(api, new["id"], bool(options["follow"]), sys.stderr if options["json"] else sys.stdout)
    if options["json"]:
        print_json(api.run(new["id"]))
    return status


def page(api: Api, run_id: str) -> str:
    """Return the address of a run's page, or ``""`` when the server's is not known."""
    url = api.url
    if url.startswith("unix:"):
        found = connect.find(paths.Home(paths.home(os.environ)))
        url = str(found.info.get("url") or "") if found else ""
    return "%s/runs/%s" % (url.rstrip("/"), run_id) if url else ""


def lines(spec: Json, code: freeze.Code, new: Json | None, address: str) -> list[str]:
    """Return the lines that say what was submitted: id, code, links, program, slot or why it waits, address."""
    shot = spec["snapshot"]
    title = "%s in %s" % (spec["id"], spec["project"]) + (" · " + spec["message"] if spec["message"] else "")
    rows = [("run", title), ("code", code_text(shot, spec["in_place"], code.left_out))]
    if spec["links"]:
        rows.append(("links", ", ".join("%s -> %s" % (link["path"], link["target"]) for link in spec["links"])))
    rows.append(("program", spec["program"]))
    if new is not None:
        rows.append(("state", state_text(new)))
    if address:
        rows.append(("page", address))
    return ["%-8s %s" % row for row in rows]


def code_text(shot: Mapping[str, Any], in_place: bool, left_out: list[str]) -> str:
    """Return what was frozen: ``12 files frozen (3 changed), 1.2 MB, main 1a2b3c4``."""
    if in_place:
        return "code not frozen: runs in the current directory"
    parts = [
        "%s frozen (%d changed)" % (text.count(shot.get("files") or 0, "file"), shot.get("changed") or 0),
        text.size(shot.get("bytes") or 0),
    ]
    if shot.get("commit"):
        parts.append(" ".join(word for word in (shot.get("branch"), shot["commit"][:7]) if word))
    if left_out:
        parts.append("left out: " + ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else ""))
    return ", ".join(parts)


def state_text(new: Mapping[str, Any]) -> str:
    """Return the slot of a new run, or why it waits."""
    if new.get("slots"):
        return "%s on %s %s" % (new.get("phase") or new.get("state"), new.get("host") or "", ", ".join(new["slots"]))
    state, why = str(new.get("state")), text.reasons(new.get("wait_reasons") or [])
    return why if why.startswith(state) else "%s%s" % (state, ": " + why if why else "")
