"""Runs: submit, look, change, end."""

from __future__ import annotations

import json
import time
import urllib.parse
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from runyard.server.auth import OWNERS, READERS
from runyard.server.context import Context, Ctx, Who
from runyard.server.replies import JsonReply
from runyard.server.shapes import Changes, Filter, Kill, RunFilter, RunSpecWithEnv, Submit
from runyard.services.api import Actor
from runyard.wire import states
from runyard.wire.errors import InvalidError

router = APIRouter(prefix="/api/v1/runs", tags=["runs"])
Ref = Annotated[str, Path(description="a run id, a unique prefix, a unique name, or @last")]
MAX_WAIT_S = 3600.0


@router.put("/{run_id}", openapi_extra=OWNERS, summary="Submit a run under an id of the submitter's choice")
def put_run(run_id: str, spec: RunSpecWithEnv, ctx: Ctx, who: Who) -> Response:
    """Repeating it is harmless; another spec under the same id is a conflict."""
    if spec.id != run_id:
        raise InvalidError(f"the address names run {run_id}, the body run {spec.id}")
    value = spec.model_dump(exclude={"env"}, exclude_unset=True)
    ctx.yard.submit([value], spec.env, who)
    return JsonReply(ctx.yard.run(run_id, who))


_SUBMIT_BODY: dict[str, Any] = {
    **OWNERS,
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Submit"}}},
    },
}


@router.post("", openapi_extra=_SUBMIT_BODY, summary="Submit several runs in one transaction")
async def post_runs(request: Request, ctx: Ctx, who: Who) -> Response:
    """All or none. The body may hold many thousand runs, so it is read and checked in a thread."""
    body = await request.body()
    return await run_in_threadpool(_submit, body, ctx, who)


def _submit(body: bytes, ctx: Context, who: Actor) -> Response:
    try:
        submit = Submit.model_validate(json.loads(body))
    except ValidationError as exc:
        raise RequestValidationError(exc.errors(include_url=False, include_context=False)) from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidError(f"the body is not JSON: {exc}") from exc
    specs = [spec.model_dump(exclude_unset=True) for spec in submit.runs]
    return JsonReply({"ids": ctx.yard.submit(specs, submit.env, who)})


@router.get("", openapi_extra=READERS, summary="Search runs")
def get_runs(request: Request, filters: Annotated[RunFilter, Query()], ctx: Ctx, who: Who) -> Response:
    """``next`` is the cursor of the next page, null on the last one."""
    return JsonReply(ctx.yard.runs(as_sent(request, filters), who))


def as_sent(request: Request, filters: Filter) -> dict[str, Any]:
    """Return the parameters of a search with every byte: the framework replaces those that are not UTF-8."""
    given = filters.model_dump(exclude_none=True)
    query = urllib.parse.parse_qs(request.scope["query_string"].decode("latin-1"), errors="surrogateescape")
    given.update((name, query[name][-1]) for name in ("q", "order") if name in query)
    if "columns" in query:
        given["columns"] = query["columns"]
    return given


@router.get("/{ref}", openapi_extra=READERS, summary="One run")
def get_run(ref: Ref, ctx: Ctx, who: Who) -> Response:
    """Everything that is known of a run."""
    return JsonReply(ctx.yard.run(ref, who))


@router.patch(
    "/{ref}", openapi_extra=OWNERS, summary="Change a run's message, name, project, priority or tags; archive it"
)
def patch_run(ref: Ref, changes: Changes, ctx: Ctx, who: Who) -> Response:
    """Fields that are not sent stay as they are."""
    given = changes.model_dump(exclude_unset=True)
    if not given:
        raise InvalidError("nothing to change", "send any of: " + ", ".join(Changes.model_fields))
    return JsonReply(ctx.yard.edit(ref, given, who))


@router.post("/{ref}/kill", openapi_extra=OWNERS, summary="Stop a run")
def kill_run(ref: Ref, ctx: Ctx, who: Who, body: Kill | None = None) -> Response:
    """With SIGTERM and a grace period; ``now`` without."""
    return JsonReply(ctx.yard.kill(ref, body is not None and body.now, who))


@router.post("/{ref}/hold", openapi_extra=OWNERS, summary="Keep a queued run from starting")
def hold_run(ref: Ref, ctx: Ctx, who: Who) -> Response:
    """Until it is released."""
    return JsonReply(ctx.yard.hold(ref, who))


@router.post("/{ref}/release", openapi_extra=OWNERS, summary="Let a held run start")
def release_run(ref: Ref, ctx: Ctx, who: Who) -> Response:
    """The opposite of hold."""
    return JsonReply(ctx.yard.release(ref, who))


@router.post("/{ref}/restore", openapi_extra=OWNERS, summary="Bring a run back from the trash")
def restore_run(ref: Ref, ctx: Ctx, who: Who) -> Response:
    """Works until the trash is emptied."""
    return JsonReply(ctx.yard.restore(ref, who))


@router.delete("/{ref}", openapi_extra=OWNERS, summary="Move a run to the trash")
def delete_run(ref: Ref, ctx: Ctx, who: Who, now: bool = False) -> Response:
    """``now``: away for good. Refused while it runs."""
    return JsonReply(ctx.yard.remove(ref, now, who))


@router.get("/{ref}/events", openapi_extra=READERS, summary="What happened to a run")
def get_events(ref: Ref, ctx: Ctx, who: Who, after: Annotated[int, Query(ge=0)] = 0) -> Response:
    """Every change of state: who, when, from, to, why."""
    return JsonReply({"events": ctx.yard.events(ref, after, who)})


def has_ended(run: dict[str, Any]) -> bool:
    """Tell whether a run will not change its state again (lost is final only with an end time)."""
    state = run["state"]
    return state in states.ENDED_STATES or (state == states.LOST and run.get("ended_at") is not None)


@router.get("/{ref}/wait", openapi_extra=READERS, summary="Wait for the end of a run")
async def wait_run(
    ref: Ref,
    request: Request,
    ctx: Ctx,
    who: Who,
    seconds: Annotated[float, Query(alias="timeout", ge=0, le=MAX_WAIT_S)] = 60.0,
) -> Response:
    """The run, once it has ended or that many seconds are over."""
    deadline = time.monotonic() + seconds
    run = await run_in_threadpool(ctx.yard.run, ref, who)
    async with ctx.hub.listen(request, "run:" + run["id"]) as waiter:
        while True:
            run = await run_in_threadpool(ctx.yard.run, run["id"], who)
            if has_ended(run) or ctx.hub.stopping or not await waiter.next(deadline):
                return JsonReply(run)
