"""The run spec: what a submit says, checked and completed (docs/protocol.md, "Run spec")."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from runyard.wire.errors import InvalidError
from runyard.wire.ids import is_run_id
from runyard.wire.patterns import Patterns
from runyard.wire.settings import CAPTURE, parse_goal

Json = dict[str, Any]
_STR, _BOOL, _INT = (str,), (bool,), (int,)
_NUMBER = (int, float)
FIELDS: dict[str, tuple[tuple[type, ...], Any]] = {
    # name: (types, default); a default of None makes the field nullable, ... makes it required
    "id": (_STR, ...),
    "project": (_STR, ...),
    "name": (_STR, None),
    "message": (_STR, ""),
    "tags": ((list,), []),
    "priority": (_INT, 0),
    "after": ((list,), []),
    "hold": (_BOOL, False),
    "retries": (_INT, 0),
    "requeue": (_BOOL, True),
    "time_limit_s": (_NUMBER, None),
    "resources": ((dict,), {}),
    "command": ((list,), ...),
    "program": (_STR, None),
    "cwd": (_STR, ""),
    "source": (_STR, ""),
    "repo_name": (_STR, "code"),
    "in_place": (_BOOL, False),
    "shell": (_BOOL, False),
    "pty": (_BOOL, True),
    "fresh": (_BOOL, False),
    "snapshot": ((dict,), {}),
    "links": ((list,), []),
    "also": ((list,), []),
    "adopt": ((list,), []),
    "pythonpath": ((list,), []),
    "environment": ((dict,), {}),
    "tracking": ((dict,), {}),
    "rerun_of": (_STR, None),
    "sweep": (_STR, None),
}
RESOURCES: dict[str, tuple[type, ...]] = {
    "gpus": _INT, "cpus": _INT, "mem": _INT, "gpu_model": _STR, "host": _STR,
}  # fmt: skip
COLUMNS = frozenset(
    "id project name message tags priority after hold retries requeue time_limit_s resources environment env sweep".split()
)
"""Fields that have a column or a table of their own; the rest is stored as one JSON value."""
PRIORITY_LIMIT = 1_000_000
RETRIES_LIMIT = 1_000_000
TEXT_LIMIT = 1 << 20
_PLAIN = re.compile(r"[\w@%+=:,./ -]+", re.ASCII)
"""Characters that `shlex.quote` leaves alone, and the blank."""
_RESERVED_PROJECTS = frozenset({".", "..", ""})


OWN = ("id", "name", "message", "command")
"""Fields in which the runs of one submit usually differ."""
MEMO_MAX = 256


class Spec(NamedTuple):
    """A run spec, checked and completed."""

    id: str
    name: str | None
    message: str
    command: list[str]
    shared: Json
    """All other fields; one object for specs of a submit that had the same values there."""


def parse_specs(bodies: Iterable[Mapping[str, Any]]) -> list[Spec]:
    """Return specs with defaults filled in. Values are not copied: the bodies must stay as they are.

    Raises:
        InvalidError: naming every problem of the first spec that has any.
    """
    memo: dict[tuple[Any, ...], Json] = {}
    return [_parse(body, memo) for body in bodies]


def _parse(body: Mapping[str, Any], memo: dict[tuple[Any, ...], Json]) -> Spec:
    rest = dict(body)
    own = [rest.pop(name, FIELDS[name][1]) for name in OWN]
    # Specs of one submit share most values as objects, and equal objects need not be looked at twice.
    key = (*rest, *map(id, rest.values()))
    shared = memo.get(key)
    problems: list[str] = []
    if shared is None:
        shared, problems = _complete(rest)
        if not problems and len(memo) < MEMO_MAX:
            memo[key] = shared
    if own[2] is None:
        own[2] = ""
    problems = _check_own(own) + problems
    if problems:
        raise InvalidError(
            f"the run cannot be queued: {'; '.join(problems)}",
            "see the run spec in docs/protocol.md",
            problems=problems,
        )
    run_id, name, message, command = own
    return Spec(run_id, name, message, command, shared)


def _complete(body: Mapping[str, Any]) -> tuple[Json, list[str]]:
    """Fill in defaults; return the fields that are not a run's own, and what is wrong with them."""
    problems = [f"unknown field {name!r}" for name in body if name not in FIELDS and name != "env"]
    spec: Json = {}
    for name, (_, default) in FIELDS.items():
        if name not in OWN:
            value = body.get(name, default)
            problems += _type_problem(name, value)
            spec[name] = default if value is None else value
    return spec, problems or _check(spec)


def _type_problem(name: str, value: object) -> list[str]:
    types, default = FIELDS[name]
    if value is ...:
        return [f"{name} is missing"]
    if value is None and default is not ...:
        return []
    if isinstance(value, types) and (types is _BOOL or not isinstance(value, bool)):
        return []
    return [f"{name} is {value!r:.60}, which is no {types[-1].__name__}"]


