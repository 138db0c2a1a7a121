"""The checks of ``doctor``: each one a function that looks at one thing and says how to repair it.

They need nothing but the standard library, so that they also work where the installation is what is broken.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time

from runyard import __version__
from runyard.client import connect
from runyard.client.api import Api
from runyard.wire import config, files, paths, settings
from runyard.wire.errors import RunyardError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OK, WARN, FAIL = "ok", "warn", "fail"
GIT_LEAST = (2, 22)
"""Older than any git in support; what the snapshots use is in it."""
FILES_LEAST = 1024
PACKAGES = ("alembic", "apprise", "click", "fastapi", "pydantic", "sqlalchemy", "uvicorn")
CLOCK_SLACK_S = 60.0
ANSWER_S = 5.0
CLEANED = ("/tmp/", "/var/tmp/", "/dev/shm/", "/run/")  # noqa: S108  not written there


class Host:
    """What the checks look at: the home, the environment, and the root of the system's own files."""

    def __init__(self, environ: Mapping[str, str], root: str = "/") -> None:
        self.environ = environ
        self.root = root
        self.home = paths.Home(paths.home(environ))
        self.found = connect.find(self.home)

    def system(self, path: str) -> str:
        """Return the path of a system file below the root."""
        return os.path.join(self.root, path.lstrip("/"))

    @property
    def runs_here(self) -> bool:
        """The server of this home lives on this host."""
        return self.found is not None and self.found.alive


class Finding:
    """What a check found: ``ok``, ``warn`` or ``fail``, what is so, and what to do about it."""

    def __init__(self, level: str, text: str, hint: str = "") -> None:
        self.level = level
        self.text = text
        self.hint = hint


def check_python(host: Host) -> Finding:
    """Python is recent enough and has the packages that the server needs."""
    import importlib.util

    version = "%d.%d.%d" % sys.version_info[:3]
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return Finding(
            FAIL,
            "Python %s (%s) lacks %s" % (version, sys.executable, ", ".join(missing)),
            "install Runyard again with pip",
        )
    return Finding(OK, "Python %s, %s" % (version, sys.executable))


def check_git(host: Host) -> Finding:
    """Whether git is there."""
    import subprocess

    program = shutil.which("git", path=host.environ.get("PATH"))
    if program is None:
        return Finding(FAIL, "git is not on PATH: code cannot be frozen", "install git")
    try:
        words = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=20, check=True
        ).stdout.split()
        version = tuple(int(part) for part in words[2].split(".")[:2])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as exc:
        return Finding(FAIL, "%s does not work: %s" % (program, exc), "install git again")
    if version < GIT_LEAST:
        return Finding(FAIL, "git %s is too old" % words[2], "install git %d.%d or later" % GIT_LEAST)
    return Finding(OK, "git %s" % words[2])


def _existing(path: str) -> str:
    while not os.path.exists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def check_home(host: Host) -> Finding:
    """The home can be written, by its owner alone."""
    remedy = "repair its permissions, or set RUNYARD_HOME to a directory on a local disk that you can write"
    existing = _existing(host.home.path)
    if not os.path.isdir(existing):
        return Finding(FAIL, "%s is no directory" % existing, remedy)
    probe = os.path.join(existing, ".runyard-probe.%d" % os.getpid())
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(probe)
    except OSError as exc:
        return Finding(FAIL, "%s is not writable: %s" % (existing, exc.strerror), remedy)
    if os.path.isdir(host.home.path) and os.stat(host.home.path).st_mode & 0o022:
        return Finding(
            WARN, "others can write %s, and so put files of theirs in the place of yours" % host.home.path,
            "chmod go-w %s" % shlex.quote(host.home.path),
        )  # fmt: skip
    if os.path.realpath(host.home.path).startswith(CLEANED):
        return Finding(
            WARN, "%s is where old files are removed, after some days or at a boot" % host.home.path,
            "set RUNYARD_HOME to a directory on a local disk that stays",
        )  # fmt: skip
    return Finding(OK, host.home.path)


def check_file_system(host: Host) -> Finding:
    """The home is on a local disk."""
    mounts = host.system("/proc/self/mountinfo")
    kind = paths.file_system(host.home.path, mounts)
    if paths.is_network_file_system(host.home.path, mounts):
        return Finding(
            FAIL, "%s is on a network file system (%s), where SQLite loses data" % (host.home.path, kind),
            "set RUNYARD_HOME to a directory on a local disk, or use PostgreSQL: runyard start --database URL",
        )  # fmt: skip
    return Finding(OK, kind or "unknown file system")


