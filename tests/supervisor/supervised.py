"""What the tests of the supervisor share: real supervisors, started from a copy of the client half as on any host."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runyard.agent import launch, tree
from runyard.wire import ids, procs

SOURCE = Path(launch.__file__).resolve().parents[1]
PYTHON = os.environ.get("RUNYARD_TEST_PYTHON") or sys.executable
"""The interpreter that supervisors run under."""
PROGRAM_PYTHON = os.path.realpath(sys.executable)


def until(condition: Callable[[], Any], timeout_s: float = 20.0, what: str = "") -> Any:
    """Return the first true value of ``condition()``; fail when the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail("not within %g s: %s" % (timeout_s, what or condition))
        time.sleep(0.005)


def python(code: str, *arguments: str) -> list[str]:
    """Return the command of a Python program that is quick to start."""
    return [PROGRAM_PYTHON, "-I", "-S", "-c", code, *arguments]


class Attempt:
    """One attempt directory and the supervisor started for it."""

    def __init__(self, base: Path, lib: Path, argv: list[str], **options: Any) -> None:
        self.id = ids.new_attempt_id()
        self.base = base
        self.lib = lib
        self.dir = base / "attempts" / self.id
        self.dir.mkdir(parents=True, mode=0o700)
        self.cwd = base / "work"
        self.cwd.mkdir(exist_ok=True)
        self.log_path = self.dir / "log.1"
        self.pid = 0
        value: dict[str, Any] = {
            "argv": argv,
            "program": shutil.which(argv[0]) or argv[0],
            "cwd": str(self.cwd),
            "env": {"PATH": os.environ["PATH"], "RUNYARD_ATTEMPT": self.id},
            "pty": True,
            "log": str(self.log_path),
            "times": str(self.dir / "times.1"),
            "time_limit_s": None,
            "grace_s": 30.0,
            "slots": ["cpu0"],
            "gpu_uuids": [],
        }
        self.env = value["env"]
        self.env.update(options.pop("env", {}))
        value.update(options)
        self.log_path = Path(value["log"])
        self.times_path = Path(value["times"])
        (self.dir / "launch.json").write_text(json.dumps(value))

    def start(self) -> Attempt:
        self.pid = launch.start_supervisor(PYTHON, str(self.lib), str(self.dir))
        return self

    def move(self, directory: Path) -> None:
        """Have the attempt's directory elsewhere; the log stays where it is."""
        self.dir = Path(shutil.move(str(self.dir), str(directory / self.id)))

    def status(self) -> dict[str, Any]:
        return launch.read_status(str(self.dir)) or {}

    def running(self) -> Attempt:
        """Wait until the program has been executed."""
        until(lambda: self.status().get("pid") and not (self.dir / "launch.json").exists(), what=self.errors())
        return self

    def says(self, text: bytes, timeout_s: float = 20.0) -> bytes:
        """Wait until the log contains a text; return the log."""
        until(lambda: text in self.log(), timeout_s, "%r in %r; %s" % (text, self.log()[-500:], self.errors()))
        return self.log()

    def log(self) -> bytes:
        return self.log_path.read_bytes() if self.log_path.exists() else b""

    def errors(self) -> str:
        path = self.dir / "supervisor.err"
        return path.read_text() if path.exists() else ""

    def end(self, timeout_s: float = 30.0) -> dict[str, Any]:
        """Wait for the supervisor to be gone; return the end record."""
        until(lambda: launch.reap(self.pid), timeout_s, "the end of the supervisor; " + self.errors())
        assert not launch.is_supervised(str(self.dir))
        assert self.errors() == ""
        end = self.status()["end"]
        assert isinstance(end, dict)
        return end

    def run(self, timeout_s: float = 30.0) -> dict[str, Any]:
        return self.start().end(timeout_s)

    def stop(self, grace_s: float = 30.0, reason: str = "stopped", origin: str = "human") -> bool:
        return launch.request_stop(str(self.dir), grace_s, reason, origin, self.pid)

    def clean(self) -> None:
        status = self.status()
        if self.pid and not launch.reap(self.pid):
            os.kill(self.pid, signal.SIGKILL)
            until(lambda: launch.reap(self.pid))
        assert tree.end_tree(self.id, status or None) == []


