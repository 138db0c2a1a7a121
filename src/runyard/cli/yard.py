"""Commands about the server: start, stop, restart, status, server-logs, open."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from runyard import __version__
from runyard.cli import boot, common, configfile, text
from runyard.cli.submit import moved_text, started_text
from runyard.client import connect
from runyard.client.api import Api
from runyard.wire import config, files, procs
from runyard.wire.errors import HomeError, RunyardError, UnavailableError
from runyard.wire.paths import Home
from runyard.wire.paths import home as home_path

STOP_TIMEOUT_S = 30.0
POLL_S = 0.05
listen_option = click.option("--listen", metavar="ADDR", help="HOST:PORT to listen on, or HOST; kept in config.toml.")
database_option = click.option("--database", metavar="URL", help="Database to use; kept in config.toml.")


def _home() -> Home:
    return Home(home_path(os.environ))


def _here(home: Home) -> connect.Found | None:
    """Return what is known of this home's server; raises when the home belongs to another host."""
    found = connect.find(home)
    if found is not None and not found.here and not connect.left_behind(home):
        name = found.info.get("host") or "another host"
        raise HomeError(
            "the home %s belongs to %s" % (home.path, name),
            "use this command on %s; if its server is gone for good, remove %s" % (name, home.server_json),
        )
    return found


def _start(home: Home, listen: str | None, database: str | None) -> dict[str, Any]:
    connect.prepare(home)
    # Kept: a later start that did not know of them would open an empty database, or listen where no agent looks for it.
    # Unless they are of no use.
    given = [(name, value) for name, value in (("database", database), ("listen", listen)) if value is not None]
    take_back: list[Callable[[], None]] = []
    try:
        for name, value in given:
            take_back.append(configfile.set_text(home, name, value))
        return connect.start(home, os.environ, _arguments(listen))
    except RunyardError:
        for undo in reversed(take_back):
            undo()
        raise


def _arguments(listen: str | None) -> list[str]:
    return ["--listen", listen] if listen else []


def _stop(home: Home) -> bool:
    """Stop the server and wait until it has gone; False when there is none."""
    found = _here(home)
    if found is None or not found.alive:
        return False
    pid, started = int(found.info["pid"]), found.info.get("pid_start")
    try:
        with Api("unix:" + str(found.info["socket"]), timeout=STOP_TIMEOUT_S) as api:
            api.shutdown()
    except UnavailableError:
        # It lives but does not answer; the signal means the same. The start time says that it is still that process.
        if procs.is_alive(pid, started):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while procs.is_alive(pid, started) or files.is_locked(home.server_lock):
        after = connect.find(home)
        if after is not None and after.alive and after.info.get("pid") != pid:
            break  # another command has started the next one already
        if time.monotonic() > deadline:
            raise UnavailableError(
                "the server (pid %d) has not stopped after %d s" % (pid, STOP_TIMEOUT_S),
                "its log says why: %s; to end it by force: kill -9 %d (runs go on)" % (home.server_log, pid),
            )
        time.sleep(POLL_S)
    return True


@common.command("start", help="Start the server of this home and wait until it is ready.")
@listen_option
@database_option
@click.option("--at-boot", is_flag=True, help="Also start it at every boot (a systemd user unit).")
def start(listen: str | None, database: str | None, at_boot: bool) -> int:
    """Start the server."""
    home = _home()
    found = _here(home)
    running = found is not None and found.alive
    if running and (listen or database):
        raise HomeError("the server is running already", "to change how: runyard restart --listen ... --database ...")
    if at_boot:
        connect.prepare(home)
        for line in boot.install(home.path, os.environ, _arguments(listen)):
            text.notice(line)
    info = found.info if running and found is not None else _start(home, listen, database)
    click.echo("running at %s%s" % (info["url"], moved_text(info)) if running else started_text(info, os.environ))
    return 0


@common.command("stop", help="Stop the server. Runs go on; what they print and write is taken in at the next start.")
def stop() -> int:
    """Stop the server."""
    if _stop(_home()):
        click.echo("stopped; runs go on")
    else:
        text.notice("the server of %s is not running" % _home().path)
    return 0


