"""Many runs at once, as columns."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runyard.server.auth import READERS
from runyard.server.context import Ctx, Who
from runyard.server.replies import JsonReply
from runyard.server.runs import as_sent
from runyard.server.shapes import TableFilter

router = APIRouter(prefix="/api/v1/table", tags=["runs"])


@router.get("", openapi_extra=READERS, summary="Search runs, as columns of values")
def get_table(request: Request, filters: Annotated[TableFilter, Query()], ctx: Ctx, who: Who) -> Response:
    """``data`` has a list for each of ``columns``; null where a run has no value, NaN and infinities as text."""
    return JsonReply(ctx.yard.table(as_sent(request, filters), who))
