"""Logs of runs: a piece, or as they come."""

from __future__ import annotations

import os
import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from runyard.server.auth import READERS
from runyard.server.bodies import FileBody, open_regular
from runyard.server.context import Context, Ctx, Who
from runyard.server.gate import Interrupted
from runyard.server.runs import Ref
from runyard.server.shapes import LogQuery
from runyard.server.waiting import Waiter
from runyard.services.api import Actor, LogPlace
from runyard.wire.errors import NotFoundError

router = APIRouter(prefix="/api/v1/runs", tags=["logs"])
PIECE = 256 << 10
RECHECK_S = 5.0
"""How often a follower asks whether the run has ended when nothing told it so."""


@router.get("/{ref}/log", openapi_extra=READERS, summary="The log of a run, raw", response_class=Response)
async def get_log(ref: Ref, part: Annotated[LogQuery, Query()], request: Request, ctx: Ctx, who: Who) -> Response:
    """Raw bytes of one attempt's log, which ``X-Log-Attempt`` names.

    ``X-Log-Size`` is its size by now; ``X-Log-End: true`` says that no more will come. With ``follow`` the answer goes on
    until then, or until a later attempt starts if none was named.
    """
    if part.follow:
        run = await run_in_threadpool(ctx.yard.run, ref, who)
        place = await run_in_threadpool(ctx.yard.log_place, run["id"], part.attempt, who)
        return _Follow(request, ctx, who, run["id"], part, place)
    place = await run_in_threadpool(ctx.yard.log_place, ref, part.attempt, who)
    return await run_in_threadpool(_piece, place, part.offset, part.limit)


def _piece(place: LogPlace, offset: int, limit: int | None) -> Response:
    fd = _open_log(place.path)
    size = os.fstat(fd).st_size if fd is not None else 0
    start = min(max(size + offset, 0) if offset < 0 else offset, size)
    stop = size if limit is None else min(size, start + limit)
    headers = {"X-Log-Attempt": str(place.attempt), "X-Log-Size": str(size), "X-Log-Offset": str(start),
               "X-Log-End": "true" if place.over else "false"}  # fmt: skip
    if fd is None:
        return Response(b"", headers=headers, media_type="application/octet-stream")
    return FileBody(fd, start, stop, headers=headers)


def _open_log(path: str) -> int | None:
    try:
        return open_regular(path)
    except NotFoundError:
        return None


class _Follow(Response):
    """The bytes of a log as they come, until all of it is sent, or the run shows that of a later attempt."""

    def __init__(self, request: Request, ctx: Context, who: Actor, run: str, part: LogQuery, place: LogPlace) -> None:
        self.request, self.ctx, self.who, self.run = request, ctx, who, run
        self.attempt, self.offset = part.attempt, part.offset
        self.place = place
        self.fd: int | None = None
        self.background = None
        self.status_code = 200

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream (ASGI)."""
        headers = [(b"content-type", b"application/octet-stream"), (b"x-accel-buffering", b"no"),
                   (b"x-log-attempt", b"%d" % self.place.attempt)]  # fmt: skip
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        try:
            async with self.ctx.hub.listen(self.request, "run:" + self.run) as waiter:
                await self._send_log(waiter, send)
        finally:
            if self.fd is not None:
                os.close(self.fd)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _read(self) -> bytes:
        if self.fd is None:
            self.fd = _open_log(self.place.path)
            if self.fd is None:
                return b""
        if self.offset < 0:
            self.offset = max(0, os.fstat(self.fd).st_size + self.offset)
        return os.pread(self.fd, PIECE, self.offset)

    async def _send_log(self, waiter: Waiter, send: Send) -> None:
        with self.ctx.growth.watch(self.place.path, waiter.bell):
            checked = time.monotonic()
            while True:
                data = await run_in_threadpool(self._read)
                if waiter.gone or self.ctx.hub.stopping:
                    raise Interrupted
                if data:
                    self.offset += len(data)
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                    continue
                if self.place.over:
                    return
                if not waiter.rang and time.monotonic() < checked + RECHECK_S:
                    await waiter.next(checked + RECHECK_S)
                    continue
                waiter.rang, checked = False, time.monotonic()
                place = await run_in_threadpool(self.ctx.yard.log_place, self.run, self.attempt, self.who)
                if place.path != self.place.path:
                    return
                self.place = place
