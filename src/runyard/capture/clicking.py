"""Parameters from click 8 and later, and from typer, which is built on it, or brings a click of its own."""

from __future__ import annotations

from runyard.capture import program
from runyard.capture.patch import wrap
from runyard.wire import values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.capture.session import Session

GIVEN = frozenset(("COMMANDLINE", "ENVIRONMENT", "PROMPT"))


class Contexts:
    """Records what a command was given once its context has been made, which is before it is invoked."""

    def __init__(self, session: Session, library: str) -> None:
        self._session = session
        self._library = library

    def enter(self, args: Any, kwargs: Any) -> Any:
        """``make_context(self, info_name, args, parent)`` is called."""
        return args[0] if args else None

    def leave(self, command: Any, context: Any) -> None:
        """It has returned a context, or raised (None)."""
        try:
            if context is not None and not context.resilient_parsing and self._session.counts():
                callback = getattr(command, "callback", None)
                if not program.is_of(str(getattr(callback, "__module__", "")), program.TOOLS):
                    self._record(command, context)
        except Exception:  # noqa: BLE001 - the program must not notice
            self._session.failed()

    def _record(self, command: Any, context: Any) -> None:
        found: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        hidden = {item.name for item in command.params if getattr(item, "hide_input", False)}
        for name, value in context.params.items():
            source = getattr(context.get_parameter_source(name), "name", "")
            found[source not in GIVEN][name] = values.HIDDEN if name in hidden and value is not None else value
        if context.parent is not None:
            words = context.command_path.split(" ")[len(context.find_root().command_path.split(" ")) :]
            found[0]["command"] = " ".join(words)
        for part, origin in zip(found, ("cli", "default")):
            self._session.params(values.flatten(part)[0], origin, self._library)


def hook(session: Session, module: Any) -> None:
    """Put the hook into the module ``click.core``."""
    if not hasattr(module.Context, "get_parameter_source"):
        session.remark("click is older than version 8: its parameters are not captured")
        return
    contexts = Contexts(session, module.__name__.partition(".")[0])
    owner = next(kind for kind in module.Command.__mro__ if "make_context" in vars(kind))
    wrap(owner, "make_context", contexts.enter, contexts.leave)
