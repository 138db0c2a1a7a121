"""Outputs of runs: the list, and their bytes.

They come from programs that anybody may have written, so a browser gets them in a sandbox: no scripts, no origin, and
the type that the name says.
"""

from __future__ import annotations

import mimetypes
import os
from typing import Annotated

from fastapi import APIRouter, Header, Path
from starlette.responses import Response

from runyard.server.auth import READERS
from runyard.server.bodies import FileBody, open_regular
from runyard.server.context import Ctx, Who
from runyard.server.errors import RangeError
from runyard.server.replies import JsonReply
from runyard.server.runs import Ref
from runyard.wire.http import quote

router = APIRouter(prefix="/api/v1/runs", tags=["outputs"])
CSP = "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self' data:; style-src 'unsafe-inline'"
_AS_TEXT = frozenset(
    "application/json application/x-sh application/xml application/javascript application/x-ndjson "
    "application/toml application/yaml application/x-tex".split()
)


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return ``(start, stop)`` of a ``Range: bytes=`` header, None for the whole file (RFC 9110, 14.1.2).

    Several ranges, other units and malformed headers mean the whole file, as the RFC allows. Raises RangeError when the
    range begins after the end.
    """
    unit, _, text = (header or "").partition("=")
    first, dash, last = text.strip().partition("-")
    numbers_ok = all(not part or (part.isascii() and part.isdigit()) for part in (first, last))
    if unit.strip().lower() != "bytes" or not dash or not numbers_ok or not (first or last):
        return None
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), size if not last else min(size, int(last) + 1)
        if last and int(last) < start:
            return None
    if start >= size:
        raise RangeError(f"the file has {size} bytes only", size=size)
    return start, stop


def media_type(path: str) -> tuple[str, bool]:
    """Return the type by which a file is served, and whether a browser may show it."""
    guess, encoding = mimetypes.guess_type(os.path.basename(path))
    if guess is None or encoding is not None:
        return "application/octet-stream", False
    if guess in _AS_TEXT:
        return "text/plain; charset=utf-8", True
    major = guess.partition("/")[0]
    if major == "text":
        return guess + "; charset=utf-8", True
    return (guess, True) if major in ("image", "audio", "video") else ("application/octet-stream", False)


@router.get("/{ref}/outputs", openapi_extra=READERS, summary="Files that a run wrote")
def get_outputs(ref: Ref, ctx: Ctx, who: Who) -> Response:
    """Path, size, time, type."""
    return JsonReply({"outputs": ctx.yard.outputs(ref, who)})


@router.get("/{ref}/files/{path:file}", openapi_extra=READERS, summary="Bytes of an output", response_class=Response)
def get_file(
    ref: Ref,
    path: Annotated[str, Path(description="relative to the run's working tree")],
    ctx: Ctx,
    who: Who,
    range_header: Annotated[str | None, Header(alias="Range")] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> Response:
    """``Range`` is understood (one range)."""
    return serve(open_regular(ctx.yard.output_place(ref, path, who)), path, range_header, if_range)


def serve(fd: int, path: str, range_header: str | None, if_range: str | None) -> Response:
    """Return the bytes of an open file, or a range of them, with headers that make it harmless in a browser."""
    try:
        found = os.fstat(fd)
        tag = f'"{found.st_mtime_ns:x}-{found.st_size:x}"'
        piece = parse_range(range_header, found.st_size) if if_range in (None, tag) else None
    except BaseException:
        os.close(fd)
        raise
    kind, shown = media_type(path)
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": tag,
        "Content-Security-Policy": CSP,
        "Content-Disposition": "{}; filename*=UTF-8''{}".format(
            "inline" if shown else "attachment", quote(os.path.basename(path))
        ),
    }
    start, stop = piece or (0, found.st_size)
    if piece:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{found.st_size}"
    return FileBody(fd, start, stop, 206 if piece else 200, headers, kind)
