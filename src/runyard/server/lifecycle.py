"""From the command line to a serving process, and every reason why it does not come to that.

What takes long to import is imported once it is certain that this process serves: starters that lose the race, and
those that are refused, end at once.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import pwd
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from runyard.server import logs, ownership, sockets
from runyard.wire import config, files, hosts
from runyard.wire.errors import RunyardError
from runyard.wire.paths import Home, home

if TYPE_CHECKING:
    from runyard.services.yard import Yard

logger = logging.getLogger("runyard.server")


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m runyard.server``."""
    result = argparse.ArgumentParser(prog="python -m runyard.server", description="The server of one home.")
    result.add_argument("--home", default=home(os.environ), help="default: $RUNYARD_HOME, else ~/.runyard")
    result.add_argument("--listen", default="", metavar="HOST:PORT", help="web address; default: the setting listen")
    result.add_argument(
        "--database", default="", metavar="URL", help="PostgreSQL or SQLite URL; default: yard.db in the home"
    )
    result.add_argument("--foreground", action="store_true", help="log to stderr too")
    result.add_argument("--no-agent", action="store_true", help="start no agent on this host")
    return result


def user_name() -> str:
    """Return the name of the account that this process runs as."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid{os.geteuid()}"


def listen_address(argument: str, settings: dict[str, Any]) -> str:
    """Return where to listen: beyond loopback only when its owner said so, which ``config.toml`` keeps."""
    return argument or str(settings["listen"])


def _serve(place: Home, lock: int, options: argparse.Namespace, umask: int, opened: Callable[..., Yard] | None) -> None:
    settings = config.home_settings(place.path, os.environ)
    database = options.database or str(settings["database"])
    ownership.check_file_system(place, database)
    ownership.check_database(place, database)
    listen = listen_address(options.listen, settings)
    sockets.private_directory(place.host_dir())
    os.makedirs(place.runs, exist_ok=True)
    import asyncio  # noqa: PLC0415  see above

    from runyard.server.localagent import LocalAgent, agent_environment  # noqa: PLC0415
    from runyard.server.process import Parts, serve  # noqa: PLC0415
    from runyard.services.yard import open_yard  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(contextlib.closing(sockets.bind_tcp(listen)))
        unix = stack.enter_context(contextlib.closing(sockets.bind_unix(place.socket())))
        stack.callback(_unlink, place, lock)
        yard = (opened or open_yard)(place.path, settings, database_url=database)
        stack.callback(yard.close)
        parts = Parts(
            yard=yard, home=place, lock=lock, user=user_name(), listen=listen, unix=unix, tcp=tcp,
            agent=None if options.no_agent else LocalAgent(place, lock, agent_environment(settings, os.environ), umask),
        )  # fmt: skip
        asyncio.run(serve(parts))


def _unlink(place: Home, lock: int) -> None:
    """Remove the socket, unless another server has this place since."""
    if files.is_at(lock, place.server_lock):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place.socket())


def _refuse(place: Home, error: RunyardError) -> int:
    """Say why there is no server: the last line of server.log and of stderr. Returns the exit status."""
    text = f"{error.message} ({error.hint})" if error.hint else error.message
    text = text.encode("ascii", "backslashreplace").decode("ascii").replace("\n", " ")
    with contextlib.suppress(OSError), open(place.server_log, "ab") as log:
        log.write(logs.line("ERROR", text).encode())
        if os.path.sameopenfile(log.fileno(), 2):
            return 1
    sys.stderr.write(text + "\n")
    return 1


def main(argv: Sequence[str], opened: Callable[..., Yard] | None = None) -> int:
    """Run a server until it is stopped. Returns the exit status: 0 also when another process serves the home.

    ``opened`` makes the yard, by default `open_yard`; tests give it another clock and shorter waits.
    """
    options = parser().parse_args(argv)
    umask = os.umask(0o077)  # what the server writes is its owner's; files of runs are as the starter's umask says
    path = os.path.abspath(options.home)
    place = Home(path, hosts.known_as(path))
    try:
        ownership.prepare(place)
        lock = ownership.acquire(place)
    except ownership.AlreadyRunning as found:
        sys.stdout.write(f"the server is running already: {found}\n")
        return 0
    except RunyardError as exc:
        return _refuse(place, exc)
    try:
        logs.start(place.server_log, options.foreground)
        _serve(place, lock, options, umask, opened)
    except RunyardError as exc:
        return _refuse(place, exc)
    except Exception as exc:  # the boundary: whoever waits for this server is told why there is none
        logger.exception("the server failed")
        return _refuse(place, RunyardError(f"the server failed: {exc}", f"see {place.server_log}"))
    finally:
        os.close(lock)
    logger.info("stopped")
    return 0
