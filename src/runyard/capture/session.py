"""What all hooks of a process share: the stream that they write, and the one place where their errors end."""

from __future__ import annotations

import os
import sys
import time
from _thread import RLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from runyard.capture.program import Program
    from runyard.client.spool import SpoolWriter

MAX_ERRORS = 20


class Session:
    """One process. ``kinds``: what is captured; ``spool``: directory of streams; ``tree``: the run's working tree.

    ``began``: when the run started, seconds since 1970; ``at_begin`` says what is known of a program whose parameters
    count before it has parsed anything. Nothing is written, or imported for writing, before the first
    message.
    """

    def __init__(
        self, kinds: frozenset[str], spool: str, tree: str, began: float, at_begin: Callable[[Session], None]
    ) -> None:
        self.kinds = kinds
        self.tree = tree.rstrip("/") or "/"
        self.argv = list(getattr(sys, "argv", ()))
        """The command line, before the program may have changed it."""
        self.began = began
        self.child = False
        """Forked from the process that the hooks were put into."""
        self.composing = 0
        """A library puts configuration files together, and will say what came of it."""
        self.debug = bool(os.environ.get("RUNYARD_DEBUG"))
        self.gave_up = False
        """So many errors that files are no longer looked at."""
        self.hooks: list[str] = []
        self.notes: list[str] = []
        self.read: Callable[..., None] = lambda file, mode="r": None
        """Tells of a file that a library has opened by itself (`runyard.capture.files`)."""
        self.before_exit: list[Callable[[], None]] = []
        self.after_fork: list[Callable[[], None]] = []
        self._at_begin = at_begin
        self._spool = spool
        self._lock = RLock()
        self._writer: SpoolWriter | None = None
        self._program: Program | None = None
        self.begun = False
        """`begin` has been called for a program, or there is none."""
        self._errors = 0
        self._said: dict[str, Any] = {}
        self._params: dict[tuple[str, str], dict[str, Any]] = {}

    # -- errors

    def failed(self) -> None:
        """Take note of the exception that is being handled: the program must not notice it."""
        self._errors += 1
        self.gave_up = self._errors >= MAX_ERRORS
        if self._errors > 1 and not self.debug:
            return
        try:
            said = _in_words(*sys.exc_info())
            if self._errors == 1:
                self.notes.append("error in a hook: " + said)
            if self.debug:
                sys.stderr.write("runyard: %s\n" % said)
        except Exception:  # noqa: BLE001, S110 - an exception that cannot be put into words, or no stderr
            pass

    # -- the program

    def program(self) -> Program:
        """Return the main script of the process, once that is known to Python."""
        from runyard.capture import program

        if self._program is not None:
            return self._program
        main = sys.modules.get("__main__")
        found = program.identify(program.main_file(main, self.argv), main, os.environ, self.tree, sys.prefix)
        if program.main_file(main, self.argv):
            self._program = found
        return found

    def counts(self) -> bool:
        """Tell whether parameters of this process are the run's."""
        return "params" in self.kinds and not self.child and self.program().counts

    def takes_configs(self) -> bool:
        """Tell whether configuration files that are opened now hold parameters of the run."""
        return not self.composing and self.counts()

    def remark(self, sentence: str) -> None:
        """Have a sentence among the notes of the run."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def begin(self) -> None:
        """Say what is known of a program before it has parsed anything: when it first imports something, or at its end."""
        if self.begun:
            return
        self.begun = True
        try:
            if self.counts():
                self._at_begin(self)
        except Exception:  # noqa: BLE001 - the program must not notice
            self.failed()

    # -- writing

    def params(self, values: dict[str, Any], origin: str, source: str) -> None:
        """Record parameters, unless the same was said before; a path below the run's directory is told from there."""
        values = {name: self._inside(value) for name, value in values.items()}
        said = self._params.setdefault((origin, source), {})
        new = {name: value for name, value in values.items() if name not in said or repr(said[name]) != repr(value)}
        if new:
            said.update(new)
            self.write({"type": "params", "values": new, "origin": origin, "source": source})

    def _inside(self, value: Any) -> Any:
        start = self.tree + "/"
        return value[len(start) :] if isinstance(value, str) and value.startswith(start) else value

    def write(self, message: dict[str, Any]) -> None:
        """Write a message to the stream of this process; the first one begins it."""
        with self._lock:
            self._stream().message(message)

    def announce(self) -> None:
        """Begin the stream of this process, if that has not been done: it says which hooks are active."""
        with self._lock:
            self._stream()

    def _stream(self) -> SpoolWriter:
        if self._writer is None:
            from runyard.client.spool import SpoolWriter

            self._writer = SpoolWriter(self._spool, self._process(), self.notes.append)
            self._said = {}
            self._say_hooks(self._writer)
        return self._writer

    def _process(self) -> dict[str, Any]:
        from runyard.wire import procs
        from runyard.wire.ranks import rank

        pid = os.getpid()
        return {
            "type": "process", "writer": "capture", "pid": pid, "start": procs.start_time(pid), "boot_id": procs.boot_id(),
            "rank": rank(os.environ), "python": "%d.%d.%d" % sys.version_info[:3],
            "program": str(getattr(sys.modules.get("__main__"), "__file__", "") or ""),
        }  # fmt: skip

    def _say_hooks(self, writer: SpoolWriter) -> None:
        notes = list(self.notes)
        if self._errors > 1:
            notes.append("%d errors in hooks in all" % self._errors)
        message = {"type": "capture", "active": sorted(self.kinds) + self.hooks, "off": [], "notes": notes}
        if message != self._said:
            self._said = message
            writer.message(dict(message, at=time.time_ns() // 1000))

    # -- end and fork

    def end(self) -> None:
        """Write what is still to be said, and cut the segment; what comes later begins a new one."""
        try:
            self.begin()
            for function in self.before_exit:
                function()
            with self._lock:
                if self._writer is not None:
                    self._say_hooks(self._writer)
                    self._writer.close()
        except Exception:  # noqa: BLE001 - as above
            self.failed()

    def forked(self) -> None:
        """In the child after a fork: the stream is the parent's."""
        try:
            self.child = self.begun = True
            self._lock = RLock()
            self._program = None
            writer, self._writer = self._writer, None
            for function in self.after_fork:
                function()
            if writer is not None:
                writer.forget()
        except Exception:  # noqa: BLE001 - as above
            self.failed()


def _in_words(kind: Any, value: Any, trace: Any) -> str:
    while trace.tb_next is not None:
        trace = trace.tb_next
    place = "%s:%d" % (os.path.basename(trace.tb_frame.f_code.co_filename), trace.tb_lineno)
    return "%s: %s at %s" % (kind.__name__, str(value)[:200], place)
