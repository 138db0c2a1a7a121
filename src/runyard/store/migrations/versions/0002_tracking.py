"""What runs log: parameters, metrics, media, data; archived runs.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from runyard.store import types

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SOURCE = "of the points: 0 printed lines, 1 files, 2 logged by the program; of one metric only the highest count"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "names",
        sa.Column("id", types.Serial, autoincrement=True, nullable=False),
        sa.Column("hash", types.Word(length=64), nullable=False, comment="SHA-256 of the name's bytes"),
        sa.Column("name", types.Name(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_names")),
        sa.UniqueConstraint("hash", name=op.f("uq_names_hash")),
        comment="Names of parameters, metrics and media, once each.",
        sqlite_autoincrement=True,
        if_not_exists=True,
    )
    op.create_table(
        "data_files",
        sa.Column("run_seq", sa.BigInteger(), nullable=False),
        sa.Column("path_hash", types.Word(length=64), nullable=False, comment="SHA-256 of the path's bytes"),
        sa.Column("path", types.Name(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime", sa.BigInteger(), nullable=False),
        sa.Column("sha256", types.Word(length=64), nullable=True),
        sa.Column("via", types.Word(length=16), nullable=False, comment="how it is known that the run read it"),
        sa.Column("files", sa.Integer(), nullable=False, comment="1; of a directory: how many files the manifest has"),
        sa.ForeignKeyConstraint(["run_seq"], ["runs.seq"], name=op.f("fk_data_files_run_seq"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_seq", "path_hash", name=op.f("pk_data_files")),
        comment="Data that a run read.",
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
    op.create_index("ix_data_files_path", "data_files", ["path_hash", "run_seq"], unique=False, if_not_exists=True)
    op.create_table(
        "media",
        sa.Column("id", types.Serial, autoincrement=True, nullable=False),
        sa.Column("run_seq", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("name_id", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", types.Word(length=16), nullable=False),
        sa.Column("format", types.Word(length=16), nullable=False),
        sa.Column("caption", types.Name(), nullable=False),
        sa.Column(
            "sha256",
            types.Word(length=64),
            nullable=False,
            comment="names the file below .runyard/media of the run's directory",
        ),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["name_id"], ["names.id"], name=op.f("fk_media_name_id")),
        sa.ForeignKeyConstraint(["run_seq"], ["runs.seq"], name=op.f("fk_media_run_seq"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_media")),
        comment="Text, images, figures, tables, histograms that a run logged.",
        sqlite_autoincrement=True,
        if_not_exists=True,
    )
    op.create_index("ix_media_run", "media", ["run_seq", "name_id", "step"], unique=False, if_not_exists=True)
    op.create_table(
        "metric_blocks",
        sa.Column("id", types.Serial, autoincrement=True, nullable=False),
        sa.Column("run_seq", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("source", sa.SmallInteger(), nullable=False, comment=SOURCE),
        sa.Column(
            "name_id",
            sa.BigInteger(),
            nullable=True,
            comment="of a block of one metric; NULL: of several, as they arrived",
        ),
        sa.Column("count", sa.Integer(), nullable=False, comment="rows"),
        sa.Column("data", types.Bytes, nullable=False, comment="store/blocks.py"),
        sa.ForeignKeyConstraint(["run_seq"], ["runs.seq"], name=op.f("fk_metric_blocks_run_seq"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_metric_blocks")),
        comment="Points of metrics in compressed columns. Rows are inserted and deleted, never changed.",
        sqlite_autoincrement=True,
        if_not_exists=True,
    )
    op.create_index(
        "ix_metric_blocks_loose",
        "metric_blocks",
        ["run_seq"],
        unique=False,
        sqlite_where=sa.text("name_id IS NULL"),
        postgresql_where=sa.text("name_id IS NULL"),
        if_not_exists=True,
    )
    op.create_index(
        "ix_metric_blocks_run", "metric_blocks", ["run_seq", "name_id", "id"], unique=False, if_not_exists=True
    )
    op.create_table(
        "metrics",
        sa.Column("run_seq", sa.BigInteger(), nullable=False),
        sa.Column("name_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False, comment="number of the last attempt that logged it"),
        sa.Column("source", sa.SmallInteger(), nullable=False, comment=SOURCE),
        sa.Column("count", sa.BigInteger(), nullable=False, comment="points; 0: only a summary was set"),
        sa.Column(
            "last",
            types.Number(),
            nullable=True,
            comment="as all statistics: NULL is NaN; the others are over what is no NaN",
        ),
        sa.Column("min", types.Number(), nullable=True),
        sa.Column("max", types.Number(), nullable=True),
        sa.Column("total", types.Number(), nullable=True, comment="sum of the values that are no NaN"),
        sa.Column("nans", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=True, comment="of the last value"),
        sa.Column("min_step", sa.BigInteger(), nullable=True, comment="where the least value was"),
        sa.Column("max_step", sa.BigInteger(), nullable=True),
        sa.Column("first_at", sa.BigInteger(), nullable=True),
        sa.Column("last_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["name_id"], ["names.id"], name=op.f("fk_metrics_name_id")),
        sa.ForeignKeyConstraint(["run_seq"], ["runs.seq"], name=op.f("fk_metrics_run_seq"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_seq", "name_id", name=op.f("pk_metrics")),
        comment="One row per run and metric, for tables and search; the points are in metric_blocks.",
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
    op.create_index("ix_metrics_last", "metrics", ["name_id", "last", "run_seq"], unique=False, if_not_exists=True)
    op.create_index("ix_metrics_max", "metrics", ["name_id", "max", "run_seq"], unique=False, if_not_exists=True)
    op.create_index("ix_metrics_min", "metrics", ["name_id", "min", "run_seq"], unique=False, if_not_exists=True)
    op.create_table(
        "params",
        sa.Column("run_seq", sa.BigInteger(), nullable=False),
        sa.Column("name_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", types.Word(length=8), nullable=False, comment="number, text, bool, null"),
        sa.Column("number", types.Number(), nullable=True, comment="of a number or a switch (0 or 1)"),
        sa.Column(
            "head",
            types.Name(),
            nullable=False,
            comment="the first 100 characters of the value, to compare and to sort",
        ),
        sa.Column("value", types.Json(), nullable=False),
        sa.Column("rank", sa.SmallInteger(), nullable=False, comment="of its origin: a higher one goes over it"),
        sa.Column("source", types.Name(), nullable=False),
        sa.ForeignKeyConstraint(["name_id"], ["names.id"], name=op.f("fk_params_name_id")),
        sa.ForeignKeyConstraint(["run_seq"], ["runs.seq"], name=op.f("fk_params_run_seq"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_seq", "name_id", name=op.f("pk_params")),
        comment="The value of each parameter of each run.",
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
    op.create_index(
        "ix_params_head",
        "params",
        ["name_id", "head", "run_seq"],
        unique=False,
        mysql_length={"head": 100},
        if_not_exists=True,
    )
    op.create_index("ix_params_number", "params", ["name_id", "number", "run_seq"], unique=False, if_not_exists=True)
    op.create_table(
        "tracked",
        sa.Column("run_seq", sa.BigInteger(), nullable=False),
        sa.Column("progress", types.Json(), nullable=True),
        sa.Column(
            "capture", types.Json(), nullable=True, comment="what was looked at, what was refused, what is missing"
        ),
        sa.Column("log_tail", types.Name(), nullable=True, comment="the end of the log, to search"),
        sa.ForeignKeyConstraint(["run_seq"], ["runs.seq"], name=op.f("fk_tracked_run_seq"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_seq", name=op.f("pk_tracked")),
        comment="What else is known of a run by what it logged.",
        if_not_exists=True,
    )
    op.create_table(
        "spool_streams",
        sa.Column("attempt_id", types.Word(length=32), nullable=False),
        sa.Column("stream", types.Word(length=16), nullable=False),
        sa.Column("next", sa.BigInteger(), nullable=False, comment="number of the first record that is not here yet"),
        sa.Column("lost", sa.BigInteger(), nullable=False, comment="records that never will be"),
        sa.Column("process", types.Json(), nullable=False),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["attempts.id"], name=op.f("fk_spool_streams_attempt_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("attempt_id", "stream", name=op.f("pk_spool_streams")),
        comment="How far each stream of each attempt has been taken in.",
        if_not_exists=True,
    )
    op.create_table(
        "output_steps",
        sa.Column("run_id", types.Word(length=12), nullable=False),
        sa.Column("path_hash", types.Word(length=64), nullable=False, comment="SHA-256 of the path's bytes"),
        sa.Column("path", types.Name(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_output_steps_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "path_hash", name=op.f("pk_output_steps")),
        comment=(
            "Steps of outputs, or of directories of them, that a run has named itself; they go over those of the names."
        ),
        if_not_exists=True,
    )
    step = sa.Column("step", sa.BigInteger(), nullable=True, comment="as its name says; NULL: it does not")
    _add_column(step, "outputs")
    series: sa.Column[Any] = sa.Column(
        "series", types.Name(), nullable=True, comment="of one with a step: its path without that, alike for all steps"
    )
    _add_column(series, "outputs")
    _add_column(
        sa.Column(
            "code_commit", types.Name(), nullable=True, comment="what the tree was based on, from the spec's snapshot"
        )
    )
    _add_column(sa.Column("code_branch", types.Name(), nullable=True))
    _add_column(sa.Column("code_dirty", sa.SmallInteger(), nullable=True))
    _fill_code()
    _add_column(sa.Column("archived_at", sa.BigInteger(), nullable=True))
    _add_column(sa.Column("goal_metric", types.Name(), nullable=True, comment="what the project's goal is about"))
    _add_column(
        sa.Column("goal_sign", sa.SmallInteger(), nullable=True, comment="1: the larger the better, -1: the smaller")
    )


def _add_column(column: sa.Column[Any], table: str = "runs") -> None:
    have = {found["name"] for found in sa.inspect(op.get_bind()).get_columns(table)}
    if column.name not in have:
        op.add_column(table, column)


def _fill_code() -> None:
    """Take commit, branch and dirty state of the runs that are there from their specs."""
    runs = sa.table(
        "runs", sa.column("seq"), sa.column("spec", types.Json()), sa.column("code_commit", types.Name()),
        sa.column("code_branch", types.Name()), sa.column("code_dirty"),
    )  # fmt: skip
    connection, after = op.get_bind(), 0
    while rows := connection.execute(
        sa.select(runs.c.seq, runs.c.spec).where(runs.c.seq > after).order_by(runs.c.seq).limit(500)
    ).all():
        after = rows[-1].seq
        values = [{"at": row.seq, **_code(row.spec.get("snapshot") or {})} for row in rows]
        connection.execute(
            sa.update(runs)
            .where(runs.c.seq == sa.bindparam("at"))
            .values(
                code_commit=sa.bindparam("commit"), code_branch=sa.bindparam("branch"), code_dirty=sa.bindparam("dirty")
            ),
            values,
        )


def _code(snapshot: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: value if isinstance(value := snapshot.get(name), str) else None for name in ("commit", "branch")
    }
    return {**found, "dirty": int(snapshot["dirty"]) if isinstance(snapshot.get("dirty"), bool) else None}
