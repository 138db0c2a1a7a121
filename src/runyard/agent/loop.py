"""The agent: what each of its threads does, and when the process may end.

main       waits for a signal, or for a draining agent to have nothing left
heartbeat  says hello, then renews all leases with one request; a change of the slots goes out at once; once a day it
           marks the journal as used (`keep`)
poll       one long poll that brings work, stops and drain the moment they exist
report     sends ends (`report`); ship: what runs log, and where no directory is shared their output and files (`ship`)
own        looks for runs that programs of this host begin by themselves (`own`)
gpus       looks at the GPUs, where there are any, so that a hanging driver delays nobody else
one per attempt (`life`)
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback

from runyard.agent import adopt, hello
from runyard.agent.assignment import check, is_id
from runyard.agent.keep import Keeper
from runyard.agent.life import Life
from runyard.agent.link import Link
from runyard.agent.own import OwnRuns
from runyard.agent.report import Reporter
from runyard.agent.ship import Shipper
from runyard.wire import files, states
from runyard.wire.errors import AuthError, ForbiddenError, InvalidError, RunyardError, UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from runyard.agent.context import Context
    from runyard.agent.link import Backoff
    from runyard.agent.state import Attempt

REPEATED_POLL_S = 0.5
"""Least time between polls whose answers say nothing new, as while draining."""
GPU_INTERVAL_S = 5.0
REMEDY = (
    "on the server's host: runyard token create NAME --scope agent; then here RUNYARD_TOKEN=... or --token-file FILE"
)
_STOP_SIGNALS = frozenset((signal.SIGTERM, signal.SIGINT))


class Agent:
    """One agent process. ``lock``: the open `Home.agent_lock`.

    ``fixed``: the server was named, so its home is not ours unless it says so.
    """

    def __init__(self, context: Context, lock: int, name: str = "", fixed: bool = False) -> None:
        self._context = context
        self._state = context.state
        self._lock = lock
        self._name = name
        self._fixed = fixed
        self._id = hello.agent_id(context.home, name)
        self._path = "/api/v1/agents/" + self._id
        self._life = Life(context)
        self._own = OwnRuns(context, self._path)
        self._reporter = Reporter(context)
        self._shipper: Shipper | None = None
        self._settled = False
        context.shared = not fixed
        self._done: list[Attempt] = []
        self._beat_wake = threading.Event()
        self._taking = threading.Lock()
        self._heartbeat_s = context.timing.heartbeat_s
        self._exit_status = 0
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        context.ended = self._ended
        context.beat_now = self._beat_now
        context.look_whether_done = self._look_whether_done

    # -- main thread

    def run(self) -> int:
        """Serve until SIGTERM, SIGINT or the end of a drain; runs that are still going go on. Returns exit status."""
        self._catch_signals()
        self._context.cache.clean()
        gpus = self._context.gpus.choice != "none" and self._context.gpus.nvml.present()
        if gpus:
            self._context.look_at_gpus()
        for kind, attempt in adopt.find(self._context):
            if kind == adopt.DONE:
                self._done.append(attempt)
            else:
                follow = {adopt.STARTED: self._life.follow, adopt.OWN: self._own.follow}
                follow.get(kind, self._life.give_up)(attempt)
        works = [self._beat_loop, self._poll_loop, self._own.loop, self._reporter.run]
        for work in works + ([self._gpu_loop] if gpus else []):
            threading.Thread(target=self._guarded, args=(work,), name=work.__name__, daemon=True).start()
        while not self._state.stopping.is_set():
            if _STOP_SIGNALS.intersection(os.read(self._wake_read, 4096)):
                self._quit()
        return self._exit_status

    def _catch_signals(self) -> None:
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in _STOP_SIGNALS:
            signal.signal(number, _on_signal)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _quit(self) -> None:
        self._state.stopping.set()
        self._beat_wake.set()
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            pass  # it is full of bytes that wake just as well

    def _guarded(self, work: Callable[[], None]) -> None:
        """A defect ends the process with a traceback: the next one finds everything again."""
        try:
            work()
        except (AuthError, ForbiddenError) as exc:
            self._context.log(
                "the server refuses this agent: %s (%s)"
                % (exc.message, REMEDY if isinstance(exc, AuthError) else exc.hint)
            )
            self._exit_status = exc.exit_status
            self._quit()
        except Exception:  # noqa: BLE001  whatever it is
            self._context.log(traceback.format_exc())  # before the main thread ends, and this one with it
            self._exit_status = 70
            self._quit()

    def _ended(self, *attempts: Attempt) -> None:
        if self._shipper is not None:
            self._shipper.flush(attempts)
        self._reporter.add(*attempts)

    def _look_whether_done(self) -> None:
        shipped = self._shipper is None or self._shipper.idle()
        if self._state.draining and self._settled and self._state.idle() and shipped:
            self._context.log("drained")
            self._quit()

    # -- heartbeat thread

    def _beat_loop(self) -> None:
        target = self._context.links.target
        backoff, link = target.backoff(), Link(target)
        keeper = Keeper(self._context.home.host_dir())
        while not self._state.stopping.is_set():
            keeper.keep()
            if not self._has_home():
                self._context.log("%s is gone, or another home: this agent ends" % self._context.home.path)
                self._quit()
                return
            try:
                if not self._context.introduced.is_set():
                    self._introduce(link)
                else:
                    self._beat(link)
                backoff.reset()
                wait = self._heartbeat_s
            except UnavailableError as exc:
                self._context.log("the server does not answer: %s" % exc.message)
                wait = backoff.next_s()
            except (AuthError, ForbiddenError) as exc:
                if not self._settled:  # it has never worked: a person has to see to it
                    raise
                wait = self._refused(exc, backoff)
                self._take_token()
            except RunyardError as exc:
                wait = self._refused(exc, backoff)
            self._beat_wake.wait(wait)
            self._beat_wake.clear()

    def _has_home(self) -> bool:
        return files.is_at(self._lock, self._context.home.agent_lock())

    def _refused(self, error: RunyardError, backoff: Backoff) -> float:
        """The server does not know this agent (it was restored, say) or its token: say hello again after a wait."""
        self._context.log("the server refuses this agent: %s" % error.message)
        self._context.introduced.clear()
        return min(self._context.timing.refused_s, backoff.next_s() * 10.0)

    def _take_token(self) -> None:
        """Where the home is the server's, show from now on the token in ``server.json``: each start makes a new one."""
        info = files.read_json(self._context.home.server_json) if self._fixed and self._context.shared else None
        if isinstance(info, dict) and info.get("token"):
            self._context.links.target.token = str(info["token"])

    def _introduce(self, link: Link) -> None:
        target = self._context.links.target
        shared = not self._fixed or hello.shares_home(self._context.home, target)
        with self._taking:
            body = hello.body(self._context, self._name, shared)
        answer = link.call("PUT", self._path, body)
        every = answer.get("heartbeat_s")
        if isinstance(every, (int, float)) and 0.05 <= every <= 3600.0:
            self._heartbeat_s = float(every)
        self._settle(shared)
        self._apply(answer.get("attempts"))
        self._context.introduced.set()

    def _settle(self, shared: bool) -> None:
        """Once it is known whether a directory is shared: start shipping, or drop what needs none."""
        self._context.shared = shared
        if self._settled:
            return
        if self._fixed:
            self._context.log("connected to %s" % self._context.links.target.url)
        self._shipper = Shipper(self._context, shared)
        self._reporter.shipper = self._shipper
        self._context.launched = self._shipper.wake
        for work in self._shipper.threads:
            threading.Thread(target=self._guarded, args=(work,), name="ship", daemon=True).start()
        self._settled = True
        for attempt in self._done:
            self._shipper.add(attempt)

    def _beat(self, link: Link) -> None:
        answer = link.call(
            "POST", self._path + "/heartbeat", hello.heartbeat(self._context), self._context.timing.beat_timeout_s
        )
        self._apply(answer.get("attempts"))
        self._take_drain(answer)

    def _beat_now(self) -> None:
        if self._context.gpus.known:
            self._context.look_at_gpus()
        body = hello.heartbeat(self._context)
        try:
            answer = self._context.links.call(
                "POST", self._path + "/heartbeat", body, self._context.timing.beat_timeout_s
            )
        except RunyardError:
            return  # the heartbeat thread says what is wrong
        self._apply(answer.get("attempts"))

    def _apply(self, verdicts: Any) -> None:
        for attempt_id, verdict in verdicts.items() if isinstance(verdicts, dict) else ():
            attempt = self._state.get(attempt_id)
            if attempt is None or not isinstance(verdict, dict):
                continue
            epoch = verdict.get("epoch")
            if verdict.get("verdict") == "stop":
                self._life.stop(attempt, attempt.record["grace_s"], states.SUPERSEDED, states.INFRA)
            elif verdict.get("verdict") == "keep" and isinstance(epoch, int):
                attempt.set_epoch(epoch)

    def _take_drain(self, answer: dict[str, Any]) -> None:
        if isinstance(answer.get("drain"), bool):
            self._state.draining = answer["drain"]
            self._look_whether_done()

    # -- poll thread

    def _poll_loop(self) -> None:
        timing, target = self._context.timing, self._context.links.target
        backoff, link = target.backoff(), Link(target)
        while self._context.wait_introduced() and not self._state.stopping.is_set():
            body = {"known": [a.id for a in self._state.all()], "wait_s": timing.poll_wait_s}
            asked = time.monotonic()
            try:
                answer = link.call("POST", self._path + "/poll", body, timing.poll_wait_s + timing.poll_margin_s)
            except UnavailableError:
                self._state.stopping.wait(backoff.next_s())
                continue
            except RunyardError as exc:
                wait = self._refused(exc, backoff)
                self._beat_wake.set()
                self._state.stopping.wait(wait)
                continue
            backoff.reset()
            self._take_drain(answer)
            if not self._take(answer) and time.monotonic() - asked < REPEATED_POLL_S:
                self._state.stopping.wait(REPEATED_POLL_S)

    def _take(self, answer: dict[str, Any]) -> bool:
        """Act on what the poll brought; False when that was nothing new."""
        stops, assigned = answer.get("stop"), answer.get("assign")
        stops = stops if isinstance(stops, list) else []
        assigned = assigned if isinstance(assigned, list) else []
        news = [self._take_stop(stop) for stop in stops] + [self._take_assignment(value) for value in assigned]
        return any(news)

    def _take_stop(self, stop: Any) -> bool:
        attempt = self._state.get(stop.get("attempt")) if isinstance(stop, dict) else None
        if attempt is None:
            return False
        before = attempt.stop
        grace, reason, origin = stop.get("grace_s"), stop.get("reason"), stop.get("origin")
        self._life.stop(
            attempt,
            float(grace) if isinstance(grace, (int, float)) and grace >= 0 else attempt.record["grace_s"],
            reason if reason in states.END_REASONS else states.STOPPED,
            origin if origin in states.ORIGINS else states.HUMAN,
        )
        if attempt.stop is before:
            return False
        self._beat_wake.set()  # so that the server sees it stopping
        return True

    def _take_assignment(self, value: Any) -> bool:
        try:
            record = check(value)
        except InvalidError as exc:
            self._context.log(exc.message)
            self._refuse(value, exc.message)
            return False
        with self._taking:
            # A hello on its way does not name it: the server would hold it to be gone. It comes again.
            return self._context.introduced.is_set() and self._life.begin(record, record["env"])

    def _refuse(self, value: Any, why: str) -> None:
        """Hand back an assignment that cannot be understood, as far as it can be named."""
        if not isinstance(value, dict) or not is_id(value.get("attempt")) or self._state.is_known(value["attempt"]):
            return
        path = "/api/v1/attempts/%s/hand-back" % value["attempt"]
        try:
            self._context.links.call("POST", path, {"epoch": value.get("epoch"), "why": why})
        except RunyardError as exc:
            self._context.log("the server does not take it back: %s" % exc.message)

    # -- GPU thread

    def _gpu_loop(self) -> None:
        while not self._state.stopping.is_set():
            started = time.monotonic()
            if self._context.look_at_gpus():
                self._beat_wake.set()
            self._state.stopping.wait(max(GPU_INTERVAL_S, (time.monotonic() - started) * 20.0))


def _on_signal(number: int, frame: object) -> None:
    """Nothing: the number in the pipe (signal.set_wakeup_fd) is what the main thread waits for."""
