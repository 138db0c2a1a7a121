"""Configuration files as parameters: YAML 1.2, JSON, TOML and INI, flattened."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import yaml

from runyard.wire import values

MAX_TEXT = {"yaml": 256 * 1024, "json": 256 * 1024, "toml": 64 * 1024, "ini": 64 * 1024}
"""Characters; more is data, and no configuration. What these are read with takes longer for some, and holds up the server."""

MAX_NODES = 20000
"""Values, names, lists and mappings of a YAML file; also entries that ``<<`` takes from elsewhere, all together."""

MAX_DEPTH = 100
"""Of nested lists and mappings in YAML. libyaml's own limit is the end of the stack, and that of the process."""

MAX_DOTS = 200
"""Of one dotted key in TOML, for which time grows by their square."""

_BLANKS = re.compile(r"[^\S\n]{64,}")
_PIECES = re.compile(r"[,=\[{\n]")

if TYPE_CHECKING or not yaml.__with_libyaml__:
    from yaml import SafeLoader as Base
else:
    from yaml import CSafeLoader as Base  # several times as fast


class Config(NamedTuple):
    """What a configuration file says."""

    values: dict[str, Any]
    """Numbers, text, true, false and null by flat name; lists are text."""
    note: str = ""
    """Why something or all of it is missing, as a sentence; else empty."""


MERGE = "tag:yaml.org,2002:merge"


class _Loader(Base):
    """The core schema of YAML 1.2: ``1e-4`` is a number, ``no`` and ``2024-01-01`` are text, ``010`` is ten."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.depth = self.nodes = self.merged = 0

    def descend_resolver(self, parent: Any, index: Any) -> None:
        """Count the nodes, and how deep they are: the parser calls this for each of them, before it makes it."""
        self.depth += 1
        self.nodes += 1
        if self.depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise yaml.composer.ComposerError(None, None, f"more than {MAX_DEPTH} levels or {MAX_NODES} values", None)

    def ascend_resolver(self) -> None:
        """Leave a node."""
        self.depth -= 1

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Take in what ``<<`` names; raises ConstructorError where that grows beyond all measure."""
        for key, value in node.value:
            if key.tag != MERGE:
                continue
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(part, yaml.MappingNode):
                    self.flatten_mapping(part)
                    self.merged += len(part.value)
                if self.merged > MAX_NODES:
                    raise yaml.constructor.ConstructorError(None, None, "too much is merged", node.start_mark)
        super().flatten_mapping(node)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):  # fmt: skip
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})\\Z"), _first)


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | str:
    text = str(loader.construct_scalar(node))
    if len(text) > 100:
        return text
    base = {"0o": 8, "0x": 16}.get(text[:2])
    return int(text[2:], base) if base else int(text)


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)).lower().replace(".inf", "inf").replace(".nan", "nan"))


def _any(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    """Return what stands behind a tag that we do not know, such as ``!Config``."""
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)
_Loader.add_multi_constructor("!", _any)
_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _any)


def parse_config(format: str, text: str) -> Config:
    """Return the values of a configuration file.

    ``format``: ``yaml``, ``json``, ``toml`` or ``ini``. A file that is none, or whose top is no mapping, has no values. At
    most `values.MAX_VALUES` are taken; what is nested deeper than `values.MAX_DEPTH` is text.
    """
    if format not in _READERS:
        return Config({}, f"{format} is no format of configuration files that is known")
    if len(text) > MAX_TEXT[format]:
        return Config({}, f"it is longer than {MAX_TEXT[format] // 1024} kB, so it was not read for parameters")
    try:
        found = _READERS[format](text)
    except (
        ValueError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        yaml.YAMLError,
        configparser.Error,
    ) as exc:
        return Config({}, f"it is no {format.upper()}: {values.cut(str(exc).partition(chr(10))[0])}")
    if not isinstance(found, dict):
        return Config({})
    flat, cut = values.flatten(found)
    return Config(flat, f"only the first {values.MAX_VALUES} values were taken" if cut else "")


def _yaml(text: str) -> Any:
    """Return the first document that is a mapping; raises YAMLError."""
    for document in yaml.load_all(text, Loader=_Loader):
        if isinstance(document, dict):
            return document
    return None


def _toml(text: str) -> dict[str, Any]:
    if any(piece.count(".") > MAX_DOTS for piece in _PIECES.split(text)):
        raise ValueError(f"a key with more than {MAX_DOTS} dots")
    return tomllib.loads(text)


class _Ini(configparser.ConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr

    def _handle_error(self, _error: Any, path: str, number: int, line: str) -> NoReturn:
        """Give up at the first wrong line: the parser writes its report of all of them anew with each."""
        raise configparser.ParsingError(f"{path}, line {number}: {values.cut(repr(line))}")


def _ini(text: str) -> dict[Hashable, Any]:
    text = _BLANKS.sub(" ", text)  # its patterns take the square of such a run of blanks
    options: Any = {"interpolation": None, "strict": False, "allow_no_value": True, "delimiters": ("=", ":")}
    parser = _Ini(**options)
    try:
        parser.read_string(text)
    except configparser.MissingSectionHeaderError:
        parser = _Ini(**options)
        parser.read_string("[DEFAULT]\n" + text)
    found: dict[Hashable, Any] = {name: _typed(value) for name, value in parser.defaults().items()}
    for section in parser.sections():
        found[section] = {name: _typed(parser.get(section, name)) for name in parser._sections[section]}  # type: ignore[attr-defined]
    return found


def _typed(value: str | None) -> Any:
    return None if value is None else values.typed(value)


_READERS: dict[str, Callable[[str], Any]] = {"yaml": _yaml, "json": json.loads, "toml": _toml, "ini": _ini}
