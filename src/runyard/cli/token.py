"""``token create|ls|revoke``."""

from __future__ import annotations

import click

from runyard.cli import common, text
from runyard.cli.app import RunyardCommand
from runyard.wire import settings
from runyard.wire.errors import UsageError

SCOPES = ("agent", "read", "owner")


@click.group("token", context_settings={"help_option_names": ["-h", "--help"]})
def token() -> None:
    """Create, list and revoke tokens for programs and other hosts."""


@token.command("create", cls=RunyardCommand, help="Create a token and print it; it is shown only now.")
@click.argument("name")
@click.option("--scope", type=click.Choice(SCOPES), default="owner", show_default=True,
              help="agent: may run runs; read: may look; owner: everything that you may do.")  # fmt: skip
@click.option("--expires", metavar="TIME", help="Ends after this long, e.g. 30d; default: never.")
@common.json_option
def create(name: str, scope: str, expires: str | None, as_json: bool) -> int:
    """Create a token."""
    try:
        lifetime = settings.parse_time(expires) if expires else None
    except ValueError as exc:
        raise UsageError("--expires: %s" % exc, "e.g. --expires 30d") from exc
    with common.server() as api:
        made = api.create_token(name, scope, lifetime)
    if as_json:
        common.print_json(made)
    else:
        text.notice("Token %s (%s), shown only now:" % (name, scope))
        click.echo(made["token"])
    return 0


@token.command("ls", cls=RunyardCommand, help="List tokens, without their secrets.")
@common.json_option
def ls(as_json: bool) -> int:
    """List tokens."""
    with common.server() as api:
        found = api.tokens()
    if as_json:
        common.print_json(found)
    elif found:
        times = ("created_at", "expires_at", "used_at")
        rows = [(t["name"], t.get("scope") or "", *(text.local_time(t.get(key)) for key in times)) for t in found]
        click.echo(text.table(rows, ("NAME", "SCOPE", "CREATED", "EXPIRES", "LAST USED")))
    else:
        text.notice("no tokens")
    return 0


@token.command("revoke", cls=RunyardCommand, help="Make a token worthless, at once.")
@click.argument("name")
def revoke(name: str) -> int:
    """Revoke a token."""
    with common.server() as api:
        api.revoke_token(name)
    click.echo("revoked %s" % name)
    return 0


COMMANDS = {"token": token}
