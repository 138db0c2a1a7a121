"""Named tokens."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from runyard.server.auth import OWNERS
from runyard.server.context import Ctx, Who
from runyard.server.replies import JsonReply
from runyard.server.shapes import NewToken

router = APIRouter(prefix="/api/v1/tokens", tags=["tokens"])


@router.get("", openapi_extra=OWNERS, summary="All tokens, without their secrets")
def get_tokens(ctx: Ctx, who: Who) -> Response:
    """Name, scope, when made, when last used, when it ends."""
    return JsonReply({"tokens": ctx.yard.tokens(who)})


@router.post("", openapi_extra=OWNERS, summary="Make a token")
def post_token(body: NewToken, ctx: Ctx, who: Who) -> Response:
    """``token`` is the secret; it is shown this once."""
    return JsonReply(ctx.yard.create_token(body.name, body.scope, body.lifetime_s, who))


@router.delete("/{name:path}", openapi_extra=OWNERS, summary="Revoke a token")
def delete_token(name: str, ctx: Ctx, who: Who) -> Response:
    """It is refused from now on."""
    ctx.yard.revoke_token(name, who)
    return JsonReply({"ok": True})
