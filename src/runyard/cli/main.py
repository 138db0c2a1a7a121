"""The entry point: parses the hot commands by hand, hands the rest to click, and turns errors into messages."""

from __future__ import annotations

import os
import sys

from runyard.cli import parse
from runyard.cli.options import INTERRUPTED, NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: that of this process) and return its exit status; never raises."""
    words = list(sys.argv[1:] if argv is None else argv)
    verbose = False
    _open_standard_streams()
    try:
        if "_RUNYARD_COMPLETE" in os.environ:
            from runyard.cli import completion

            return completion.respond(words)
        kind, value = parse.split(words)
        verbose = value[0]["verbose"] if kind == "run" else bool({"-v", "--verbose"}.intersection(value or ()))
        status = _dispatch(kind, value)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader of a pipe went away (`runyard ls | head`): that is no error.
        _discard_output()
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as exc:  # noqa: BLE001  the last stop of every error: a message instead of a traceback
        if isinstance(exc, OSError):
            _discard_output()
        return _report(exc, next((word for word in words if word in NAMES), "run"), verbose)


def _open_standard_streams() -> None:
    """Open what the caller closed (``runyard ls >&-``): the next file or socket would become stdin, stdout or stderr."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _discard_output() -> None:
    """Let what is still in the buffer of stdout go nowhere, where flushing it at exit would fail once more."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _dispatch(kind: str, value: Any) -> int:
    if kind == "version":
        from runyard import __version__

        print("runyard " + __version__)
        return 0
    if kind == "run":
        from runyard.cli import submit

        options, command, named = value
        return submit.run(options, command, named)
    from runyard.cli import app

    return app.main(value)


def _report(exc: Exception, command: str, verbose: bool) -> int:
    import errno

    from runyard.cli.text import hint, notice, place
    from runyard.wire.errors import RunyardError

    if verbose:
        import traceback

        traceback.print_exception(type(exc), exc, exc.__traceback__)
    if isinstance(exc, RunyardError):
        notice("runyard: " + exc.message)
        query, column = exc.details.get("query"), exc.details.get("column")
        if isinstance(query, str) and isinstance(column, int):
            for line in place(query, column):
                notice("  " + line)
        then = hint(exc, command)
        if then:
            notice("  " + then)
        return exc.exit_status
    if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT):
        notice("runyard: no space left%s" % (" for %s" % os.fsdecode(exc.filename) if exc.filename else " on the disk"))
        notice("  Free some; `runyard du` and `runyard gc` show what Runyard can give back.")
        return 1
    text = str(exc).strip()
    if isinstance(exc, OSError) and exc.strerror:
        text = exc.strerror + (": " + os.fsdecode(exc.filename) if isinstance(exc.filename, (str, bytes)) else "")
    notice("runyard: %s%s" % (type(exc).__name__, ": " + text.splitlines()[0] if text else ""))
    if not verbose:
        notice("  This is not an error that Runyard expected; run again with -v to see where it comes from.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
