"""Runs that a program of this host began by itself (`runyard.client.own`): found in the home, told to the server, followed.

Such a run has no supervisor: its process is watched by pid and start time, and says itself how it ended.
"""

from __future__ import annotations

import os
import threading
import time

from runyard.agent import ends
from runyard.agent.link import FailedError
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
BATCH = 50
"""Runs that the server is told of at once."""
AT_ONCE = 4
"""Threads that report runs which were over when they were found."""
NO_WORD = "the process ended without a word: it was killed, or left by os._exit()"


class OwnRuns:
    """The thread that looks for such runs, and one thread for each that goes on."""

    def __init__(self, context: Context, agent_path: str) -> None:
        self._context = context
        self._top = own.directory(context.home)
        self._path = agent_path
        self._taken: set[str] = set()
        self._waiting: dict[str, dict[str, Any]] = {}
        """Records of runs whose code is being described, by directory."""
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
            names = set(os.listdir(self._top))
        except OSError:
            return False
        self._taken &= names
        self._waiting = {name: facts for name, facts in self._waiting.items() if name in names}
        waiting = False
        ready: list[_Begun] = []
        in_journal = {attempt.run for attempt in self._context.state.all()}
        for name in sorted(names - self._taken):
            try:
                begun = self._read(name)
            except OSError as exc:
                self._give_up(name, exc)
                continue
            if begun is None:
                waiting = name not in self._taken or waiting
            elif begun.spec["id"] in in_journal:
                self._taken.add(name)
            else:
                ready.append(begun)
        for start in range(0, len(ready), BATCH):
            waiting = not self._begin(ready[start : start + BATCH]) or waiting
        if not waiting:
            self._seen = changed
        return waiting

    def _give_up(self, name: str, why: Exception) -> None:
        self._taken.add(name)
        self._context.log("the run in %s cannot be taken in: %s" % (os.path.join(self._top, name), why))

    def _read(self, name: str) -> _Begun | None:
        """Return what is known of a run; None while its code is being described."""
        directory = os.path.join(self._top, name)
        facts = self._waiting.get(name) or files.read_json(os.path.join(directory, own.RECORD))
        if not isinstance(facts, dict):
            if abs(time.time() - os.stat(directory).st_mtime) > CODE_WAIT_S:
                self._taken.add(name)
            return None
        code = files.read_json(os.path.join(directory, own.CODE))
        young = abs(time.time() * 1e6 - facts["created_us"]) < CODE_WAIT_S * 1e6  # by clocks that may jump
        if not isinstance(code, dict) and facts.get("describer") and young:
            self._waiting[name] = facts
            return None
        self._waiting.pop(name, None)
        return _Begun(directory, facts, code if isinstance(code, dict) else {})

    def _begin(self, begun: list[_Begun]) -> bool:
        """Tell the server of runs; False when that has to be tried again."""
        body = {"runs": [{"run": item.spec, "started_us": max(0, item.facts["created_us"])} for item in begun]}
        try:
            records = self._context.links.call("POST", self._path + "/runs", body)["assign"]
        except RunyardError as exc:
            passing = isinstance(exc, UnavailableError)
            if len(begun) > 1 and (isinstance(exc, FailedError) or not passing):
                done = [self._begin([item]) for item in begun]  # one must not hold up the others
                return all(done)
            if passing:
                return False
            self._give_up(os.path.basename(begun[0].directory), exc)
            return True
        over = []
        for item, record in zip(begun, records):
            try:
                attempt = self._take(item, record)
            except OSError as exc:
                self._give_up(os.path.basename(item.directory), exc)
                continue
            if self._is_over(attempt):
                over.append(attempt)
            else:
                self.follow(attempt)
        for start in range(AT_ONCE):
            if over[start::AT_ONCE]:
                threading.Thread(target=self._end, args=(over[start::AT_ONCE],), daemon=True).start()
        return True

    def _take(self, begun: _Begun, record: dict[str, Any]) -> Attempt:
        """Put a run that the server has taken in into the journal."""
        record["spec"], record["own"] = begun.spec, begun.directory
        for name in ("pid", "pid_start", "boot_id", "created_us"):
            record[name] = begun.facts[name]
        attempt = Attempt(self._context.home.attempt_dir(record["attempt"]), record)
        os.makedirs(attempt.dir, 0o700, exist_ok=True)
        files.write_json(attempt.path("assignment.json"), record)
        self._place(attempt, begun.directory)
        self._know(attempt)
        self._context.state.add(attempt)
        return attempt

    def _know(self, attempt: Attempt) -> None:
        attempt.launched = True
        attempt.phase = states.PHASE_RUNNING
        self._taken.add(os.path.basename(attempt.record["own"]))

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
        self._know(attempt)
        threading.Thread(target=self._watch, args=(attempt,), name=attempt.id, daemon=True).start()
        self._context.launched(attempt)

    def _watch(self, attempt: Attempt) -> None:
        while not self._is_over(attempt):
            wait_gone(attempt.record["pid"], attempt.record["pid_start"], LOOK_S)
            if self._context.state.stopping.is_set():
                return
        self._end([attempt])

    def _end(self, attempts: list[Attempt]) -> None:
        """Report runs that are over. How they ended is found anew by an agent that comes later."""
        for attempt in attempts:
            end = _end_of(attempt)
            try:
                attempt.outputs = written(attempt.spec, places(self._context.home.path, attempt))
            except (RunyardError, OSError) as exc:
                self._context.log("attempt %s: its outputs cannot be listed: %s" % (attempt.id, exc))
            with attempt.lock:
                attempt.end = end
                attempt.phase = states.ENDED
        self._context.state.notify()
        self._context.ended(*attempts)

    @staticmethod
    def _is_over(attempt: Attempt) -> bool:
        record = attempt.record
        if os.path.exists(os.path.join(record["own"], own.FINISHED)):
            return True
        return record["boot_id"] != procs.boot_id() or not procs.is_alive(record["pid"], record["pid_start"])


class _Begun:
    """A run that a program has begun: its directory, what the program said of it, and the spec for the server."""

    def __init__(self, directory: str, facts: dict[str, Any], code: dict[str, Any]) -> None:
        self.directory = directory
        self.facts = facts
        self.spec = _spec(facts, code)


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


def _end_of(attempt: Attempt) -> dict[str, Any]:
    last, stopped = files.read_json(os.path.join(attempt.record["own"], own.FINISHED)), attempt.stop
    if isinstance(last, dict):
        end = ends.make(states.EXITED, states.USER)
        end["exit_code"] = int(last.get("exit_code") or 0)
        end["ended_at"] = int(last.get("ended_us") or end["ended_at"])
    elif stopped is not None:
        end = ends.make(stopped["reason"], stopped["origin"])
    else:
        end = ends.make(states.SIGNALED, states.USER, NO_WORD)
    end["started_at"] = attempt.record.get("created_us")
    return end
