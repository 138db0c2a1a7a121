"""The one table of settings: it feeds configuration files, environment variables, checks, ``--help`` and the docs.

Precedence: command line, ``RUNYARD_<NAME>``, project file (``runyard.toml`` or ``[tool.runyard]`` in
``pyproject.toml``), ``config.toml`` in the home, default. Unknown keys are errors.
"""

from __future__ import annotations

from runyard.wire.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

HOME, PROJECT = "home", "project"
PATTERNS = "regular expressions"
DEFAULT_PORT = 8086


CAPTURE = ("params", "logs", "files", "data", "hardware")
"""Kinds of capture: parameters; metrics in what is printed, and in files that are written; data that is read; GPU and CPU."""


class Setting:
    """One setting: name, kind (str, int, float, bool, list), default, unit, help, and which file may set it."""

    def __init__(self, name: str, kind: type, default: Any, unit: str, help: str, file: str = HOME) -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.unit = unit
        self.help = help
        self.file = file

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "RUNYARD_" + self.name.upper()


SETTINGS = (
    Setting("listen", str, "127.0.0.1", "HOST[:PORT]",
            "Web address. Without a port: 8086, on loopback the next free one if that is taken."),
    Setting("database", str, "", "URL", "PostgreSQL or SQLite URL; empty: yard.db in the home."),
    Setting("autostart", bool, True, "", "Let the first command that needs the server start it."),
    Setting("cpu_slots", int, -1, "slots", "CPU slots of this host; -1: one per 4 cores, at least one."),
    Setting("gpus", str, "all", "", "GPUs to use: all, none, or a list of indices or UUIDs."),
    Setting("gpu_allow", list, ["Xorg", "gnome-shell", "Xwayland", "kwin_wayland", "plasmashell"], "",
            "Names of programs that may hold GPU memory while the GPU still counts as free."),
    Setting("gpu_free_mb", int, 300, "MiB",
            "GPU memory in use up to which a GPU counts as free when its processes cannot be read."),
    Setting("min_free", str, "2GB", "size", "Free disk space of the home below which nothing new starts."),
    Setting("grace", float, 30.0, "s", "Time between SIGTERM and SIGKILL."),
    Setting("keep_code", str, "30d", "always|<n>d|never",
            "How long unchanged code stays in the directories of ended runs."),
    Setting("trash_days", float, 7.0, "days", "How long removed runs can be brought back."),
    Setting("checkpoints", list, [], "patterns", "Outputs that `gc --checkpoints` may thin to the newest, e.g. *.pt."),
    Setting("notify", list, [], "URLs", "Apprise addresses that get a notice when a run ends."),
    Setting("notify_on", list, ["finished", "failed", "lost"], "states", "Ends worth a notice: finished, failed, killed, lost."),
    Setting("notify_timeout", float, 10.0, "s", "Time after which a notice is given up."),
    Setting("project", str, "", "", "Project of new runs; empty: the name of the repository's top directory.", PROJECT),
    Setting("link", list, [], "paths", "Paths that are linked into every run instead of copied.", PROJECT),
    Setting("ignore", list, [], "patterns", "Untracked files that are never frozen (git-ignore patterns).", PROJECT),
    Setting("max_file", str, "50MB", "size", "Untracked files larger than this are linked, not copied.", PROJECT),
    Setting("capture", list, list(CAPTURE), "kinds",
            "What is captured without any change to the code: params, logs, files, data, hardware.", PROJECT),
    Setting("pattern", list, [], PATTERNS,
            r"Regular expressions for metrics in what runs print, e.g. 'loss is (\value)': one group is a value, two are name "
            "and value, named groups are metrics. In the variable one on each line.", PROJECT),
    Setting("goal", str, "", "max|min METRIC", "What runs are for, e.g. max val/acc: it says which run is best.", PROJECT),
    Setting("require_clean", bool, False, "", "Refuse to submit a working tree with uncommitted changes.", PROJECT),
)  # fmt: skip
BY_NAME = {setting.name: setting for setting in SETTINGS}
RESERVED_VARIABLES = frozenset(
    "RUNYARD_HOME RUNYARD_SERVER RUNYARD_TOKEN RUNYARD_RUN_ID RUNYARD_ATTEMPT RUNYARD_PROJECT RUNYARD_RUN_DIR "
    "RUNYARD_RESUMED RUNYARD_SPOOL RUNYARD_CI".split()
)


