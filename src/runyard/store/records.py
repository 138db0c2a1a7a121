"""Small tables: facts about the yard, users, recorded environments, tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from runyard.store.tables import environments, meta, tokens, users


def fact(connection: Connection, name: str, default: str) -> str:
    """Return a fact about this yard, writing the default when there is none."""
    found = find_fact(connection, name)
    if found is None:
        set_fact(connection, name, default)
        return default
    return found


def find_fact(connection: Connection, name: str) -> str | None:
    """Return a fact about this yard, or None."""
    found = connection.execute(select(meta.c.value).where(meta.c.name == name)).scalar()
    return None if found is None else str(found)


def set_fact(connection: Connection, name: str, value: str) -> None:
    """Write a fact about this yard."""
    if not connection.execute(update(meta).where(meta.c.name == name).values(value=value)).rowcount:
        connection.execute(insert(meta).values(name=name, value=value))


def know_user(connection: Connection, user: str, now_us: int) -> None:
    """Make sure that a user has a row."""
    if connection.execute(select(users.c.name).where(users.c.name == user)).first() is None:
        connection.execute(insert(users).values(name=user, created_at=now_us))


def save_environments(connection: Connection, contents: Mapping[str, Any], now_us: int) -> None:
    """Store recorded environments by their hash; those that are there stay as they are."""
    for digest, content in contents.items():
        if find_environment(connection, digest) is None:
            connection.execute(insert(environments).values(hash=digest, content=content, created_at=now_us))


def find_environment(connection: Connection, digest: str) -> Any:
    """Return a recorded environment, or None."""
    return connection.execute(select(environments.c.content).where(environments.c.hash == digest)).scalar()


def all_environments(connection: Connection) -> Iterator[tuple[str, Any]]:
    """Yield all recorded environments, each with its hash."""
    yield from (tuple(row) for row in connection.execute(select(environments.c.hash, environments.c.content)))


def find_token(connection: Connection, *, name: str | None = None, secret_hash: str | None = None) -> Row[Any] | None:
    """Return the token with this name or secret, or None."""
    condition = tokens.c.name == name if name is not None else tokens.c.secret_hash == secret_hash
    return connection.execute(select(tokens).where(condition)).first()


def all_tokens(connection: Connection) -> Sequence[Row[Any]]:
    """Return all tokens by name."""
    return connection.execute(select(tokens).order_by(tokens.c.name)).all()


def add_token(connection: Connection, **values: Any) -> None:
    """Insert a token."""
    connection.execute(insert(tokens).values(**values))


def use_token(connection: Connection, name: str, now_us: int) -> None:
    """Note that a token was used."""
    connection.execute(update(tokens).where(tokens.c.name == name).values(used_at=now_us))


def drop_token(connection: Connection, name: str) -> bool:
    """Delete a token; tell if there was one."""
    return connection.execute(delete(tokens).where(tokens.c.name == name)).rowcount > 0
