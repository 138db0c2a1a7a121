"""Runs that a program of this host began by itself (`runyard.client.own`): found in the home, told to the server, followed.

Such a run has no supervisor: its process is watched by pid and start time, and says itself how it ended.
"""

from __future__ import annotations

import os
import threading
import time

from runyard.agent import ends
from runyard.agent.signals import signal
from runyard.agent.stage import places, written
from runyard.agent.state import Attempt
from runyard.agent.waiting import wait_gone
from runyard.client import own
from runyard.wire import files, paths, procs, states
from runyard.wire.errors import RunyardError, UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.agent.context import Context

LOOK_S = 1.0
CODE_WAIT_S = 30.0
"""How long the description of the code, which is made in the background, is waited for."""
POLL_S = 0.2
KEEP_S = 2.0
"""A process that has ended may have left its last word a moment before."""
NO_WORD = "the process ended without a word: it was killed, or left by os._exit()"


class OwnRuns:
    """The thread that looks for such runs, and one thread for each of them."""

    def __init__(self, context: Context, agent_path: str) -> None:
        self._context = context
        self._top = own.directory(context.home)
        self._path = agent_path
        self._taken: set[str] = set()
        self._seen = -1

    def loop(self) -> None:
        """Look until the agent stops."""
        context = self._context
        context.wait_introduced()
        while not context.state.stopping.is_set():
            waiting = self._look()
            context.state.stopping.wait(POLL_S if waiting else LOOK_S)

    def _look(self) -> bool:
        """Take in what is new; True when something is about to be ready."""
        try:
            changed = os.stat(self._top).st_mtime_ns
            if changed == self._seen:
                return False
            names = set(os.listdir(self._top)) - self._taken
        except OSError:
            return False
        waiting = False
        for name in sorted(names):
            try:
                if self._begin(os.path.join(self._top, name)):
                    self._taken.add(name)
                else:
                    waiting = True
            except UnavailableError:
                waiting = True
            except (RunyardError, OSError) as exc:
                self._taken.add(name)
                self._context.log("the run in %s cannot be taken in: %s" % (os.path.join(self._top, name), exc))
        if not waiting:
            self._seen = changed
        return waiting

    def _begin(self, directory: str) -> bool:
        """Tell the server of a run; False while its code is being described."""
        facts = files.read_json(os.path.join(directory, own.RECORD))
        if not isinstance(facts, dict):
            return abs(time.time() - os.stat(directory).st_mtime) > CODE_WAIT_S
        if any(a.run == facts["id"] for a in self._context.state.all()):
            return True  # found in the journal
        code = files.read_json(os.path.join(directory, own.CODE))
        young = abs(time.time() * 1e6 - facts["created_us"]) < CODE_WAIT_S * 1e6  # by clocks that may jump
        if not isinstance(code, dict) and facts.get("describer") and young:
            return False
        spec = _spec(facts, code if isinstance(code, dict) else {})
        body = {"run": spec, "started_us": max(0, facts["created_us"])}
        record = self._context.links.call("PUT", "%s/runs/%s" % (self._path, facts["id"]), body)
        record["own"], record["started_us"] = directory, facts["created_us"]
        record["pid"], record["pid_start"] = facts["pid"], facts["pid_start"]
        record["boot_id"] = facts["boot_id"]
        attempt = Attempt(self._context.home.attempt_dir(record["attempt"]), record)
        os.makedirs(attempt.dir, 0o700, exist_ok=True)
        files.write_json(attempt.path("assignment.json"), record)
        self._place(attempt, directory)
        if self._context.state.add(attempt):
            self.follow(attempt)
        return True

    def _place(self, attempt: Attempt, directory: str) -> None:
        """Let what the program writes appear where the outputs of runs are."""
        staged = places(self._context.home.path, attempt)
        os.makedirs(os.path.join(staged.run_dir, paths.RECORDS), exist_ok=True)
        link = attempt.path("spool")
        if not os.path.islink(link):
            os.symlink(os.path.join(directory, "spool"), link)
        outputs = os.path.join(directory, "files")
        if not os.path.islink(outputs):
            os.rename(outputs, staged.tree)
            os.symlink(staged.tree, outputs)

    def follow(self, attempt: Attempt) -> None:
        """Watch a run that was taken in, now or by an earlier agent."""
        attempt.launched = True
        attempt.phase = states.PHASE_RUNNING
        self._taken.add(os.path.basename(attempt.record["own"]))
        threading.Thread(target=self._watch, args=(attempt,), name=attempt.id, daemon=True).start()
        self._context.launched(attempt)

    def _watch(self, attempt: Attempt) -> None:
        record, directory = attempt.record, attempt.record["own"]
        while not self._is_over(directory, record):
            wait_gone(record["pid"], record["pid_start"], LOOK_S)
            if self._context.state.stopping.is_set():
                return
        end = _end(attempt, directory, attempt.stop)
        staged = places(self._context.home.path, attempt)
        try:
            attempt.outputs = written(attempt.spec, staged)
        except (RunyardError, OSError) as exc:
            self._context.log("attempt %s: its outputs cannot be listed: %s" % (attempt.id, exc))
        with attempt.lock:
            attempt.end = ends.keep(attempt, end)
            attempt.phase = states.ENDED
        self._context.state.notify()
        self._context.ended(attempt)

    def _is_over(self, directory: str, facts: dict[str, Any]) -> bool:
        if os.path.exists(os.path.join(directory, own.FINISHED)):
            return True
        return facts["boot_id"] != procs.boot_id() or not procs.is_alive(facts["pid"], facts["pid_start"])


def stop(attempt: Attempt, grace_s: float) -> None:
    """End the process of such a run: SIGTERM, and SIGKILL after the grace."""
    record = attempt.record

    def alive() -> bool:
        return bool(record["boot_id"] == procs.boot_id() and procs.is_alive(record["pid"], record["pid_start"]))

    def kill() -> None:
        if attempt.phase != states.ENDED and alive():
            os.kill(record["pid"], signal.SIGKILL)

    if alive():
        os.kill(record["pid"], signal.SIGTERM)
        timer = threading.Timer(grace_s, kill)
        timer.daemon = True
        timer.start()


def _spec(facts: dict[str, Any], code: dict[str, Any]) -> dict[str, Any]:
    """Return the run spec: what the program said, and what was found of its code."""
    spec = {
        "id": facts["id"],
        "project": facts["project"] or code.get("project") or own.as_name(os.path.basename(facts["cwd"])) or "root",
        "name": facts["name"],
        "message": facts["message"],
        "command": facts["command"],
        "program": facts["command"][0],
        "source": facts["cwd"],
        "cwd": "",
        "repo_name": "files",
        "snapshot": {"tree": None},
        "requeue": False,
    }
    spec.update(code.get("spec") or {})
    spec["in_place"] = True
    return spec


def _end(attempt: Attempt, directory: str, stopped: dict[str, Any] | None) -> dict[str, Any]:
    last = files.read_json(os.path.join(directory, own.FINISHED))
    if isinstance(last, dict):
        end = ends.make(states.EXITED, states.USER)
        end["exit_code"] = int(last.get("exit_code") or 0)
        end["ended_at"] = int(last.get("ended_us") or end["ended_at"])
    elif stopped is not None:
        end = ends.make(stopped["reason"], stopped["origin"])
    else:
        end = ends.make(states.SIGNALED, states.USER, NO_WORD)
    end["started_at"] = attempt.record.get("started_us")
    return end
