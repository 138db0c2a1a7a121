"""Checking what the server assigns, before any part of it becomes a path, a file name or an environment."""

from __future__ import annotations

import os

from runyard.wire.errors import InvalidError
from runyard.wire.paths import RECORDS, is_place, leaves
from runyard.wire.states import GRACE_S

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FIELDS = (
    ("attempt", str), ("run", str), ("epoch", int), ("number", int), ("slots", list), ("dir", str), ("spec", dict),
    ("env", dict),
)  # fmt: skip
_SPEC_FIELDS = (("command", list), ("program", str), ("cwd", str), ("repo_name", str), ("source", str))


def is_id(text: object) -> bool:
    """Tell whether text can be an attempt's name: 1 to 64 letters and digits, so it is safe as a file name."""
    return isinstance(text, str) and 0 < len(text) <= 64 and text.isascii() and text.isalnum()


def _need(value: dict[str, Any], name: str, kind: type, where: str) -> None:
    found = value.get(name)
    if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
        raise InvalidError("%s: %s should be %s, not %r" % (where, name, kind.__name__, found))


def check(value: object) -> dict[str, Any]:
    """Return an assignment whose fields have the types and forms that the protocol promises.

    Raises `InvalidError` naming the first field that has not.
    """
    if not isinstance(value, dict) or not is_id(value.get("attempt")):
        raise InvalidError("an assignment without a proper attempt id: %r" % (value,))
    where = "assignment %s" % value["attempt"]
    for name, kind in _FIELDS:
        _need(value, name, kind, where)
    spec = dict(value["spec"])
    spec.setdefault("cwd", "")
    spec.setdefault("source", "")
    spec.setdefault("program", spec["command"][0] if spec.get("command") else "")
    for name, kind in _SPEC_FIELDS:
        _need(spec, name, kind, where)
    _check_paths(value["dir"], spec, where)
    words = [*spec["command"], spec["program"], *(item for pair in value["env"].items() for item in pair)]
    if not spec["command"] or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise InvalidError("%s: command and environment should be text without zero bytes" % where)
    grace = value.get("grace_s")
    grace = float(grace) if isinstance(grace, (int, float)) and grace >= 0 else GRACE_S
    return dict(value, spec=spec, grace_s=grace)


def _check_paths(directory: str, spec: dict[str, Any], where: str) -> None:
    name = spec["repo_name"]
    if not name or "/" in name or name in (".", "..", RECORDS) or "\0" in name:
        raise InvalidError("%s: %r cannot be the name of a working tree" % (where, name))
    for path in [directory, spec["cwd"], *(spec.get("pythonpath") or [])]:
        if not isinstance(path, str) or leaves(path, beside=True):
            raise InvalidError("%s: the path %r leaves its directory" % (where, path))
    if (
        directory.startswith("../")
        or spec["cwd"].startswith("../")
        or not directory.strip("/")
        or os.path.normpath(directory) == "."
    ):
        raise InvalidError("%s: no directory" % where)
    for kind, target in (("links", "target"), ("adopt", "target"), ("also", "source")):
        for item in spec.get(kind) or []:
            _need_dict(item, where + ", " + kind)
            _need(item, "path", str, where)
            _need(item, target, str, where)
            if not is_place(item["path"], beside=kind != "adopt"):
                raise InvalidError("%s: nothing can be put at %r" % (where, item["path"]))


def _need_dict(value: object, where: str) -> None:
    if not isinstance(value, dict):
        raise InvalidError("%s: an object is expected, not %r" % (where, value))
