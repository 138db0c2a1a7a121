"""What of a run can be asked for: the fields of the query language, their kinds, and how their names are read."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from runyard.wire.errors import InvalidError

TEXT, NUMBER, TIME, DURATION, SWITCH = "text", "number", "time", "duration", "switch"
ANY = "any"
"""Kind of a parameter: each run has a number, a text, a switch or nothing there."""
SET = "set"
"""Kind of `tags` and `data`: names, of which a run has any number."""

RUN, PARAMS, METRICS, TAGS, ENV, DATA, CODE = "run", "params", "metrics", "tags", "env", "data", "code"
SPACES = (RUN, PARAMS, METRICS, TAGS, ENV, DATA, CODE)
RUN_FIELDS = {
    "id": TEXT, "project": TEXT, "name": TEXT, "message": TEXT, "user": TEXT, "state": TEXT, "host": TEXT,
    "command": TEXT, "created": TIME, "started": TIME, "ended": TIME, "duration": DURATION, "exit_code": NUMBER,
    "signal": NUMBER, "reason": TEXT, "origin": TEXT, "priority": NUMBER, "attempts": NUMBER, "sweep": TEXT,
    "archived": SWITCH, "goal": TEXT,
}  # fmt: skip
ALIASES = {"created_at": "created", "started_at": "started", "ended_at": "ended"}
"""Names of the same fields in the JSON of a run."""
CODE_FIELDS = {"commit": TEXT, "branch": TEXT, "tree": TEXT, "dirty": SWITCH}
DATA_FIELDS = {"sha256": TEXT, "size": NUMBER, "files": NUMBER}
STATISTICS = ("last", "min", "max", "mean", "best", "count", "step")
"""Of a metric. All but ``count`` and ``step`` may be NaN."""
ENV_TEXTS = ("python", "os", "kernel", "machine", "host", "cpu", "driver", "container")
ENV_PYTHON = ("version", "implementation", "path", "prefix", "base_prefix")
ENV_TABLES = ("packages", "variables", "editable")
PARTS_MAX = 50


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that can be asked of a run, e.g. ``metrics["val/acc"].best``."""

    space: str
    """One of `SPACES`; ``""``: a bare name of an order or a column, which means a metric or else a parameter."""
    name: str
    """Below the space; of ``env`` and ``data`` too: ``packages.torch``, the path of a file."""
    part: str = ""
    """The statistic of a metric, the fact of a data file (``""``: that there is one), the table of ``env``."""
    kind: str = TEXT

    def __str__(self) -> str:
        """Return it as it stands in a query."""
        if self.space == TAGS or not self.space:
            return self.name or self.space
        if self.space == ENV:
            return f"env.{self.part}{_dotted(self.name) if self.part in ENV_TABLES else ''}".removesuffix(".")
        shown = self.space + _dotted(self.name)
        return shown + ("." + self.part if self.part and self.part != "last" else "")


def _dotted(name: str) -> str:
    if name and all(part.isidentifier() for part in name.split(".")):
        return "." + name
    return '["' + name.replace("\\", "\\\\").replace('"', '\\"') + '"]'


class Part(NamedTuple):
    """A piece of a reference as it was typed."""

    text: str
    quoted: bool
    """In brackets, and therefore nothing but a name."""


def near(word: str, known: Collection[str], most: int = 2) -> list[str]:
    """Return the names that somebody may have meant."""
    lower = {name.lower(): name for name in known}
    return [lower[name] for name in difflib.get_close_matches(word.lower(), list(lower), most, 0.6)]


def meant(found: Sequence[str], otherwise: str = "") -> str:
    """Return the hint that names them."""
    return f"did you mean {' or '.join(found)}?" if found else otherwise


