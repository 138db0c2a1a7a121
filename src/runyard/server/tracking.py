"""What runs log: points of metrics, and media."""

from __future__ import annotations

import json
import math
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query
from starlette.responses import Response

from runyard.server.auth import READERS
from runyard.server.bodies import open_regular
from runyard.server.context import Ctx, Who
from runyard.server.files import serve
from runyard.server.replies import JsonReply
from runyard.server.runs import Ref
from runyard.services.series import MAX_POINTS
from runyard.services.tracking import plain
from runyard.store.blocks import little_endian

BINARY = "application/octet-stream"
router = APIRouter(prefix="/api/v1/runs", tags=["tracking"])


@router.get("/{ref}/series", openapi_extra=READERS, summary="Points of a metric")
def get_series(
    ref: Ref,
    metric: str,
    ctx: Ctx,
    who: Who,
    points: Annotated[int, Query(ge=0, le=MAX_POINTS, description="at most so many; 0: all")] = 1000,
    method: Annotated[Literal["lttb", "minmax", "none"], Query(description="how they are chosen")] = "lttb",
    start: Annotated[int | None, Query(description="first step")] = None,
    end: Annotated[int | None, Query(description="last step, included")] = None,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Steps, times (microseconds since 1970 UTC) and values, in the order of the steps.

    With ``Accept: application/octet-stream`` a line of JSON (``metric``, ``count``, ``points``), then all steps and times
    (int64) and values (float64), little-endian, exact to the bit.
    """
    found = ctx.yard.series(ref, metric, who, points=points, method=method, start=start, end=end)
    head = {"metric": found.metric, "count": found.total}
    if accept == BINARY:
        line = json.dumps({**head, "points": len(found.steps)}).encode("ascii") + b"\n"
        body = b"".join([line, *(little_endian(column) for column in (found.steps, found.times, found.values))])
        return Response(body, media_type=BINARY)
    values = [value if math.isfinite(value) else plain(value) for value in found.values]
    columns = {"steps": found.steps.tolist(), "times": found.times.tolist(), "values": values}
    return JsonReply({**head, "sampled": len(found.steps) < found.total, **columns})


@router.get("/{ref}/media", openapi_extra=READERS, summary="Text, images, figures, tables that a run logged")
def get_media(ref: Ref, ctx: Ctx, who: Who) -> Response:
    """By name and step; the content of each is under its hash."""
    return JsonReply({"media": ctx.yard.media(ref, who)})


@router.get("/{ref}/media/{sha256}", openapi_extra=READERS, summary="The content of a medium", response_class=Response)
def get_medium(
    ref: Ref,
    sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$")],
    ctx: Ctx,
    who: Who,
    range_header: Annotated[str | None, Header(alias="Range")] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> Response:
    """``Range`` is understood (one range)."""
    path = ctx.yard.media_place(ref, sha256, who)
    return serve(open_regular(path), path, range_header, if_range)
