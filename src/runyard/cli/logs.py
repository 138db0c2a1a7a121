"""``logs``, ``outputs`` and ``get``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from runyard.cli import common, follow, logtext, text
from runyard.cli.submit import state_text
from runyard.client.api import Api
from runyard.wire.errors import ConflictError, NotFoundError, UsageError

PIECE = 1 << 20
"""Bytes of a log per request."""


@common.command("logs", help="Print the output of a run. Lines rewritten with carriage returns show their last state.")
@common.run_argument
@click.option("-f", "--follow", "following", is_flag=True, help="Go on until the run ends.")
@click.option("--raw", is_flag=True, help="The exact bytes that the program wrote.")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Of attempt N; default: the newest.")
@click.option("-n", "--lines", type=click.IntRange(1), metavar="N", help="Only the last N lines.")
def logs(run: str, following: bool, raw: bool, attempt: int | None, lines: int | None) -> int:
    """Print a log."""
    try:
        with common.server() as api:
            found = api.run(run)
            run_id = str(found["id"])
            if not found.get("started_at"):
                text.notice("%s has not started: %s" % (run_id, state_text(found)))
            start = b""
            offset = 0
            if lines:
                start, offset = tail(api, run_id, lines, attempt)
            rest = follow.pieces if following else read
            pieces = _chain(start, rest(api, run_id, offset, attempt))
            out, terminal = sys.stdout.buffer, sys.stdout.isatty()
            empty = True
            for piece in pieces if raw or (following and terminal) else logtext.collapse(pieces, colours=terminal):
                empty = empty and not piece
                out.write(piece)
                out.flush()
            if empty and found.get("files") == "gone":
                raise NotFoundError(
                    "the log of %s is gone, with its directory: %s" % (run_id, found.get("run_dir")),
                    "to run it again: runyard rerun %s" % run_id,
                )
    except KeyboardInterrupt:
        if following:
            text.notice("")
            text.notice("No longer followed; this does not stop the run (that would: runyard kill %s)" % run)
        raise
    return 0


def _chain(start: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if start:
        yield start
    yield from rest


def read(api: Api, run_id: str, offset: int = 0, attempt: int | None = None) -> Iterator[bytes]:
    """Yield a log from ``offset`` to its present end."""
    while True:
        data, size, _, _ = api.log(run_id, offset, PIECE, attempt)
        if data:
            yield data
        offset += len(data)
        if not data or offset >= size:
            return


def tail(api: Api, run_id: str, lines: int, attempt: int | None) -> tuple[bytes, int]:
    """Return the last lines of a log and the offset at which it went on."""
    want = 256 * lines
    while True:
        data, size, _, _ = api.log(run_id, -want, want, attempt)
        if data.count(b"\n") > lines or want >= size:
            return logtext.last_lines(data, lines), size
        want *= 4


def _step(output: dict[str, Any]) -> str:
    return "-" if output.get("step") is None else str(output["step"])


@common.command("outputs", help="List the files that a run wrote.")
@common.run_argument
@common.json_option
def outputs(run: str, as_json: bool) -> int:
    """List outputs."""
    with common.server() as api:
        found = api.outputs(run)
    if as_json:
        common.print_json(found)
    elif found:
        rows = [(text.size(o.get("size")), o.get("type") or "-", _step(o), o["path"]) for o in found]
        click.echo(text.table(rows, ("SIZE", "TYPE", "STEP", "PATH")))
    else:
        text.notice("no outputs")
    return 0


@common.command(
    "get",
    help="Fetch a file that a run wrote, or an image, text or table that it logged, into the current directory or DEST "
    "(- is stdout).",
)
@common.run_argument
@click.argument("path", metavar="PATH | NAME")
@click.option("-o", "--output", "dest", metavar="DEST", help="File or directory to write; it may exist.")
@click.option("--step", type=int, metavar="N", help="Of what was logged that of step N; default: the last.")
def get(run: str, path: str, dest: str | None, step: int | None) -> int:
    """Fetch one output, or one of the media."""
    with common.server() as api:
        pieces, end = _content(api, run, path, step)
        if dest == "-":
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return 0
        name = os.path.basename(path.rstrip("/"))
        if not name:
            raise UsageError("%r is no file" % path, "runyard outputs %s lists the files" % run)
        name += end
        target = dest or name
        if dest and os.path.isdir(dest):
            target = os.path.join(dest, name)
        if not dest and os.path.lexists(target):
            raise ConflictError("%s exists already" % target, "choose where to write it: -o DEST")
        size = write(pieces, target)
    click.echo("%s (%s)" % (target, text.size(size)))
    return 0


def _content(api: Api, run: str, path: str, step: int | None) -> tuple[Iterator[bytes], str]:
    """Return the content of an output, or of a medium, and what its file name ends in beside the name; raises NotFoundError."""
    missing = NotFoundError("%s logged nothing called %s" % (run, path), "runyard show %s has the names" % run)
    if step is None:
        pieces = api.output(run, path)
        try:
            return _chain(next(pieces, b""), pieces), ""
        except NotFoundError as exc:
            missing = exc
    named = [item for item in api.media(run) if item["name"] == path]
    found = [item for item in named if step is None or item["step"] == step]
    if found:
        return api.medium(run, found[-1]["sha256"]), "." + found[-1]["format"]
    if named:
        steps = ", ".join(str(item["step"]) for item in named[:20])
        raise NotFoundError("%s logged no %s at step %s" % (run, path, step), "there are the steps %s" % steps)
    raise missing


def write(pieces: Iterator[bytes], target: str) -> int:
    """Write pieces to a file that appears only once it is whole; return its size in bytes."""
    temporary = "%s.%d.part" % (target, os.getpid())
    size = 0
    first = next(pieces, b"")  # an error answer raises here, before a file is made
    try:
        new = open(temporary, "xb")  # noqa: SIM115  closed below
    except OSError as exc:
        raise ConflictError(
            "%s cannot be written: %s" % (target, exc.strerror), "choose another place with -o DEST"
        ) from exc
    try:
        with new as file:
            size += file.write(first)
            for piece in pieces:
                size += file.write(piece)
        os.replace(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    return size


COMMANDS = {"logs": logs, "outputs": outputs, "get": get}
