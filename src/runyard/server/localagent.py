"""The agent of the server's own host: started as a child, again when it dies, and stopped with the server.

An agent that lives already (it holds `Home.agent_lock`) is left alone. If it was started by a server of this home that
was killed since, it is stopped with this server all the same; one that somebody started by hand is not. Runs are never
touched: they belong to their supervisors.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from runyard.wire import files, procs, settings
from runyard.wire.library import install
from runyard.wire.paths import Home

logger = logging.getLogger("runyard.server.agent")
LOOK_S = 0.5
"""How often an agent that is no child is looked after."""
BACKOFF_S = (0.2, 1.0, 5.0, 15.0, 60.0)
HEALTHY_S = 60.0
"""An agent that lived this long starts over with the shortest backoff."""
STOP_S = 8.0
LOG_MAX = 1 << 20


def agent_environment(values: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the local agent: the server's own, and the settings that it cannot read itself."""
    kept = {name: value for name, value in environ.items() if name != "PYTHONPATH"}
    return {**kept, **settings.agent_variables(values)}


def agent_command(home: Home) -> list[str]:
    """Return the argv of the local agent, made from an immutable copy of the client half in the home."""
    return [sys.executable, "-I", "-S", install(home.path), "--home", home.path]


class LocalAgent:
    """Keeps one agent alive on this host, from a thread of its own."""

    def __init__(
        self, home: Home, lock: int, environ: Mapping[str, str], umask: int, command: Sequence[str] = ()
    ) -> None:
        """``lock``: the open file whose lock makes this process the home's server."""
        self._home = home
        self._server_lock = lock
        self._environ = dict(environ)
        self._umask = umask
        self._given = list(command)
        self._note = os.path.join(home.host_dir(), "agent.json")
        self._log = os.path.join(home.host_dir(), "agent.err")
        self._stop = threading.Event()
        self._lock = threading.Lock()
        """Guards the start of a child against the end of the server."""
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="agent", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the agent that a server of this home started, and wait for it; SIGKILL after `STOP_S`."""
        with self._lock:
            self._stop.set()
            process = self._process
        if process is not None:
            process.terminate()
        self._thread.join(STOP_S + 2.0)
        if process is not None and process.poll() is None:
            logger.warning("agent %d does not stop, killing it", process.pid)
            process.kill()
            self._thread.join(2.0)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            if files.is_locked(self._home.agent_lock()) or not self._has_home():
                self._stop.wait(LOOK_S)
                continue
            started = time.monotonic()
            self._child()
            failures = 1 if time.monotonic() - started > HEALTHY_S else failures + 1
            self._stop.wait(BACKOFF_S[min(failures, len(BACKOFF_S)) - 1])
        if self._has_home():
            self._end_orphan()

    def _has_home(self) -> bool:
        """Tell whether the home is still this server's, so that what is there is its own."""
        return files.is_at(self._server_lock, self._home.server_lock)

    def _child(self) -> None:
        """Run an agent to its end, or to the server's."""
        try:
            if os.path.exists(self._log) and os.path.getsize(self._log) > LOG_MAX:
                os.replace(self._log, self._log + ".1")
            command = self._given or agent_command(self._home)
            with self._lock, open(self._log, "ab") as log:
                if self._stop.is_set():
                    return
                self._process = process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ, cwd="/",
                    start_new_session=True, umask=self._umask,
                )  # fmt: skip
            files.write_json(self._note, {"pid": process.pid, "pid_start": procs.start_time(process.pid)})
        except OSError as exc:
            logger.error("the agent cannot be started: %s", exc)  # noqa: TRY400  the reason says it all
            return
        logger.info("agent started, pid %d", process.pid)
        process.wait()  # with a time-out it would look 20 times a second
        if not self._stop.is_set():
            logger.warning("agent %d ended with status %d; see %s", process.pid, process.returncode, self._log)

    def _end_orphan(self) -> None:
        """Stop an agent that an earlier server of this home started."""
        note = files.read_json(self._note)
        if not isinstance(note, dict):
            return
        pid, started = int(note.get("pid") or 0), note.get("pid_start")
        deadline = time.monotonic() + STOP_S
        number = signal.SIGTERM
        while pid and procs.is_alive(pid, started) and number != signal.SIGKILL:
            if time.monotonic() > deadline:
                number = signal.SIGKILL
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            while procs.is_alive(pid, started) and time.monotonic() < deadline:
                time.sleep(0.05)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._note)
