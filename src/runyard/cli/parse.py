"""The hand parser of ``runyard [OPTIONS] COMMAND...``: it stops at the first word that is no option.

Written by hand because importing click takes several times as long as starting Python, and this is the hot command.
"""

from __future__ import annotations

from runyard.cli.options import FLAG, INT, NAMES, RUN_OPTIONS, SIZE, VERBOSE, Option
from runyard.wire.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

CLICK = "click"
"""`split` says so when the command line is for click: a subcommand other than run, or help."""


def defaults() -> dict[str, Any]:
    """Return the options of a command line that gives none: lists empty, flags False, the rest None."""
    return {o.key: [] if o.repeat else False if o.kind == FLAG else None for o in (*RUN_OPTIONS, VERBOSE)}


def nearest(word: str, known: Sequence[str]) -> str:
    """Return the word that is most like this one, or ``""``."""
    import difflib

    found = difflib.get_close_matches(word, known, 1, 0.5)
    return found[0] if found else ""


def _unknown(word: str) -> UsageError:
    name = word.partition("=")[0]
    near = nearest(name, [o.flag for o in RUN_OPTIONS])
    hint = "did you mean %s? " % near if near else ""
    return UsageError(
        "unknown option %s" % name, hint + "Options of runyard come before the command; see `runyard run --help`."
    )


def _number(option: Option, text: str) -> float | None:
    from runyard.wire import settings

    try:
        if option.kind == INT:
            return int(text)
        return settings.parse_size(text) if option.kind == SIZE else settings.parse_time(text)
    except (ValueError, OverflowError):
        return None


def convert(option: Option, text: str) -> float:
    """Return the value of an int, size or time option; raises `UsageError` for one out of its domain."""
    number = _number(option, text)
    if number is None or (option.kind != INT and number <= 0):
        kind = {INT: "whole number", SIZE: "size above zero"}.get(option.kind, "time above zero")
        raise UsageError("%s: %r is no %s" % (option.flag, text, kind), option.help)
    if option.minimum is not None and number < option.minimum:
        raise UsageError("%s %s: must be at least %d" % (option.flag, text, option.minimum), option.help)
    return number


def _store(options: dict[str, Any], option: Option, text: str) -> None:
    value: Any = text if option.kind == "text" else convert(option, text)
    if option.repeat:
        options[option.key].append(value)
    else:
        options[option.key] = value


def _take_long(options: dict[str, Any], words: Sequence[str], at: int, known: dict[str, Option]) -> int:
    name, equals, text = words[at].partition("=")
    option = known.get(name)
    if option is None:
        raise _unknown(words[at])
    if option.kind == FLAG:
        if equals:
            raise UsageError("%s takes no value" % name, "write just %s" % name)
        options[option.key] = True
        return at + 1
    if not equals:
        if at + 1 >= len(words):
            raise UsageError("%s needs a value" % name, "%s %s: %s" % (name, option.metavar, option.help))
        text, at = words[at + 1], at + 1
    _store(options, option, text)
    return at + 1


def _take_short(options: dict[str, Any], words: Sequence[str], at: int, known: dict[str, Option]) -> int:
    rest = words[at][1:]
    while rest:
        option = known.get("-" + rest[0])
        if option is None:
            raise _unknown("-" + rest[0])
        rest = rest[1:]
        if option.kind == FLAG:
            options[option.key] = True
            continue
        if not rest:
            if at + 1 >= len(words):
                raise UsageError(
                    "-%s needs a value" % option.short, "-%s %s: %s" % (option.short, option.metavar, option.help)
                )
            rest, at = words[at + 1], at + 1
        _store(options, option, rest)
        rest = ""
    return at + 1


def parse_run(words: Sequence[str]) -> tuple[dict[str, Any], list[str], bool] | None:
    """Parse ``[OPTIONS] [--] COMMAND...``.

    Returns the options (keys of `defaults`), the command, and whether ``--`` separated them; None when help is asked
    for before the command. Raises `UsageError`.
    """
    known = {o.flag: o for o in (*RUN_OPTIONS, VERBOSE)}
    known.update({"-" + o.short: o for o in (*RUN_OPTIONS, VERBOSE) if o.short})
    options = defaults()
    at, separated = 0, False
    while at < len(words):
        word = words[at]
        if word == "--":
            at, separated = at + 1, True
            break
        if word in ("-h", "--help"):
            return None
        if word.startswith("--"):
            at = _take_long(options, words, at, known)
        elif word.startswith("-") and word != "-":
            at = _take_short(options, words, at, known)
        else:
            break
    if options["namespace"] is not None:
        if options["project"] not in (None, options["namespace"]):
            raise UsageError("--project and --namespace are the same option", "give one of them")
        options["project"] = options["namespace"]
    return options, list(words[at:]), separated


def split(argv: Sequence[str]) -> tuple[str, Any]:
    """Decide what a command line is.

    Returns ``("click", words)``, ``("version", None)`` or ``("run", (options, command, named))`` where ``named`` says
    that the word run, or ``--``, stood before the command, so that it is no mistyped subcommand. Raises `UsageError`.
    """
    if not argv or argv[0] in ("-h", "--help"):
        return CLICK, list(argv)
    if argv[0] == "help" and all(word in NAMES for word in argv[1:2]):
        return CLICK, [*argv[1:2], "--help"]
    if argv[0] in ("-V", "--version"):
        return "version", None
    if argv[0] == "run":
        parsed = parse_run(argv[1:])
        return (CLICK, ["run", "--help"]) if parsed is None else ("run", (parsed[0], parsed[1], True))
    if argv[0] in NAMES:
        return CLICK, list(argv)
    parsed = parse_run(argv)
    if parsed is None:
        return CLICK, ["run", "--help"]
    options, command, separated = parsed
    if not separated and command and command[0] in NAMES:
        return _after_options(argv, options, command)
    return "run", (options, command, separated)


def _after_options(argv: Sequence[str], options: dict[str, Any], command: list[str]) -> tuple[str, Any]:
    """Decide about a subcommand's name that follows options: ``-v ls``, ``-m x run python``, ``-p digits ls``."""
    given = list(argv[: len(argv) - len(command)])
    if command[0] == "run":
        parsed = parse_run(given + command[1:])
        return (CLICK, ["run", "--help"]) if parsed is None else ("run", (parsed[0], parsed[1], True))
    plain = dict(defaults(), verbose=options["verbose"])
    if options == plain:
        return CLICK, [command[0], "-v", *command[1:]]
    word = command[0]
    raise UsageError(
        "%s is a command of runyard, and %s stands before it" % (word, " ".join(given)),
        "To use the command, put it first: runyard %s ...; to queue a program of that name: runyard %s -- %s"
        % (word, " ".join(given), " ".join(command)),
    )