def read(space: str, parts: Sequence[Part]) -> Field:
    """Return the field of a reference: its first word, and what follows it.

    Raises:
        InvalidError: there is none; without the place, which the caller knows.
    """
    if len(parts) > PARTS_MAX:
        raise InvalidError("this name has too many parts", f"at most {PARTS_MAX}")
    if space not in SPACES:
        found = [*near(space, SPACES, 1)] or near(space, ["run." + name for name in RUN_FIELDS], 1)
        raise InvalidError(f"there is no {space}", meant(found, f"a field begins with {', '.join(SPACES)}"))
    if space == TAGS:
        if parts:
            raise InvalidError("tags has no fields", '"NAME" in tags asks for a tag')
        return Field(TAGS, "", kind=SET)
    if space == DATA and not parts:
        return Field(DATA, "", kind=SET)
    if not parts:
        raise InvalidError(f"{space} is no field by itself", f"name one: {_example(space)}")
    if any(not part.text for part in parts):
        raise InvalidError("a name is empty", f"name one: {_example(space)}")
    return _READERS[space](parts)


def _example(space: str) -> str:
    return {
        RUN: "run.state", PARAMS: "params.lr", METRICS: "metrics.loss", ENV: "env.python", CODE: "code.commit",
        DATA: 'data["train.csv"]',
    }[space]  # fmt: skip


def _listed(space: str, known: dict[str, str], parts: Sequence[Part]) -> Field:
    name = ALIASES.get(parts[0].text, parts[0].text)
    if name not in known:
        raise InvalidError(
            f"{space} has no field {name}",
            meant([f"{space}.{found}" for found in near(name, known)], f"{space} has {', '.join(known)}"),
        )
    if len(parts) > 1:
        raise InvalidError(f"{space}.{name} has no fields", f"write just {space}.{name}")
    return Field(space, name, kind=known[name])


def _run(parts: Sequence[Part]) -> Field:
    return _listed(RUN, RUN_FIELDS, parts)


def _code(parts: Sequence[Part]) -> Field:
    return _listed(CODE, CODE_FIELDS, parts)


def _param(parts: Sequence[Part]) -> Field:
    return Field(PARAMS, ".".join(part.text for part in parts), kind=ANY)


def _metric(parts: Sequence[Part]) -> Field:
    last = parts[-1]
    if len(parts) > 1 and not last.quoted and last.text in STATISTICS:
        return Field(METRICS, ".".join(part.text for part in parts[:-1]), last.text, NUMBER)
    if len(parts) > 1 and parts[0].quoted:
        raise InvalidError(
            f"a metric has no {last.text}",
            meant(near(last.text, STATISTICS, 1), f"a metric has {', '.join(STATISTICS)}"),
        )
    return Field(METRICS, ".".join(part.text for part in parts), "last", NUMBER)


def _data(parts: Sequence[Part]) -> Field:
    last = parts[-1]
    if len(parts) > 1 and not last.quoted and last.text in DATA_FIELDS:
        return Field(DATA, ".".join(part.text for part in parts[:-1]), last.text, DATA_FIELDS[last.text])
    if len(parts) > 1 and parts[0].quoted:
        raise InvalidError(
            f"a data file has no {last.text}", meant(near(last.text, DATA_FIELDS, 1), "it has sha256, size, files")
        )
    return Field(DATA, ".".join(part.text for part in parts))


def _env(parts: Sequence[Part]) -> Field:
    first, rest = parts[0].text, ".".join(part.text for part in parts[1:])
    if first in ENV_TABLES:
        if not rest:
            raise InvalidError(f"env.{first} is no field by itself", f"name one: env.{first}.NAME")
        return Field(ENV, rest.lower().replace("_", "-") if first == "packages" else rest, first)
    if first not in ENV_TEXTS:
        known = (*ENV_TEXTS, *ENV_TABLES)
        raise InvalidError(
            f"env has no {first}",
            meant([f"env.{found}" for found in near(first, known)], f"env has {', '.join(known)}"),
        )
    if first == "python":
        if rest and rest not in ENV_PYTHON:
            raise InvalidError(
                f"env.python has no {rest}", meant(near(rest, ENV_PYTHON, 1), f"it has {', '.join(ENV_PYTHON)}")
            )
        return Field(ENV, rest or "version", "python")
    if rest:
        raise InvalidError(f"env.{first} has no fields", f"write just env.{first}")
    return Field(ENV, "", first)


_READERS = {RUN: _run, PARAMS: _param, METRICS: _metric, ENV: _env, DATA: _data, CODE: _code}
