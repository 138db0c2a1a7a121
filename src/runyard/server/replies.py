"""What the server sends back: JSON that keeps bytes which are not UTF-8, and errors in the one error body."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from runyard.wire.errors import RunyardError


class JsonReply(Response):
    """A value as JSON in ASCII; lone surrogates (names with bytes that are not UTF-8, PEP 383) stand escaped."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the bytes of a value; raises ValueError for NaN and infinities, which the services send as text."""
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def error_reply(error: RunyardError) -> JsonReply:
    """Return the answer for an error: its status and ``{"error": {"code", "message", "hint", "details"}}``."""
    headers = {"Cache-Control": "no-store"}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="runyard"'
    if error.status == 503:
        headers["Retry-After"] = "1"
    return JsonReply(error.body(), status_code=error.status, headers=headers)
