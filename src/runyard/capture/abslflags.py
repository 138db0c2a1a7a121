"""Parameters from ``absl.flags``."""

from __future__ import annotations

from runyard.capture import program
from runyard.capture.patch import wrap
from runyard.wire import values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.capture.session import Session


class Flags:
    """Records the flags of the program's own modules once the command line has been parsed; those of libraries if given."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def enter(self, args: Any, kwargs: Any) -> Any:
        """``FlagValues.__call__(self, argv)`` is called."""
        return args[0] if args else None

    def leave(self, flags: Any, left: Any) -> None:
        """It has returned the words that are no flags, or raised (None)."""
        try:
            if left is not None and self._session.counts():
                self._record(flags)
        except Exception:  # noqa: BLE001 - the program must not notice
            self._session.failed()

    def _record(self, flags: Any) -> None:
        found: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        for module, own in flags.flags_by_module_dict().items():
            for flag in own:
                if flag.present or not program.is_of(module, frozenset(("absl",))):
                    found[not flag.present][flag.name] = flag.value
        for part, origin in zip(found, ("cli", "default")):
            self._session.params(values.flatten(part)[0], origin, "absl")


def hook(session: Session, module: Any) -> None:
    """Put the hook into the module ``absl.flags._flagvalues``."""
    flags = Flags(session)
    wrap(module.FlagValues, "__call__", flags.enter, flags.leave)
