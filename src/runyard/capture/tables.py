"""Reading tables of metrics (CSV, JSON lines) while they are written: appended to, or written anew with more columns.

A file that is written anew is read again and its rows are compared with those that were read (`capture.chain`): only
those behind the last place where both agree are new.
"""

from __future__ import annotations

import json
import os

from runyard.capture import tablerules
from runyard.capture.chain import Chain, digest
from runyard.capture.tail import Tail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from runyard.capture.found import Sink

CHUNK = 1 << 17
DELIMITERS = ",\t;|"
MAX_LAYOUTS = 200
BOM = b"\xef\xbb\xbf"


class TableReader:
    """Reads one table. ``path``: where it is; ``name``: its path in the run's directory.

    Subclasses say how bytes become rows, `_rows`, and what they remember for that, `_more_state` and `_restore_more`.
    """

    def __init__(self, path: str, name: str) -> None:
        self._tail = Tail(path)
        self._name = name
        self._chain = Chain()
        self._fresh = self._more_state()
        self._again: Chain | None = None
        """Rows that have been read again of a file that was written anew."""
        self._agreed = (Chain(), 0, self._fresh)
        """The last place where both agreed: the rows up to there, its offset, and what was known there."""
        self._limit = 0
        """Bytes that are read; 0: not known yet whether the table is metrics."""
        self._refused = False
        self._layouts: dict[tuple[str, ...], tablerules.Layout] = {}

    def turn(self, sink: Sink, final: bool = False) -> bool:
        """Give what is new to the sink; return whether the turn ended before all was read. Raises OSError.

        ``final``: nothing will be added, so that the last row counts without the end of its line.
        """
        fd = self._tail.open(final)
        if fd is None:
            return False
        try:
            if not self._tail.is_same(fd):
                self._start_again()
            return not self._refused and self._read(fd, sink, final)
        finally:
            os.close(fd)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON."""
        return {
            "tail": self._tail.state(),
            "chain": self._chain.state(),
            "again": None if self._again is None else self._again.state(),
            "agreed": [self._agreed[0].state(), *self._agreed[1:]],
            "limit": self._limit,
            "refused": self._refused,
            **self._more_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken; raises KeyError, TypeError, ValueError for what is none."""
        self._tail.restore(state["tail"])
        self._chain.restore(state["chain"])
        self._again = None
        if state["again"] is not None:
            self._again = Chain()
            self._again.restore(state["again"])
        agreed = Chain()
        agreed.restore(state["agreed"][0])
        self._agreed = (agreed, int(state["agreed"][1]), dict(state["agreed"][2]))
        self._limit, self._refused = int(state["limit"]), bool(state["refused"])
        self._restore_more(state)

    def _more_state(self) -> dict[str, Any]:
        return {}

    def _restore_more(self, state: dict[str, Any]) -> None:
        """Take over what `_more_state` gave."""

    def _rows(self, data: bytes, final: bool) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yield the end of each whole row, and its cells by column; None for what is no row (a header, an empty line)."""
        raise NotImplementedError

    def _columns(self, cells: dict[str, Any]) -> tuple[str, ...]:
        return tuple(cells)

    def _start_again(self) -> None:
        """Begin with a file that is not the one that was read."""
        self._tail.jump(0)
        if self._refused:
            self._limit, self._refused = 0, False
        self._restore_more(self._fresh)
        self._again, self._agreed = Chain(), (Chain(), 0, self._fresh)

    def _read(self, fd: int, sink: Sink, final: bool) -> bool:
        while True:
            data = self._tail.read(fd, CHUNK)
            ends = self._tail.offset + len(data) >= self._tail.size
            moved = self._take(data, final and ends, sink)
            if self._refused:
                return False
            if not moved:
                if len(data) >= CHUNK:
                    self._refuse(sink, "its lines are too long for metrics")
                return False
            if sink.over():
                self._tail.unsettle()
                return True

    def _take(self, data: bytes, final: bool, sink: Sink) -> bool:
        """Take the whole rows at the start of what was read; return whether the position moved."""
        start, done = self._tail.offset, 0
        for end, cells in self._rows(data, final):
            self._tail.advance(data[done:end])
            done = end
            if cells is None:
                continue
            if not self._limit and not self._accept(cells, sink):
                return False
            if self._again is not None:
                if self._compare(cells):
                    continue
                self._diverge()
                return True
            self._chain.add(digest(cells))
            self._give(cells, sink)
            if self._tail.offset > self._limit:
                self._refuse(sink, "larger than what is read of a table")
                break
        return self._tail.offset > start

    def _accept(self, cells: dict[str, Any], sink: Sink) -> bool:
        """Tell whether the table is metrics, at its first row."""
        columns = self._columns(cells)
        first, self._limit = tablerules.limits(self._name, columns)
        if self._tail.size > first:
            self._refused = True
            if tablerules.is_called_metrics(self._name):
                self._refuse(sink, "too large, or too many columns, for metrics")
            return False
        return True

    def _refuse(self, sink: Sink, why: str) -> None:
        self._refused = True
        sink.refuse(self._name, why)

    def _compare(self, cells: dict[str, Any]) -> bool:
        """Take a row that may have been read before; tell whether it can have been."""
        again = self._again
        if again is None or again.count >= self._chain.count:
            return False
        again.add(digest(cells))
        agrees = self._chain.agrees(again)
        if agrees:
            self._agreed = (again.copy(), self._tail.offset, self._more_state())
            if again.count == self._chain.count:
                self._again = None
        return agrees is not False

    def _diverge(self) -> None:
        """Go on behind the last row that is the same as before: what follows is new."""
        self._chain, offset, known = self._agreed
        self._again = None
        self._tail.jump(offset)
        self._restore_more(known)

    def _give(self, cells: dict[str, Any], sink: Sink) -> None:
        columns = self._columns(cells)
        if len(columns) > tablerules.MAX_COLUMNS:
            sink.refuse(self._name, "a row with too many columns")
            return
        layout = self._layouts.get(columns)
        if layout is None:
            if len(self._layouts) >= MAX_LAYOUTS:
                self._layouts.clear()
            layout = self._layouts[columns] = tablerules.Layout(columns)
        values, step, at = layout.split(cells, self._chain.count - 1)
        if values:
            sink.row(self._name, values, step, at or self._tail.mtime_us)


class CsvReader(TableReader):
    """Reads a table with a header and one row a line; cells may be quoted, and hold line breaks then."""

    def __init__(self, path: str, name: str) -> None:
        self._header: list[str] = []
        self._delimiter = ","
        super().__init__(path, name)

    def _more_state(self) -> dict[str, Any]:
        return {"header": self._header, "delimiter": self._delimiter}

    def _restore_more(self, state: dict[str, Any]) -> None:
        self._header, self._delimiter = [str(name) for name in state["header"]], str(state["delimiter"])

    def _columns(self, cells: dict[str, Any]) -> tuple[str, ...]:
        return tuple(self._header)

    def _rows(self, data: bytes, final: bool) -> Iterator[tuple[int, dict[str, Any] | None]]:
        at = 0
        for end, raw in _lines(data, final):
            line = raw.decode("utf-8", "replace").strip("\r\n")
            at = end
            if not self._header:
                first = line.lstrip("\ufeff")
                if first.strip() and not first.startswith("#"):
                    following = data[at : data.find(b"\n", at) + 1 or len(data)].decode("utf-8", "replace")
                    if not following.endswith("\n") and not final:
                        return  # the delimiter is what header and first row have in common
                    self._delimiter = _delimiter(first, following.strip("\r\n"))
                    self._header = _cells(first, self._delimiter)
                yield end, None
                continue
            cells = _cells(line, self._delimiter)
            if self._is_header(cells):
                self._header = cells
                cells = []
            complete = len(cells) >= len(self._header) or not final or raw.endswith(b"\n")
            yield end, dict(zip(self._header, cells)) if cells and complete else None

    def _is_header(self, cells: list[str]) -> bool:
        """Tell whether a row is a header: written again by a program that was started again, perhaps with new columns."""
        names = {name.strip() for name in self._header} - {""}
        return not names.isdisjoint([cell.strip() for cell in cells]) and not any(
            tablerules.number(cell) is not None for cell in cells
        )


class JsonLinesReader(TableReader):
    """Reads a file with one JSON object a line; what is nested has names joined with ``/``."""

    def _rows(self, data: bytes, final: bool) -> Iterator[tuple[int, dict[str, Any] | None]]:
        at = 0
        while at < len(data):
            end = data.find(b"\n", at) + 1 or len(data)
            raw = data[at:end].strip()
            # An object that is whole without the end of its line cannot be part of a longer one.
            if not data.endswith(b"\n", at, end) and not final and not raw.endswith(b"}"):
                return
            cells = _object(raw[3:] if raw.startswith(BOM) else raw)
            if cells is None and not data.endswith(b"\n", at, end) and not final:
                return
            at = end
            yield at, cells


def _lines(data: bytes, final: bool) -> Iterator[tuple[int, bytes]]:
    """Yield the end and the bytes of each whole line; line breaks in quotes belong to it."""
    start = at = 0
    quotes = 0
    while at < len(data):
        end = data.find(b"\n", at) + 1
        if not end and not final:
            return
        end = end or len(data)
        quotes += data.count(b'"', at, end)
        at = end
        if not quotes % 2 or (final and at == len(data)):
            yield at, data[start:at]
            start, quotes = at, 0


def _cells(line: str, delimiter: str) -> list[str]:
    """Return the cells of a row; none when it is no row of a table."""
    import csv

    try:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return []


def _delimiter(header: str, row: str) -> str:
    """Return what separates the cells: what header and first row have most of, and as many."""
    best, most = ",", 0
    for candidate in DELIMITERS:
        count = header.count(candidate)
        if count > most and (not row or row.count(candidate) >= count):
            best, most = candidate, count
    return best


def _object(raw: bytes) -> dict[str, Any] | None:
    """Return the plain values of a JSON object by name; None when it is none."""
    if not raw.startswith(b"{"):
        return None
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    found: dict[str, Any] = {}
    _flatten(value, "", found, 0)
    return found


def _flatten(value: dict[str, Any], prefix: str, found: dict[str, Any], depth: int) -> None:
    for name, item in value.items():
        if isinstance(item, dict) and depth < 4:
            _flatten(item, prefix + name + "/", found, depth + 1)
        elif isinstance(item, (int, float, str)):
            found[prefix + name] = item
