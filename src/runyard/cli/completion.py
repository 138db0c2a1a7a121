"""``completion``: the scripts that make shells ask `runyard` for completions, and the answers.

The scripts call ``_RUNYARD_COMPLETE=1 runyard WORD... INCOMPLETE`` with the words of the command line. The
answer is one ``value<TAB>help`` per line; the line ``:files`` asks for the names of files as well.
"""

from __future__ import annotations

import os
import sys

import click
from click.shell_completion import ShellComplete

from runyard.cli import app, common, parse
from runyard.cli.options import NAMES
from runyard.cli.program import DEFAULT_PATH, programs
from runyard.cli.text import plain
from runyard.wire.errors import RunyardError

SHELLS = ("bash", "zsh", "fish")
FILES = ":files"

BASH = r"""_runyard_completion() {
    local line at='' cur=${COMP_WORDS[COMP_CWORD]} n=$((COMP_CWORD - 1))
    # bash cuts words at @, so that `@la` arrives as two
    if [[ $n -gt 0 && ${COMP_WORDS[n]} == @ ]]; then at=@; n=$((n - 1)); elif [[ $cur == @* ]]; then at=; fi
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == :files ]]; then
            compopt -o default -o bashdefault
        else
            line=${line%%$'\t'*}
            COMPREPLY+=("${line#"$at"}")
        fi
    done < <(_RUNYARD_COMPLETE=1 "${COMP_WORDS[0]}" "${COMP_WORDS[@]:1:n}" "$at$cur" 2>/dev/null)
}
complete -o nosort -F _runyard_completion runyard ry
"""
ZSH = r"""#compdef runyard ry
_runyard_completion() {
    local -a described
    local line files=0
    for line in "${(@f)$(_RUNYARD_COMPLETE=1 $words[1] "${(@)words[2,CURRENT-1]}" "$words[CURRENT]" 2>/dev/null)}"; do
        if [[ $line == :files ]]; then
            files=1
        elif [[ -n $line ]]; then
            described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
        fi
    done
    (( $#described )) && _describe -V runyard described
    (( files )) && _files
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _runyard_completion "$@"
else
    compdef _runyard_completion runyard ry
fi
"""
FISH = r"""function _runyard_completion
    set -l words (commandline -opc)
    for line in (_RUNYARD_COMPLETE=1 $words[1] $words[2..-1] (commandline -ct) 2>/dev/null)
        if test "$line" = ':files'
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete --no-files --keep-order --command runyard --arguments '(_runyard_completion)'
complete --no-files --keep-order --command ry --arguments '(_runyard_completion)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
HELP = """Print the completion script for a shell.

\b
bash: runyard completion bash >> ~/.bash_completion
zsh:  runyard completion zsh > _runyard   (in a directory of your $fpath)
fish: runyard completion fish > ~/.config/fish/completions/runyard.fish"""


@common.command("completion", help=HELP)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> int:
    """Print a completion script."""
    click.echo(SCRIPTS[shell], nl=False)
    return 0


def _command_started(words: list[str]) -> bool:
    """Tell whether the words of a ``run`` have come to the user's command already."""
    try:
        parsed = parse.parse_run(words)
    except RunyardError:
        return False  # an option waits for its value
    return parsed is not None and (bool(parsed[1]) or parsed[2])


def offers(words: list[str], incomplete: str) -> list[str]:
    """Return the lines of the answer for a command line: the words before the one that is being typed, and that one."""
    if (words and words[0] not in NAMES) or (not words and incomplete.startswith("-")):
        words = ["run", *words]
    if words[:1] == ["run"] and _command_started(words[1:]):
        return [FILES]
    found = ShellComplete(app.program(), {}, app.PROGRAM, "_RUNYARD_COMPLETE").get_completions(words, incomplete)
    lines = [item.value + "\t" + plain(item.help or "") for item in found if item.type == "plain"]
    if any(item.type in ("file", "dir") for item in found):
        lines.append(FILES)
    if incomplete and not incomplete.startswith("-") and (not words or (words == ["run"])):
        path = os.environ.get("PATH") or DEFAULT_PATH
        lines += [name + "\t" for name in programs(path) if name.startswith(incomplete)]
        lines.append(FILES)
    return list(dict.fromkeys(lines))


def respond(words: list[str]) -> int:
    """Answer a completion script; says nothing about errors."""
    try:
        sys.stdout.write("".join(line + "\n" for line in offers(words[:-1], words[-1] if words else "")))
    except (RunyardError, OSError):
        return 1
    return 0


COMMANDS = {"completion": completion}
