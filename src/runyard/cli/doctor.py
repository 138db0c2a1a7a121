"""``doctor``: run the checks and say what to repair."""

from __future__ import annotations

import os

import click

from runyard.cli import common, text
from runyard.cli.checks import CHECKS, FAIL, OK, Host
from runyard.wire.errors import UsageError

_COLOURS = {"ok": "finished", "warn": "killed", "fail": "failed"}


@common.command("doctor", help="Check this host, and say how to repair what is wrong. Exits with 1 if a check fails.")
@click.argument("checks", nargs=-1, metavar="[CHECK]...")
@common.json_option
def doctor(checks: tuple[str, ...], as_json: bool) -> int:
    """Check this host."""
    unknown = [name for name in checks if name not in CHECKS]
    if unknown:
        raise UsageError("no check %r" % unknown[0], "checks: " + ", ".join(CHECKS))
    host = Host(os.environ)
    found = [(name, CHECKS[name](host)) for name in checks or CHECKS]
    if as_json:
        common.print_json([{"check": n, "level": f.level, "text": f.text, "hint": f.hint} for n, f in found])
    else:
        for name, finding in found:
            level = text.colour(finding.level.ljust(4), _COLOURS[finding.level])
            click.echo("%s  %-11s  %s" % (level, name, text.plain(finding.text)))
            if finding.level != OK:
                click.echo("%s-> %s" % (" " * 19, text.plain(finding.hint)))
    return 1 if any(finding.level == FAIL for _, finding in found) else 0


COMMANDS = {"doctor": doctor}
