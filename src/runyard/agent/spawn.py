"""Executing the user's program: what the launch file says, the fork, and why an execution failed."""

from __future__ import annotations

import errno
import os

from runyard.agent.signals import signal
from runyard.wire import files, states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_INFRA_ERRORS = frozenset((errno.ENOMEM, errno.EAGAIN, errno.EIO, errno.ENFILE, errno.EMFILE, errno.ESTALE))
"""Errors of execve(2) that are the machine's fault, not the command's."""
_GO = b"g"


class LaunchError(Exception):
    """The launch file is missing or says nothing that could be executed."""


def _bytes(text: str) -> bytes:
    """Return the bytes that a string of the launch file stands for, whatever the locale of this process is."""
    data = text.encode("utf-8", "surrogateescape")
    if b"\0" in data:
        raise LaunchError("%r contains a NUL byte" % text[:80])
    return data


class Launch:
    """What to execute and how, read from launch.json. Times in seconds."""

    def __init__(self, value: dict[str, Any], attempt: str) -> None:
        """Raise `LaunchError` when something is missing or cannot be passed to execve(2)."""
        try:
            self.argv = [_bytes(word) for word in value["argv"]]
            self.program = _bytes(value["program"])
            self.cwd = _bytes(value["cwd"])
            self.env = {_bytes(name): _bytes(text) for name, text in value["env"].items() if name and "=" not in name}
            self.log, self.times = os.fsdecode(_bytes(value["log"])), os.fsdecode(_bytes(value["times"]))
            limit, grace, by = value.get("time_limit_s"), value.get("grace_s"), value.get("start_by")
            self.time_limit_s = None if limit is None else float(limit)
            self.grace_s = states.GRACE_S if grace is None else float(grace)
            self.start_by = float("inf") if by is None else float(by)
            """See `procs.uptime_s`."""
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise LaunchError("launch.json is not usable: %s: %s" % (type(exc).__name__, exc)) from exc
        if not self.argv:
            raise LaunchError("launch.json has an empty command")
        self.terminal = bool(value.get("pty", True))
        self.env[b"RUNYARD_ATTEMPT"] = _bytes(attempt)

    @classmethod
    def read(cls, path: str, attempt: str) -> Launch:
        """Read a launch file; raise `LaunchError` when it is not there or not whole."""
        try:
            value = files.read_json(path)
        except OSError as exc:
            raise LaunchError("launch.json cannot be read: %s" % exc.strerror) from exc
        if not isinstance(value, dict):
            raise LaunchError("launch.json is missing or not whole")
        return cls(value, attempt)


class Child:
    """The forked process. It waits until `release`, then executes the program; it leads its own process group.

    It stays in the supervisor's session, which has no controlling terminal: a process that leads no session cannot
    acquire one by opening its own output, so no SIGHUP comes when the supervisor dies (tty_ioctl(4)).
    ``result`` becomes readable once the execution has succeeded or failed; then call `settle`.
    """

    def __init__(self, launch: Launch, output: int) -> None:
        """Fork; raise OSError when the system has no process to give."""
        self._launch = launch
        self.errno = 0
        self._stage = ""
        go_read, self._go = os.pipe()
        self.result, result_write = os.pipe()
        # A signal must not reach the child while it still has the supervisor's handlers: it would be lost.
        mask = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        try:
            self.pid = os.fork()
            if self.pid == 0:
                os.close(self._go)  # so that the end of the supervisor is the end of the pipe
                os.close(self.result)
                _execute(launch, output, go_read, result_write)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(go_read)
            os.close(result_write)
        try:
            os.setpgid(self.pid, self.pid)  # here and there: whoever comes first
        except OSError:
            pass

    def release(self) -> None:
        """Let the child execute the program."""
        try:
            os.write(self._go, _GO)
        except BrokenPipeError:
            pass  # somebody killed it meanwhile; its exit says so
        os.close(self._go)
        self._go = -1

    def abandon(self) -> None:
        """Make the child end without executing anything."""
        os.close(self._go)
        self._go = -1
        os.waitpid(self.pid, 0)

    def settle(self) -> None:
        """Take in whether the program was executed: ``errno`` says why not; ``result`` becomes -1."""
        report = os.read(self.result, 64).decode("ascii")
        os.close(self.result)
        self.result = -1
        if report:
            self._stage, _, number = report.partition(" ")
            self.errno = int(number)

    def failure(self) -> tuple[str, str]:
        """Return why the program was not executed: the text, and the origin of the end."""
        text = os.strerror(self.errno)
        origin = states.INFRA if self.errno in _INFRA_ERRORS else states.USER
        if self._stage == "cwd":
            return "%s: the directory to run in: %s" % (os.fsdecode(self._launch.cwd), text), origin
        program = os.path.join(self._launch.cwd, self._launch.program)
        if self.errno == errno.ENOENT and os.path.exists(program):
            text = "its interpreter (the first line, or the loader it was linked for) was not found"
        elif self.errno == errno.ENOEXEC:
            text += " (no `#!` line, or made for another kind of machine)"
        return "%s: %s" % (os.fsdecode(self._launch.program), text), origin


def _execute(launch: Launch, output: int, go: int, result: int) -> None:
    """Become the user's program (in the forked process; never returns)."""
    stage, number = "exec", errno.EINVAL
    try:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        signal.set_wakeup_fd(-1)
        for each in signal.valid_signals():
            if each not in (signal.SIGKILL, signal.SIGSTOP) and signal.getsignal(each) != signal.SIG_DFL:
                signal.signal(each, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if os.read(go, 1) == _GO:
            stage = "cwd"
            os.chdir(launch.cwd)
            stage = "exec"
            os.execve(launch.program, launch.argv, launch.env)
    except OSError as exc:
        number = exc.errno or errno.EIO
    finally:
        os.write(result, ("%s %d" % (stage, number)).encode("ascii"))
        os._exit(127)
