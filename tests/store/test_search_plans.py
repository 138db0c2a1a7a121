"""How SQLite carries out searches: it has no statistics, so the statements themselves must lead it to the indexes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from runyard.store import search
from runyard.testing.logged import add
from runyard.testing.stage import ME, Stage
from tests.store.backends import make_stage


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("home")
    stage = make_stage(home, f"sqlite:///{home / 'yard.db'}")
    for number in range(30):
        add(stage, stage.submit(), params_={"lr": number, "opt": "adam"}, metrics_={"loss": [number / 30]})
    yield stage
    stage.close()


def plans(stage: Stage, **filters: Any) -> list[str]:
    """Return the plans of the statements about runs that a search takes."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, _many: bool) -> None:
        if "FROM (" in statement and "runs r" in statement:
            seen.append((statement, values))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        assert stage.yard.runs(filters, ME)["runs"]
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    with stage.inner.context.db.engine.connect() as connection:
        return [
            "\n".join(str(row[3]) for row in connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, values))
            for statement, values in seen
        ]


@pytest.mark.parametrize(
    ("order", "index"),
    [
        ("metrics.loss", "SEARCH o USING COVERING INDEX ix_metrics_last"),
        ("-metrics.loss.max", "SEARCH o USING COVERING INDEX ix_metrics_max"),
        ("params.lr", "SEARCH o USING COVERING INDEX ix_params_number"),
        ("-run.created", "SCAN r"),  # by its number, from the newest on
    ],
)
def test_a_page_in_order_is_one_statement_along_the_index(stage: Stage, order: str, index: str) -> None:
    (plan,) = plans(stage, order=order, limit=10)
    inner = plan.partition("SCAN k")[0]
    assert index in inner
    assert "TEMP B-TREE" not in inner


def test_a_condition_on_what_the_order_is_by_bounds_the_index(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "FEW", 1)
    (plan,) = plans(stage, order="metrics.loss", q='metrics.loss < 0.5 and params.opt == "adam"', limit=10)
    assert "ix_metrics_last (name_id=? AND last>? AND last<?)" in plan
    looked, _, then = plan.partition("SEARCH r USING")
    assert "SEARCH p" in looked  # what the parameter rules out needs no look at the run
    assert "TEMP B-TREE" not in plan.partition("SCAN k")[0]


def test_few_runs_that_fit_a_condition_are_found_by_it(stage: Stage) -> None:
    plan, _missing = plans(stage, q="params.lr == 3", order="metrics.loss", limit=10)
    assert "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)" in plan
    assert "ix_params_number (name_id=? AND number=?)" in plan
