"""Frozen code, for agents that share no directory with the server."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from runyard.server.auth import TREES
from runyard.server.bodies import PIECE, write_all
from runyard.server.context import Ctx
from runyard.server.gate import Interrupted
from runyard.server.treecache import TreeCache
from runyard.snapshot.restore import archive
from runyard.wire.errors import SnapshotError

logger = logging.getLogger("runyard.server")
router = APIRouter(prefix="/api/v1/trees", tags=["trees"])
Tree = Annotated[str, Path(pattern="^([0-9a-f]{40}|[0-9a-f]{64})$", description="object id of a git tree")]
TAR = "application/x-tar"
LOOK_S = 0.05
"""How often is looked for more of a tar that git is at."""


@router.get("/{tree}.tar", openapi_extra=TREES, summary="A tree as a tar file", response_class=Response)
async def get_tree(tree: Tree, ctx: Ctx) -> Response:
    """Uncompressed, pax."""
    data = ctx.trees.get(tree)
    if data is not None:
        return Response(data, media_type=TAR)
    pieces = await run_in_threadpool(archive, ctx.home.path, tree)
    return _Archive(tree, pieces, ctx.trees, ctx.home.path)


class _Archive(Response):
    """A tar as git makes it, by way of a file without a name: git, which keeps `gc` waiting, must not wait for the client.

    If git breaks off in the middle, so does the connection: half a tree must not look whole.
    """

    def __init__(self, tree: str, pieces: Iterator[bytes], cache: TreeCache, place: str) -> None:
        self.tree, self.pieces, self.cache, self.place = tree, pieces, cache, place
        self.left = False
        self.background = None
        self.status_code = 200

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the tar (ASGI)."""
        with tempfile.TemporaryFile(dir=self.place) as file:
            filling = asyncio.create_task(asyncio.to_thread(self._fill, file.fileno()))
            try:
                await self._send(file.fileno(), filling, send)
            finally:
                self.left = True
                await asyncio.wait({filling})

    def _fill(self, fd: int) -> None:
        """Write the tar as fast as the disk takes it, as long as somebody wants it."""
        try:
            for piece in self.pieces:
                if self.left:
                    return
                write_all(fd, piece)
        finally:
            close = getattr(self.pieces, "close", None)
            if close is not None:
                close()

    async def _send(self, fd: int, filling: asyncio.Task[None], send: Send) -> None:
        size = 0
        while True:
            whole = filling.done()
            piece = await run_in_threadpool(os.pread, fd, PIECE, size)
            if piece:
                if not size:
                    headers = [(b"content-type", TAR.encode())]
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                size += len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            elif whole:
                break
            else:
                await asyncio.wait({filling}, timeout=LOOK_S)
        try:
            filling.result()
        except (SnapshotError, OSError) as exc:
            if not size:
                raise
            logger.error("the tar of tree %s is broken off: %s", self.tree, exc)  # noqa: TRY400  the reason says it all
            raise Interrupted from exc
        if not size:
            raise Interrupted
        if size <= self.cache.largest:
            self.cache.put(self.tree, await run_in_threadpool(os.pread, fd, size, 0))
        await send({"type": "http.response.body", "body": b"", "more_body": False})
