"""Which names are those of parameters and of metrics, and which are like one."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, exists, func, select, text

from runyard.store.dialects import Dialect
from runyard.store.tables import metrics, names, params

SHOWN_MAX = 5000
"""Names among which one is looked for that somebody meant."""
_METRIC = exists(select(metrics.c.run_seq).where(metrics.c.name_id == names.c.id))
_PARAM = exists(select(params.c.run_seq).where(params.c.name_id == names.c.id))
_IS_METRIC = select(names.c.id).where(names.c.id == bindparam("id"), _METRIC)
_IS_PARAM = select(names.c.id).where(names.c.id == bindparam("id"), _PARAM)


def like(connection: Connection, dialect: Dialect, pattern: str) -> list[int]:
    """Return the numbers of the names that are like a pattern (`dialects.Dialect.like`)."""
    statement = text(f"SELECT id FROM names WHERE {dialect.like('name', ':pattern')}")
    return [int(number) for number in connection.execute(statement, {"pattern": pattern}).scalars()]


def is_metric(connection: Connection, name_id: int | None) -> bool:
    """Tell whether some run has a metric of this name."""
    return name_id is not None and connection.execute(_IS_METRIC, {"id": name_id}).first() is not None


def is_param(connection: Connection, name_id: int | None) -> bool:
    """Tell whether some run has a parameter of this name."""
    return name_id is not None and connection.execute(_IS_PARAM, {"id": name_id}).first() is not None


def is_mostly_param(connection: Connection, name_id: int | None) -> bool:
    """Tell whether more runs have a parameter of this name than have a metric of it."""
    counts = [
        connection.execute(select(func.count()).select_from(table).where(table.c.name_id == name_id)).scalar_one()
        for table in (params, metrics)
    ]
    return bool(counts[0] > counts[1])


def all_metrics(connection: Connection) -> list[str]:
    """Return the names of all metrics."""
    return list(connection.execute(select(names.c.name).where(_METRIC).limit(SHOWN_MAX)).scalars())


def all_params(connection: Connection) -> list[str]:
    """Return the names of all parameters."""
    return list(connection.execute(select(names.c.name).where(_PARAM).limit(SHOWN_MAX)).scalars())
