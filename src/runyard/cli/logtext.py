"""Logs for reading: what a terminal would show of them, and their last lines."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def collapse(pieces: Iterable[bytes], colours: bool = False) -> Iterator[bytes]:
    """Yield a log as text (`runyard.wire.render`): whole lines come as soon as nothing can write over them any more.

    ``colours``: keep colour sequences. No other sequence comes out, so that a log cannot steer the reader's terminal.
    Credentials of Runyard are masked.
    """
    from runyard.wire.render import Renderer, mask  # needs ``re``; most commands show no log

    renderer = Renderer(colours)
    for piece in pieces:
        text = renderer.feed(piece)
        if text:
            yield mask(text).encode("utf-8")
    yield mask(renderer.finish()).encode("utf-8")


def last_lines(data: bytes, number: int) -> bytes:
    """Return the last ``number`` lines of a log; a final newline does not begin another line."""
    end = len(data) - 1 if data.endswith(b"\n") else len(data)
    at = end
    for _ in range(number):
        at = data.rfind(b"\n", 0, at)
        if at < 0:
            return data
    return data[at + 1 :]
