"""Credentials.

Named tokens are stored as hashes; the token of an attempt is computed from the yard's secret, so it is stored nowhere
and ends with its attempt.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from runyard.services.api import Actor, Json
from runyard.services.context import Change, Context
from runyard.services.views import iso
from runyard.store import attempts, records, runs
from runyard.wire.errors import AuthError, ConflictError, InvalidError, NotFoundError
from runyard.wire.ids import new_secret

SCOPES = ("owner", "agent", "read")
NAMED = "ryt_"
ATTEMPT = "rya_"
_USED_EVERY_US = 60_000_000


def attempt_token(context: Context, attempt_id: str) -> str:
    """Return the credential of an attempt's process: ``rya_<attempt>_<HMAC-SHA256>``."""
    mac = hmac.new(context.secret, attempt_id.encode("ascii", "replace"), hashlib.sha256).hexdigest()
    return f"{ATTEMPT}{attempt_id}_{mac}"


def authenticate(context: Context, token: str) -> Actor:
    """Return whom a token stands for; raises AuthError without telling which part was wrong."""
    refused = AuthError(
        "the token is not valid", "it may be expired or revoked; make one with: runyard token create NAME"
    )
    if token.startswith(ATTEMPT):
        attempt_id = token[len(ATTEMPT) :].partition("_")[0]
        wanted = attempt_token(context, attempt_id)
        if not hmac.compare_digest(token.encode("utf-8", "replace"), wanted.encode("utf-8", "replace")):
            raise refused
        with context.db.read() as connection:
            row = attempts.find(connection, attempt_id)
            run = None if row is None or not row.active else runs.find(connection, row.run_id)
        if run is None:
            raise refused
        return Actor(user=run.user_name, scope="attempt", attempt=attempt_id)
    digest = hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
    with context.db.read() as connection:
        row = records.find_token(connection, secret_hash=digest)
        now = context.clock.now_us(connection)
    if row is None or (row.expires_at is not None and row.expires_at <= now):
        raise refused
    if row.used_at is None or now - row.used_at > _USED_EVERY_US:
        name = row.name
        context.db.write(lambda connection: records.use_token(connection, name, now))
    return Actor(user=row.user_name, scope=row.scope)


def create(changes: Change, name: str, scope: str, lifetime_s: float | None, actor: Actor) -> Json:
    """Make a named token; the secret is in the answer and nowhere else.

    Raises:
        InvalidError: the name or the scope is not valid.
        ConflictError: the name is taken.
    """
    if not name or len(name) > 128 or not name.isprintable() or not name.isascii():
        raise InvalidError("a token needs a name of 1 to 128 printable ASCII characters")
    if scope not in SCOPES:
        raise InvalidError(f"no scope {scope!r}", f"one of {', '.join(SCOPES)}")
    if records.find_token(changes.connection, name=name) is not None:
        raise ConflictError(f"there is a token {name!r} already", f"revoke it first: runyard token revoke {name}")
    secret = NAMED + new_secret()
    records.add_token(
        changes.connection,
        name=name,
        secret_hash=hashlib.sha256(secret.encode()).hexdigest(),
        scope=scope,
        user_name=actor.user,
        created_at=changes.now_us,
        expires_at=None if lifetime_s is None else changes.now_us + int(lifetime_s * 1e6),
    )
    return {"name": name, "scope": scope, "token": secret}


def listing(context: Context) -> list[Json]:
    """Return all named tokens, without secrets."""
    with context.db.read() as connection:
        rows = records.all_tokens(connection)
    return [_json(row) for row in rows]


def _json(row: Any) -> Json:
    return {
        "name": row.name,
        "scope": row.scope,
        "user": row.user_name,
        "created_at": iso(row.created_at),
        "expires_at": iso(row.expires_at),
        "used_at": iso(row.used_at),
    }


def revoke(changes: Change, name: str) -> None:
    """End a named token at once; raises NotFoundError."""
    if not records.drop_token(changes.connection, name):
        raise NotFoundError(f"there is no token {name!r}", "see them with: runyard token ls")
