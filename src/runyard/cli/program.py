"""What a command's first word means: the program on the submitter's PATH, or a mistake that must not be queued."""

from __future__ import annotations

import os

from runyard.wire.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
COMMAND_ADVANTAGE = 0.1
"""A mistyped word is rather a command of runyard than one of the thousands of programs that look alike."""


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _absolute(path: str, cwd: str) -> str:
    """Make a path absolute without following symbolic links: a venv's python knows its venv by them."""
    joined = os.path.join(cwd, path)
    clean = os.path.normpath(joined)
    try:
        return clean if os.path.samefile(clean, joined) else joined
    except OSError:
        return joined


def search(word: str, cwd: str, path: str) -> str | None:
    """Return the absolute path of the program that a shell in ``cwd`` would run for a word; None when there is none."""
    if "/" in word:
        found = os.path.join(cwd, word)
        return _absolute(word, cwd) if _is_program(found) else None
    for directory in path.split(os.pathsep):
        candidate = os.path.join(directory, word)
        if _is_program(os.path.join(cwd, candidate)):
            return _absolute(candidate, cwd)
    return None


def resolve(command: Sequence[str], cwd: str, environ: Mapping[str, str], named: bool) -> str:
    """Return the absolute path of a command's program.

    ``named``: the word run, or ``--``, stood before it; else it may be a mistyped subcommand. Raises `UsageError`.
    """
    if not command or not command[0]:
        raise UsageError("no command was given", "e.g. runyard run python train.py --lr 0.1")
    word = command[0]
    path = environ.get("PATH") or DEFAULT_PATH
    found = search(word, cwd, path)
    if found is not None:
        return found
    local = os.path.join(cwd, word)
    if os.path.isfile(local) and os.access(local, os.X_OK):
        return _absolute(word, cwd)
    if os.path.isdir(local):
        raise UsageError("%s is a directory, no program" % word, "give the program to run, e.g. python train.py")
    if os.path.exists(local):
        raise _not_executable(word, command)
    raise _useless(word, cwd, path) or _not_found(word, path, named)


def _not_executable(word: str, command: Sequence[str]) -> UsageError:
    from runyard.cli.text import command_line

    interpreter = {".py": "python", ".sh": "bash", ".r": "Rscript", ".jl": "julia"}.get(
        os.path.splitext(word)[1].lower()
    )
    if interpreter:
        return UsageError("%s is not executable" % word, "runyard " + command_line([interpreter, *command]))
    return UsageError(
        "%s is not executable" % word, "name the program that runs it, or make it executable: chmod +x %s" % word
    )


def _useless(word: str, cwd: str, path: str) -> UsageError | None:
    """Return what is wrong with the first file of this name on PATH; None when there is none."""
    for directory in path.split(os.pathsep):
        found = os.path.join(cwd, directory, word)
        if "/" in word or os.path.isdir(found) or not os.path.lexists(found):
            continue
        if not os.path.exists(found):
            return UsageError(
                "%s is a link to nothing; nothing was queued" % found, "install %s again, or remove that link" % word
            )
        return UsageError("%s is not executable; nothing was queued" % found, "make it so: chmod +x %s" % found)
    return None


def _not_found(word: str, path: str, named: bool) -> UsageError:
    from runyard.cli.options import NAMES

    command, likeness = ("", -1.0) if named else _nearest(word, sorted({*NAMES, "help"}), 0.5)
    program, other = _nearest(word, programs(path), 0.7)
    if likeness + COMMAND_ADVANTAGE >= other:
        return UsageError(
            "%r is no command of runyard, no program and no file; nothing was queued" % word,
            "did you mean: runyard %s" % command,
        )
    hint = "did you mean %s? " % program if program else ""
    return UsageError(
        "%s: there is no such program on PATH, and no such file; nothing was queued" % word,
        hint + "`runyard --help` lists the commands of runyard",
    )


def _nearest(word: str, names: list[str], least: float) -> tuple[str, float]:
    """Return the name most like a word, and how like it is (0 to 1); ``("", 0)`` when none is as like as ``least``."""
    import difflib

    near = difflib.get_close_matches(word, names, 1, least)
    return (near[0], difflib.SequenceMatcher(None, near[0], word).ratio()) if near else ("", 0.0)


def programs(path: str) -> list[str]:
    """Return the names of all files in the directories of PATH."""
    names: set[str] = set()
    for directory in path.split(os.pathsep):
        try:
            names.update(os.listdir(directory or "."))
        except OSError:
            continue
    return sorted(names)


def uv_variables(program: str, cwd: str, top: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return variables with which ``uv run`` in the run's directory uses the user's .venv and leaves it as it is.

    Without them uv would make a new environment in the run's directory, or point the user's editable install at it.
    Source: the uv reference, "Environment variables": UV_PROJECT_ENVIRONMENT (path of the project's environment) and
    UV_NO_SYNC (skip updating it; implies --frozen). What the user has set stays.
    """
    directory = cwd
    while True:
        venv = os.path.join(directory, ".venv")
        if os.path.exists(os.path.join(venv, "pyvenv.cfg")):
            if os.path.basename(program) != "uv" and not os.path.exists(os.path.join(directory, "uv.lock")):
                return {}
            wanted = {"UV_PROJECT_ENVIRONMENT": venv, "UV_NO_SYNC": "1"}
            return {name: value for name, value in wanted.items() if not environ.get(name)}
        if directory == top or directory == os.path.dirname(directory):
            return {}
        directory = os.path.dirname(directory)
