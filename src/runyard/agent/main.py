"""The agent's command line: ``python -I -S LIB --home H [--server URL --token-file F]``, or ``-m runyard.agent``."""

from __future__ import annotations

import os
import stat
import sys

from runyard.wire import files, hosts, paths, settings
from runyard.wire.errors import ConfigError, HomeError, RunyardError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runyard.wire.timing import Timing

USAGE = "usage: agent --home DIRECTORY [--server URL] [--token-file FILE] [--name NAME]"
OPTIONS = ("--home", "--server", "--token-file", "--name")


def parse(words: Sequence[str]) -> dict[str, str]:
    """Return the options by name; raises `UsageError`. argparse would cost two megabytes for life."""
    found = dict.fromkeys(OPTIONS, "")
    rest = list(words)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name not in OPTIONS:
            raise UsageError("unknown option %s" % name, USAGE)
        if not equals:
            if not rest:
                raise UsageError("%s needs a value" % name, USAGE)
            value = rest.pop(0)
        found[name] = value
    return found


def read_token(path: str) -> str:
    """Return the token that a file holds, ``""`` for no file; raises `ConfigError`."""
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            "the token file %s cannot be read: %s" % (path, exc), "write the agent's token there"
        ) from exc


def lock(home: paths.Home) -> int:
    """Take the agent's lock of this home on this host, for life; raises `HomeError` when an agent holds it."""
    path = home.agent_lock()
    try:
        os.makedirs(home.host_dir(), 0o700, exist_ok=True)
        private(home.host_dir())
        fd = files.try_lock(path)
    except OSError as exc:
        raise HomeError("%s cannot be used: %s" % (path, exc.strerror), "give --home a directory of yours") from exc
    if fd is None:
        with open(path, encoding="ascii", errors="replace") as file:
            holder = file.read().strip() or "unknown"
        raise HomeError(
            "an agent of %s runs on this host already (pid %s)" % (home.path, holder),
            "one is enough; stop that one first",
        )
    os.ftruncate(fd, 0)
    os.write(fd, b"%d\n" % os.getpid())
    return fd


def private(directory: str) -> None:
    """Make sure that a directory is ours alone: where a home is on a network, it lies in a place open to everybody."""
    info = os.lstat(directory)
    if info.st_uid != os.getuid() or not stat.S_ISDIR(info.st_mode):
        raise HomeError("%s belongs to somebody else" % directory, "have it removed: the agent needs that place")
    if info.st_mode & 0o077:
        os.chmod(directory, 0o700)


def library(home: paths.Home) -> str:
    """Return the copy that supervisors run from: the one this agent runs from, else a new one in the home."""
    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if os.path.dirname(own) == os.path.abspath(home.lib):
        return own
    from runyard.wire import library as copies

    try:
        return copies.install(home.path)
    except OSError as exc:
        raise HomeError(
            "%s cannot be written: %s" % (home.lib, exc), "make room, or give --home another place"
        ) from exc


def serve(options: Mapping[str, str], environ: Mapping[str, str], timing: Timing | None = None) -> int:
    """Run the agent until it is told to end; returns the exit status. Tests give it waits of their own."""
    place = os.path.abspath(options["--home"] or paths.home(environ))
    home = paths.Home(place, hosts.known_as(place))
    values = settings.defaults()
    values.update(settings.from_environment(environ))
    token = read_token(options["--token-file"])
    held = lock(home)
    kept = files.hold(home.host_dir())
    try:
        from runyard.agent.context import Context
        from runyard.agent.link import Target
        from runyard.agent.loop import Agent

        target = Target(options["--server"] or "unix:" + home.socket(), token, timing)
        visible = environ.get("CUDA_VISIBLE_DEVICES")
        context = Context(home, library(home), sys.executable, target, values, visible)
        return Agent(context, held, options["--name"], fixed=bool(options["--server"])).run()
    finally:
        os.close(kept)
        os.close(held)


def main(words: Sequence[str] | None = None) -> int:
    """Entry point: exit status 0 after a stop or a drain, 1 for what a person has to see to, 2 for bad usage."""
    try:
        return serve(parse(sys.argv[1:] if words is None else words), os.environ)
    except RunyardError as exc:
        sys.stderr.write("agent: %s\n" % exc.message + ("       %s\n" % exc.hint if exc.hint else ""))
        return exc.exit_status
