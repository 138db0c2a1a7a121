"""Setting a value in ``config.toml`` without touching the rest of the file."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from functools import partial

from runyard.wire import config, files
from runyard.wire.errors import ConfigError
from runyard.wire.paths import Home


def set_text(home: Home, name: str, value: str) -> Callable[[], None]:
    """Set a text setting in the ``config.toml`` of a home; what else stands there, comments too, stays as it is.

    Returns what puts the file back as it was.

    Raises:
        ConfigError: the file is not valid, or this simple editor would break it.
    """
    config.home_settings(home.path, {})  # raises for a file that is wrong already
    try:
        with open(home.config, encoding="utf-8") as file:
            before = file.read()
    except FileNotFoundError:
        before = ""
    lines = before.splitlines()
    new = "%s = %s" % (name, json.dumps(value))
    for at, line in enumerate(lines):
        if line.lstrip().startswith("["):
            lines.insert(at, new)
            break
        if line.partition("=")[0].strip() == name:
            lines[at] = new
            break
    else:
        lines.append(new)
    text = "\n".join(lines) + "\n"
    try:
        good = tomllib.loads(text).get(name) == value
    except tomllib.TOMLDecodeError:
        good = False
    if not good:
        raise ConfigError("%s could not be set in %s" % (name, home.config), "write there yourself: %s" % new)
    mode = os.stat(home.config).st_mode & 0o777 if before else 0o600
    files.write_atomic(home.config, text.encode("utf-8"), mode)
    if not before:
        return partial(os.unlink, home.config)
    return partial(files.write_atomic, home.config, before.encode("utf-8"), mode)
