"""From what a user types to one run."""

from __future__ import annotations

import difflib
from typing import Any

from runyard.services.api import Actor
from runyard.store import runs
from runyard.store.database import Connection
from runyard.wire.errors import AmbiguousError, NotFoundError
from runyard.wire.ids import is_run_id


def find_run(connection: Connection, ref: str, actor: Actor) -> Any:
    """Return the run that an id, a unique prefix of one, a unique name or ``@last`` means.

    Raises:
        NotFoundError: with the nearest names.
        AmbiguousError: with the runs that it fits.
    """
    if ref == "@last":
        run = runs.find_last(connection, actor.user)
        if run is None:
            raise NotFoundError("you have not submitted any run yet", "the first one: runyard run COMMAND")
        return run
    if is_run_id(ref):
        run = runs.find(connection, ref)
        if run is not None:
            return run
    found = runs.where_ref(connection, ref) if ref else ()
    if not found:
        raise NotFoundError(f"there is no run {ref!r}", _near(connection, ref))
    if len(found) > 1:
        raise AmbiguousError(
            f"{ref!r} fits {len(found)}{'+' if len(found) == 10 else ''} runs: {', '.join(row.id for row in found)}",
            "give more characters of the id" if found[0].name != ref else "name it by its id",
            matches=[row.id for row in found],
        )
    return found[0]


def _near(connection: Connection, ref: str) -> str:
    near = difflib.get_close_matches(ref, runs.recent_words(connection, 200), n=3)
    return f"did you mean {' or '.join(near)}?" if near else "see the runs with: runyard ls"
