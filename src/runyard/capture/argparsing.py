"""Parameters from argparse, and from what is built on it."""

from __future__ import annotations

import os
import sys
from _thread import get_ident

from runyard.capture import program
from runyard.capture.commandline import options
from runyard.capture.patch import wrap
from runyard.wire import values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.capture.session import Session


class _Parse:
    """The outermost call of ``parse_known_args`` of a thread: those of its subparsers are part of it."""

    def __init__(self, arguments: Any, caller: Any) -> None:
        self.arguments = arguments
        self.caller = caller
        self.given: set[str] = set()
        self.commands: list[str] = []
        self.depth = 0


class Parses:
    """What is parsed at this moment, by thread, and how it is recorded."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._current: dict[int, _Parse] = {}

    def enter(self, args: Any, kwargs: Any) -> _Parse | None:
        """``parse_known_args(self, args, namespace)`` is called."""
        try:
            me = get_ident()
            parse = self._current.get(me)
            if parse is None:
                arguments = args[1] if len(args) > 1 else kwargs.get("args")
                parse = self._current[me] = _Parse(arguments, _caller())
            parse.depth += 1
            return parse
        except Exception:  # noqa: BLE001 - the program must not notice
            self._session.failed()
            return None

    def leave(self, parse: _Parse | None, result: Any) -> None:
        """It has returned namespace and what is left, or raised (None)."""
        if parse is None:
            return
        parse.depth -= 1
        if parse.depth:
            return
        try:
            del self._current[get_ident()]
            if result is not None and self._session.counts() and self._is_of_the_run(parse):
                self._record(parse, result[0], result[1])
        except Exception:  # noqa: BLE001 - as above
            self._session.failed()

    def value(self, args: Any, kwargs: Any) -> None:
        """``_get_values(self, action, words)`` is called, for each option and positional of the command line."""
        try:
            parse = self._current.get(get_ident())
            if parse is not None and len(args) > 2 and (args[2] or args[1].option_strings):
                action = args[1]
                parse.given.add(action.dest)
                if action.nargs == "A..." and action.dest == "==SUPPRESS==":
                    parse.commands.append(str(args[2][0]))
        except Exception:  # noqa: BLE001 - as above
            self._session.failed()

    def _is_of_the_run(self, parse: _Parse) -> bool:
        """Tell whether a parser is the program's, and not one of a tool, or one that a library uses for something else."""
        caller = parse.caller
        if caller is None or program.is_of(str(caller.f_globals.get("__name__", "")), program.TOOLS):
            return False
        ours = program.in_tree(os.path.abspath(caller.f_code.co_filename), self._session.tree)
        if parse.arguments is None:
            return ours or not self._session.program().runner
        words = list(parse.arguments)
        return ours or (bool(words) and not self._session.program().runner and set(words) <= set(sys.argv[1:]))

    def _record(self, parse: _Parse, namespace: Any, left: Any) -> None:
        given: dict[str, Any] = {}
        default: dict[str, Any] = {}
        for name, value in vars(namespace).items():
            if not name.startswith("_"):
                (given if name in parse.given else default)[name] = value
        if parse.commands and "command" not in given and "command" not in default:
            given["command"] = " ".join(parse.commands)
        origin = "cli" if parse.arguments is None or set(parse.arguments) <= set(sys.argv[1:]) else "call"
        for found, said in ((given, origin), (default, "default")):
            flat, cut = values.flatten(found)
            if cut:
                self._session.remark("argparse: only the first %d parameters are kept" % values.MAX_VALUES)
            self._session.params(flat, said, "argparse")
        more = options([str(word) for word in left], only_long=True) if left else {}
        self._session.params({name: more[name] for name in more if name not in given}, origin, "command line")


def _caller() -> Any:
    """Return the frame that called a function of argparse."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name != "argparse" and not (isinstance(name, str) and name.startswith("runyard.capture.")):
            return frame
        frame = frame.f_back
    return None


def hook(session: Session, module: Any) -> None:
    """Put the hook into the module ``argparse``."""
    parses = Parses(session)
    wrap(module.ArgumentParser, "parse_known_args", parses.enter, parses.leave)
    wrap(module.ArgumentParser, "_get_values", parses.value, lambda token, result: None)
