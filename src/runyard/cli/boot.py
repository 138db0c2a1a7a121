"""Starting at boot: a systemd user unit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from runyard.client.connect import SERVER_COMMAND
from runyard.wire import files
from runyard.wire.errors import UnavailableError
from runyard.wire.serverenv import server_environment

UNIT = "runyard.service"
KEPT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "CUDA_VISIBLE_DEVICES")


def _escape(word: str) -> str:
    """Quote a word for a unit file (systemd.service(5), "Command lines"; systemd.unit(5), "Specifiers")."""
    return '"%s"' % word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")


def _assignment(name: str, value: str) -> str:
    return '"%s=%s"' % (name, value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%"))


def unit(home: str, environ: Mapping[str, str], arguments: Sequence[str] = ()) -> str:
    """Return the text of the unit that runs the server of a home, with these further arguments."""
    kept = server_environment(environ)
    variables = {name: value for name, value in kept.items() if name in KEPT and "\n" not in value}
    variables["RUNYARD_HOME"] = home
    return "\n".join(
        [
            "[Unit]",
            "Description=Runyard server",
            "After=network.target",
            "",
            "[Service]",
            "ExecStart=" + " ".join(_escape(word) for word in (*SERVER_COMMAND, "--home", home, *arguments)),
            *["Environment=" + _assignment(name, value) for name, value in sorted(variables.items())],
            "Restart=on-failure",
            # Runs must outlive the server: only the server's own process is stopped with the unit.
            "KillMode=process",
            "",
            "[Install]",
            "WantedBy=default.target",
            "",
        ]
    )


def _systemctl(*words: str) -> None:
    try:
        done = subprocess.run(["systemctl", "--user", *words], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise UnavailableError(
            "systemctl cannot be used: %s" % exc, "without systemd, add `runyard start` to cron: @reboot runyard start"
        ) from exc
    if done.returncode:
        raise UnavailableError(
            "systemctl --user %s: %s" % (" ".join(words), done.stderr.strip() or "failed"),
            "without a systemd user session, use cron: @reboot %s -m runyard.cli start" % sys.executable,
        )


def install(home: str, environ: Mapping[str, str], arguments: Sequence[str] = ()) -> list[str]:
    """Write and enable the unit; return what to tell the user.

    Raises:
        UnavailableError: there is no systemd for this user; the unit is not left behind.
    """
    config = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", ""), ".config")
    directory = os.path.join(config, "systemd", "user")
    path = os.path.join(directory, UNIT)
    os.makedirs(directory, exist_ok=True)
    files.write_atomic(path, unit(home, environ, arguments).encode("utf-8", "surrogateescape"), 0o644)
    try:
        _systemctl("daemon-reload")
        _systemctl("enable", UNIT)
    except UnavailableError:
        os.unlink(path)
        raise
    user = environ.get("USER") or environ.get("LOGNAME") or ""
    lines = ["Installed %s: the server starts at boot" % path]
    if user and not os.path.exists(os.path.join("/var/lib/systemd/linger", user)):
        lines.append("For a start before you log in, and no kill at log-out: sudo loginctl enable-linger %s" % user)
    return lines