_KINDS = {str: "text", int: "whole number", float: "number", bool: "switch (true or false)", list: "list of texts"}


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that ``RUNYARD_*`` variables give; raises `ConfigError` for a value that does not parse."""
    found = {}
    for setting in SETTINGS:
        text = environ.get(setting.variable)
        if text is not None and not (setting.name == "project" and not text):
            found[setting.name] = parse(setting, text, setting.variable)
    return found


def parse(setting: Setting, text: str, where: str) -> Any:
    """Parse the text form of a setting; lists are comma-separated. Raises `ConfigError`."""
    try:
        if setting.kind is bool:
            value: Any = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
        elif setting.kind is list:
            between = "\n" if setting.unit == PATTERNS else ","  # commas are part of regular expressions
            value = [part.strip() for part in text.split(between) if part.strip()]
        else:
            value = setting.kind(text)
    except (KeyError, ValueError):
        raise ConfigError(
            "%s: %r is no %s" % (where, text, _KINDS[setting.kind]), "%s: %s" % (setting.name, setting.help)
        ) from None
    _require(setting, value, where)
    return value


def _require(setting: Setting, value: Any, where: str) -> None:
    """Raise `ConfigError` for a value that is not of the setting's kind, or out of its domain."""
    kind = setting.kind
    good = isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))
    what = setting.unit if setting.unit in _DOMAINS else _KINDS[kind]
    if good and kind is list:
        good = all(isinstance(item, str) for item in value)
    if good and kind in (int, float):
        least = min(0, setting.default)
        good, what = least <= value < float("inf"), "number of at least %d" % least
    if good and setting.unit in _DOMAINS:
        try:
            _DOMAINS[setting.unit](value)
        except ValueError as exc:
            good = False
            if setting.unit == PATTERNS:  # there may be many, and of each there is more to say
                raise ConfigError("%s: %s: %s" % (where, setting.name, exc), setting.help, key=setting.name) from None
    if not good:
        raise ConfigError(
            "%s: %s is %r, which is no %s" % (where, setting.name, value, what), setting.help, key=setting.name
        )


OF_AGENTS = ("cpu_slots", "gpus", "gpu_allow", "gpu_free_mb", "grace")
"""Settings that concern agents. They read no TOML: whoever starts one hands these over as variables."""


