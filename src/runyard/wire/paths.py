"""Where everything lives below the home. No function here creates anything."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SOCKET_PATH_MAX = 100
"""Bytes. unix(7) allows 108 with the final zero; temporary names need a little."""
NETWORK_FILE_SYSTEMS = frozenset(
    "nfs nfs4 cifs smb3 smbfs 9p afs ceph lustre gpfs beegfs glusterfs fuse.glusterfs fuse.sshfs fuse.ceph orangefs "
    "pvfs2 panfs davfs fuse.s3fs fuse.juicefs".split()
)


def home(environ: Mapping[str, str]) -> str:
    """Return the absolute path of the yard's home: $RUNYARD_HOME, by default ``~/.runyard``."""
    return os.path.abspath(os.path.expanduser(environ.get("RUNYARD_HOME") or "~/.runyard"))


def host_id() -> str:
    """Return a stable id of this machine: 12 hex digits of a hash of its machine id and host name.

    Containers and clones often share ``/etc/machine-id``, so the host name is part of it.
    """
    machine = b""
    for name in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            with open(name, "rb") as file:
                machine = file.read().strip()
            break
        except OSError:
            continue
    return _sha256(machine + b"\0" + os.uname().nodename.encode())[:12]


def _sha256(data: bytes) -> str:
    import hashlib  # loads OpenSSL, which takes longer than all else that a program of a run needs of us

    return hashlib.sha256(data).hexdigest()


def file_system(path: str, mountinfo: str = "/proc/self/mountinfo") -> str:
    """Return the type of the file system that holds a path (which need not exist); ``""`` when unknown.

    Source: proc(5), mountinfo: field 5 is the mount point (octal escapes), the field after ``-`` the type.
    """
    path = os.path.realpath(path)
    best, kind = -1, ""
    try:
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                left, _, right = line.partition(" - ")
                point = left.split(" ")[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
                inside = path == point or path.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= best:
                    best, kind = len(point), right.split(" ")[0]
    except OSError:
        return ""
    return kind


def is_network_file_system(path: str, mountinfo: str = "/proc/self/mountinfo") -> bool:
    """Tell whether a path lies on a network file system, where SQLite, locks and sockets cannot be trusted."""
    return file_system(path, mountinfo) in NETWORK_FILE_SYSTEMS


class Home:
    """The paths of one home.

    Everything is an absolute path; what the database stores is relative to `path`, so that the home can be moved.
    """

    def __init__(self, path: str, host: str = "") -> None:
        """``host``: the id under which this machine's part goes on (see `runyard.wire.hosts`); by default its own."""
        self.path = path
        self.config = os.path.join(path, "config.toml")
        self.database = os.path.join(path, "yard.db")
        self.snapshots = os.path.join(path, "snapshots.git")
        self.server_json = os.path.join(path, "server.json")
        """0600: yard id, host id, host name, boot id, pid, pid start time, url, socket path, local token, version."""
        self.server_lock = os.path.join(path, "server.lock")
        self.server_log = os.path.join(path, "server.log")
        self.lib = os.path.join(path, "lib")
        self.interpreter = os.path.join(path, "interpreter")
        """Path of the interpreter that has all of Runyard, written when the server starts."""
        self.secret = os.path.join(path, "secret")
        """A key that the first server made; a home without it has had none."""
        self.runs = os.path.join(path, "runs")
        self.trash = os.path.join(path, "trash")
        self.downloads = os.path.join(path, "downloads")
        """Ignored data directories that runs downloaded because their source had none, per source; later runs link them."""
        self.backups = os.path.join(path, "backups")
        """What was there before upgrades."""
        self.launch = os.path.join(path, "launch")
        """0700: one 0600 file per submit with the environment its runs will get; never in database or backup."""
        self.host = host or host_id()
        """Id of this machine; stays what it was when this object was made, whatever name the machine is given."""
        self._host_dir = ""

    def host_dir(self) -> str:
        """Return this host's private directory: journals, locks, sockets, spools; always on a local disk.

        It stays where it was when it was first asked for: looking where a path is mounted takes a while.
        """
        if not self._host_dir:
            place = os.path.join(self.path, "hosts", self.host)
            if is_network_file_system(self.path):
                place = "/var/tmp/runyard-%d-%s" % (os.getuid(), _sha256(os.fsencode(self.path))[:12])
            self._host_dir = place
        return self._host_dir

    def socket(self) -> str:
        """Return the path of the server's Unix socket, short enough for the kernel, in a 0700 directory."""
        path = os.path.join(self.host_dir(), "sock", "api")
        if len(os.fsencode(path)) <= SOCKET_PATH_MAX:
            return path
        tag = _sha256(os.fsencode(self.path))[:12]
        return "/tmp/runyard-%d-%s/api" % (os.getuid(), tag)

    def attempt_dir(self, attempt_id: str) -> str:
        """Return where agent and supervisor keep what concerns one attempt on this host."""
        return os.path.join(self.host_dir(), "attempts", attempt_id)

    def agent_lock(self) -> str:
        """Return the file whose lock the agent of this home on this host holds for life."""
        return os.path.join(self.host_dir(), "agent.lock")


LOST_DATABASE = (
    "put yard.db back, or bring a backup back: runyard restore FILE; "
    "to begin a new yard here, move runs and snapshots.git away first"
)


def lost_database(home: Home) -> str:
    """Return what is wrong with a home that has runs or code but no more ``yard.db`` that knows of them, else ``""``."""
    try:
        if os.path.getsize(home.database):
            return ""
        state = "empty"
    except FileNotFoundError:
        state = "missing"
    if not os.path.exists(home.secret):
        return ""  # of an agent of a yard elsewhere
    from glob import escape, iglob

    patterns = ((home.runs, "/*/*"), (home.snapshots, "/refs/trees/*"))
    left = [place for place, below in patterns if next(iglob(escape(place) + below), None)]
    return "the database %s is %s, though there is %s" % (home.database, state, " and ".join(left)) if left else ""


def leaves(path: str, beside: bool = False) -> bool:
    """Tell whether a path, as it is written, can lead out of the directory that it is relative to.

    ``beside``: one leading ``../`` is allowed (``../lib``: beside the working tree, in the run's directory).
    """
    inner = path[3:] if beside and path.startswith("../") else path
    return inner.startswith("/") or "\0" in inner or ".." in inner.split("/")


def is_place(path: str, beside: bool = False) -> bool:
    """Tell whether something can be put at a path relative to the working tree; ``beside``: or beside it."""
    inner = path[3:] if beside and path.startswith("../") else path
    return not leaves(inner) and not any(part in ("", ".", ".git", RECORDS) for part in inner.split("/"))


def run_dir_name(created_at_us: int, run_id: str) -> str:
    """Return ``<yyyymmdd-hhmm>-<id>`` (UTC)."""
    import time

    return time.strftime("%Y%m%d-%H%M", time.gmtime(created_at_us // 1_000_000)) + "-" + run_id


RECORDS = ".runyard"
"""Name of the directory beside the working tree that holds logs and records of a run."""


def manifest_path(run_dir: str) -> str:
    """Return the list of the files that the working tree was filled with, given the directory above it."""
    return os.path.join(run_dir, RECORDS, "manifest")


def log_path(run_dir: str, number: int) -> str:
    """Return the raw log of attempt ``number`` (from 1) of a run, given the directory above its working tree."""
    return os.path.join(run_dir, RECORDS, "log.%d" % number)
