"""Every error that a request can meet becomes the one error body."""

from __future__ import annotations

import errno
import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from runyard.server.replies import JsonReply, error_reply
from runyard.wire.errors import InvalidError, NotFoundError, RunyardError, UsageError, disk_full

logger = logging.getLogger("runyard.server")


class TooLargeError(InvalidError):
    """The body of a request is larger than the server takes."""

    status = 413


class RangeError(InvalidError):
    """The requested range lies outside of the file (RFC 9110, 15.5.17)."""

    status = 416


class MethodError(UsageError):
    """The address exists, but not with this method."""

    status = 405


class InternalError(RunyardError):
    """A bug: what went wrong stands in the server's log under the request's number."""

    code = "internal"
    status = 500


def _where(location: tuple[int | str, ...]) -> str:
    """Return ``runs[2].resources.gpus`` for the location that pydantic gives."""
    text = ""
    for part in location[1:] if location and location[0] in ("body", "query", "path", "header") else location:
        text += f"[{part}]" if isinstance(part, int) else "." + part if text else part
    return text or str(location[0] if location else "request")


def from_validation(error: RequestValidationError) -> InvalidError:
    """Return all problems of a request at once; ``details["problems"]`` has one ``{"where", "problem"}`` for each."""
    problems = [{"where": _where(tuple(item["loc"])), "problem": str(item["msg"])} for item in error.errors()]
    shown = "; ".join("{}: {}".format(item["where"], item["problem"]) for item in problems[:5])
    more = "" if len(problems) <= 5 else f" (and {len(problems) - 5} more)"
    return InvalidError("the request is not valid: " + shown + more, "see /openapi.json", problems=problems[:100])


def from_http(error: HTTPException, path: str) -> RunyardError:
    """Return what the framework's own refusals mean."""
    if error.status_code == 404:
        return NotFoundError(f"there is nothing at {path}", "see /openapi.json")
    if error.status_code == 405:
        return MethodError(f"this method is not allowed at {path}", "see /openapi.json")
    if error.status_code == 400:  # what reading a body meets: bytes that are no UTF-8, nesting without end
        return InvalidError("the body of this request is not JSON", "send JSON as UTF-8, see /openapi.json")
    return UsageError(str(error.detail))


def internal(request_id: str) -> InternalError:
    """Return the answer to an unexpected failure."""
    return InternalError(
        f"the server failed on this request ({request_id})", "see `runyard server-logs`", request=request_id
    )


async def _unexpected(request: Request, exc: Exception) -> JsonReply:
    return error_reply(internal(str(request.scope.get("runyard.number", ""))))


async def _os_error(request: Request, exc: Exception) -> JsonReply:
    if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT):
        logger.error("no space left: %s", exc)
        home = request.app.state.context.home.path
        return error_reply(disk_full(f"nothing can be written in {exc.filename or home}"))
    raise exc


async def _runyard_error(request: Request, exc: Exception) -> JsonReply:
    return error_reply(exc if isinstance(exc, RunyardError) else internal(""))


async def _validation_error(request: Request, exc: Exception) -> JsonReply:
    return error_reply(from_validation(exc) if isinstance(exc, RequestValidationError) else internal(""))


async def _http_error(request: Request, exc: Exception) -> JsonReply:
    if isinstance(exc.__cause__, RunyardError):  # raised while the body was read, and wrapped by the framework
        return error_reply(exc.__cause__)
    return error_reply(from_http(exc, request.url.path) if isinstance(exc, HTTPException) else internal(""))


def install(app: FastAPI) -> None:
    """Register the handlers. What is unexpected is raised again afterwards, for `gate.Gate` to log."""
    app.add_exception_handler(Exception, _unexpected)
    app.add_exception_handler(OSError, _os_error)
    app.add_exception_handler(RunyardError, _runyard_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