def agent_variables(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables that give an agent its settings, out of all of them."""
    found = {BY_NAME[name].variable: values[name] for name in OF_AGENTS}
    return {name: ",".join(value) if isinstance(value, list) else str(value) for name, value in found.items()}


def check(values: Mapping[str, Any], where: str, file: str) -> dict[str, Any]:
    """Check what a configuration file says; raises `ConfigError`, for unknown keys naming them and every valid one."""
    allowed = {s.name: s for s in SETTINGS if file in (s.file, HOME)}
    unknown = sorted(set(values) - set(allowed))
    if unknown:
        raise ConfigError(
            "%s: unknown setting%s %s" % (where, "s" if len(unknown) > 1 else "", ", ".join(unknown)),
            "valid here: " + ", ".join(sorted(allowed)),
            key=unknown[0],
        )
    for name, value in values.items():
        _require(allowed[name], value, where)
    return dict(values)


def defaults() -> dict[str, Any]:
    """Return the default of every setting."""
    return {setting.name: setting.default for setting in SETTINGS}


_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TIMES = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def _split_unit(text: str) -> tuple[float, str]:
    body = text.strip().lower()
    digits = body.rstrip("abcdefghijklmnopqrstuvwxyz ")
    try:
        return float(digits), body[len(digits) :].strip()
    except ValueError:
        raise ValueError("not a size: %r" % text) from None


def parse_size(text: str) -> int:
    """Return bytes for ``512``, ``10k``, ``2GB``, ``1.5GiB`` (all binary multiples); raises ValueError."""
    number, unit = _split_unit(text)
    if len(unit) > 1:
        unit = unit[:-2] if unit.endswith("ib") else unit[:-1] if unit.endswith("b") else unit
    if unit not in _SIZES or not 0 <= number < float("inf"):
        raise ValueError("not a size: %r" % text)
    return int(number * _SIZES[unit])


def parse_time(text: str) -> float:
    """Return seconds for ``90``, ``90s``, ``15m``, ``2h``, ``1d``, ``1h30m``; raises ValueError."""
    total, number = 0.0, ""
    for char in text.strip().lower():
        if char.isdigit() or char == ".":
            number += char
        else:
            total += float(number) * _TIMES[char] if char in _TIMES and number else float("nan")
            number = ""
    total += float(number) if number else 0.0
    if not text.strip() or not total < float("inf"):  # NaN is not less either
        raise ValueError("not a time: %r" % text)
    return total


def parse_keep(text: str) -> float | None:
    """Return the days that ``30d`` (0 for ``never``) means, None for ``always``; raises ValueError."""
    if text in ("always", "never"):
        return None if text == "always" else 0.0
    if not text.endswith("d") or not 0 <= float(text[:-1]) < float("inf"):
        raise ValueError("neither always, nor never, nor a number of days like 30d: %r" % text)
    return float(text[:-1])


def _check_ends(names: list[str]) -> None:
    if set(names) - {"finished", "failed", "killed", "lost"}:
        raise ValueError("not ends of runs: %r" % names)


def _check_kinds(kinds: list[str]) -> None:
    if set(kinds) - {*CAPTURE, "none"}:
        raise ValueError("not kinds of capture: %r" % kinds)


def _check_patterns(patterns: list[str]) -> None:
    if patterns:
        from runyard.wire.patterns import Patterns

        Patterns(patterns)


def parse_goal(text: str) -> tuple[int, str] | None:
    """Return the sign (1: the larger the better) and the metric of ``max val/acc``, None for ``""``; raises ValueError.

    ``metrics.`` and ``metrics["..."]`` around the name are allowed, as in queries.
    """
    if not text.strip():
        return None
    word, _, metric = text.strip().partition(" ")
    metric = metric.strip()
    if metric.startswith("metrics["):
        metric = metric[8:].rstrip("]").strip("\"'")
    elif metric.startswith("metrics."):
        metric = metric[8:]
    if word not in ("max", "min") or not metric:
        raise ValueError("not a goal: %r" % text)
    return (1 if word == "max" else -1), metric


_DOMAINS = {
    "size": parse_size, "always|<n>d|never": parse_keep, "states": _check_ends, "kinds": _check_kinds,
    PATTERNS: _check_patterns,
    "max|min METRIC": parse_goal,
}  # type: dict[str, Any]  # fmt: skip
"""What parses the values of settings of a unit."""


def split_address(listen: str) -> tuple[str, int | None]:
    """Return host and port of ``HOST:PORT``, ``[V6]:PORT`` or ``HOST`` (port None); raises `ConfigError`."""
    host, colon, port = listen.rpartition(":")
    named = bool(colon) and (":" not in host or host.startswith("[")) and not port.endswith("]")
    host = (host if named else listen).strip("[]") or "0.0.0.0"  # noqa: S104  ``:8086`` was asked for
    if not named:
        return host, None
    if not (port.isdigit() and port.isascii()) or int(port) > 65535:
        raise ConfigError("listen: %r is no address" % listen, "use HOST:PORT, for example 127.0.0.1:8086")
    return host, int(port)
