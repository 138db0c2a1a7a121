"""The agent protocol, as far as it concerns the agent as a whole."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from runyard.server.auth import AGENTS, OWNERS
from runyard.server.context import Ctx, Who
from runyard.server.replies import JsonReply
from runyard.server.shapes import Drain, Heartbeat, Hello, OwnRuns, Poll

router = APIRouter(prefix="/api/v1/agents", tags=["agents"])
Agent = Annotated[str, Path(pattern="^[A-Za-z0-9._-]{1,100}$")]


@router.put("/{agent}", openapi_extra=AGENTS, summary="Say hello")
def put_agent(agent: Agent, hello: Hello, ctx: Ctx) -> Response:
    """A verdict for each attempt that the agent named."""
    return JsonReply(ctx.yard.hello(agent, hello.model_dump(exclude_unset=True)))


@router.post("/{agent}/heartbeat", openapi_extra=AGENTS, summary="Renew all leases of an agent")
def post_heartbeat(agent: Agent, body: Heartbeat, ctx: Ctx) -> Response:
    """A verdict for each attempt that the agent named."""
    return JsonReply(ctx.yard.heartbeat(agent, body.model_dump(exclude_unset=True)))


@router.post("/{agent}/runs", openapi_extra=AGENTS, summary="Take in runs that programs began by themselves")
def post_own_runs(agent: Agent, body: OwnRuns, ctx: Ctx) -> Response:
    """Their assignments, as a poll would bring them, without the specs; the programs are running already.

    Repeating it changes nothing.
    """
    return JsonReply({"assign": ctx.yard.begin_own(agent, body.model_dump(exclude_unset=True)["runs"])})


@router.post("/{agent}/drain", openapi_extra=OWNERS, summary="Let an agent take nothing new and end when idle")
def post_drain(agent: Agent, body: Drain, ctx: Ctx, who: Who) -> Response:
    """Until it says hello again, or ``drain`` is false."""
    return JsonReply(ctx.yard.drain(agent, body.drain, who))


@router.post("/{agent}/poll", openapi_extra=AGENTS, summary="Wait for work, stops and draining")
async def post_poll(agent: Agent, body: Poll, request: Request, ctx: Ctx) -> Response:
    """Answered at once when there is something, else after ``wait_s`` seconds, or when the server stops."""
    deadline = time.monotonic() + body.wait_s
    async with ctx.hub.listen(request, "agent:" + agent) as waiter:
        while True:
            found = await run_in_threadpool(ctx.yard.poll, agent, body.known)
            if found["assign"] or found["stop"] or found["drain"]:
                return JsonReply(found)
            if ctx.hub.stopping or not await waiter.next(deadline):
                return JsonReply(found)
