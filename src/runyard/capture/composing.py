"""Parameters from hydra: the configuration as it was composed, and what the command line overrode."""

from __future__ import annotations

import sys

from runyard.capture.patch import wrap
from runyard.wire import values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runyard.capture.session import Session


class Composed:
    """Records what ``Hydra.compose_config`` returns for a single run; each job of a multirun would be another run."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def enter(self, args: Any, kwargs: Any) -> None:
        """Files that are opened from now on are parts of the configuration."""
        self._session.composing += 1

    def leave(self, token: None, config: Any) -> None:
        """It has returned a configuration, or raised (None)."""
        try:
            self._session.composing -= 1
            if config is not None and self._session.counts():
                self._record(config)
        except Exception:  # noqa: BLE001 - the program must not notice
            self._session.failed()

    def _record(self, config: Any) -> None:
        omegaconf: Any = sys.modules["omegaconf"]
        if "hydra" not in config:
            return
        overrides = {
            word.lstrip("+~").partition("=")[0].partition("@")[0].replace("/", ".")
            for word in (config.hydra.overrides.task or [])
        }
        own = omegaconf.OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
        try:
            plain = omegaconf.OmegaConf.to_container(own, resolve=True)
        except omegaconf.errors.OmegaConfBaseException:
            plain = omegaconf.OmegaConf.to_container(own, resolve=False)  # `${hydra:...}` is only known later
        flat, cut = values.flatten(plain)
        if cut:
            self._session.remark("hydra: only the first %d parameters are kept" % values.MAX_VALUES)
        name = config.hydra.job.config_name or ""
        given = {key for key in flat if any(key == part or key.startswith(part + ".") for part in overrides)}
        self._session.params({key: flat[key] for key in flat if key not in given}, "file", "hydra %s" % name)
        self._session.params({key: flat[key] for key in flat if key in given}, "cli", "hydra")


def hook(session: Session, module: Any) -> None:
    """Put the hook into the module ``hydra._internal.hydra``."""
    composed = Composed(session)
    wrap(module.Hydra, "compose_config", composed.enter, composed.leave)