def check_config(host: Host) -> Finding:
    """config.toml and RUNYARD_* variables are valid."""
    try:
        config.home_settings(host.home.path, host.environ)
    except RunyardError as exc:
        return Finding(FAIL, exc.message, exc.hint)
    return Finding(OK, host.home.config if os.path.exists(host.home.config) else "defaults")


def _setting(host: Host, name: str) -> str:
    try:
        return str(config.home_settings(host.home.path, host.environ)[name])
    except RunyardError:
        return str(settings.BY_NAME[name].default)


def check_disk(host: Host) -> Finding:
    """There is room on the disk of the home."""
    from runyard.cli.text import size

    free = shutil.disk_usage(_existing(host.home.path)).free
    least = settings.parse_size(_setting(host, "min_free"))
    if free < least:
        return Finding(
            FAIL, "%s free, and nothing starts below min_free = %s" % (size(free), size(least)),
            "free some: runyard du, runyard gc",
        )  # fmt: skip
    return Finding(OK, "%s free" % size(free))


def check_database(host: Host) -> Finding:
    """The database is there and sound."""
    from runyard.cli import soundness

    url = _setting(host, "database")
    if url:
        return Finding(OK, "%s (looked at by the server only)" % url.partition("://")[0])
    lost = paths.lost_database(host.home)
    if lost:
        return Finding(FAIL, lost, paths.LOST_DATABASE)
    place = host.home.database
    if not os.path.exists(place):
        return Finding(OK, "made by the first start")
    damage = soundness.damage(place)
    if damage:
        return Finding(
            FAIL, "%s is damaged: %s" % (place, damage),
            "bring a backup back into a new home: RUNYARD_HOME=NEW runyard restore FILE; the files of runs are in %s"
            % host.home.runs,
        )  # fmt: skip
    return Finding(OK, "SQLite, sound")


def check_snapshots(host: Host) -> Finding:
    """The repository of the frozen code is there, with the top of every tree that it names."""
    import subprocess
    from glob import escape, iglob

    place = host.home.snapshots
    remedy = "bring a backup back into a new home: RUNYARD_HOME=NEW runyard restore FILE"
    if not os.path.isdir(place):
        filled = iglob(os.path.join(escape(host.home.runs), "*", "*", paths.RECORDS, "manifest"))
        if next(filled, None) is None:
            return Finding(OK, "no code has been frozen yet")
        return Finding(FAIL, "%s, with all frozen code, is gone" % place, remedy)
    environ = {name: value for name, value in host.environ.items() if not name.startswith("GIT_")}

    def git(*words: str, given: bytes = b"") -> bytes:
        command = ["git", "-c", "safe.directory=*", "--git-dir=%s" % place, *words]
        return subprocess.run(command, input=given, env=environ, capture_output=True, check=True).stdout

    try:
        # A tree has its own id for name of its ref.
        names = git("for-each-ref", "--format=%(refname:lstrip=2)", "refs/trees")
        said = git("cat-file", "--batch-check", given=names)
    except subprocess.CalledProcessError as exc:
        return Finding(FAIL, "%s cannot be read: %s" % (place, exc.stderr.decode("utf-8", "replace").strip()), remedy)
    except OSError as exc:
        return Finding(WARN, "%s cannot be looked at: %s" % (place, exc), "install git")
    lost = said.count(b" missing\n")
    if lost:
        return Finding(FAIL, "%d of %d frozen trees are missing in %s" % (lost, said.count(b"\n"), place), remedy)
    return Finding(OK, "frozen trees: %d" % said.count(b"\n"))


def check_server(host: Host) -> Finding:
    """The server answers and has the version of this command."""
    found = host.found
    if found is not None and not found.here:
        return Finding(WARN, "the home belongs to %s" % found.info.get("host"), "give this host its own RUNYARD_HOME")
    if found is None or not found.alive:
        return Finding(OK, "not running (the first command that needs it starts it)")
    try:
        with Api("unix:" + str(found.info.get("socket")), timeout=ANSWER_S) as api:
            answer = api.health(ANSWER_S)
    except RunyardError as exc:
        return Finding(
            FAIL, "the server (pid %s) does not answer: %s" % (found.info.get("pid"), exc.message),
            "look at %s, then: runyard restart" % host.home.server_log,
        )  # fmt: skip
    if answer.get("version") != __version__:
        return Finding(
            WARN, "the server has version %s, this command %s" % (answer.get("version"), __version__), "runyard restart"
        )
    return Finding(OK, "answers at %s" % found.info.get("url"))


def check_agent(host: Host) -> Finding:
    """The agent of this host lives, so that runs can start."""
    if not host.runs_here:
        return Finding(OK, "starts with the server")
    if not files.is_locked(host.home.agent_lock()):
        return Finding(
            FAIL, "no agent runs on this host, so no run can start", "runyard restart; see runyard server-logs"
        )
    return Finding(OK, "alive")


