"""First schema.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from runyard.store import types

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "environments",
        sa.Column("hash", types.Word(length=64), nullable=False),
        sa.Column("content", types.Json(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_environments")),
        comment="What was recorded of an environment; allow-listed, never secrets.",
        if_not_exists=True,
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column(
            "run_id", types.Word(length=12), nullable=True, comment="no foreign key: the history outlives a removed run"
        ),
        sa.Column("attempt_id", types.Word(length=32), nullable=True),
        sa.Column("kind", types.Word(length=32), nullable=False),
        sa.Column("from_state", types.Word(length=16), nullable=True),
        sa.Column("to_state", types.Word(length=16), nullable=True),
        sa.Column("actor", types.Word(length=128), nullable=False),
        sa.Column("detail", types.Json(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        comment="Every change of state: who, when, from, to, why.",
        sqlite_autoincrement=True,
        if_not_exists=True,
    )
    op.create_index("ix_events_run", "events", ["run_id", "id"], unique=False, if_not_exists=True)

    op.create_table(
        "hosts",
        sa.Column("id", types.Word(length=64), nullable=False),
        sa.Column("name", types.Name(), nullable=False),
        sa.Column("boot_id", types.Word(length=64), nullable=False),
        sa.Column("cpus", sa.Integer(), nullable=False),
        sa.Column("mem", sa.BigInteger(), nullable=False),
        sa.Column("info", types.Json(), nullable=False),
        sa.Column("disk_free", sa.BigInteger(), nullable=True),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hosts")),
        if_not_exists=True,
    )
    op.create_table(
        "meta",
        sa.Column("name", types.Word(length=64), nullable=False),
        sa.Column("value", types.Name(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_meta")),
        comment="Facts about this yard: its id, its generation.",
        if_not_exists=True,
    )
    op.create_table(
        "runs",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", types.Word(length=12), nullable=False),
        sa.Column("project", types.Name(), nullable=False),
        sa.Column("name", types.Name(), nullable=True),
        sa.Column("message", types.Name(), nullable=False),
        sa.Column("user_name", types.Word(length=128), nullable=False),
        sa.Column("state", types.Word(length=16), nullable=False),
        sa.Column("ready", sa.SmallInteger(), nullable=False, comment="1: queued and nothing but slots is missing"),
        sa.Column(
            "priority_rank",
            sa.Integer(),
            nullable=False,
            comment="minus the priority, so that the queue's index ascends",
        ),
        sa.Column("not_before", sa.BigInteger(), nullable=True),
        sa.Column("stop_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column(
            "epoch", sa.Integer(), nullable=False, comment="the fence: grows with every change of the current attempt"
        ),
        sa.Column("attempt_id", types.Word(length=32), nullable=True, comment="the current attempt"),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column(
            "failures",
            sa.Integer(),
            nullable=False,
            comment="failures of the user's program so far; bounded by retries",
        ),
        sa.Column(
            "losses", sa.Integer(), nullable=False, comment="losses of infrastructure so far; bounded by a budget"
        ),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("requeue", sa.SmallInteger(), nullable=False),
        sa.Column("kill_at", sa.BigInteger(), nullable=True, comment="when somebody asked to stop it"),
        sa.Column("kill_by", types.Word(length=128), nullable=True),
        sa.Column("kill_grace_s", sa.Float(), nullable=True),
        sa.Column("resource_key", types.Word(length=64), nullable=False, comment="equal for runs that place alike"),
        sa.Column("resources", types.Json(), nullable=False),
        sa.Column("time_limit_s", sa.Float(), nullable=True),
        sa.Column(
            "spec",
            types.Json(),
            nullable=False,
            comment="the rest of the submitted spec; never the environment's values",
        ),
        sa.Column("spec_hash", types.Word(length=64), nullable=False),
        sa.Column(
            "command_text", types.Name(), nullable=False, comment="the command as one line, to search and to show"
        ),
        sa.Column("tree", types.Word(length=64), nullable=True),
        sa.Column("env_hash", types.Word(length=64), nullable=True),
        sa.Column(
            "launch_id",
            types.Word(length=32),
            nullable=True,
            comment="names the 0600 file with the environment the run will get",
        ),
        sa.Column("dir", types.Name(), nullable=False, comment="the run's directory, relative to the home"),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("signal", sa.Integer(), nullable=True),
        sa.Column("reason", types.Word(length=32), nullable=True),
        sa.Column("origin", types.Word(length=16), nullable=True),
        sa.Column("end_detail", types.Name(), nullable=True, comment="what was said of the end, for people"),
        sa.Column("host_id", types.Word(length=64), nullable=True),
        sa.Column("sweep", types.Name(), nullable=True),
        sa.Column("trashed_at", sa.BigInteger(), nullable=True),
        sa.Column("thinned_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_runs")),
        sa.UniqueConstraint("id", name=op.f("uq_runs_id")),
        comment="One row per run.",
        sqlite_autoincrement=True,
        if_not_exists=True,
    )
    op.create_index(
        "ix_runs_launch",
        "runs",
        ["launch_id", "ended_at"],
        unique=False,
        if_not_exists=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index(
        "ix_runs_queue", "runs", ["state", "ready", "priority_rank", "seq"], unique=False, if_not_exists=True
    )
    op.create_index(
        "ix_runs_trashed",
        "runs",
        ["trashed_at"],
        unique=False,
        if_not_exists=True,
        sqlite_where=sa.text("trashed_at IS NOT NULL"),
        postgresql_where=sa.text("trashed_at IS NOT NULL"),
    )

    op.create_table(
        "tokens",
        sa.Column("name", types.Word(length=128), nullable=False),
        sa.Column("secret_hash", types.Word(length=64), nullable=False),
        sa.Column("scope", types.Word(length=16), nullable=False),
        sa.Column("user_name", types.Word(length=128), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_tokens")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_tokens_secret_hash")),
        if_not_exists=True,
    )
    op.create_table(
        "users",
        sa.Column("name", types.Word(length=128), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_users")),
        if_not_exists=True,
    )
    op.create_table(
        "agents",
        sa.Column("id", types.Word(length=128), nullable=False),
        sa.Column("host_id", types.Word(length=64), nullable=False),
        sa.Column("user_name", types.Word(length=128), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", types.Word(length=64), nullable=False),
        sa.Column(
            "shared_home",
            sa.SmallInteger(),
            nullable=False,
            comment="1: it reads and writes the same home as the server",
        ),
        sa.Column("draining", sa.SmallInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_agents_host_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agents")),
        if_not_exists=True,
    )
    op.create_table(
        "attempts",
        sa.Column("id", types.Word(length=32), nullable=False),
        sa.Column("run_id", types.Word(length=12), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("agent_id", types.Word(length=128), nullable=False),
        sa.Column("host_id", types.Word(length=64), nullable=False),
        sa.Column("slots", types.Json(), nullable=False),
        sa.Column("phase", types.Word(length=16), nullable=False),
        sa.Column("active", sa.SmallInteger(), nullable=False, comment="1 until its process is known to be gone"),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.Column("assigned_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("lost_at", sa.BigInteger(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("signal", sa.Integer(), nullable=True),
        sa.Column("reason", types.Word(length=32), nullable=True),
        sa.Column("origin", types.Word(length=16), nullable=True),
        sa.Column("end_detail", types.Name(), nullable=True, comment="what was said of the end, for people"),
        sa.Column("log_bytes", sa.BigInteger(), nullable=True),
        sa.Column("log_dropped", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_attempts_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sa.UniqueConstraint("run_id", "number", name=op.f("uq_attempts_run_id_number")),
        comment="One execution of a run on one host.",
        if_not_exists=True,
    )
    op.create_index("ix_attempts_agent", "attempts", ["agent_id", "active"], unique=False, if_not_exists=True)
    op.create_index("ix_attempts_lease", "attempts", ["active", "lease_until"], unique=False, if_not_exists=True)

    op.create_table(
        "outputs",
        sa.Column("run_id", types.Word(length=12), nullable=False),
        sa.Column("path_hash", types.Word(length=64), nullable=False, comment="SHA-256 of the path's bytes"),
        sa.Column("path", types.Name(), nullable=False),
        sa.Column("attempt_id", types.Word(length=32), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime", sa.BigInteger(), nullable=False),
        sa.Column("type", types.Word(length=128), nullable=False),
        sa.Column("sha256", types.Word(length=64), nullable=True),
        sa.Column(
            "place",
            types.Word(length=16),
            nullable=False,
            comment="home: below the run's directory; agent: not here yet",
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_outputs_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "path_hash", name=op.f("pk_outputs")),
        if_not_exists=True,
    )
    op.create_index("ix_outputs_unhashed", "outputs", ["sha256", "place"], unique=False, if_not_exists=True)

    op.create_table(
        "run_after",
        sa.Column("run_id", types.Word(length=12), nullable=False),
        sa.Column("after_id", types.Word(length=12), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_run_after_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "after_id", name=op.f("pk_run_after")),
        comment="run_id may start once after_id has finished.",
        if_not_exists=True,
    )
    op.create_index("ix_run_after_after", "run_after", ["after_id"], unique=False, if_not_exists=True)

    op.create_table(
        "run_tags",
        sa.Column("run_id", types.Word(length=12), nullable=False),
        sa.Column("tag", types.Word(length=200), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_run_tags_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "tag", name=op.f("pk_run_tags")),
        if_not_exists=True,
    )
    op.create_index("ix_run_tags_tag", "run_tags", ["tag"], unique=False, if_not_exists=True)

    op.create_table(
        "slots",
        sa.Column("id", types.Word(length=200), nullable=False, comment="<host id>:<name>"),
        sa.Column("host_id", types.Word(length=64), nullable=False),
        sa.Column("name", types.Word(length=128), nullable=False),
        sa.Column("kind", types.Word(length=8), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("uuid", types.Word(length=128), nullable=True),
        sa.Column("model", types.Name(), nullable=True),
        sa.Column("mem", sa.BigInteger(), nullable=True),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("free", sa.SmallInteger(), nullable=False, comment="0: something outside of the yard uses it"),
        sa.Column("why", types.Name(), nullable=False),
        sa.Column("present", sa.SmallInteger(), nullable=False, comment="0: its host no longer reports it"),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_slots_host_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_slots")),
        if_not_exists=True,
    )
    op.create_index("ix_slots_host", "slots", ["host_id"], unique=False, if_not_exists=True)

    op.create_table(
        "slot_use",
        sa.Column("slot_id", types.Word(length=200), nullable=False),
        sa.Column("attempt_id", types.Word(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["attempts.id"], name=op.f("fk_slot_use_attempt_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("slot_id", name=op.f("pk_slot_use")),
        comment="Who holds a slot: the primary key is the exclusion. Rows go when the process is known to be gone.",
        if_not_exists=True,
    )
    op.create_index("ix_slot_use_attempt", "slot_use", ["attempt_id"], unique=False, if_not_exists=True)
