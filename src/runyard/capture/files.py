"""Seeing which files a program opens, by taking the place of ``open``.

What C libraries open does not go through here: of some `runyard.capture.reading` says it, others the agent sees from outside.
"""

from __future__ import annotations

import _io
import builtins
import io
import sys
from _thread import allocate_lock, get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from runyard.capture.opened import Opened
    from runyard.capture.session import Session

PATIENCE_S = 0.2
"""How long a thread waits for another one that is looking at a file; longer only if the two would wait for ever."""


class Open:
    """In place of the builtin ``open``: returns and raises exactly what that does, and says afterwards what was opened.

    No function, so that it binds to nothing when it is an attribute of a class; it says to be a builtin one where asked.
    ``known``: file arguments of which nothing more is to be said; ``note`` gets the arguments and the file.
    """

    def __init__(self, original: Any, known: set[Any], note: Callable[[Any, Any, Any], None]) -> None:
        self.__doc__ = original.__doc__
        self.__module__ = original.__module__
        self.__name__ = self.__qualname__ = "open"
        self._open = original
        self._known = known
        self._note = note
        self._warns = bool(getattr(sys.flags, "warn_default_encoding", 0))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Open a file."""
        if self._warns and _is_text(args, kwargs):
            kwargs["encoding"] = io.text_encoding(None, 2)  # warns of the program's line, and not of ours
        try:
            opened = self._open(*args, **kwargs)
        except BaseException as exc:  # our frame is no part of the user's error; before Python 3.11 it cannot be hidden
            exc.__traceback__ = exc.__traceback__.tb_next if exc.__traceback__ else None
            raise
        file = args[0] if args else None
        if type(file) is not str or file not in self._known:
            self._note(args, kwargs, opened)
        return opened

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(len)

    @property
    def __self__(self) -> Any:
        return io

    @property
    def __text_signature__(self) -> Any:
        return self._open.__text_signature__

    @property
    def __signature__(self) -> Any:
        import inspect

        return inspect.signature(self._open)

    def __repr__(self) -> str:
        return repr(self._open)

    def __reduce__(self) -> str:
        return "open"  # pickled by its name, as the builtin one


def _is_text(args: Any, kwargs: Any) -> bool:
    """Tell whether a text file is opened without an encoding."""
    mode = args[1] if len(args) > 1 else kwargs.get("mode", "r")
    return len(args) < 4 and kwargs.get("encoding") is None and "b" not in str(mode)


class Notes:
    """Hands what was opened to `Opened`, which is imported at the first file that may matter."""

    def __init__(self, session: Session) -> None:
        self.known: set[Any] = set()
        self._session = session
        self._opened: Opened | None = None
        self._lock = allocate_lock()
        self._looking = 0
        """The thread that has the lock."""
        session.before_exit.append(self._flush)
        session.after_fork.append(self._forget)

    def note(self, args: Any, kwargs: Any, opened: Any) -> None:
        """Take note of a call of ``open``; never raises."""
        file = args[0] if args else kwargs.get("file")
        # Python reads modules through `open`, too.
        if type(file) is not int and not (type(file) is str and file.endswith((".pyc", ".py"))):
            self._tell(file, args[1] if len(args) > 1 else kwargs.get("mode", "r"), opened)

    def read(self, file: Any, mode: str = "r") -> None:
        """Take note of a file that a library has opened by itself; never raises."""
        if type(file) is not str or file not in self.known:
            self._tell(file, mode, None)

    def _tell(self, file: Any, mode: str, opened: Any) -> None:
        # What is opened while we look is not the program's. Other threads wait their turn, but never for long.
        if self._looking == get_ident() or self._session.gave_up or sys.is_finalizing():
            return
        if not self._lock.acquire(True, PATIENCE_S):
            return
        self._looking = get_ident()
        try:
            if self._opened is None:
                from runyard.capture.opened import Opened

                self._opened = Opened(self._session, self.known)
            self._opened.note(file, mode, opened)
        except Exception:  # noqa: BLE001 - the program must not notice
            self._session.failed()
        finally:
            self._looking = 0
            self._lock.release()

    def _flush(self) -> None:
        if self._opened is not None and self._lock.acquire(True, PATIENCE_S):
            try:
                self._opened.flush()
            finally:
                self._lock.release()

    def _forget(self) -> None:
        self._lock = allocate_lock()  # another thread of the parent may have it
        self._looking = 0
        if self._opened is not None:
            self._opened.forget()


def hook(session: Session) -> None:
    """Take the place of ``open``, wherever Python keeps it."""
    notes = Notes(session)
    session.read = notes.read
    replaced = Open(builtins.open, notes.known, notes.note)
    for module in (builtins, io, _io):
        if getattr(module, "open", None) is replaced._open:
            module.open = replaced  # type: ignore[attr-defined]
