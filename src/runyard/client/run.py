"""A run as the program that logs sees it: numbers go to the spool at once, everything else by way of `client.values`.

Nothing here raises into the program or waits for anything: what cannot be taken is counted, and said once.
"""

from __future__ import annotations

import os
import sys
import threading
from _weakref import ref  # `weakref` would cost every program an import

from runyard.client.spool import SpoolWriter
from runyard.wire.ranks import rank

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

MAX_REFUSED = 100
MAX_SHOWN = 300
"""Characters of a name or of a reason."""
LAST_STEP = (1 << 63) - 1


def warn(text: str) -> None:
    """Say something to the person who runs the program; a standard error that takes nothing is no reason to fail."""
    try:
        sys.stderr.write("runyard: %s\n" % text)
    except Exception:  # noqa: BLE001, S110  it may be anything that a program has put there
        pass


def _shown(value: object) -> str:
    """Return a name or an error in a line for people; what cannot be shown is told by its type."""
    try:
        text = str(value)[:MAX_SHOWN]
    except Exception:  # noqa: BLE001  it may be anything that the program made
        return "a %s" % type(value).__name__
    return text if text.isprintable() else ascii(text)[1:-1]


class Run:
    """What `runyard.init` returns. Thread-safe; after a fork parent and child each go on by themselves.

    Attributes:
        id: of the run, 12 characters.
        directory: the run's directory; files written there are its outputs.
    """

    def __init__(self, run_id: str, directory: str, spool: str, all_ranks: bool = False) -> None:
        """``spool``: directory of its streams. ``all_ranks``: not only the process of rank 0 logs."""
        self.id = run_id
        self.directory = directory
        self._spool = spool
        self._rank = rank(os.environ) or 0
        self._silent = self._rank != 0 and not all_ranks
        self._prefix = "rank%d/" % self._rank if self._rank and all_ranks else ""
        self._step = 0
        self._refused: dict[tuple[str, str], int] = {}
        self._copied: dict[str, str] = {}
        self._lock = threading.RLock()
        self._finished: list[Callable[[int], None]] = []
        self._over = ""
        """Why nothing more is taken, until it has been said."""
        self._writer = self._new_writer()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_Forked(self))

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.finish(0 if kind is None else 1)

    def __repr__(self) -> str:
        return "<runyard.Run %s>" % self.id

    def __deepcopy__(self, memo: object) -> Run:
        return self  # a copy of a model that has the run logs to the run

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Log values of this moment, by name.

        Numbers become points of metrics; text, images (PNG bytes, PIL, numpy arrays of pixels), matplotlib and plotly
        figures, tables (data frames, lists of dicts, `runyard.Table`) and histograms (`runyard.Histogram`, numpy arrays of
        one dimension) are kept as they are. Nested dicts are joined with ``/``.

        ``step``: a whole number, also out of order and repeated; by default one more than the highest so far, from 0.
        """
        try:
            at = self._step if step is None else step
            if self._silent:
                self._say_over()
                return
            if self._prefix:
                values = {self._prefix + str(name): value for name, value in values.items()}
            self._writer.row(values, at)  # type: ignore[arg-type]  # any mapping has what is needed
            if at >= self._step:
                self._step = int(at) + 1  # those of libraries may overflow
        except Exception:  # noqa: BLE001  not all of it were numbers
            self._guard("log", self._log, values, step)

    def params(self, values: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Record parameters: numbers, text, switches, None, lists; nested dicts are joined with ``.``."""
        self._guard("params", self._params, values or {}, more)

    def summary(self, values: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Record results that have no step, like the best accuracy; they are found as metrics of that name."""
        self._guard("summary", self._summary, values or {}, more)

    def tag(self, *tags: str) -> None:
        """Add tags to the run."""
        self._guard("tag", self._writer.message, {"type": "tags", "add": list(tags)})

    def output(self, path: str | os.PathLike[str], step: int | None = None) -> None:
        """Say that a file is an output; one outside of the run's directory is copied into it."""
        self._guard("output", self._output, path, step)

    def data(self, path: str | os.PathLike[str]) -> None:
        """Say that the run reads this file or directory; its content is fingerprinted in the background."""
        self._guard("data", self._data, path)

    def finish(self, exit_code: int = 0) -> None:
        """Say that nothing more will come. Needed only before the end of the program, as in a notebook."""
        self._guard("finish", self._finish, exit_code)

    # -- what may fail

    def _guard(self, name: str, work: Callable[..., None], *args: Any) -> None:
        if self._silent:
            self._say_over()
            return
        try:
            work(*args)
        except Exception as exc:  # noqa: BLE001  whatever is wrong with what was given, the program goes on
            self._refuse(name, exc)

    def _log(self, values: Mapping[str, Any], step: int | None) -> None:
        from runyard.client import values as conversion

        if not hasattr(values, "items"):
            raise TypeError("log() takes a dict of values by name, not %s" % type(values).__name__)
        at = min(self._step, LAST_STEP) if step is None else conversion.step(step)
        numbers = {}
        for name, value in conversion.flat(values):
            try:
                number = conversion.number(value)
                medium = conversion.medium(value) if number is None else None
            except Exception as exc:  # noqa: BLE001  one value that cannot be shown must not cost the others
                self._refuse(name, exc)
                continue
            if medium is None:
                numbers[name] = number
                continue
            self._writer.message(
                {"type": "media", "name": name, "step": at, "kind": medium.kind, "format": medium.format,
                 "caption": medium.caption}, medium.content
            )  # fmt: skip
        if numbers and any(getattr(value, "requires_grad", False) for value in values.values()):
            self._writer.group([(numbers, at, 0)], [])  # its columns stay unknown, so that the next ones come here, too
        elif numbers:
            self._writer.row(numbers, at)
        if at >= self._step:
            self._step = at + 1

    def _params(self, values: Mapping[str, Any], more: Mapping[str, Any]) -> None:
        from runyard.client import values as conversion

        found = {}
        for name, value in dict(values, **more).items():
            try:
                found[str(name)] = conversion.plain(value)
            except Exception as exc:  # noqa: BLE001  as above
                self._refuse(name, exc)
        self._writer.message({"type": "params", "origin": "call", "source": "runyard.params", "values": found})

    def _summary(self, values: Mapping[str, Any], more: Mapping[str, Any]) -> None:
        from runyard.client import values as conversion

        found = {}
        for name, value in conversion.flat(dict(values, **more)):
            try:
                number = conversion.number(value)
                if number is None:
                    raise TypeError("a summary is a number, not %s" % type(value).__name__)
                found[self._prefix + name] = number
            except Exception as exc:  # noqa: BLE001  as above
                self._refuse(name, exc)
        self._writer.message({"type": "summary", "values": found})

    def _output(self, path: str | os.PathLike[str], step: int | None) -> None:
        import shutil

        from runyard.client import values as conversion

        at = None if step is None else conversion.step(step)
        given = os.path.abspath(os.fspath(path))
        top = os.path.realpath(self.directory)
        inside = os.path.relpath(os.path.realpath(given), top)
        if inside.startswith(os.pardir):
            target = self._place(given, top)
            inside = os.path.relpath(target, top)
            if os.path.isdir(given):
                shutil.copytree(given, target, dirs_exist_ok=True)
            else:
                os.makedirs(top, exist_ok=True)
                shutil.copy2(given, target)
        elif not os.path.exists(given):
            raise FileNotFoundError("there is no %s" % given)
        self._writer.message({"type": "output", "path": inside, "step": at})

    def _place(self, given: str, top: str) -> str:
        """Return where a file from outside is copied to: always the same place, and never over another file."""
        known = self._copied.get(given)
        if known is not None:
            return known
        stem, suffix = os.path.splitext(os.path.basename(given))
        target, number = os.path.join(top, stem + suffix), 1
        while os.path.lexists(target):
            number += 1
            target = os.path.join(top, "%s-%d%s" % (stem, number, suffix))
        self._copied[given] = target
        return target

    def _data(self, path: str | os.PathLike[str]) -> None:
        given = os.path.abspath(os.fspath(path))
        info = os.stat(given)
        inside = os.path.relpath(given, self.directory)
        name = given if inside.startswith(os.pardir) else inside
        file = {"path": name, "size": info.st_size, "mtime_us": info.st_mtime_ns // 1000, "via": "declared"}
        self._writer.message({"type": "data", "files": [file]})

    def _finish(self, exit_code: int) -> None:
        self._say_refused()
        self._writer.close()
        finished, self._finished = self._finished, []
        for work in finished:
            work(exit_code)

    def _refuse(self, name: object, error: Exception) -> None:
        """Say what was not taken: the first one at once, and how often it came again at the end."""
        key = (_shown(name), "%s: %s" % (type(error).__name__, _shown(error)))
        with self._lock:
            count = len(self._refused)
            if key in self._refused:
                self._refused[key] += 1
                return
            if count == MAX_REFUSED:
                return
            self._refused[key] = 0
        if not count:
            warn("%s was not logged: %s (said once)" % key)
        self._say_refused_one(key, 1)

    def _say_refused(self) -> None:
        with self._lock:
            again = [(key, count) for key, count in self._refused.items() if count]
            self._refused.update((key, 0) for key, _ in again)
        for key, count in again:
            self._say_refused_one(key, count)

    def _say_refused_one(self, key: tuple[str, str], count: int) -> None:
        self._writer.message({"type": "refused", "name": key[0], "why": key[1], "count": count})

    def on_finish(self, work: Callable[[int], None]) -> None:
        """Have ``work`` called once, with the exit code, when nothing more will come."""
        self._finished.append(work)

    def silence(self, why: str = "") -> None:
        """Keep nothing from now on. ``why``: said when something comes nevertheless."""
        self._silent, self._over = True, why

    def _say_over(self) -> None:
        why, self._over = self._over, ""
        if why:
            warn(why)

    def close(self) -> None:
        """End the stream at the exit of the process (by itself, from `atexit`)."""
        try:
            self._finish(0)
        except Exception as exc:  # noqa: BLE001  the program is over
            warn("%s" % exc)

    def _new_writer(self) -> SpoolWriter:
        from runyard.wire import procs

        pid = os.getpid()
        process = {
            "type": "process", "writer": "sdk", "pid": pid, "start": procs.start_time(pid), "boot_id": procs.boot_id(),
            "rank": self._rank, "python": "%d.%d.%d" % sys.version_info[:3], "program": sys.argv[0] if sys.argv else "",
        }  # fmt: skip
        return SpoolWriter(self._spool, process, warn)

    def forked(self) -> None:
        """Go on in the child of a fork, with a stream of its own."""
        self._lock = threading.RLock()
        self._refused = {}
        self._writer.forget()
        self._writer = self._new_writer()


class _Forked:
    """What a fork calls in the child: handlers cannot be taken back, and must not keep runs that are over."""

    def __init__(self, run: Run) -> None:
        self._run = ref(run)

    def __call__(self) -> None:
        run = self._run()
        if run is not None:
            run.forked()
