"""Becoming a supervisor: what a process does to itself before it forks anything."""

from __future__ import annotations

import os

from runyard.agent.signals import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

try:
    import _ctypes  # the C half; the package adds types that are not needed here, and milliseconds
except ImportError:  # Python built without libffi: the tree is then found by session and environment
    _ctypes = None  # type: ignore[assignment]

_PR_SET_CHILD_SUBREAPER = 36
"""prctl(2), Linux 3.4."""


def leave_session(keep: Sequence[int] = ()) -> None:
    """Leave the starter's session, directory and open files but those to keep, which no child will inherit."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    os.chdir("/")
    for directory in ("/proc/self/fd", "/dev/fd"):
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        for fd in map(int, names):
            if fd > 2:
                try:
                    if fd in keep:
                        os.set_inheritable(fd, False)
                    else:
                        os.close(fd)
                except OSError:
                    pass  # the one that listed them
        return


def become_subreaper() -> bool:
    """Make orphaned descendants children of this process; False where the system has no such thing."""
    if _ctypes is None:
        return False
    try:
        prctl = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # type: ignore[arg-type]
        return bool(_ctypes.call_function(prctl, (_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) == 0)
    except (OSError, AttributeError):
        return False


class Signals:
    """SIGTERM and SIGCHLD as something to select on: ``fd`` is readable after either of them."""

    def __init__(self) -> None:
        """Install the handlers, then let in the signals that the starter had blocked (`launch.start_supervisor`)."""
        self.fd, self._write = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write, False)
        self._stop = False
        self.now = False
        """SIGUSR1 has come: a stop has no grace, whatever a file says."""
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGUSR1, self._on_now)
        signal.signal(signal.SIGCHLD, self._on_child)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop = True

    def _on_now(self, number: int, frame: FrameType | None) -> None:
        self.now = True

    def _on_child(self, number: int, frame: FrameType | None) -> None:
        """Nothing: the byte in the pipe is what counts."""

    def clear(self) -> None:
        """Empty the pipe."""
        try:
            while len(os.read(self.fd, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def take_stop(self) -> bool:
        """Tell whether SIGTERM has come since the last call."""
        asked, self._stop = self._stop, False
        return asked
