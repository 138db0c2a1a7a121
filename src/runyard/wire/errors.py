"""The one exception root, and the error body that the API speaks.

Every error says what is wrong (``message``), and what to do next (``hint``). ``code`` is stable and is what programs
match on; ``status`` is the HTTP status; ``exit_status`` is what the command line ends with.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class RunyardError(Exception):
    """Root of all errors that Runyard raises on purpose."""

    code = "error"
    status = 500
    exit_status = 1

    def __init__(self, message: str, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def body(self) -> dict[str, Any]:
        """Return the API's error body: ``{"error": {"code", "message", "hint", "details"}}``."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint, "details": self.details}}


class UsageError(RunyardError):
    """The command line or a request is malformed."""

    code = "usage"
    status = 400
    exit_status = 2


class InvalidError(RunyardError):
    """A value is out of its domain: for a command, what it was given is bad usage, whoever noticed."""

    code = "invalid"
    status = 400
    exit_status = 2


class NotFoundError(RunyardError):
    """What was named does not exist."""

    code = "not_found"
    status = 404


class AmbiguousError(RunyardError):
    """A prefix or name fits several runs; ``details["matches"]`` lists them."""

    code = "ambiguous"
    status = 409


class ConflictError(RunyardError):
    """The thing is in a state in which this cannot be done."""

    code = "conflict"
    status = 409


class StaleError(RunyardError):
    """The fence: this attempt or epoch is no longer the current one. Nothing was changed."""

    code = "stale"
    status = 409


class AuthError(RunyardError):
    """No credential, or one that is wrong, expired or revoked."""

    code = "unauthorized"
    status = 401


class ForbiddenError(RunyardError):
    """The credential is good but does not cover this."""

    code = "forbidden"
    status = 403


class UnavailableError(RunyardError):
    """The server or the database cannot answer now; trying again later is right."""

    code = "unavailable"
    status = 503


class ConfigError(RunyardError):
    """A configuration file or setting is wrong; the message names file, key and remedy."""

    code = "config"
    status = 500
    exit_status = 2


class HomeError(RunyardError):
    """The home cannot be used: not writable, on a network file system, or owned by another host."""

    code = "home"


class SnapshotError(RunyardError):
    """The code could not be frozen or restored."""

    code = "snapshot"


class DamagedError(RunyardError):
    """What is stored is not what was written."""

    code = "damaged"


def disk_full(what: str) -> UnavailableError:
    """Return the error of a server that has no disk space left; ``what`` names the place."""
    return UnavailableError(
        "the server's disk is full: %s; nothing was changed" % what,
        "make room on that disk (`runyard du` and `runyard gc` show what Runyard can give back); then try again",
    )


def _subclasses(cls: type[RunyardError]) -> list[type[RunyardError]]:
    return [cls] + [sub for child in cls.__subclasses__() for sub in _subclasses(child)]


def from_body(status: int, body: object) -> RunyardError:
    """Rebuild the error that the server sent; an unknown code becomes a plain `RunyardError`.

    An answer without our error body comes from something before the server: that it lets nobody in, or that there is
    no server behind it, is all that is clear then.
    """
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        nobody: dict[int, type[RunyardError]] = {
            401: AuthError, 403: ForbiddenError, 502: UnavailableError, 503: UnavailableError, 504: UnavailableError,
        }  # fmt: skip
        return nobody.get(status, RunyardError)("the server answered %d with no error body" % status)
    details = error.get("details")
    details = details if isinstance(details, dict) else {}
    for cls in _subclasses(RunyardError):
        if cls.code == error.get("code"):
            return cls(str(error.get("message", "")), str(error.get("hint", "")), **details)
    return RunyardError(str(error.get("message", "")), str(error.get("hint", "")), **details)
