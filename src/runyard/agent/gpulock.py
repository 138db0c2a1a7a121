"""One lock per GPU for the whole host: whoever holds it may start on that GPU, whatever yard or user they are.

The lock is a BSD lock on a file named after the GPU's UUID in a directory that all users share. It belongs to the open
file, which the supervisor inherits: it is held as long as agent or supervisor live, so an agent's death frees nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time

from runyard.wire.errors import HomeError

SHARED_PLACES = ("/run/lock", "/tmp")  # noqa: S108  shared with all users on purpose
RETRY_S = 0.02
TAKE_WITHIN_S = 0.3
"""Others hold the lock for an instant when they look at it, so taking it is tried for this long."""


def directory() -> str:
    """Return the first place that is sticky and writable for everybody, so that every user comes to the same one."""
    for place in SHARED_PLACES:
        try:
            mode = os.stat(place).st_mode
        except OSError:
            continue
        if stat.S_ISDIR(mode) and mode & stat.S_ISVTX and mode & stat.S_IWOTH:
            return place
    return SHARED_PLACES[-1]


def lock_path(uuid: str, place: str = "") -> str:
    """Return the lock file of a GPU."""
    safe = "".join(char if char.isalnum() or char in "-_." else "_" for char in uuid)
    return os.path.join(place or directory(), "runyard-gpu-%s.lock" % safe)


def _open(path: str) -> int:
    """Open the lock file of whoever made it first. Reading is enough for flock(2), so nobody needs to write it.

    fs.protected_regular forbids O_CREAT on somebody else's file in a sticky directory, so creating is a second step.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    for _ in range(10):
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            pass
        try:
            fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            continue
        os.fchmod(fd, 0o644)  # whatever the umask, the next user has to be able to open it
        return fd
    raise HomeError("the lock file %s comes and goes" % path, "see what removes files from its directory")


def _is_current(fd: int, path: str) -> bool:
    """Tell whether the path still names the file that is open (a cleaner may have removed it in between)."""
    try:
        now = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    mine = os.fstat(fd)
    return (now.st_dev, now.st_ino) == (mine.st_dev, mine.st_ino)


class GpuLock:
    """A held lock; `fd` is handed to the supervisor, `release` closes this process's share of it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def release(self) -> None:
        """Close the file; the lock ends when the supervisor's descriptor is closed too."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def take(uuid: str, place: str = "", within_s: float = TAKE_WITHIN_S) -> GpuLock | None:
    """Take the lock of a GPU; None when somebody holds it. Raises HomeError or OSError when there can be no lock."""
    path = lock_path(uuid, place)
    deadline = time.monotonic() + within_s
    while True:
        fd = _open(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(fd)
            if exc.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        else:
            if _is_current(fd, path):
                return GpuLock(fd)
            os.close(fd)
        if time.monotonic() >= deadline:
            return None
        time.sleep(RETRY_S)


def is_held(uuid: str, place: str = "") -> bool:
    """Tell whether somebody holds the lock of a GPU. Looking at it takes a shared lock for an instant.

    It also keeps the file young: what removes old files from /tmp goes by the time of access, too (tmpfiles.d(5)).

    Raises OSError when the lock file is there and cannot be opened: nobody could take the lock then.
    """
    try:
        fd = os.open(lock_path(uuid, place), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    with contextlib.suppress(OSError):
        os.read(fd, 1)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(fd)