def back_up_before_upgrade(home: Home, found: connect.Found | None) -> str:
    """Write a backup into the home when the server that runs has another version; return its path, else ``""``.

    The server of this version may change the tables, which one of the old version could not read any more.
    """
    if found is None or not found.alive or found.info.get("version") == __version__:
        return ""
    os.makedirs(home.backups, 0o700, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    path = os.path.join(home.backups, "%s-%s.tar.gz" % (found.info.get("version"), stamp))
    with Api("unix:" + str(found.info["socket"])) as api:
        api.backup(path)
    text.notice("Backup before the upgrade from %s: %s" % (found.info.get("version"), path))
    return path


@common.command("restart", help="Stop the server and start it again. Runs go on.")
@listen_option
@database_option
def restart(listen: str | None, database: str | None) -> int:
    """Restart the server."""
    home = _home()
    found = _here(home)
    config.home_settings(home.path, os.environ)  # wrong ones must not leave the home without a server
    given = listen
    before = found.info.get("listen") if found is not None and found.alive else None
    listen = given or before
    back_up_before_upgrade(home, found)
    stopped = _stop(home)
    try:
        info = _start(home, listen, database)
    except RunyardError:
        if stopped and (given or database):
            text.notice("It cannot start like that, so it starts as it was.")
            text.notice(started_text(_start(home, before, None), os.environ))
        raise
    click.echo(started_text(info, os.environ))
    return 0


@common.command("status", help="Show server, slots and queue. Does not start the server; exits with 1 if it is down.")
@common.json_option
def status(as_json: bool) -> int:
    """Show the status."""
    with connect.connect(os.environ, autostart=False) as api:
        found = api.status()
    if as_json:
        common.print_json(found)
        return 0
    counts = ", ".join("%d %s" % (n, state) for state, n in (found.get("counts") or {}).items() if n)
    disk = found.get("disk") or {}
    click.echo(
        text.pairs(
            [
                (
                    "server",
                    "%s%s (version %s, pid %s)"
                    % (found.get("url"), moved_text(found), found.get("version"), found.get("pid")),
                ),
                ("home", "%s on %s" % (found.get("home"), found.get("host"))),
                ("started", text.local_time(found.get("started_at"))),
                ("database", str(found.get("database") or "")),
                ("runs", counts or "none"),
                ("disk", "%s free" % text.size(disk["free"]) if disk.get("free") is not None else ""),
                ("paused", str(found.get("paused") or "")),
            ]
        )
    )
    click.echo(_slots(found))
    if found.get("version") != __version__:
        text.notice("this is version %s, the server %s; runyard restart" % (__version__, found.get("version")))
    return 0


def _slots(found: dict[str, Any]) -> str:
    """Return agents and slots as a table."""
    agents = {agent.get("host_id"): agent for agent in found.get("agents") or []}
    rows = []
    for slot in found.get("slots") or []:
        agent = agents.get(slot.get("host_id")) or {}
        state = "free" if slot.get("free") else "busy" if slot.get("run") else "taken"
        why = slot.get("why")
        if not agent.get("connected"):
            state = "away"
            why = "its agent was last heard of %s ago" % text.age(agent.get("seen_at"))
        cells = (agent.get("host"), slot.get("name"), slot.get("model"), state, slot.get("run"), why)
        rows.append([str(cell or "-") for cell in cells])
    if not rows:
        return "no slots: no agent is connected (yet)"
    return "\n" + text.table(rows, ("HOST", "SLOT", "MODEL", "STATE", "RUN", "WHY"))


@common.command("server-logs", help="Print the server's log.")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(1), default=100, metavar="N", help="The last N lines; default 100.")
def server_logs(following: bool, lines: int) -> int:
    """Print the server's log."""
    from runyard.cli.logtext import last_lines

    path = _home().server_log
    try:
        file = open(path, "rb")  # noqa: SIM115  closed below; following keeps it open
    except FileNotFoundError:
        text.notice("there is no log yet: %s" % path)
        return 1
    with file:
        file.seek(max(0, os.path.getsize(path) - 1024 * lines))
        out = sys.stdout.buffer
        out.write(last_lines(file.read(), lines))
        out.flush()
        while following:
            data = file.read()
            if data:
                out.write(data)
                out.flush()
            else:
                time.sleep(0.2)
    return 0


@common.command("open", help="Open the page in a browser, already signed in.")
@click.option("--print", "only_print", is_flag=True, help="Only print an address that lets one browser in (60 s).")
def open_page(only_print: bool) -> int:
    """Open the page."""
    with common.server() as api:
        url = str(api.open()["url"])
    if only_print:
        click.echo(url)
        return 0
    if os.environ.get("SSH_CONNECTION") and not os.environ.get("DISPLAY"):
        port = url.partition("://")[2].partition("/")[0].rpartition(":")[2]
        text.notice("On your own machine run:  ssh -N -L %s:127.0.0.1:%s %s" % (port, port, os.uname().nodename))
        text.notice("and open within 60 s:")
        click.echo(url)
        return 0
    import webbrowser

    if not webbrowser.open(url):
        text.notice("no browser could be started; open within 60 s:")
        click.echo(url)
    return 0


COMMANDS = {
    "start": start, "stop": stop, "restart": restart, "status": status, "server-logs": server_logs, "open": open_page
}  # fmt: skip
