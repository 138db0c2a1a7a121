"""What a browser gets until it has a page of its own: the way in, and a plain table of runs."""

from __future__ import annotations

import html
import os
import shlex
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from runyard.server.auth import ANYBODY, OWNER, READ, SESSION_S
from runyard.server.bodies import open_regular
from runyard.server.context import Context, Ctx
from runyard.server.replies import JsonReply
from runyard.server.shapes import Exchange
from runyard.services.api import Actor
from runyard.wire.errors import NotFoundError
from runyard.wire.render import mask

router = APIRouter(tags=["browser"], include_in_schema=False)

_CSS = """body{font:15px/1.4 system-ui,sans-serif;margin:2rem;color:#222;background:#fff}
table{border-collapse:collapse}
td,th{padding:.25rem .8rem;text-align:left;border-bottom:1px solid #ddd;vertical-align:top}
code{font-family:ui-monospace,monospace}.failed,.lost{color:#b00020}.running{color:#0a58ca}.finished{color:#137333}
"""
_SCRIPT = """(async () => {
  const say = text => { document.getElementById("say").textContent = text; };
  const token = location.hash.slice(1);
  history.replaceState(null, "", "/open");
  if (!token) { return; }
  say("Opening...");
  const answer = await fetch("/open", {method: "POST", credentials: "same-origin",
    headers: {"Content-Type": "application/json"}, body: JSON.stringify({token})});
  if (answer.ok) { location.replace("/"); return; }
  const {error} = await answer.json();
  say(error.message + ". " + error.hint + ".");
})();
"""
_HEAD = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Runyard</title>'
    '<link rel="stylesheet" href="/static/page.css">'
)
_WAY_IN = (
    _HEAD + '<script src="/static/open.js" defer></script></head><body><h1>Runyard</h1>'
    '<p id="say">To look at your runs here, run <code>runyard open</code> on the server\'s host, and use the address '
    "that it prints. It lets one browser in, once, within a minute.</p></body></html>"
)
ROWS = 200
COLUMNS = ("id", "state", "project", "command", "message")
FIELDS = (*COLUMNS[1:], "name", "user", "host", "created_at", "started_at", "ended_at", "run_dir")
LOG_TAIL = 64 << 10
"""Bytes of a log that the page of a run shows."""


def _page(text: str, status: int = 200) -> Response:
    return Response(text.encode("utf-8", "backslashreplace"), status, media_type="text/html; charset=utf-8")


@router.get("/open", openapi_extra=ANYBODY)
async def get_open() -> Response:
    """The page that trades the one-time token behind ``#`` for a session."""
    return _page(_WAY_IN)


@router.get("/static/open.js", openapi_extra=ANYBODY)
async def get_script() -> Response:
    """Its script."""
    return Response(_SCRIPT, media_type="text/javascript; charset=utf-8")


@router.get("/static/page.css", openapi_extra=ANYBODY)
async def get_style() -> Response:
    """Its style."""
    return Response(_CSS, media_type="text/css; charset=utf-8")


@router.post("/open", openapi_extra=ANYBODY)
async def post_open(body: Exchange, ctx: Ctx) -> Response:
    """Trade a one-time token for a session cookie."""
    secret = ctx.gates.exchange(body.token)
    reply = JsonReply({"ok": True})
    reply.set_cookie(ctx.gates.cookie, secret, max_age=int(SESSION_S), path="/", httponly=True, samesite="strict")
    return reply


def _cell(run: dict[str, Any], column: str) -> str:
    text = html.escape(str(run.get(column) or ""))
    if column == "id":
        text = f'<a href="/runs/{text}"><code>{text}</code></a>'
    elif column == "command":
        text = f"<code>{html.escape(shlex.join(run['command']))}</code>"
    return f'<td class="{text}">{text}</td>' if column == "state" else f"<td>{text}</td>"


def _reader(request: Request) -> Actor | None:
    """Return who looks at a page, None for somebody who may not."""
    actor: Actor | None = request.scope["runyard.actor"]
    return actor if actor is not None and actor.scope in (OWNER, READ) else None


@router.get("/", openapi_extra=ANYBODY)
async def get_index(request: Request, ctx: Ctx) -> Response:
    """The newest runs; without a session, how to get one."""
    actor = _reader(request)
    if actor is None:
        return _page(_WAY_IN, 401)
    runs = (await run_in_threadpool(ctx.yard.runs, {"limit": ROWS}, actor))["runs"]
    head = "".join(f"<th>{column}</th>" for column in COLUMNS)
    rows = "".join(f"<tr>{''.join(_cell(run, column) for column in COLUMNS)}</tr>" for run in runs)
    table = f"<table><tr>{head}</tr>{rows}</table>" if runs else "<p>No runs yet: <code>runyard run COMMAND</code></p>"
    return _page(f"{_HEAD}</head><body><h1>Runs</h1>{table}</body></html>")


@router.get("/runs/{ref}", openapi_extra=ANYBODY)
async def get_run(ref: str, request: Request, ctx: Ctx) -> Response:
    """One run and the end of its log; without a session, how to get one."""
    actor = _reader(request)
    if actor is None:
        return _page(_WAY_IN, 401)
    run, log = await run_in_threadpool(_run_and_log, ctx, ref, actor)
    rows = "".join(f"<tr><th>{column}</th>{_cell(run, column)}</tr>" for column in FIELDS if run.get(column))
    body = f'<p><a href="/">Runs</a></p><h1>{html.escape(run["id"])}</h1><table>{rows}</table><pre>{html.escape(log)}</pre>'
    return _page(f"{_HEAD}</head><body>{body}</body></html>")


def _run_and_log(ctx: Context, ref: str, actor: Actor) -> tuple[dict[str, Any], str]:
    run = ctx.yard.run(ref, actor)
    path = ctx.yard.log_place(run["id"], None, actor).path
    try:
        fd = open_regular(path)
    except NotFoundError:
        return run, ""
    try:
        size = os.fstat(fd).st_size
        return run, mask(os.pread(fd, LOG_TAIL, max(0, size - LOG_TAIL)).decode("utf-8", "replace"))
    finally:
        os.close(fd)
