"""Following a run: its output as it comes, detaching, and the exit status that a command takes over from it."""

from __future__ import annotations

import time

from runyard.cli import text
from runyard.cli.logtext import collapse
from runyard.cli.options import INTERRUPTED
from runyard.cli.text import notice
from runyard.wire import states
from runyard.wire.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TextIO

    from runyard.client.api import Api

SECOND_INTERRUPT_S = 2.0
"""A second Ctrl-C within this time kills the run; the first one only detaches."""
RECONNECT_S = 60.0
"""How long a server that went away (a restart) is waited for."""
RECONNECT_STEP_S = 0.2
PIECE = 1 << 20
REMARKS = 3


def exit_status(run: dict[str, Any]) -> int:
    """Return the exit status for a command that waited for a run: the run's own; 128 + n after signal n; else 1."""
    if run.get("state") == states.FINISHED:
        return 0
    end = run.get("end") or {}
    if end.get("signal"):
        return 128 + int(end["signal"])
    return int(end.get("exit_code") or 0) or 1


def has_ended(run: dict[str, Any]) -> bool:
    """Tell whether a run will not change any more."""
    return run.get("state") in states.ENDED_STATES or (run.get("state") == states.LOST and bool(run.get("ended_at")))


class Patience:
    """Bears a server that is away for a while: `again` sleeps and returns, or raises when it took too long."""

    def __init__(self) -> None:
        self.since = 0.0

    def reset(self) -> None:
        """The server has answered."""
        self.since = 0.0

    def again(self, error: UnavailableError) -> None:
        """Wait a little before the next try."""
        now = time.monotonic()
        self.since = self.since or now
        if now - self.since > RECONNECT_S:
            raise error
        time.sleep(RECONNECT_STEP_S)


def wait(api: Api, run_id: str) -> dict[str, Any]:
    """Return a run once it has ended; the server may restart meanwhile."""
    patience = Patience()
    while True:
        try:
            run = api.wait(run_id)
            patience.reset()
        except UnavailableError as exc:
            patience.again(exc)
            continue
        if has_ended(run):
            return run


def pieces(api: Api, run_id: str, offset: int = 0, attempt: int | None = None) -> Iterator[bytes]:
    """Yield the log of a run from ``offset`` as it comes, until it is complete; the server may restart meanwhile.

    If the run is tried again, the log of its next attempt follows, unless ``attempt`` was named.
    """
    patience = Patience()
    shown = 0
    while True:
        try:
            number, stream = api.follow_log(run_id, offset, attempt)
            if shown and number != shown:
                api.close()  # the run was tried again before all of the last attempt's log was here
                while rest := api.log(run_id, offset, PIECE, shown).data:
                    yield rest
                    offset += len(rest)
                shown, offset = number, 0
                continue
            shown = number
            for piece in stream:
                yield piece
                offset += len(piece)
                patience.reset()
            now = api.log(run_id, offset, 1, attempt)
            if now.end and now.attempt == shown:
                return
            time.sleep(RECONNECT_STEP_S)
        except UnavailableError as exc:
            patience.again(exc)


def follow(api: Api, run_id: str, out: TextIO) -> dict[str, Any]:
    """Print the output of a run until it ends and return the run as it is then. Ctrl-C is left to the caller."""
    shown = pieces(api, run_id)
    for piece in shown if out.isatty() else collapse(shown):
        out.buffer.write(piece)
        out.buffer.flush()
    return wait(api, run_id)


def attend(api: Api, run_id: str, show: bool, out: TextIO) -> int:
    """Wait for a run (printing its output to ``out`` if ``show``), say how it ended, and return the exit status.

    The first Ctrl-C detaches: the run goes on. A second one within `SECOND_INTERRUPT_S` kills it.
    """
    try:
        run = follow(api, run_id, out) if show else wait(api, run_id)
    except KeyboardInterrupt:
        with api.clone() as second:  # the first one is in the middle of an answer
            return _interrupted(second, run_id)
    if show:
        summary(api, run)
    else:
        say_ended(run)
    return exit_status(run)


def _interrupted(api: Api, run_id: str) -> int:
    try:
        notice("")
        notice(
            "Detached: %s goes on. Look again: runyard logs -f %s · Ctrl-C again now: kill it" % (run_id, run_id[:6])
        )
        time.sleep(SECOND_INTERRUPT_S)
    except KeyboardInterrupt:
        api.kill(run_id)
        notice("")
        notice("Killed %s" % run_id)
    return INTERRUPTED


def ended_text(run: dict[str, Any]) -> str:
    """Return how a run ended: ``finished in 3.2s``, ``failed after 1.0s: exit code 2``."""
    end = run.get("end") or {}
    started, ended = text.parse_iso(run.get("started_at")), text.parse_iso(run.get("ended_at"))
    took = text.duration(ended - started) if started and ended else ""
    state = str(run.get("state"))
    if state == states.FINISHED:
        return "finished" + (" in " + took if took else "")
    why = reason(end)
    return state + (" after " + took if took else "") + (": " + why if why else "")


def reason(end: dict[str, Any]) -> str:
    """Return why a run ended, in words: ``exit code 2``, ``signal 9 (SIGKILL)``, ``time_limit``."""
    parts = []
    if end.get("signal"):
        import signal

        number = int(end["signal"])
        try:
            parts.append("signal %d (%s)" % (number, signal.Signals(number).name))
        except ValueError:
            parts.append("signal %d" % number)
    elif end.get("exit_code"):
        parts.append("exit code %d" % end["exit_code"])
    if end.get("reason") not in (None, "", states.EXITED, states.SIGNALED):
        parts.append(str(end["reason"]).replace("_", " "))
    return ", ".join(parts)


def detail_label(run: dict[str, Any]) -> str:
    """Return what a word of explanation is, under the state of a run."""
    return "note" if run.get("state") == states.FINISHED else "because"


def say_ended(run: dict[str, Any]) -> None:
    """Say how a run ended, and why where that is known."""
    notice("%s %s" % (run["id"], ended_text(run)))
    if (run.get("end") or {}).get("detail"):
        notice("%-8s %s" % (detail_label(run), run["end"]["detail"]))


def summary(api: Api, run: dict[str, Any]) -> None:
    """Say how a run ended, what was captured, and the next command to try."""
    short = run["id"][:6]
    say_ended(run)
    from runyard.cli import tracked

    notice("captured  " + tracked.captured(run))
    shown = tracked.highlights(run)
    if shown:
        notice("metrics   " + "  ".join(shown))
    names = [str(o["path"]) for o in run.get("outputs") or []] if run.get("files") not in ("trashed", "gone") else []
    if names:
        notice("outputs   " + ", ".join(names[:4]) + (", ..." if len(names) > 4 else ""))
    remarks = [*tracked.remarks(run), *tracked.refused(run)]
    for remark in remarks[:REMARKS]:
        notice("note      " + remark)
    if len(remarks) > REMARKS:
        notice("          and %d more: runyard show %s" % (len(remarks) - REMARKS, short))
    if run.get("state") == states.FINISHED:
        following = "runyard outputs %s" % short if names and not shown else "runyard show %s" % short
    else:
        following = "runyard rerun %s --code now (after repairing it)" % short
    notice("next      " + following)
