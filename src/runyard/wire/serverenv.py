"""The environment of the server: what it needs of its starter's, and nothing of the starter's work.

The server outlives the shell, virtual environment and secrets of whoever happened to start it.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES = frozenset(
    "PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR XDG_RUNTIME_DIR DBUS_SESSION_BUS_ADDRESS "
    "CUDA_VISIBLE_DEVICES LD_LIBRARY_PATH HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy "
    "SYSTEMD_EXEC_PID INVOCATION_ID NOTIFY_SOCKET __CF_USER_TEXT_ENCODING".split()
)
_PREFIXES = ("RUNYARD_", "LC_", "SSL_", "NVIDIA_", "PG")
"""PG: how libpq finds its server and password file."""
_OF_RUNS = frozenset(
    "RUNYARD_SERVER RUNYARD_TOKEN RUNYARD_RUN_ID RUNYARD_ATTEMPT RUNYARD_PROJECT RUNYARD_RUN_DIR "
    "RUNYARD_RESUMED RUNYARD_SPOOL RUNYARD_CAPTURE".split()
)


def package_root() -> str:
    """Return the directory that must be on PYTHONPATH for this package to be found, ``""`` when it is installed."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return "" if os.path.basename(root) in ("site-packages", "dist-packages") else root


def server_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a server gets. Where the package is not installed, PYTHONPATH is its own directory."""
    kept = {
        name: value
        for name, value in environ.items()
        if name not in _OF_RUNS and (name in _NAMES or name.startswith(_PREFIXES))
    }
    root = package_root()
    if root:
        kept["PYTHONPATH"] = root
    return kept
