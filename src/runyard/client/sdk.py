"""The functions of `runyard` for programs: they act on the current run, which is made at the first need.

Inside `runyard run` that is the run itself; elsewhere the program makes a run of its own (`client.own`).
"""

from __future__ import annotations

import atexit
import copyreg
import os
import sys
import threading

from runyard.client.run import Run, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


class _Current:
    """The one run that a process logs to."""

    run: Run | None = None
    pid = 0
    lock = threading.RLock()

    def beginning(self) -> Any:
        """Return the lock that is held while a run begins; a child of a fork has one of its own."""
        if self.pid != os.getpid():
            self.lock, self.pid = threading.RLock(), os.getpid()
        return self.lock


_current = _Current()


def init(
    project: str | None = None,
    params: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    message: str | None = None,
    tags: Sequence[str] = (),
    all_ranks: bool = False,
) -> Run:
    """Return the run that this process logs to, and begin one where `runyard run` has not.

    ``project``, ``name`` and ``message`` are for a run that is begun here; in `runyard run` its options say them. If a run
    of this process is in progress, it is returned; after `finish`, another one is begun.

    ``all_ranks``: of several like processes (torchrun, Slurm, MPI) not only that of rank 0 logs; the metrics of the others
    are named ``rank<n>/<name>``.
    """
    run = _current.run
    if run is None:
        with _current.beginning():
            run = _current.run or _begin(project, name, message, all_ranks)
    if params is not None:
        run.params(params)
    if tags:
        run.tag(*tags)
    return run


def log(values: Mapping[str, Any], step: int | None = None) -> None:
    """Log values of this moment, by name; see `Run.log`."""
    (_current.run or init()).log(values, step)


def params(values: Mapping[str, Any] | None = None, **more: Any) -> None:
    """Record parameters; see `Run.params`."""
    (_current.run or init()).params(values, **more)


def summary(values: Mapping[str, Any] | None = None, **more: Any) -> None:
    """Record results without a step; see `Run.summary`."""
    (_current.run or init()).summary(values, **more)


def tag(*tags: str) -> None:
    """Add tags to the run."""
    (_current.run or init()).tag(*tags)


def output(path: str | os.PathLike[str], step: int | None = None) -> None:
    """Say that a file is an output of the run; see `Run.output`."""
    (_current.run or init()).output(path, step)


def data(path: str | os.PathLike[str]) -> None:
    """Say that the run reads this file or directory; see `Run.data`."""
    (_current.run or init()).data(path)


def finish(exit_code: int = 0) -> None:
    """Say that nothing more will come; see `Run.finish`."""
    run, _current.run = _current.run, None
    if run is not None:
        run.finish(exit_code)


def _pickled(run: Run) -> Any:
    return unpickled, ()


def unpickled() -> Run:
    """Return what a run is that comes out of a file or from another process: the one of this process, else none at all."""
    if _current.run is None and not os.environ.get("RUNYARD_SPOOL"):
        from runyard.client import own

        return own.nowhere()
    return init()


def _begin(project: str | None, name: str | None, message: str | None, all_ranks: bool) -> Run:
    environ = os.environ
    spool = environ.get("RUNYARD_SPOOL")
    if spool and environ.get("RUNYARD_RUN_ID"):
        run = Run(environ["RUNYARD_RUN_ID"], environ.get("RUNYARD_RUN_DIR") or os.getcwd(), spool, all_ranks)
    else:
        run = _own(project, name, message, all_ranks)
    _current.run = run
    copyreg.pickle(Run, _pickled)
    atexit.register(run.close)
    workers = sys.modules.get("multiprocessing.util")
    if workers is not None:
        workers.Finalize(None, run.close, exitpriority=10)  # workers leave without what `atexit` knows
    run.on_finish(lambda exit_code: _over(run))
    return run


def _over(run: Run) -> None:
    """Let go of a run that has said its end: another one may follow, and thousands."""
    atexit.unregister(run.close)
    if _current.run is run:
        _current.run = None


def _own(project: str | None, name: str | None, message: str | None, all_ranks: bool) -> Run:
    from runyard.client import own

    try:
        return own.begin(project, name, message, all_ranks)
    except Exception as exc:  # noqa: BLE001  the program goes on without being recorded
        warn("nothing is recorded: %s" % exc)
        return own.nowhere()
