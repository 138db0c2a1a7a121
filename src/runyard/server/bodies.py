"""Bytes of files, out and in, in pieces: memory stays the same however large the file is."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import AsyncIterator, Iterator, Mapping

from starlette.concurrency import run_in_threadpool
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from runyard.server.gate import Interrupted
from runyard.wire.errors import ForbiddenError, NotFoundError, UnavailableError

PIECE = 256 << 10


class FileConvertor(PathConvertor):
    """The rest of an address as the name of a file; the framework's own stops at a line break."""

    regex = "(?s:.*)"


register_url_convertor("file", FileConvertor())


def open_regular(path: str) -> int:
    """Open a file for reading; the last name may be no symlink, and a pipe or device is refused, never waited for.

    Raises NotFoundError, ForbiddenError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except PermissionError as exc:
        raise ForbiddenError("the server may not read this file") from exc
    except OSError as exc:
        raise NotFoundError("there is no such file", "it may have been removed by hand") from exc
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotFoundError("this is no regular file")
    return fd


class FileBody(Response):
    """Bytes ``start`` to ``stop`` (excluded) of an open file, which it closes.

    A file that became shorter meanwhile breaks the connection off, so that nobody takes the piece for the whole.
    """

    def __init__(
        self, fd: int, start: int, stop: int, status: int = 200, headers: Mapping[str, str] | None = None,
        media_type: str = "application/octet-stream",
    ) -> None:  # fmt: skip
        self.fd, self.start, self.stop = fd, start, stop
        self.background = None
        self.status_code = status
        self.body = b""
        self.init_headers({**(headers or {}), "Content-Length": str(stop - start), "Content-Type": media_type})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the bytes (ASGI)."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            position = self.start if scope["method"] != "HEAD" else self.stop
            while position < self.stop:
                data = await run_in_threadpool(os.pread, self.fd, min(PIECE, self.stop - position), position)
                if not data:
                    raise Interrupted
                position += len(data)
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            os.close(self.fd)


@contextlib.contextmanager
def directory_below(base: str, names: list[str]) -> Iterator[int]:
    """Open a directory below ``base``, made if missing, without following a symlink on the way.

    ``base`` itself may be or contain symlinks. Raises ForbiddenError where a name is a symlink or no directory.
    """
    fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o777, dir_fd=fd)
            try:
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            except NotADirectoryError as exc:
                raise ForbiddenError(f"{name!r} on the way to this file is no directory of the run") from exc
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


async def receive_file(pieces: AsyncIterator[bytes], base: str, names: list[str]) -> int:
    """Write a body to ``base/names...``, with ``.part`` behind the name until it is whole; return its size in bytes.

    Raises UnavailableError when the disk is full. Nothing is left of an upload that breaks off.
    """
    with directory_below(base, names[:-1]) as directory:
        temporary = names[-1] + ".part"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=directory)
        try:
            try:
                size = 0
                async for piece in pieces:
                    if piece:
                        await run_in_threadpool(write_all, fd, piece)
                        size += len(piece)
            finally:
                os.close(fd)
            os.rename(temporary, names[-1], src_dir_fd=directory, dst_dir_fd=directory)
        except OSError as exc:
            raise UnavailableError(f"the file could not be stored: {exc.strerror}") from exc
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
    return size
