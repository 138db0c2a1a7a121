#!/bin/sh
# Make .venv and install Runyard into it, with the versions of requirements/lock.txt.
#
# Usage: tools/venv.sh [dev]    plain: what a user needs; dev: with the tools and what the tests need
# Does nothing when nothing changed. $PYTHON chooses the interpreter; else the first on PATH that is 3.11 or later.
set -eu
cd "$(dirname "$0")/.."
want=${1:-user}

# The stamp: what was installed, from which files, at which place (a copied directory is set up anew).
sum=$(cat pyproject.toml requirements/lock.txt | cksum)
stamp="$sum $(pwd -P)"
have=$(cat .venv/.installed 2>/dev/null || true)
if .venv/bin/python -c '' 2>/dev/null; then
    case $have in
        "dev $stamp" | "$want $stamp") exit 0 ;;
    esac
else
    rm -rf .venv
fi

if [ ! -d .venv ]; then
    python=
    for name in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        if [ -n "$name" ] && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$name
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "Runyard needs Python 3.11 or later, and none is on PATH." >&2
        echo "Install one (Debian, Ubuntu: apt-get install python3 python3-venv) or name it: make PYTHON=/path/to/python3" >&2
        exit 1
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "$python cannot make virtual environments: its module ensurepip is missing." >&2
        echo "Install it (Debian, Ubuntu: apt-get install python$version-venv) and try again." >&2
        exit 1
    fi
    echo "Making .venv with $("$python" --version)"
    "$python" -m venv .venv
fi

echo "Installing Runyard and what it needs into .venv (the first time this takes a minute or two)"
rm -f .venv/.installed
extra=
if [ "$want" = dev ]; then extra='[dev]'; fi
.venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --constraint requirements/lock.txt --editable ".$extra"
printf '%s\n' "$want $stamp" >.venv/.installed
