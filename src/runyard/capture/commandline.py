"""Parameters on a command line of which nobody told us what its options mean."""

from __future__ import annotations

import os
import re

from runyard.capture import program
from runyard.wire import values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_SCRIPT = re.compile(r"\.(py|pyw|pyz|sh|bash|zsh|fish|R|r|jl|pl|rb|lua|js|ts|m|ipynb)\Z")
_STARTER = re.compile(
    r"(python|pypy)[0-9.]*t?\Z|(ba|da|z|fi|k)?sh\Z"
    r"|(torchrun|accelerate|deepspeed|horovodrun|mpirun|mpiexec|srun|uv|poetry|pixi|pipenv|conda|mamba|micromamba|hatch|pdm|rye"
    r"|env|nice|ionice|time|timeout|numactl|taskset|stdbuf|xvfb-run|Rscript|julia|perl|ruby|lua|node|deno|octave|make)\Z"
)
"""Programs whose own options come first, and then the program that they start with its own."""
_PAIR = re.compile(r"(?:\+{0,2})([A-Za-z_][\w./@-]*)=(.*)\Z", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][\w.:/@-]*\Z")


def parse_command(argv: Sequence[str]) -> dict[str, Any]:
    """Return what a whole command, program first, seems to set: `options` of what follows the program or its script."""
    return options(_arguments(argv))


def _arguments(argv: Sequence[str]) -> Sequence[str]:
    start = 0
    while start < len(argv) and _starts_another(argv, start):
        python = re.match(r"(python|pypy)", os.path.basename(argv[start]))
        inner = _script(argv, start + 1, bool(python))
        if inner == start:
            break
        start = inner
    return argv[start + 1 :]


def _starts_another(argv: Sequence[str], index: int) -> bool:
    if index and argv[index - 1] in ("-m", "--module"):
        return program.is_of(argv[index], program.TOOLS | program.RUNNERS)
    return bool(_STARTER.match(os.path.basename(argv[index])))


def _script(argv: Sequence[str], first: int, python: bool) -> int:
    """Return the index of the script, module or program that the one before ``first`` starts; ``first - 1`` if none."""
    for index in range(first, len(argv)):
        word = argv[index]
        if word in ("-m", "--module") and index + 1 < len(argv):
            return index + 1
        if word == "-c" and python:
            return min(index + 1, len(argv) - 1)
        if _SCRIPT.search(word) or _STARTER.match(os.path.basename(word)):
            return index
    return first - 1


def options(arguments: Sequence[str], only_long: bool = False) -> dict[str, Any]:
    """Return the values that arguments seem to set, by name.

    ``--x 1``, ``--x=1``, ``-x 1``, ``-lr=1``, ``-j4``, ``x=1``, ``+x=1``, and ``--flag`` (true). Dashes within a name
    become underscores, as argparse does it; numbers after an option that follow each other are a list, as text; words that
    belong to no option are left out. ``only_long``: nothing that begins with a single dash, and no flags.
    """
    found: dict[str, Any] = {}
    index = 0
    while index < len(arguments) and len(found) < values.MAX_VALUES:
        word = arguments[index]
        index += 1
        if word == "--":
            break
        if not _is_option(word):
            pair = _PAIR.match(word)
            if pair:
                found[pair.group(1)] = values.typed(pair.group(2))
            continue
        taken = _taken(arguments, index)
        name, value = _option(word, arguments[index : index + taken])
        if name and not (only_long and (word[:2] != "--" or value is True)):
            found[name] = value
        index += taken
    return values.flatten(found)[0]


def _is_option(word: str) -> bool:
    return len(word) > 1 and word[0] == "-" and isinstance(values.typed(word), str)


def _taken(arguments: Sequence[str], index: int) -> int:
    """Return how many words from here on are the value of the option before: one, or all numbers in a row."""
    if "=" in arguments[index - 1] or index >= len(arguments):
        return 0
    if _is_option(arguments[index]) or _PAIR.match(arguments[index]):
        return 0
    end = index
    while end < len(arguments) and isinstance(values.typed(arguments[end]), (int, float)):
        end += 1
    return max(1, end - index)


def _option(word: str, taken: Sequence[str]) -> tuple[str, Any]:
    name, has_value, value = word.lstrip("-").partition("=")
    if has_value:
        found: Any = values.typed(value)
    elif taken:
        found = values.typed(taken[0]) if len(taken) == 1 else [values.typed(item) for item in taken]
    else:
        short = re.match(r"-([A-Za-z])([0-9.]+)\Z", word)
        if short:
            return short.group(1), values.typed(short.group(2))
        found = True
    return (name.replace("-", "_") if _NAME.match(name) else ""), found
