"""Configuration files as parameters: YAML 1.2, JSON, TOML and INI, flattened."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from runyard.wire import values

MAX_TEXT = 256 * 1024
"""Characters; more is data, and no configuration."""

MAX_MERGED = 10000
"""Entries of one mapping in YAML."""

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


class _Loader(Base):
    """The core schema of YAML 1.2: ``1e-4`` is a number, ``no`` and ``2024-01-01`` are text, ``010`` is ten."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Take in what ``<<`` names; raises ConstructorError where that grows beyond all measure."""
        super().flatten_mapping(node)
        if len(node.value) > MAX_MERGED:
            raise yaml.constructor.ConstructorError(None, None, "too much is merged", node.start_mark)


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
    if len(text) > MAX_TEXT:
        return Config({}, f"it is longer than {MAX_TEXT // 1024} kB, so it was not read for parameters")
    try:
        found = _READERS[format](text)
    except KeyError:
        return Config({}, f"{format} is no format of configuration files that is known")
    except (ValueError, RecursionError, yaml.YAMLError, configparser.Error, OverflowError, TypeError) as exc:
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


def _ini(text: str) -> dict[Hashable, Any]:
    parser = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True, delimiters=("=", ":"))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        parser.read_string(text)
    except configparser.MissingSectionHeaderError:
        parser.read_string("[DEFAULT]\n" + text)
    found: dict[Hashable, Any] = {name: _typed(value) for name, value in parser.defaults().items()}
    for section in parser.sections():
        found[section] = {name: _typed(parser.get(section, name)) for name in parser._sections[section]}  # type: ignore[attr-defined]
    return found


def _typed(value: str | None) -> Any:
    return None if value is None else values.typed(value)


_READERS: dict[str, Callable[[str], Any]] = {"yaml": _yaml, "json": json.loads, "toml": tomllib.loads, "ini": _ini}