def _check_own(own: list[Any]) -> list[str]:
    run_id, name, message, command = own
    if (
        type(run_id) is str and is_run_id(run_id) and type(message) is str and len(message) <= TEXT_LIMIT
        and type(command) is list and command and all(map(_is_text, command)) and (name is None or is_name(name))
    ):  # fmt: skip
        return []
    problems = [problem for field, value in zip(OWN, own, strict=True) for problem in _type_problem(field, value)]
    if problems:
        return problems
    if not is_run_id(run_id):
        problems.append(f"id {run_id!r} is not 12 characters of a-z2-7")
    if not command or not all(map(_is_text, command)):
        problems.append("the command is empty or holds a NUL")
    if len(message) > TEXT_LIMIT:
        problems.append("the message is longer than 1 MiB")
    if name is not None and not is_name(name):
        problems.append(f"name {name!r} is empty, looks like an id, has a slash or starts with @ or -")
    return problems


def _check(spec: Json) -> list[str]:
    problems = []
    if not is_file_name(spec["project"]):
        problems.append(f"project {spec['project']!r} cannot be the name of a directory")
    if not is_file_name(spec["repo_name"]) or spec["repo_name"] == ".runyard":
        problems.append(f"repo_name {spec['repo_name']!r} cannot be the name of a directory")
    if spec["cwd"] and (spec["cwd"].startswith("/") or ".." in posixpath.normpath(spec["cwd"]).split("/")):
        problems.append(f"cwd {spec['cwd']!r} leaves the tree")
    if not all(map(is_tag, spec["tags"])):
        problems.append("a tag is empty, longer than 200 characters or no printable text")
    if not all(_is_text(after) and is_run_id(after) for after in spec["after"]):
        problems.append("after names something that is no run id")
    if not all(isinstance(link, dict) for link in spec["links"]):
        problems.append("a link is no object")
    if abs(spec["priority"]) > PRIORITY_LIMIT:
        problems.append(f"priority {spec['priority']} is beyond ±{PRIORITY_LIMIT}")
    if not 0 <= spec["retries"] <= RETRIES_LIMIT:
        problems.append(f"retries is {spec['retries']}, not 0 to {RETRIES_LIMIT}")
    if spec["time_limit_s"] is not None and not 0 < spec["time_limit_s"] < 1e10:
        problems.append("the time limit is not positive")
    if not spec["in_place"] and not isinstance(spec["snapshot"].get("tree"), str):
        problems.append("snapshot.tree is missing")
    return problems + _check_resources(spec["resources"]) + _check_tracking(spec["tracking"])


def _check_tracking(tracking: Json) -> list[str]:
    """Check what is to be captured: ``capture`` (kinds), ``pattern`` (regular expressions), ``goal``."""
    problems = [f"unknown field tracking.{name}" for name in tracking if name not in ("capture", "pattern", "goal")]
    for name in ("capture", "pattern"):
        value = tracking.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            problems.append(f"tracking.{name} is no list of texts")
    if not problems:
        try:
            Patterns(tracking.get("pattern") or [])
        except ValueError as exc:
            problems.append(f"tracking.pattern: {exc}")
    unknown = [kind for kind in tracking.get("capture") or [] if kind not in CAPTURE]
    if unknown and not problems:
        problems.append(f"tracking.capture has {unknown[0]!r}; there are {', '.join(CAPTURE)}")
    try:
        parse_goal(tracking.get("goal") or "")
    except (ValueError, AttributeError):
        problems.append(f"tracking.goal is {tracking['goal']!r:.60}, which is no `max METRIC` or `min METRIC`")
    return problems


def _check_resources(resources: Json) -> list[str]:
    problems = []
    for name, value in resources.items():
        if name not in RESOURCES:
            problems.append(f"unknown resource {name!r}; there are {', '.join(RESOURCES)}")
        elif value is not None and (not isinstance(value, RESOURCES[name]) or isinstance(value, bool)):
            problems.append(f"resource {name} is {value!r}")
        elif isinstance(value, int) and (value < 0 or (value == 0 and name != "gpus")):
            problems.append(f"resource {name} is {value}")
    return problems


def is_tag(value: object) -> bool:
    """Tell whether a value can be a tag: 1 to 200 printable characters."""
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def is_name(value: object) -> bool:
    """Tell whether a value can be the name of a run: not empty, no slash, no option, neither an id nor one of the @ words."""
    return isinstance(value, str) and bool(value) and "/" not in value and not is_run_id(value) and value[0] not in "@-"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def is_file_name(text: object) -> bool:
    """Tell whether a value can be the name of a project and of its directory."""
    return (
        isinstance(text, str)
        and text not in _RESERVED_PROJECTS
        and "/" not in text
        and "\0" not in text
        and len(text.encode("utf-8", "surrogatepass")) <= 200
    )


def command_text(command: list[str]) -> str:
    """Return a command as one line that a shell would read back."""
    line = " ".join(command)
    if line.count(" ") == len(command) - 1 and "" not in command and _PLAIN.fullmatch(line):
        return line  # the usual case, ten times as fast
    return shlex.join(command)
