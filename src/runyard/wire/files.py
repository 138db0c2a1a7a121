"""Small file operations that must not leave half a file or lose one."""

from __future__ import annotations

import fcntl
import os

from runyard.wire import jsonlite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def write_atomic(path: str, data: bytes, mode: int = 0o600, sync: bool = False) -> None:
    """Write a file so that readers see the old or the new content, never part of it.

    ``sync`` makes the content and the name survive a power loss.
    """
    temporary = "%s.%d.%s.tmp" % (path, os.getpid(), os.urandom(4).hex())  # two threads may write the same file
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise
    if sync:
        sync_path(os.path.dirname(path) or ".")


def write_output(path: str, data: bytes) -> None:
    """Write a file that a user named: at once where it is a regular file or a new one, else into the link or pipe."""
    import stat

    try:
        regular = stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        regular = not os.path.lexists(path)
    if regular:
        write_atomic(path, data, 0o666)
        return
    with open(path, "wb") as file:
        file.write(data)


def sync_path(path: str) -> None:
    """Make what a file holds, or the names in a directory, survive a power loss."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_json(path: str, value: Any, mode: int = 0o600, sync: bool = False) -> None:
    """Write a value as JSON, atomically. Strings may carry escaped bytes (surrogateescape)."""
    write_atomic(path, jsonlite.dumps(value).encode("ascii"), mode, sync)


def read_json(path: str) -> Any:
    """Read a JSON file; None when it does not exist or holds no whole value."""
    try:
        with open(path, "rb") as file:
            return jsonlite.loads(file.read())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def try_lock(path: str) -> int | None:
    """Take the exclusive lock of a file for as long as the returned descriptor lives; None when somebody holds it.

    The kernel drops it when the process dies, so a held lock is proof of life.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def hold(directory: str) -> int:
    """Lock a directory for as long as the returned descriptor lives, so that systemd-tmpfiles removes nothing below it.

    The lock is shared and nobody here waits for it: where it cannot be had, it is done without.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        pass
    return fd


def is_at(fd: int, path: str) -> bool:
    """Tell whether a path still leads to an open file, which was neither removed nor replaced; yes when unknown."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def is_locked(path: str) -> bool:
    """Tell whether a live process holds the lock of this file. A file that does not exist is not locked."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
