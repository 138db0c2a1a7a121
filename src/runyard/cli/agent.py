"""``agent``: this host takes runs of a server elsewhere."""

from __future__ import annotations

import os
import sys

import click

from runyard.cli import common
from runyard.client import connect
from runyard.wire import config, files, library, paths, settings
from runyard.wire.errors import UsageError


@common.command("agent", help="Run an agent in the foreground: this host takes runs of the server at URL.")
@click.option(
    "--server", "url", metavar="URL", help="Address of the server; default: RUNYARD_SERVER, or that of a shared home."
)
@click.option("--token-file", metavar="FILE", help="File with a token of scope agent; default: RUNYARD_TOKEN.")
@click.option("--name", metavar="NAME", help="Name of this host in lists; default: its host name.")
def agent(url: str | None, token_file: str | None, name: str | None) -> int:
    """Become the agent."""
    home = paths.Home(paths.home(os.environ))
    connect.prepare(home)
    server, token = _server(home, url or os.environ.get("RUNYARD_SERVER", ""))
    if token and not token_file:
        # Arguments and variables of a process can be read by others, or by its children; this file cannot.
        token_file = os.path.join(home.path, "agent-token")
        files.write_atomic(token_file, token.encode("utf-8", "surrogateescape"))
    words = ["--home", home.path, "--server", server]
    words += ["--token-file", os.path.abspath(token_file)] if token_file else []
    words += ["--name", name] if name else []
    environ = {key: value for key, value in os.environ.items() if key not in ("RUNYARD_TOKEN", "RUNYARD_SERVER")}
    environ.update(settings.agent_variables(config.home_settings(home.path, os.environ)))
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-I", "-S", library.install(home.path), *words], environ)


def _server(home: paths.Home, url: str) -> tuple[str, str]:
    """Return address and token of the server: those that were given, or of a home whose server is on another host."""
    token = os.environ.get("RUNYARD_TOKEN", "")
    found = connect.find(home)
    if found is not None and not found.here and not connect.left_behind(home):
        if not url:
            url = connect.elsewhere(home, found.info).url
        if url.rstrip("/") == str(found.info.get("url")):
            token = token or str(found.info.get("token") or "")
    if not url:
        raise UsageError("which server?", "runyard agent --server http://HOST:8086 (its own host has an agent already)")
    return url, token


COMMANDS = {"agent": agent}
