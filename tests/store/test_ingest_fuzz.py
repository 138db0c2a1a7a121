"""Whatever a stream says is taken in or refused, and what comes after it is taken in."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runyard.testing.contract_files import started
from runyard.testing.spooled import Spooled, row_body
from runyard.testing.stage import ME, Stage
from runyard.wire import spool
from runyard.wire.errors import InvalidError
from tests.fuzz import MORE
from tests.store.backends import make_stage

EXAMPLES = 100
TEXTS = st.one_of(
    st.text(st.characters(codec=None), max_size=8),
    st.sampled_from(["", "\0", "\ud800", "\udc80", "\n", "\x1b[31m", "\x1a", "\x1aN", "🧪", "a/b", "x" * 1000, "y" * 1001,
                     "z" * 70000]),
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(), st.floats(), st.booleans(),
    st.sampled_from([2**63, -(2**63) - 1, 2**63 - 1, 2**31, 10**400, -(10**4000), 1e308, -0.0, math.nan, math.inf]),
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(st.none(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=8,
)


def nested(depth: int, of: str) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if of == "list" else {"a": value}
    return value


DEEP = st.builds(nested, st.sampled_from([1, 50, 99, 150, 400, 470, 900]), st.sampled_from(["list", "dict"]))
FIELDS: dict[str, list[str]] = {
    "process": ["writer", "pid", "start", "rank", "python", "program"],
    "params": ["values", "origin", "source"],
    "config": ["path", "format", "text"],
    "summary": ["values"],
    "tags": ["add"],
    "media": ["name", "step", "kind", "format", "caption"],
    "output": ["path", "step"],
    "data": ["files"],
    "progress": ["done", "total", "left_s", "source"],
    "capture": ["active", "off", "notes"],
    "refused": ["name", "why", "count"],
    "missing": ["records", "why"],
    "position": ["collector", "source", "value"],
    "finish": ["exit_code"],
    "nothing known": ["x"],
}
FILE = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("path", "size", "mtime_us", "via", "sha256", "real", "count", "files"), VALUES),
)
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "values": st.dictionaries(TEXTS, st.one_of(VALUES, DEEP), max_size=6),
    "files": st.lists(st.one_of(FILE, VALUES), max_size=4),
    "origin": st.sampled_from(["cli", "call", "file", "default", "constant", "command", "?"]),
    "kind": st.sampled_from(["text", "image", "figure", "table", "histogram", "html"]),
    "format": st.sampled_from(["png", "json", "yaml", "toml", "ini", "txt", "../x"]),
    "text": st.sampled_from(["a: 1", "{", "[x]\ny=1", "a: &a [*a]", "'", "\ud800: 1", "a: " + "[" * 3000, "{" * 5000]),
    "name": TEXTS, "path": TEXTS, "add": st.lists(TEXTS, max_size=5), "notes": st.lists(TEXTS, max_size=5),
}  # fmt: skip


@st.composite
def bodies(draw: Any) -> bytes:
    kind = draw(st.sampled_from(sorted(FIELDS)))
    message = {"type": kind}
    for name in FIELDS[kind]:
        if draw(st.integers(0, 9)):
            likely = name in LIKELY and draw(st.integers(0, 4))
            message[name] = draw(LIKELY[name] if likely else st.one_of(VALUES, DEEP))
    if draw(st.integers(0, 3)):
        message["at"] = draw(NUMBERS)
    return spool.message_body(message, draw(st.binary(max_size=5)))


RAW = st.one_of(
    bodies().map(lambda body: (spool.MESSAGE, 0, body)),
    st.tuples(
        st.sampled_from([spool.SHAPE, spool.ROW, spool.MESSAGE, spool.GROUP]),
        st.sampled_from([0, 1, 7]),
        st.one_of(
            st.binary(min_size=1, max_size=60),
            st.lists(TEXTS, max_size=4).map(lambda names: json.dumps(names).encode()),
            st.builds(row_body, st.lists(st.floats(), max_size=4), st.integers(-(2**63), 2**63 - 1),
                      st.integers(-(2**63), 2**63 - 1)),
            st.lists(bodies(), max_size=3).map(
                lambda found: spool.join([spool.record(0, spool.MESSAGE, 0, body) for body in found]) or b"x"
            ),
        ),
    ),
)  # fmt: skip


class Running:
    """A run to which things are logged, one stream for each example; after many examples, another one."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.streams = 0
        self.run_id, self._agent, self.attempt = started(stage)

    def stream(self) -> Spooled:
        if self.streams and self.streams % EXAMPLES == 0:
            self._agent.end(self.attempt)
            self.run_id, self.attempt = self.stage.submit(), self._agent.take_and_start()
        self.streams += 1
        return Spooled(f"{self.streams:016x}")

    def __repr__(self) -> str:
        return "a run"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("home")
    if request.param == "sqlite":
        yield from _running(make_stage(home, f"sqlite:///{home / 'yard.db'}"))
        return
    with request.getfixturevalue("postgres").database() as url:
        yield from _running(make_stage(home, url))


def _running(stage: Stage) -> Iterator[Running]:
    yield Running(stage)
    stage.close()


@settings(max_examples=EXAMPLES * MORE, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=st.lists(RAW, min_size=1, max_size=4))
def test_any_record_is_taken_or_refused(running: Running, raw: list[tuple[int, int, bytes]]) -> None:
    stream, stage = running.stream(), running.stage
    for kind, shape, body in raw:
        stream.records.append(spool.record(len(stream.records), kind, shape, body))
    for first in range(len(raw)):
        with contextlib.suppress(InvalidError):
            stage.yard.append_spool(running.attempt, stream.stream, first, stream.records[first], first > 0)
    stream.row({"after": float(running.streams)}, running.streams)
    assert stream.send(stage.yard, running.attempt, len(raw), lost=True) == len(stream.records)
    run = stage.run(running.run_id)
    assert run["metrics"]["after"]["last"] == running.streams
    json.dumps([run, stage.yard.media(running.run_id, ME)], allow_nan=False)
