"""All tables. Times are BIGINT microseconds since 1970 UTC; booleans are 0 or 1; paths are relative to the home."""

from __future__ import annotations

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, MetaData, SmallInteger, Table, UniqueConstraint, text

from runyard.store.types import BigInt, Bytes, Json, Name, Number, Serial, Word

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

meta = Table(
    "meta",
    metadata,
    Column("name", Word(64), primary_key=True),
    Column("value", Name, nullable=False),
    comment="Facts about this yard: its id, its generation.",
)

users = Table(
    "users",
    metadata,
    Column("name", Word(128), primary_key=True),
    Column("created_at", BigInt, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("seq", Serial, primary_key=True, autoincrement=True),
    Column("id", Word(12), nullable=False, unique=True),
    Column("project", Name, nullable=False),
    Column("name", Name),
    Column("message", Name, nullable=False),
    Column("user_name", Word(128), nullable=False),
    Column("state", Word(16), nullable=False),
    Column("ready", SmallInteger, nullable=False, comment="1: queued and nothing but slots is missing"),
    Column("priority_rank", Integer, nullable=False, comment="minus the priority, so that the queue's index ascends"),
    Column("not_before", BigInt),
    Column("stop_at", BigInt),
    Column("created_at", BigInt, nullable=False),
    Column("started_at", BigInt),
    Column("ended_at", BigInt),
    Column("epoch", Integer, nullable=False, comment="the fence: grows with every change of the current attempt"),
    Column("attempt_id", Word(32), comment="the current attempt"),
    Column("attempts", Integer, nullable=False),
    Column("failures", Integer, nullable=False, comment="failures of the user's program so far; bounded by retries"),
    Column("losses", Integer, nullable=False, comment="losses of infrastructure so far; bounded by a budget"),
    Column("retries", Integer, nullable=False),
    Column("requeue", SmallInteger, nullable=False),
    Column("kill_at", BigInt, comment="when somebody asked to stop it"),
    Column("kill_by", Word(128)),
    Column("kill_grace_s", Float),
    Column("resource_key", Word(64), nullable=False, comment="equal for runs that place alike"),
    Column("resources", Json, nullable=False),
    Column("time_limit_s", Float),
    Column("spec", Json, nullable=False, comment="the rest of the submitted spec; never the environment's values"),
    Column("spec_hash", Word(64), nullable=False),
    Column("command_text", Name, nullable=False, comment="the command as one line, to search and to show"),
    Column("tree", Word(64)),
    Column("code_commit", Name, comment="what the tree was based on, from the spec's snapshot"),
    Column("code_branch", Name),
    Column("code_dirty", SmallInteger),
    Column("env_hash", Word(64)),
    Column("launch_id", Word(32), comment="names the 0600 file with the environment the run will get"),
    Column("dir", Name, nullable=False, comment="the run's directory, relative to the home"),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("reason", Word(32)),
    Column("origin", Word(16)),
    Column("end_detail", Name, comment="what was said of the end, for people"),
    Column("host_id", Word(64)),
    Column("sweep", Name),
    Column("trashed_at", BigInt),
    Column("thinned_at", BigInt),
    Column("archived_at", BigInt),
    Column("goal_metric", Name, comment="what the project's goal is about"),
    Column("goal_sign", SmallInteger, comment="1: the larger the better, -1: the smaller"),
    Index("ix_runs_queue", "state", "ready", "priority_rank", "seq"),
    # Partial where the database can: small, and not touched by what most transactions do.
    Index(
        "ix_runs_launch",
        "launch_id",
        "ended_at",
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    Index(
        "ix_runs_trashed",
        "trashed_at",
        sqlite_where=text("trashed_at IS NOT NULL"),
        postgresql_where=text("trashed_at IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
    comment="One row per run.",
)

run_tags = Table(
    "run_tags",
    metadata,
    Column("run_id", Word(12), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", Word(200), primary_key=True),
    Index("ix_run_tags_tag", "tag"),
)

run_after = Table(
    "run_after",
    metadata,
    Column("run_id", Word(12), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("after_id", Word(12), primary_key=True),
    Index("ix_run_after_after", "after_id"),
    comment="run_id may start once after_id has finished.",
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Word(32), primary_key=True),
    Column("run_id", Word(12), ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("agent_id", Word(128), nullable=False),
    Column("host_id", Word(64), nullable=False),
    Column("slots", Json, nullable=False),
    Column("phase", Word(16), nullable=False),
    Column("active", SmallInteger, nullable=False, comment="1 until its process is known to be gone"),
    Column("lease_until", BigInt, nullable=False),
    Column("assigned_at", BigInt, nullable=False),
    Column("started_at", BigInt),
    Column("ended_at", BigInt),
    Column("lost_at", BigInt),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("reason", Word(32)),
    Column("origin", Word(16)),
    Column("end_detail", Name, comment="what was said of the end, for people"),
    Column("log_bytes", BigInt),
    Column("log_dropped", BigInt),
    UniqueConstraint("run_id", "number"),
    Index("ix_attempts_agent", "agent_id", "active"),
    Index("ix_attempts_lease", "active", "lease_until"),
    comment="One execution of a run on one host.",
)

hosts = Table(
    "hosts",
    metadata,
    Column("id", Word(64), primary_key=True),
    Column("name", Name, nullable=False),
    Column("boot_id", Word(64), nullable=False),
    Column("cpus", Integer, nullable=False),
    Column("mem", BigInt, nullable=False),
    Column("info", Json, nullable=False),
    Column("disk_free", BigInt),
    Column("seen_at", BigInt, nullable=False),
)

agents = Table(
    "agents",
    metadata,
    Column("id", Word(128), primary_key=True),
    Column("host_id", Word(64), ForeignKey("hosts.id", ondelete="CASCADE"), nullable=False),
    Column("user_name", Word(128), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", Word(64), nullable=False),
    Column("shared_home", SmallInteger, nullable=False, comment="1: it reads and writes the same home as the server"),
    Column("draining", SmallInteger, nullable=False),
    Column("seen_at", BigInt, nullable=False),
)

slots = Table(
    "slots",
    metadata,
    Column("id", Word(200), primary_key=True, comment="<host id>:<name>"),
    Column("host_id", Word(64), ForeignKey("hosts.id", ondelete="CASCADE"), nullable=False),
    Column("name", Word(128), nullable=False),
    Column("kind", Word(8), nullable=False),
    Column("position", Integer, nullable=False),
    Column("uuid", Word(128)),
    Column("model", Name),
    Column("mem", BigInt),
    Column("threads", Integer, nullable=False),
    Column("free", SmallInteger, nullable=False, comment="0: something outside of the yard uses it"),
    Column("why", Name, nullable=False),
    Column("present", SmallInteger, nullable=False, comment="0: its host no longer reports it"),
    Index("ix_slots_host", "host_id"),
)

slot_use = Table(
    "slot_use",
    metadata,
    Column("slot_id", Word(200), primary_key=True),
    Column("attempt_id", Word(32), ForeignKey("attempts.id", ondelete="CASCADE"), nullable=False),
    Index("ix_slot_use_attempt", "attempt_id"),
    comment="Who holds a slot: the primary key is the exclusion. Rows go when the process is known to be gone.",
)

events = Table(
    "events",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("at", BigInt, nullable=False),
    Column("run_id", Word(12), comment="no foreign key: the history outlives a removed run"),
    Column("attempt_id", Word(32)),
    Column("kind", Word(32), nullable=False),
    Column("from_state", Word(16)),
    Column("to_state", Word(16)),
    Column("actor", Word(128), nullable=False),
    Column("detail", Json),
    Index("ix_events_run", "run_id", "id"),
    sqlite_autoincrement=True,
    comment="Every change of state: who, when, from, to, why.",
)

outputs = Table(
    "outputs",
    metadata,
    Column("run_id", Word(12), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("path_hash", Word(64), primary_key=True, comment="SHA-256 of the path's bytes"),
    Column("path", Name, nullable=False),
    Column("attempt_id", Word(32), nullable=False),
    Column("size", BigInt, nullable=False),
    Column("mtime", BigInt, nullable=False),
    Column("type", Word(128), nullable=False),
    Column("sha256", Word(64)),
    Column("place", Word(16), nullable=False, comment="home: below the run's directory; agent: not here yet"),
    Column("step", BigInt, comment="as its name says; NULL: it does not"),
    Column("series", Name, comment="of one with a step: its path without that, alike for all steps"),
    Index("ix_outputs_unhashed", "sha256", "place"),
)

output_steps = Table(
    "output_steps",
    metadata,
    Column("run_id", Word(12), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("path_hash", Word(64), primary_key=True, comment="SHA-256 of the path's bytes"),
    Column("path", Name, nullable=False),
    Column("step", BigInt, nullable=False),
    comment="Steps of outputs, or of directories of them, that a run has named itself; they go over those of the names.",
)

environments = Table(
    "environments",
    metadata,
    Column("hash", Word(64), primary_key=True),
    Column("content", Json, nullable=False),
    Column("created_at", BigInt, nullable=False),
    comment="What was recorded of an environment; allow-listed, never secrets.",
)

tokens = Table(
    "tokens",
    metadata,
    Column("name", Word(128), primary_key=True),
    Column("secret_hash", Word(64), nullable=False, unique=True),
    Column("scope", Word(16), nullable=False),
    Column("user_name", Word(128), nullable=False),
    Column("created_at", BigInt, nullable=False),
    Column("expires_at", BigInt),
    Column("used_at", BigInt),
)

# --- what runs log: docs/tracking.md ------------------------------------------------------------------------------------

names = Table(
    "names",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("hash", Word(64), nullable=False, unique=True, comment="SHA-256 of the name's bytes"),
    Column("name", Name, nullable=False),
    sqlite_autoincrement=True,
    comment="Names of parameters, metrics and media, once each.",
)

params = Table(
    "params",
    metadata,
    Column("run_seq", BigInt, ForeignKey("runs.seq", ondelete="CASCADE"), primary_key=True),
    Column("name_id", BigInt, ForeignKey("names.id"), primary_key=True),
    Column("kind", Word(8), nullable=False, comment="number, text, bool, null"),
    Column("number", Number, comment="of a number or a switch (0 or 1)"),
    Column("head", Name, nullable=False, comment="the first 100 characters of the value, to compare and to sort"),
    Column("value", Json, nullable=False),
    Column("rank", SmallInteger, nullable=False, comment="of its origin: a higher one goes over it"),
    Column("source", Name, nullable=False),
    Index("ix_params_number", "name_id", "number", "run_seq"),
    Index("ix_params_head", "name_id", "head", "run_seq", mysql_length={"head": 100}),
    comment="The value of each parameter of each run.",
    sqlite_with_rowid=False,
)

SOURCE = "of the points: 0 printed lines, 1 files, 2 logged by the program; of one metric only the highest count"

metrics = Table(
    "metrics",
    metadata,
    Column("run_seq", BigInt, ForeignKey("runs.seq", ondelete="CASCADE"), primary_key=True),
    Column("name_id", BigInt, ForeignKey("names.id"), primary_key=True),
    Column("attempt", Integer, nullable=False, comment="number of the last attempt that logged it"),
    Column("source", SmallInteger, nullable=False, comment=SOURCE),
    Column("count", BigInt, nullable=False, comment="points; 0: only a summary was set"),
    Column("last", Number, comment="as all statistics: NULL is NaN; the others are over what is no NaN"),
    Column("min", Number),
    Column("max", Number),
    Column("total", Number, comment="sum of the values that are no NaN"),
    Column("nans", BigInt, nullable=False),
    Column("step", BigInt, comment="of the last value"),
    Column("min_step", BigInt, comment="where the least value was"),
    Column("max_step", BigInt),
    Column("first_at", BigInt),
    Column("last_at", BigInt),
    Index("ix_metrics_last", "name_id", "last", "run_seq"),
    Index("ix_metrics_min", "name_id", "min", "run_seq"),
    Index("ix_metrics_max", "name_id", "max", "run_seq"),
    comment="One row per run and metric, for tables and search; the points are in metric_blocks.",
    sqlite_with_rowid=False,
)

metric_blocks = Table(
    "metric_blocks",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("run_seq", BigInt, ForeignKey("runs.seq", ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("source", SmallInteger, nullable=False, comment=SOURCE),
    Column("name_id", BigInt, comment="of a block of one metric; NULL: of several, as they arrived"),
    Column("count", Integer, nullable=False, comment="rows"),
    Column("data", Bytes, nullable=False, comment="store/blocks.py"),
    Index("ix_metric_blocks_run", "run_seq", "name_id", "id"),
    Index(
        "ix_metric_blocks_loose",
        "run_seq",
        sqlite_where=text("name_id IS NULL"),
        postgresql_where=text("name_id IS NULL"),
    ),
    sqlite_autoincrement=True,
    comment="Points of metrics in compressed columns. Rows are inserted and deleted, never changed.",
)

spool_streams = Table(
    "spool_streams",
    metadata,
    Column("attempt_id", Word(32), ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True),
    Column("stream", Word(16), primary_key=True),
    Column("next", BigInt, nullable=False, comment="number of the first record that is not here yet"),
    Column("lost", BigInt, nullable=False, comment="records that never will be"),
    Column("process", Json, nullable=False),
    comment="How far each stream of each attempt has been taken in.",
)

media = Table(
    "media",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("run_seq", BigInt, ForeignKey("runs.seq", ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("name_id", BigInt, ForeignKey("names.id"), nullable=False),
    Column("step", BigInt),
    Column("at", BigInt, nullable=False),
    Column("kind", Word(16), nullable=False),
    Column("format", Word(16), nullable=False),
    Column("caption", Name, nullable=False),
    Column("sha256", Word(64), nullable=False, comment="names the file below .runyard/media of the run's directory"),
    Column("size", BigInt, nullable=False),
    Index("ix_media_run", "run_seq", "name_id", "step"),
    sqlite_autoincrement=True,
    comment="Text, images, figures, tables, histograms that a run logged.",
)

data_files = Table(
    "data_files",
    metadata,
    Column("run_seq", BigInt, ForeignKey("runs.seq", ondelete="CASCADE"), primary_key=True),
    Column("path_hash", Word(64), primary_key=True, comment="SHA-256 of the path's bytes"),
    Column("path", Name, nullable=False),
    Column("size", BigInt, nullable=False),
    Column("mtime", BigInt, nullable=False),
    Column("sha256", Word(64)),
    Column("via", Word(16), nullable=False, comment="how it is known that the run read it"),
    Column("files", Integer, nullable=False, comment="1; of a directory: how many files the manifest has"),
    Index("ix_data_files_path", "path_hash", "run_seq"),
    comment="Data that a run read.",
    sqlite_with_rowid=False,
)

tracked = Table(
    "tracked",
    metadata,
    Column("run_seq", BigInt, ForeignKey("runs.seq", ondelete="CASCADE"), primary_key=True),
    Column("progress", Json),
    Column("capture", Json, comment="what was looked at, what was refused, what is missing"),
    Column("log_tail", Name, comment="the end of the log, to search"),
    comment="What else is known of a run by what it logged.",
)