# A host that lacks something, as the copied code sees it: another number for the call, another name for the file system.
_LACKS = {
    "proc": ("tree.py", 'return os.path.exists("/proc/self/stat")', "return False"),
    "terminal": ("pty.py", "os.openpty()", 'os.open("/nonexistent", 0), 0'),
    "cgroup": ("cgroup.py", 'kind[0] == "cgroup2"', 'kind[0] == "none"'),
    "subreaper": ("detach.py", "_PR_SET_CHILD_SUBREAPER = 36", "_PR_SET_CHILD_SUBREAPER = -1"),
    # And what is otherwise too short, or too fast, to be met:
    "haste": (
        "spawn.py",
        "        os.setpgid(0, 0)\n",
        '        os.setpgid(0, 0)\n        __import__("time").sleep(0.5)\n',
    ),
    "impatience": ("supervise.py", "\nLEFTOVER_GRACE_S = 1.5\n", "\nLEFTOVER_GRACE_S = 5.0\n"),
    "rights": ("tree.py", "].started) not in sent]", '].started) not in sent and table[pid].name != "sudo"]'),
    "patience": ("supervise.py", "\n_UNKILLABLE_S = 10.0\n", "\n_UNKILLABLE_S = 0.3\n"),
    "agents_patience": ("ends.py", "\nKILL_WITHIN_S = 10.0\n", "\nKILL_WITHIN_S = 0.3\n"),
    "fast_disk": (
        "recorder.py",
        "        self._index(time.time_ns()",
        "        time.sleep(0.05)\n        self._index(time.time_ns()",
    ),
}


def lib_without(lib: Path, lacks: tuple[str, ...]) -> Path:
    if not lacks:
        return lib
    target = lib / "-".join(("without", *lacks))
    if not target.exists():
        shutil.copytree(lib / "runyard", target / "runyard")
        take_away(target / "runyard", lacks)
    return target


def take_away(package: Path, lacks: tuple[str, ...]) -> None:
    """Have a copy of the package lack something."""
    for name in lacks:
        file, old, new = _LACKS[name]
        path = package / "agent" / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))


def fill(directory: Path) -> None:
    """Use up the space of a file system."""
    size = 1 << 20
    with open(directory / "filler", "ab", buffering=0) as file:
        while size:
            try:
                file.write(b"\0" * size)
            except OSError:
                size //= 2


def alive(pid: int) -> bool:
    """Tell whether a process lives (a zombie does not)."""
    return procs.start_time(pid) is not None


def lacking(reason: str) -> None:
    """Skip a test for what a user's machine may lack; where everything must be there, fail."""
    if os.environ.get("RUNYARD_CI") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def marked(attempt_id: str) -> list[int]:
    """Return the live processes that were executed with the marker of an attempt."""
    marker = ("RUNYARD_ATTEMPT=" + attempt_id).encode()
    return [
        int(p.parts[2]) for p in Path("/proc").glob("[0-9]*/environ") if alive(int(p.parts[2])) and marker in _bytes(p)
    ]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


# Programs that make a tree: a child, a process of another group, and a daemon that shed everything it could shed.
TREE = """if True:
    import os, signal, sys, time
    def say(): os.write(1, b"%d\\n" % os.getpid())
    def nap():
        if sys.argv[1] == "deaf": signal.signal(signal.SIGTERM, signal.SIG_IGN)
        say()
        while True: time.sleep(100)
    if os.fork() == 0: nap()                     # a child
    if os.fork() == 0:                           # a daemon: own session, no parent, no environment, no output
        os.setsid()
        if os.fork() == 0:
            os.chdir("/")
            os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", sys.argv[2], *sys.argv[1:]], {})
        os._exit(0)
    if os.fork() == 0: os.setpgid(0, 0); nap()   # a job of its own
    os.wait()
    nap()
"""
NAP = """if True:
    import os, signal, sys, time
    if sys.argv[1] == "deaf": signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(1, b"%d\\n" % os.getpid())
    for fd in range(3): os.close(fd)
    while True: time.sleep(100)
"""
# Leaves a process that shed everything it could and that nobody may kill (as one of another user) where "rights" lack,
# until it gets SIGUSR1. It prints its pid.
UNTOUCHABLE = """if True:
    import os, sys, time
    if os.fork() == 0:
        os.setsid()
        os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", sys.argv[1]], {})
    time.sleep(float(sys.argv[2]))
"""
SUDO = """if True:
    import os, signal, time
    def call_me(name): open("/proc/self/comm", "w").write(name)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda number, frame: call_me("mortal"))
    call_me("sudo")
    os.write(1, b"%d\\n" % os.getpid())
    for fd in range(3): os.close(fd)
    while True: time.sleep(100)
"""
