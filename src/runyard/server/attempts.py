"""The agent protocol, as far as it concerns single attempts."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from runyard.server.auth import AGENTS
from runyard.server.bodies import receive_file
from runyard.server.context import Ctx
from runyard.server.replies import JsonReply
from runyard.server.shapes import Finish, HandBack, Outputs, PhaseChange
from runyard.wire.errors import ForbiddenError
from runyard.wire.spool import MAX_RECORD, SEGMENT_BYTES

router = APIRouter(prefix="/api/v1/attempts", tags=["attempts"])
Attempt = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
Stream = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]
PIECE = 1 << 20
"""Bytes of a log that are handed on at a time."""


@router.post("/finish", openapi_extra=AGENTS, summary="Report ends")
def post_finish(body: Finish, ctx: Ctx) -> Response:
    """``accepted``, ``recorded``, ``duplicate`` or ``unknown`` for each attempt."""
    return JsonReply({"results": ctx.yard.finish([end.model_dump() for end in body.ends])})


@router.post("/{attempt}/phase", openapi_extra=AGENTS, summary="Ask to go on to the next phase")
def post_phase(attempt: Attempt, body: PhaseChange, ctx: Ctx) -> Response:
    """409 ``stale``: do not go on."""
    return JsonReply(ctx.yard.phase(attempt, body.epoch, body.phase))


@router.post("/{attempt}/hand-back", openapi_extra=AGENTS, summary="Give an assignment back unstarted")
def post_hand_back(attempt: Attempt, body: HandBack, ctx: Ctx) -> Response:
    """No attempt is used."""
    return JsonReply(ctx.yard.hand_back(attempt, body.epoch, body.why))


@router.put("/{attempt}/log", openapi_extra=AGENTS, summary="Append to a log")
async def put_log(attempt: Attempt, request: Request, ctx: Ctx, offset: Annotated[int, Query(ge=0)]) -> Response:
    """Raw bytes from ``offset`` on; what is held already is dropped, a gap is refused with ``details.size``."""
    request.scope["runyard.body_limit"] = None
    size, at = -1, offset
    async for piece in _pieces(request):
        size = await run_in_threadpool(ctx.yard.append_log, attempt, at, piece)
        at += len(piece)
    if size < 0:
        size = await run_in_threadpool(ctx.yard.append_log, attempt, offset, b"")
    return JsonReply({"size": size})


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    held = bytearray()
    async for data in request.stream():
        held += data
        if len(held) >= PIECE:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


@router.put("/{attempt}/spool/{stream}", openapi_extra=AGENTS, summary="Send records of a spool stream")
async def put_spool(
    attempt: Attempt, stream: Stream, request: Request, ctx: Ctx, first: Annotated[int, Query(ge=0)], lost: bool = False
) -> Response:
    """Whole records (docs/spool.md), the first with that number; ``next``: the number of the first that is not here."""
    request.scope["runyard.body_limit"] = MAX_RECORD + SEGMENT_BYTES
    data = await request.body()
    following = await run_in_threadpool(ctx.yard.append_spool, attempt, stream, first, data, lost)
    return JsonReply({"next": following})


@router.put("/{attempt}/outputs", openapi_extra=AGENTS, summary="Report what an attempt has written")
def put_outputs(attempt: Attempt, body: Outputs, ctx: Ctx) -> Response:
    """``wanted``: files that the server has not got."""
    outputs = [output.model_dump() for output in body.outputs]
    return JsonReply({"wanted": ctx.yard.report_outputs(attempt, outputs)})


def _names_below(base: str, place: str) -> list[str]:
    names = os.path.relpath(place, os.path.realpath(base)).split(os.sep)
    if os.pardir in names:
        raise ForbiddenError("the file would lie outside of the runs' directory")
    return names


@router.put("/{attempt}/files/{path:file}", openapi_extra=AGENTS, summary="Send an output")
async def put_file(attempt: Attempt, path: str, request: Request, ctx: Ctx) -> Response:
    """Raw bytes, streamed to disk; the file appears under its name once it is whole."""
    request.scope["runyard.body_limit"] = None
    place = await run_in_threadpool(ctx.yard.upload_place, attempt, path)
    size = await receive_file(request.stream(), ctx.home.runs, _names_below(ctx.home.runs, place))
    await run_in_threadpool(ctx.yard.uploaded, attempt, path, place)
    return JsonReply({"size": size})
