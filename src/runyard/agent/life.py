"""The life of one attempt on this host: one thread from its assignment to its end.

Journal first: ``assignment.json`` is written before anything else happens, so whatever happens to this process, the
next one finds the attempt (`adopt`). No step here depends on the server being there but the two at which it has a say.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
import traceback

from runyard.agent import collecting, ends, environment, gpulock, gpus, launch, outputs, own, tree
from runyard.agent.remarks import remarks
from runyard.agent.stage import StagingError, places, stage, written
from runyard.agent.state import HANDED_BACK, Attempt
from runyard.agent.waiting import wait_gone
from runyard.wire import files, paths, procs, states
from runyard.wire.errors import NotFoundError, RunyardError, SnapshotError, StaleError, UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.agent.context import Context
    from runyard.agent.link import Backoff
    from runyard.agent.stage import Staged

COLLECTOR_LOOK_S = 10.0
POLL_S = 0.1
"""Interval of looking at supervisors where the kernel has no pidfds (Linux before 5.3, Python before 3.9)."""
MEMORY_WITHIN_S = 2.0
"""A GPU's memory may be given back a moment after its last process has ended."""
SLOW_GRANT_S = 1.0
FRESH_GRANT_S = 5.0
START_WITHIN_S = 30.0
"""Ages of a leave to start: asked for again at once, before the supervisor is started; the supervisor starts nothing on
an older one. Far less than a lease, after which the run may be given to somebody else."""
CLEAR_WITHIN_S = 10.0
KILL_AGAIN_S = 1.0
DRIVER_WITHIN_S = 15.0
ENVIRONMENT_LOST = (
    "the environment of this run is gone: it is no part of the database, nor of a backup; "
    "to run it again with the one of now: runyard rerun %s"
)


class NotNowError(Exception):
    """The attempt cannot start here now, through no fault of its run; no attempt is used."""


class WithdrawnError(Exception):
    """The server did not let this attempt start (the fence); nothing was started."""


class StoppedEarlyError(Exception):
    """A stop came before the program was executed."""


