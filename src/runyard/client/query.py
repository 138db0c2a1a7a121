"""Runs from Python: ``runyard.runs("metrics.loss < 0.1").df()``.

What is asked is asked when it is first needed, and once. Unlike what logs, this raises `RunyardError`: a query that
cannot be read, a server that cannot be reached.
"""

from __future__ import annotations

import os

from runyard.client import columns, connect, exports, latex
from runyard.wire.errors import NotFoundError, RunyardError, UsageError
from runyard.wire.files import write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeVar

    from runyard.client.api import Api

    T = TypeVar("T")


def runs(query: str = "", *, order: str = "", limit: int | None = None) -> Runs:
    """Return the runs that a query finds (docs/search.md), of the server of this home; it is started where that is allowed.

    ``order``: fields such as ``metrics.loss`` or ``-metrics.acc``; by default the newest come first. ``limit``: at most so
    many.
    """
    return Runs(query, order, limit)


class Runs:
    """The runs that a query finds: a sequence of their JSON (docs/protocol.md), and all of them as columns."""

    def __init__(self, query: str, order: str = "", limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise UsageError("limit is %d" % limit, "at least 1, or None for all")
        self.query = query
        self.order = order
        self.limit = limit
        self._runs: list[dict[str, Any]] | None = None
        self._ids: list[str] | None = None

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The runs as in the API; asked for once."""
        if self._runs is None:
            self._runs = self._ask(lambda api: list(api.all_runs(self.limit, **self._filters())))
        return self._runs

    @property
    def ids(self) -> list[str]:
        """The ids of the runs; asked for once."""
        if self._runs is not None:
            return [run["id"] for run in self._runs]
        if self._ids is None:
            self._ids = self._table([columns.ID]).values[columns.ID]
        return self._ids

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.runs)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return self.runs[place]

    def __repr__(self) -> str:
        more = "".join(", %s=%r" % item for item in (("order", self.order), ("limit", self.limit)) if item[1])
        return "runyard.runs(%r%s)" % (self.query, more)

    def df(self, columns: str | Sequence[str] | None = None) -> Any:
        """Return the runs as a pandas data frame; needs pandas.

        ``columns``: fields as in queries (``params.lr``, ``metrics["val/acc"].max``, ``run.duration``, ``params.*``), by
        default id, project, name, state, created_at, ``params.*`` and ``metrics.*`` (last values).
        """
        exports.needed("pandas")  # before the server is asked
        return exports.frame(self._table(_fields(columns)))

    def history(self, *metrics: str, points: int = 0) -> Any:
        """Return the points of metrics as a long pandas data frame: run, metric, step, time and value; needs pandas.

        ``points``: at most so many of each run and metric, chosen so that a plot looks the same; 0: all.
        """
        if not metrics:
            raise UsageError("history needs the name of a metric", 'e.g. history("loss", "val/acc")')
        exports.needed("pandas")
        found = self._ask(lambda api: list(columns.history(api, metrics, points, self.limit, **self._filters())))
        there = {metric for _, metric, _ in found}
        missing = [name for name in map(columns.metric_name, metrics) if name not in there]
        if missing and self.ids:
            raise NotFoundError(
                "none of these runs has points of a metric %s" % missing[0], 'df("metrics.*") has the metrics there are'
            )
        return exports.long_frame(found)

    def csv(self, path: str | os.PathLike[str] | None = None, columns: str | Sequence[str] | None = None) -> str | None:
        """Write the runs as CSV, or return that as text where no path is given; ``columns`` as in `df`."""
        return _given(exports.csv(self._table(_fields(columns))), path)

    def latex(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        columns: str | Sequence[str] | None = None,
        rows: str | Sequence[str] = (),
        over: str | Sequence[str] = (),
        digits: int = latex.DIGITS,
    ) -> str | None:
        """Write a LaTeX table (booktabs), or return it as text where no path is given; see docs/results.md.

        ``rows``: fields whose values make the lines, e.g. ``params.model``; ``over``: what the runs of a line may differ in,
        e.g. ``params.seed``: a cell is their mean and sample standard deviation. ``digits``: significant ones.
        """
        layout = latex.Layout(_fields(columns), _fields(rows), _fields(over), digits)
        options = (("columns", columns), ("rows", rows), ("over", over), ("digits", digits))
        made = "%r.latex(%s)" % (self, ", ".join("%s=%r" % item for item in options if item[1]))
        text, notes = latex.render(self._table(layout.fields()), layout, made, ordered=bool(self.order))
        for note in notes:
            import warnings

            warnings.warn(note, stacklevel=2)
        return _given(text.encode("utf-8"), path)

    def _filters(self) -> dict[str, Any]:
        return {"q": self.query or None, "order": self.order or None}

    def _table(self, wanted: Sequence[str]) -> columns.Columns:
        return self._ask(lambda api: columns.fetch(api, wanted, self.limit, **self._filters()))

    def _ask(self, ask: Callable[[Api], T]) -> T:
        try:
            with connect.connect(os.environ) as api:
                return ask(api)
        except RunyardError as exc:
            if exc.hint and hasattr(exc, "add_note"):  # Python 3.11
                exc.add_note(exc.hint)
            raise


def _fields(names: str | Sequence[str] | None) -> list[str]:
    return columns.split(names)


def _given(data: bytes, path: str | os.PathLike[str] | None) -> str | None:
    if path is None:
        return data.decode("utf-8")
    write_output(os.fspath(path), data)
    return None
