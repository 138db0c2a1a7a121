"""The server and the yard as a whole."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from runyard import __version__
from runyard.server import metrics
from runyard.server.auth import ANYBODY, OWNERS, READERS
from runyard.server.context import Context, Ctx, Who
from runyard.server.replies import JsonReply
from runyard.server.shapes import Backup, Json

router = APIRouter(tags=["server"])


@router.get("/health", openapi_extra=ANYBODY, summary="Whether the server answers")
async def get_health(ctx: Ctx) -> Response:
    """No credential needed."""
    return JsonReply({"status": "ok", "version": __version__, "yard": ctx.facts["yard"]})


def _status(ctx: Context) -> dict[str, Any]:
    return {**ctx.yard.status(), **ctx.facts}


@router.get("/api/v1/status", openapi_extra=READERS, summary="The state of the yard")
def get_status(ctx: Ctx) -> Response:
    """Process, database, counts, agents, slots, disk."""
    return JsonReply(_status(ctx))


@router.get("/metrics", openapi_extra=READERS, summary="The same for Prometheus", response_class=PlainTextResponse)
def get_metrics(ctx: Ctx) -> Response:
    """Text format 0.0.4."""
    text = metrics.render(_status(ctx), ctx.counters, ctx.hub.waiting)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/api/v1/du", openapi_extra=OWNERS, summary="Disk use")
def get_du(ctx: Ctx) -> Response:
    """By project and kind, in bytes."""
    return JsonReply(ctx.yard.du())


@router.post("/api/v1/gc", openapi_extra=OWNERS, summary="Free disk space")
def post_gc(ctx: Ctx, who: Who, body: Json | None = None) -> Response:
    """Says what it would free, or frees it."""
    return JsonReply(ctx.yard.gc(body or {}, who))


@router.post("/api/v1/backup", openapi_extra=OWNERS, summary="Write a backup")
def post_backup(body: Backup, ctx: Ctx, who: Who) -> Response:
    """Database, then snapshots."""
    return JsonReply(ctx.yard.backup(body.path, who))


@router.post("/api/v1/shutdown", openapi_extra=OWNERS, summary="Stop the server")
async def post_shutdown(ctx: Ctx) -> Response:
    """Answered first. Runs go on."""
    ctx.stop()
    return JsonReply({"ok": True, "pid": ctx.facts["pid"]})


@router.post("/api/v1/open", openapi_extra=OWNERS, summary="Make an address that lets one browser in")
async def post_open(ctx: Ctx, who: Who) -> Response:
    """Good once, for 60 s. The token is behind ``#``: browsers send that part to nobody."""
    token = await run_in_threadpool(ctx.gates.one_time, who)
    return JsonReply({"url": f"{ctx.url}/open#{token}", "expires_in_s": 60})
