"""Sending streams that are written, cut short and damaged, to a server that fails at will: a random life of both."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from runyard.agent.context import Context
from runyard.agent.link import FailedError, Link
from runyard.agent.spools import SpoolShipper
from runyard.agent.state import Attempt
from runyard.client.spool import SpoolWriter
from runyard.wire import spool
from runyard.wire.errors import ConflictError, InvalidError, UnavailableError
from tests.agent.fake_server import logged
from tests.fuzz import MORE

FAULTS = ["", "", "", "not delivered", "answer lost", "fails"]


class Server:
    """Takes records as the real one does; a message of the type ``bad`` is refused."""

    def __init__(self) -> None:
        self.streams: dict[str, list[spool.Record]] = {}
        self.shapes: dict[str, list[spool.Record]] = {}
        """Those that came again, before rows that need them."""
        self.fault = ""
        self.gaps = 0

    def put(self, address: str, body: bytes, timeout: float) -> dict[str, Any]:
        if self.fault == "not delivered":
            raise UnavailableError("not delivered")
        if self.fault == "fails":
            raise FailedError("it fails")
        url = urllib.parse.urlsplit(address)
        query = urllib.parse.parse_qs(url.query)
        answer = self._take(url.path.rpartition("/")[2], int(query["first"][0]), "lost" in query, body)
        if self.fault == "answer lost":
            raise UnavailableError("the answer is lost")
        return answer

    def _take(self, stream: str, first: int, lost: bool, body: bytes) -> dict[str, Any]:
        held = self.streams.get(stream, [])
        here = held[-1].number + 1 if held else 0
        if first > here and not lost:
            raise ConflictError("a gap", next=here)
        records = list(spool.records(body))
        new = [record for record in records if record.number >= here]
        if any(b'"bad"' in record.raw for record in new):
            raise InvalidError("a bad message")
        shapes = [record for record in records if record.kind == spool.SHAPE and record.number < here]
        try:
            logged(shapes + new)
        except (KeyError, ValueError, struct.error) as exc:
            raise InvalidError("a row without its shape") from exc
        for record in new:
            self.gaps += record.number - here
            here = record.number + 1
        self.shapes.setdefault(stream, []).extend(shapes)
        self.streams[stream] = held + new
        return {"next": here}

    def steps(self) -> dict[str, list[int]]:
        """Return the steps of all rows, by stream."""
        found = {}
        for stream, records in self.streams.items():
            rows = logged(self.shapes.get(stream, []) + records)
            assert all(values["x"] == step for step, values in rows)
            steps = [step for step, _ in rows]
            if steps:
                found[stream] = steps
        return found

    def messages(self, kind: str) -> list[dict[str, Any]]:
        """Return all messages of a type."""
        return [m for records in self.streams.values() for record in records for m in spool.messages(record, kind)]


class Life(RuleBasedStateMachine):
    """Programs log, and are killed; the agent sends, and starts again; the server comes and goes."""

    damaging = False

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp(prefix="ry-spools-"))
        self.place = self.top / "spool"
        self.server = Server()
        self.written: dict[str, list[int]] = {}
        self.bad = self.step = 0
        self.damaged = False
        self.writers: list[SpoolWriter] = []
        self.kept = (spool.SEGMENT_BYTES, spool.FIRST_BYTES)
        spool.SEGMENT_BYTES, spool.FIRST_BYTES = 2048, 512

    def teardown(self) -> None:
        """Everything arrives at last, once, and nothing false is said."""
        try:
            self._end()
        finally:
            spool.SEGMENT_BYTES, spool.FIRST_BYTES = self.kept
            shutil.rmtree(self.top)

    def _end(self) -> None:
        for writer in self.writers:
            writer.forget()
        self.server.fault = ""
        while not self.shipper.send(cast("Link", self.server), dead=True):
            pass
        found = self.server.steps()
        if not self.damaged:
            assert found == {stream: steps for stream, steps in self.written.items() if steps}
            assert self.server.gaps == 0
            assert self.server.messages("missing") == []
            assert len(self.server.messages("refused")) == self.bad
            return
        for stream, steps in found.items():
            assert steps == sorted(set(steps)) and set(steps) <= set(self.written[stream])

    @initialize()
    def begin(self) -> None:
        self.restart()
        self.start()

    @rule()
    def start(self) -> None:
        """A process begins to log."""
        self.writers.append(SpoolWriter(str(self.place), {"type": "process", "pid": 1}, pytest.fail))
        self.written[self.writers[-1].stream] = []

    def _one(self, which: int) -> SpoolWriter:
        return self.writers[which % len(self.writers)]

    @precondition(lambda self: self.writers)
    @rule(which=st.integers(0, 9), count=st.integers(1, 40), width=st.integers(0, 12))
    def log(self, which: int, count: int, width: int) -> None:
        writer = self._one(which)
        for _ in range(count):
            writer.row({"x": float(self.step), **{"other%d" % n: 0.0 for n in range(width)}}, self.step)
            self.written[writer.stream].append(self.step)
            self.step += 1

    @precondition(lambda self: self.writers)
    @rule(which=st.integers(0, 9), size=st.sampled_from([0, 10, 3000]), bad=st.booleans())
    def say(self, which: int, size: int, bad: bool) -> None:
        self._one(which).message({"type": "bad" if bad else "tags", "add": ["x" * size]})
        self.bad += bad

    @precondition(lambda self: self.writers)
    @rule(which=st.integers(0, 9))
    def close(self, which: int) -> None:
        """It says that it ends, and may go on all the same."""
        self._one(which).close()

    @precondition(lambda self: self.writers)
    @rule(which=st.integers(0, 9), torn=st.integers(0, 60))
    def kill(self, which: int, torn: int) -> None:
        """It dies, perhaps in the middle of a record: without its length and CRC, which are written last."""
        writer = self.writers.pop(which % len(self.writers))
        area, offset = writer._map, writer._offset
        if area is not None and offset + 8 + torn <= writer._size:
            area[offset + 8 : offset + 8 + torn] = b"t" * torn
        writer.forget()

    @rule(fault=st.sampled_from(FAULTS), batches=st.integers(1, 5))
    def send(self, fault: str, batches: int) -> None:
        self.server.fault = fault
        for _ in range(batches):
            try:
                if self.shipper.send(cast("Link", self.server), until=0.0):
                    break
            except UnavailableError:
                assert fault

    @rule()
    def restart(self) -> None:
        """The agent is another one, which knows only what is in the files."""
        context = cast("Context", None)
        attempt = Attempt(
            str(self.top), {"attempt": "a" * 32, "run": "r", "epoch": 1, "number": 1, "slots": [], "spec": {}}
        )
        self.shipper = SpoolShipper(context, attempt)


class DamagedLife(Life):
    """The same, and the files are damaged."""

    @rule(
        which=st.integers(0, 1 << 20),
        how=st.sampled_from(["flip", "zeros", "noise", "cut", "remove"]),
        start=st.integers(0, 1 << 24),
        length=st.integers(1, 200),
        noise=st.binary(min_size=200, max_size=200),
    )
    def damage(self, which: int, how: str, start: int, length: int, noise: bytes) -> None:
        files = sorted(self.place.glob("*")) if self.place.exists() else []
        if not files:
            return
        path = files[which % len(files)]
        self.damaged = True
        start %= max(path.stat().st_size, 1)
        if how == "remove":
            path.unlink()
        elif how == "cut":
            if not any(path.name.startswith(writer.stream) for writer in self.writers):  # it may be mapped
                os.truncate(path, start)
        else:
            with path.open("r+b") as file:
                file.seek(start)
                old = file.read(1 if how == "flip" else length)
                new = {"flip": bytes(byte ^ 4 for byte in old), "zeros": bytes(len(old))}.get(how, noise[: len(old)])
                file.seek(start)
                file.write(new)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40 * MORE, stateful_step_count=40, deadline=None)
TestDamagedLife = DamagedLife.TestCase
TestDamagedLife.settings = settings(max_examples=40 * MORE, stateful_step_count=40, deadline=None)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = spool.SEGMENT_BYTES, spool.FIRST_BYTES
    yield
    spool.SEGMENT_BYTES, spool.FIRST_BYTES = before
