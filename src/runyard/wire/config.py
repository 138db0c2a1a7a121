"""Reading configuration files. TOML needs Python 3.11, so only the yard half and the command line call this."""

from __future__ import annotations

import os

from runyard.wire import settings
from runyard.wire.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def _load(path: str, only: bytes = b"") -> dict[str, Any] | None:
    """Parse a TOML file; None when it does not exist, or does not contain ``only`` anywhere."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise ConfigError("%s cannot be read: %s" % (path, exc.strerror), "make it readable or move it away") from exc
    if only not in data:
        return None
    import tomllib  # costs as much as starting Python, and most commands find no file that concerns them

    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError("%s is not valid TOML: %s" % (path, exc), "correct that line or move the file away") from exc


def home_settings(home: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return all settings as the yard sees them: defaults, ``config.toml``, environment."""
    path = os.path.join(home, "config.toml")
    values = settings.defaults()
    values.update(_checked(_load(path) or {}, path, settings.HOME))
    values.update(settings.from_environment(environ))
    return values


def project_settings(top: str) -> dict[str, Any]:
    """Return what ``runyard.toml``, or else ``[tool.runyard]`` of ``pyproject.toml``, of a directory sets."""
    path = os.path.join(top, "runyard.toml")
    values = _load(path)
    if values is None:
        path = os.path.join(top, "pyproject.toml")
        values = ((_load(path, b"runyard") or {}).get("tool") or {}).get("runyard") or {}
    return _checked(values, path, settings.PROJECT)


def _checked(values: Mapping[str, Any], path: str, file: str) -> dict[str, Any]:
    """Check what a file says; an error names the line, too."""
    try:
        return settings.check(values, path, file)
    except ConfigError as exc:
        where = "%s, line %d" % (path, _line_of(str(exc.details.get("key")), path))
        raise ConfigError(where + exc.message[len(path) :], exc.hint, **exc.details) from None


def _line_of(name: str, path: str) -> int:
    """Return the number of the line of a TOML file that sets a value for Runyard; 1 where it is written otherwise."""
    ours = not path.endswith("pyproject.toml")
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.startswith("["):
                ours = "runyard" in line
            if ours and line.partition("=")[0].strip(" \t[]\"'") == name:
                return number
    return 1
