"""The API of the server, as docs/protocol.md has it: one method per route, for people and programs.

Values are the JSON of the protocol. Network trouble raises `UnavailableError`; an error answer raises the error that
the server meant (`wire.errors`).
"""

from __future__ import annotations

import sys
from array import array
from typing import NamedTuple

from runyard.wire.errors import NotFoundError, UnavailableError
from runyard.wire.http import FOREVER, Http, quote
from runyard.wire.http import query as _query

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    Json = dict[str, Any]

PREFIX = "/api/v1"
PAGE = 500
"""Runs per request of `Api.all_runs`."""
LONG_POLL_S = 25.0


def _run(ref: str, rest: str = "") -> str:
    if not ref or "/" in ref:  # would be another address
        raise NotFoundError("there is no run %r" % ref, "see the runs with: runyard ls")
    return PREFIX + "/runs/" + quote(ref) + rest


class LogPiece(NamedTuple):
    """A part of a log."""

    data: bytes
    size: int
    """Bytes of the whole log by now."""
    end: bool
    """No more will come."""
    attempt: int
    """The number of the attempt whose log it is."""


class Api:
    """One connection to a server. Not thread-safe: each thread has its own."""

    def __init__(self, url: str, token: str = "", timeout: float = 60.0) -> None:
        self.http = Http(url, token, timeout)
        self.url = url
        self.token = token

    def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        self.http.close()

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def clone(self) -> Api:
        """Return a second connection to the same server, e.g. for a call while this one streams."""
        return Api(self.url, self.token, self.http.timeout)

    # The server

    def health(self, timeout: float | None = None) -> Json:
        """Return ``{"status": "ok", "version", "yard"}``."""
        return self._json("GET", "/health", timeout=timeout)

    def status(self) -> Json:
        """Return server, counts, agents, slots and disk."""
        return self._json("GET", PREFIX + "/status")

    def shutdown(self) -> None:
        """Ask the server to stop; runs go on."""
        self.http.json("POST", PREFIX + "/shutdown", {})

    # Runs

    def submit(self, spec: Json) -> Json:
        """Submit a run spec under the id in it and return the run. Repeating it is harmless."""
        return self._json("PUT", _run(spec["id"]), spec)

    def submit_many(self, specs: Sequence[Json], env: Mapping[str, str]) -> list[str]:
        """Submit specs that share an environment, in one transaction; return their ids."""
        answer = self._json("POST", PREFIX + "/runs", {"runs": list(specs), "env": dict(env)})
        return [str(run_id) for run_id in answer["ids"]]

    def runs(self, **filters: Any) -> Json:
        """Return one page, ``{"runs", "next", "hints"}``.

        Filters: q (words or an expression), order, project, state, tag (lists repeat), user, name, trashed, archived,
        limit, before (the cursor of a page). By default the newest run comes first. The runs have ``outputs`` only where
        these are asked for (``outputs=True``): they may be very many.
        """
        return self._json("GET", PREFIX + "/runs" + _query(**filters))

    def all_runs(self, limit: int | None = None, **filters: Any) -> Iterator[Json]:
        """Yield runs that fit in their order, at most ``limit``, fetching pages as needed."""
        before, left = None, limit
        while left is None or left > 0:
            page = self.runs(limit=PAGE if left is None else min(left, PAGE), before=before, **filters)
            yield from page["runs"]
            left = None if left is None else left - len(page["runs"])
            before = page.get("next")
            if not before or not page["runs"]:
                return

    def table(self, **filters: Any) -> Json:
        """Return runs as columns, ``{"columns", "data", "next", "hints"}``; ``columns``: names of fields."""
        return self._json("GET", PREFIX + "/table" + _query(**filters), timeout=600.0)

    def run(self, ref: str) -> Json:
        """Return a run; ``ref``: id, unique prefix, unique name, ``@last``."""
        return self._json("GET", _run(ref))

    def edit(self, ref: str, changes: Json) -> Json:
        """Change any of message, name, project, priority, archived, add_tags, remove_tags."""
        return self._json("PATCH", _run(ref), changes)

    def kill(self, ref: str, now: bool = False) -> Json:
        """Stop a run: SIGTERM, grace, SIGKILL; ``now`` leaves out the grace."""
        return self._json("POST", _run(ref, "/kill"), {"now": now})

    def hold(self, ref: str) -> Json:
        """Keep a queued run from starting."""
        return self._json("POST", _run(ref, "/hold"), {})

    def release(self, ref: str) -> Json:
        """Let a held run start."""
        return self._json("POST", _run(ref, "/release"), {})

    def restore(self, ref: str) -> Json:
        """Bring a run back from the trash."""
        return self._json("POST", _run(ref, "/restore"), {})

    def remove(self, ref: str, now: bool = False) -> None:
        """Move an ended run to the trash, or (``now``) away for good."""
        self.http.json("DELETE", _run(ref, _query(now=now)))

    def wait(self, ref: str, timeout: float = LONG_POLL_S) -> Json:
        """Return the run once it has ended, or as it is after ``timeout`` seconds."""
        return self._json("GET", _run(ref, "/wait" + _query(timeout=timeout)), timeout=timeout + 30.0)

    def events(self, ref: str) -> list[Json]:
        """Return what happened to a run, oldest first."""
        return list(self._json("GET", _run(ref, "/events"))["events"])

    # Logs and files

    def log(self, ref: str, offset: int = 0, limit: int | None = None, attempt: int | None = None) -> LogPiece:
        """Return raw bytes from ``offset`` (negative: from the end); ``attempt``: by default the one that is shown."""
        path = _run(ref, "/log" + _query(offset=offset, limit=limit, attempt=attempt))
        response = self.http.open("GET", path)
        data = response.read()
        if not response.reusable:
            self.http.close()
        size, number = (int(response.headers.get(name, "0")) for name in ("x-log-size", "x-log-attempt"))
        return LogPiece(data, size, response.headers.get("x-log-end") == "true", number)

    def follow_log(self, ref: str, offset: int = 0, attempt: int | None = None) -> tuple[int, Iterator[bytes]]:
        """Return the number of an attempt, and its log from ``offset`` as it comes.

        It ends when no more will come, or when a later attempt has started and none was named.
        """
        path = _run(ref, "/log" + _query(follow=True, offset=offset, attempt=attempt))
        response = self.http.open("GET", path, timeout=FOREVER)
        return int(response.headers.get("x-log-attempt", "0")), self.http.body(response)

    def outputs(self, ref: str) -> list[Json]:
        """Return the files that a run wrote: path, size, sha256, type."""
        return list(self._json("GET", _run(ref, "/outputs"))["outputs"])

    def output(self, ref: str, path: str) -> Iterator[bytes]:
        """Yield the bytes of an output."""
        return self.http.stream("GET", _run(ref, "/files/" + quote(path)))

    # What runs log

    def series(self, ref: str, metric: str, **options: Any) -> Json:
        """Return ``{"metric", "steps", "times", "values", "count", "sampled"}``: arrays, exact to the bit.

        Options: points (0: all), method (lttb, minmax, none), start and end (steps).
        """
        import json

        path = _run(ref, "/series" + _query(metric=metric, **options))
        response = self.http.open("GET", path, headers={"Accept": "application/octet-stream"})
        data = response.read()
        if not response.reusable:
            self.http.close()
        line, _, rest = data.partition(b"\n")
        head = json.loads(line)
        size = head["points"] * 8
        columns: Json = {"steps": array("q"), "times": array("q"), "values": array("d")}
        for place, column in enumerate(columns.values()):
            column.frombytes(rest[place * size : (place + 1) * size])
            if sys.byteorder != "little":
                column.byteswap()
        return dict(columns, metric=head["metric"], count=head["count"], sampled=head["points"] < head["count"])

    def media(self, ref: str) -> list[Json]:
        """Return what a run logged besides numbers: name, step, kind, format, size, sha256."""
        return list(self._json("GET", _run(ref, "/media"))["media"])

    def medium(self, ref: str, sha256: str) -> Iterator[bytes]:
        """Yield the content of a medium."""
        return self.http.stream("GET", _run(ref, "/media/" + quote(sha256)))

    def tree(self, tree: str) -> Iterator[bytes]:
        """Yield a frozen tree as an uncompressed tar (pax)."""
        return self.http.stream("GET", PREFIX + "/trees/" + quote(tree) + ".tar")

    # Tokens, pages, housekeeping

    def tokens(self) -> list[Json]:
        """Return the named tokens, without their secrets."""
        return list(self._json("GET", PREFIX + "/tokens")["tokens"])

    def create_token(self, name: str, scope: str, lifetime_s: float | None = None) -> Json:
        """Create a token; ``token`` of the answer is the secret, shown only now."""
        return self._json("POST", PREFIX + "/tokens", {"name": name, "scope": scope, "lifetime_s": lifetime_s})

    def revoke_token(self, name: str) -> None:
        """Make a token worthless."""
        self.http.json("DELETE", PREFIX + "/tokens/" + quote(name).replace("/", "%2F"))

    def open(self) -> Json:
        """Return ``{"url"}``: a one-time address for a browser."""
        return self._json("POST", PREFIX + "/open", {})

    def du(self) -> Json:
        """Return what uses disk space."""
        return self._json("GET", PREFIX + "/du", timeout=600.0)

    def gc(self, body: Json) -> Json:
        """Say what disk space would be freed, or with ``do`` free it; ``checkpoints``: old checkpoints too."""
        return self._json("POST", PREFIX + "/gc", body, timeout=3600.0)

    def backup(self, path: str) -> Json:
        """Let the server write a backup to an absolute path on its host."""
        return self._json("POST", PREFIX + "/backup", {"path": path}, timeout=3600.0)

    def _json(self, method: str, path: str, value: Any = None, timeout: float | None = None) -> Json:
        answer = self.http.json(method, path, value, timeout)
        if not isinstance(answer, dict):
            raise UnavailableError(
                "%s answered %s with something that is no Runyard answer" % (self.url, path),
                "is another program listening there? `runyard status` shows the server's address",
            )
        return answer