def check_gpus(host: Host) -> Finding:
    """GPUs can be read where there are any."""
    import ctypes

    driver = os.path.exists(host.system("/proc/driver/nvidia/version"))
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as exc:
        missing = "cannot open shared object file" in str(exc)
        if missing and not driver:
            return Finding(OK, "no NVIDIA driver: runs get CPU slots")
        return Finding(FAIL, "NVML cannot be loaded: %s" % exc, "install the driver's libnvidia-ml.so.1 again")
    status = library.nvmlInit_v2()
    if status:
        return Finding(
            FAIL, "NVML does not start (error %d)" % status,
            "nvidia-smi shows the cause; after an update of the driver a reboot is needed",
        )  # fmt: skip
    count = ctypes.c_uint()
    status = library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    library.nvmlShutdown()
    if status:
        return Finding(FAIL, "NVML cannot count the GPUs (error %d)" % status, "nvidia-smi shows the cause")
    return Finding(OK, "%d visible" % count.value)


def _logind(host: Host) -> bool:
    """Return logind's KillUserProcesses (logind.conf(5)): main file, then drop-ins by name; default no."""
    names = ["/etc/systemd/logind.conf"]
    for directory in ("/usr/lib/systemd/logind.conf.d", "/run/systemd/logind.conf.d", "/etc/systemd/logind.conf.d"):
        try:
            names += [os.path.join(directory, name) for name in sorted(os.listdir(host.system(directory)))]
        except OSError:
            continue
    value = False
    for name in names:
        try:
            with open(host.system(name), encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        except OSError:
            continue
        for line in lines:
            key, equals, text = line.partition("=")
            if equals and key.strip() == "KillUserProcesses":
                value = text.strip().lower() in ("yes", "true", "1", "on")
    return value


def check_logout(host: Host) -> Finding:
    """Nothing kills runs when their user logs out."""
    user = host.environ.get("USER") or host.environ.get("LOGNAME") or ""
    if not os.path.isdir(host.system("/run/systemd/system")) or not _logind(host):
        return Finding(OK, "processes outlive a log-out")
    if user and os.path.exists(os.path.join(host.system("/var/lib/systemd/linger"), user)):
        return Finding(OK, "lingering is on")
    return Finding(
        WARN, "logind kills all your processes at log-out (KillUserProcesses=yes), runs too",
        "allow them to stay: loginctl enable-linger %s" % user,
    )  # fmt: skip


def check_clock(host: Host) -> Finding:
    """The clock has not gone back behind what the home has seen."""
    now = time.time()
    for path in (host.home.database, host.home.server_json, host.home.server_log):
        try:
            ahead = os.stat(path).st_mtime - now
        except OSError:
            continue
        if ahead > CLOCK_SLACK_S:
            return Finding(
                FAIL, "the clock is at least %d s behind: %s is from the future" % (ahead, path),
                "set the clock (timedatectl set-ntp true)",
            )  # fmt: skip
    return Finding(OK, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))


def check_port(host: Host) -> Finding:
    """The web address is free, or taken by this server."""
    import socket

    listen = _setting(host, "listen")
    if host.runs_here:
        return Finding(OK, str((host.found and host.found.info.get("url")) or listen))
    try:
        name, asked = settings.split_address(listen)
    except RunyardError as exc:
        return Finding(FAIL, exc.message, exc.hint)
    port = settings.DEFAULT_PORT if asked is None else asked
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((name, port))
        except OSError as exc:
            moves = asked is None and name in ("127.0.0.1", "localhost", "::1")
            return Finding(
                WARN if moves else FAIL, "port %d of %s cannot be used: %s" % (port, name, exc.strerror or exc),
                "the next free port is taken instead" if moves else "runyard start --listen HOST:PORT",
            )  # fmt: skip
    return Finding(OK, "port %d of %s is free" % (port, name))


def check_descriptors(host: Host) -> Finding:
    """Enough files may be open at once."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES_LEAST:
        return Finding(
            WARN,
            "at most %d open files per process" % soft,
            "raise it before `runyard start`: ulimit -n %d" % max(hard, FILES_LEAST),
        )
    return Finding(OK, "%s open files" % ("unlimited" if soft == resource.RLIM_INFINITY else soft))


CHECKS: dict[str, Callable[[Host], Finding]] = {
    "python": check_python,
    "git": check_git,
    "home": check_home,
    "file-system": check_file_system,
    "config": check_config,
    "disk": check_disk,
    "database": check_database,
    "snapshots": check_snapshots,
    "server": check_server,
    "agent": check_agent,
    "gpus": check_gpus,
    "log-out": check_logout,
    "clock": check_clock,
    "port": check_port,
    "open-files": check_descriptors,
}