class Life:
    """Starts, follows and closes attempts. One object for all; each attempt has a thread of its own."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._state = context.state

    def begin(self, record: dict[str, Any], env: dict[str, str]) -> bool:
        """Take a checked assignment in and start its thread; False when it is known already."""
        attempt = _attempt(self._context.home.attempt_dir(record["attempt"]), record, env)
        if not self._state.add(attempt):
            return False
        threading.Thread(target=self._whole, args=(attempt,), name=attempt.id, daemon=True).start()
        return True

    def follow(self, attempt: Attempt) -> None:
        """Take in an attempt found in the journal whose program may have been executed."""
        threading.Thread(target=self._rest, args=(attempt,), name=attempt.id, daemon=True).start()

    def give_up(self, attempt: Attempt) -> None:
        """Take in an attempt found in the journal that was never started: its environment is gone with the agent."""
        why = "the agent was restarted before the program was started"
        threading.Thread(target=self._hand_back, args=(attempt, why), name=attempt.id, daemon=True).start()

    def stop(self, attempt: Attempt, grace_s: float, reason: str, origin: str) -> None:
        """Stop an attempt, in whatever phase it is. A repeated stop only ever shortens the grace."""
        with attempt.lock:
            if attempt.phase == states.ENDED:
                return
            if attempt.stop is not None:
                if grace_s >= attempt.stop["grace_s"]:
                    return
                reason, origin = attempt.stop["reason"], attempt.stop["origin"]
            attempt.stop = {"grace_s": grace_s, "reason": reason, "origin": origin}
            if attempt.launched:
                attempt.phase = states.STOPPING
                if attempt.record.get("own"):
                    own.stop(attempt, grace_s)
                    return
                pid = attempt.supervisor[0] if attempt.supervisor else None
                launch.request_stop(attempt.dir, grace_s, reason, origin, pid)
        self._state.notify()

    # -- the thread of an attempt

    def _whole(self, attempt: Attempt) -> None:
        if attempt.record.get("env_lost"):  # it will not come back, so this is no loss that another attempt makes good
            end = ends.make(states.NOT_STARTED, states.USER, ENVIRONMENT_LOST % attempt.run)
            self._close(attempt, ends.keep(attempt, end))
            return
        try:
            self._start(attempt)
        except NotNowError as exc:
            self._hand_back(attempt, str(exc))
        except WithdrawnError as exc:
            self._give_back(attempt, "the server withdrew it: %s" % exc)
        except StoppedEarlyError:
            stop = attempt.stop or {"reason": states.STOPPED, "origin": states.HUMAN}
            self._close(
                attempt, ends.keep(attempt, ends.make(stop["reason"], stop["origin"], "stopped before the start"))
            )
        except (StagingError, SnapshotError) as exc:
            text = exc.message + (" (%s)" % exc.hint if exc.hint else "")
            self._close(attempt, ends.keep(attempt, ends.make(states.STAGING_FAILED, states.INFRA, text)))
        except Exception as exc:  # noqa: BLE001  one run that cannot be started must not take the agent from the others
            if not isinstance(exc, (OSError, RunyardError)):
                self._context.log("attempt %s: %s" % (attempt.id, traceback.format_exc()))
            end = ends.make(states.STAGING_FAILED, states.INFRA, str(exc) or type(exc).__name__)
            self._close(attempt, ends.keep(attempt, end))
        else:
            self._rest(attempt)

    def _rest(self, attempt: Attempt) -> None:
        collecting.start(self._context, attempt)  # again, if this agent found the run in the journal
        self._await_exit(attempt)
        end = ends.found(attempt, self._log_path(attempt))
        if end.get("unkilled"):
            self._await_tree(attempt, end)
        collecting.catch_up(self._context, attempt)
        self._close(attempt, end)

    def _log_path(self, attempt: Attempt) -> str:
        return paths.log_path(places(self._context.home.path, attempt).run_dir, attempt.number)

    def _start(self, attempt: Attempt) -> None:
        context = self._context
        os.makedirs(attempt.dir, 0o700, exist_ok=True)
        files.write_json(attempt.path("assignment.json"), attempt.record)
        slots = [context.slot(name) for name in attempt.slots]
        if None in slots:
            raise NotNowError("this host has no slot %s" % ", ".join(attempt.slots))
        if not self._state.wait_for_turn(attempt, 0.0):
            context.beat_now()
            if not self._state.wait_for_turn(attempt, context.timing.wait_for_run_s):
                raise NotNowError("an earlier attempt of the run, or on the slot, is still alive on this host")
        self._check_stop(attempt)
        staged = self._stage(attempt)
        taken = [slot for slot in slots if slot is not None]
        while True:
            self._check_slots(attempt, taken)
            asked = procs.uptime_s()
            self._grant(attempt)
            if procs.uptime_s() - asked < SLOW_GRANT_S and self._launch(attempt, staged, taken, asked):
                break

    def _check_stop(self, attempt: Attempt) -> None:
        if attempt.stop is not None:
            raise StoppedEarlyError

    def _stage(self, attempt: Attempt) -> Staged:
        context = self._context
        code = str((attempt.spec.get("snapshot") or {}).get("tree") or "")
        attempt.phase = states.STAGING
        if code and not context.cache.has(code):
            self._say_phase(attempt, states.STAGING)
        backoff = context.links.target.backoff()
        while True:
            try:
                return stage(context.home.path, attempt, context.cache)
            except UnavailableError:
                self._pause(attempt, backoff)
            except NotFoundError as exc:
                raise StagingError("the server has not got the code of this run: %s" % exc.message) from exc

    def _pause(self, attempt: Attempt, backoff: Backoff) -> None:
        """Wait for a server that is away, unless there is no reason to go on."""
        self._check_stop(attempt)
        if self._state.stopping.wait(backoff.next_s()):
            sys.exit()  # ends this thread only: the journal is there, and the agent is going

    def _say_phase(self, attempt: Attempt, phase: str) -> None:
        try:
            self._context.links.call(
                "POST", "/api/v1/attempts/%s/phase" % attempt.id, {"epoch": attempt.epoch, "phase": phase}
            )
        except StaleError as exc:
            raise WithdrawnError(exc.message) from exc
        except UnavailableError:
            pass  # the next heartbeat says it

    def _check_slots(self, attempt: Attempt, slots: list[dict[str, Any]]) -> None:
        """The last look before the start: this host's lock on each GPU, and nobody else in its memory."""
        cards = [slot for slot in slots if slot["kind"] == "gpu"]
        for slot in cards[len(attempt.gpu_locks) :]:
            try:
                lock = gpulock.take(slot["uuid"], self._context.lock_place)
            except OSError as exc:
                raise NotNowError("%s cannot be locked: %s" % (slot["name"], exc)) from exc
            if lock is None:
                raise NotNowError("%s is in use by another yard on this host" % slot["name"])
            attempt.gpu_locks.append(lock)
        for slot in cards:
            deadline = time.monotonic() + MEMORY_WITHIN_S
            while True:
                verdict = self._context.gpus.check_soon(slot["uuid"], DRIVER_WITHIN_S)
                if verdict.free:
                    break
                if not verdict.by_memory or time.monotonic() >= deadline:
                    raise NotNowError("%s: %s" % (slot["name"], verdict.why))
                time.sleep(POLL_S)

    def _grant(self, attempt: Attempt) -> None:
        """Get the server's leave to execute the program. Nothing is executed without it."""
        backoff = self._context.links.target.backoff()
        while True:
            self._check_stop(attempt)
            body = {"epoch": attempt.epoch, "phase": states.PHASE_RUNNING}
            try:
                answer = self._context.links.call("POST", "/api/v1/attempts/%s/phase" % attempt.id, body)
                if answer.get("ok") is True:
                    attempt.phase = states.PHASE_RUNNING
                    return
            except UnavailableError:
                pass
            except RunyardError as exc:
                raise WithdrawnError(exc.message) from exc
            self._pause(attempt, backoff)

    def _launch(self, attempt: Attempt, staged: Staged, slots: list[dict[str, Any]], granted: float) -> bool:
        """Start the supervisor; False when the grant (asked for at ``granted``, see `procs.uptime_s`) is no longer fresh.

        This process, or the whole machine, may have been stopped since, and the run given to somebody else. It may also
        be stopped after the look at the time here, so the supervisor looks again.
        """
        context, spec = self._context, attempt.spec
        port = context.take_port(attempt.id)
        server = context.links.target.url
        home = context.home.path if server.startswith("unix:") else ""
        env = environment.build(attempt, slots, staged, server, home, context.lib, port)
        program, argv = environment.argv(spec, "" if spec.get("in_place") else staged.tree)
        value = {
            "argv": argv,
            "program": program,
            "cwd": staged.cwd,
            "env": env,
            "pty": bool(spec.get("pty", True)),
            "log": paths.log_path(staged.run_dir, attempt.number),
            "times": os.path.join(staged.run_dir, paths.RECORDS, "times.%d" % attempt.number),
            "time_limit_s": spec.get("time_limit_s"),
            "grace_s": attempt.record["grace_s"],
            "start_by": granted + START_WITHIN_S,
            "slots": attempt.slots,
            "gpu_uuids": [slot["uuid"] for slot in slots if slot["kind"] == "gpu"],
        }
        files.write_json(attempt.path("launch.json"), value)
        collecting.prepare(context, attempt, staged, slots)
        keep = [lock.fd for lock in attempt.gpu_locks]
        with attempt.lock:
            self._check_stop(attempt)
            if procs.uptime_s() - granted > FRESH_GRANT_S:
                return False
            pid = launch.start_supervisor(context.python, context.lib, attempt.dir, keep)
            attempt.supervisor = (pid, procs.start_time(pid))
            attempt.launched = True
        attempt.env = None
        collecting.start(context, attempt)
        context.launched(attempt)
        return True

    def _await_exit(self, attempt: Attempt) -> None:
        """Return once the supervisor has ended."""
        while attempt.supervisor is None and launch.is_supervised(attempt.dir):
            status = launch.read_status(attempt.dir) or {}
            if status.get("supervisor_pid"):
                attempt.supervisor = (status["supervisor_pid"], status.get("supervisor_start"))
            else:
                time.sleep(POLL_S)  # it is just starting
        if attempt.supervisor is None:
            return
        pid, started = attempt.supervisor
        wait_gone(pid, started, COLLECTOR_LOOK_S)
        while procs.is_alive(pid, started):
            collecting.start(self._context, attempt)  # if it has been killed
            wait_gone(pid, started, COLLECTOR_LOOK_S)
        while not launch.reap(pid) or launch.is_supervised(attempt.dir):
            time.sleep(POLL_S)

    def _await_tree(self, attempt: Attempt, end: dict[str, Any]) -> None:
        """Return once nothing of the attempt lives, however long that takes: what lives may hold its GPU, and its files.

        A process in a system call that does not return (state D), or of another user (sudo), outlives its kill.
        """
        with attempt.lock:
            attempt.phase = states.STOPPING
        left = ends.kill_again(attempt, end)
        while left:
            self._say_unkilled(attempt, "cannot be killed: " + ", ".join("%d %s" % (p.pid, p.name) for p in left))
            if self._state.stopping.wait(KILL_AGAIN_S):
                sys.exit()  # this thread only: the next agent goes on
            left = ends.kill_again(attempt, end)
        self._say_unkilled(attempt, "")

    def _say_unkilled(self, attempt: Attempt, text: str) -> None:
        if text == attempt.unkilled:
            return
        self._context.log("attempt %s: %s" % (attempt.id, text or "nothing of it lives any more"))
        attempt.unkilled = text
        if self._context.introduced.is_set():  # else the hello says it
            self._context.beat_now()

    # -- after the end

    def _close(self, attempt: Attempt, end: dict[str, Any]) -> None:
        """Look at what the run left, then hand the end to the reporter."""
        context = self._context
        self._clear_gpus(attempt)
        staged = places(context.home.path, attempt)
        if end.get("started_at") is not None:
            try:
                if end.get("exit_code") == 0 and context.shared:
                    outputs.hand_on(staged.tree, attempt.spec.get("adopt") or [], context.home.downloads)
                end["detail"] = remarks(attempt, end, staged, context.shared)
                attempt.outputs = written(attempt.spec, staged)
            except (OSError, SnapshotError) as exc:
                context.log("attempt %s: its outputs cannot be listed: %s" % (attempt.id, exc))
        _unlink(attempt.path("launch.json"))
        for lock in attempt.gpu_locks:
            lock.release()
        attempt.gpu_locks = []
        with attempt.lock:
            attempt.end = end
            attempt.phase = states.ENDED
        context.free_port(attempt.id)
        self._state.notify()
        context.ended(attempt)

    def _clear_gpus(self, attempt: Attempt) -> None:
        """Wait until nothing of the attempt's tree holds its GPUs any more; the slots are free after that."""
        uuids = [slot["uuid"] for slot in map(self._context.slot, attempt.slots) if slot and slot["kind"] == "gpu"]
        deadline = time.monotonic() + CLEAR_WITHIN_S
        for uuid in uuids:
            while time.monotonic() < deadline:
                pids = gpus.within(DRIVER_WITHIN_S, functools.partial(self._context.gpus.pids_of, uuid, attempt.id))
                if not pids:
                    break
                tree.end_tree(attempt.id, launch.read_status(attempt.dir), 1.0)
                time.sleep(POLL_S)

    def _hand_back(self, attempt: Attempt, why: str) -> None:
        """Give the attempt back unused. The server hears first that the slot is not free, so it does not come again."""
        context = self._context
        for lock in attempt.gpu_locks:
            lock.release()
        attempt.gpu_locks = []
        context.log("attempt %s handed back: %s" % (attempt.id, why))
        try:
            files.write_json(attempt.path(HANDED_BACK), why)
        except OSError:
            pass  # a later agent then finds out anew that it was never started
        context.wait_introduced()
        context.beat_now()
        body = {"epoch": attempt.epoch, "why": why}
        path = "/api/v1/attempts/%s/hand-back" % attempt.id
        try:
            if context.links.persist("POST", path, body, self._state.stopping) is None:
                return
        except RunyardError as exc:
            # It may hold the attempt to be running: an agent that was killed after the leave to start had it.
            self._give_back(attempt, "%s (%s)" % (why, exc.message))
            return
        self._forget(attempt)

    def _give_back(self, attempt: Attempt, why: str) -> None:
        """Report as an end that nothing was started and nothing will be. Whatever the server holds, it is right then."""
        end = ends.make(states.HANDED_BACK, states.SCHEDULER, why)
        self._close(attempt, ends.keep(attempt, end))

    def _forget(self, attempt: Attempt) -> None:
        for lock in attempt.gpu_locks:
            lock.release()
        attempt.gpu_locks = []
        self._context.free_port(attempt.id)
        self._context.forget(attempt)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _attempt(directory: str, record: dict[str, Any], env: dict[str, str]) -> Attempt:
    return Attempt(directory, {name: value for name, value in record.items() if name != "env"}, env)
