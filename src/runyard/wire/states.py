"""Names of states, phases, origins and end reasons, as they stand in the database, in JSON and on screen."""

# Run states
QUEUED = "queued"
HELD = "held"
RUNNING = "running"
FINISHED = "finished"
FAILED = "failed"
KILLED = "killed"
LOST = "lost"
RUN_STATES = (QUEUED, HELD, RUNNING, FINISHED, FAILED, KILLED, LOST)
ENDED_STATES = (FINISHED, FAILED, KILLED)
"""States that never change again. A run that was given up is ``lost`` with ``ended_at`` set: nothing starts it again, but
an attempt of it that is heard of after all goes on, and its end is the run's. Once its host has said that the process is
gone, ``lost`` does not change either."""

# Phases of a running attempt, in order; leased from ``assigned`` to ``stopping``.
ASSIGNED = "assigned"
STAGING = "staging"
PHASE_RUNNING = "running"
STOPPING = "stopping"
ENDED = "ended"

# Who or what caused an end
USER = "user"
"""The user's program (its exit code, its signal)."""
INFRA = "infra"
"""Machines, network, Runyard's own processes."""
SCHEDULER = "scheduler"
"""A rule: time limit, dependency, hand-back."""
HUMAN = "human"
"""Somebody asked for it."""
ORIGINS = (USER, INFRA, SCHEDULER, HUMAN)

# Reasons of an end                      origin
EXITED = "exited"  # user: the program ended by itself; see exit_code
SIGNALED = "signaled"  # user: the program died of a signal that Runyard did not send
NOT_STARTED = "not_started"  # user: the program could not be executed
OUT_OF_MEMORY = "out_of_memory"  # user: the kernel killed it for memory
STOPPED = "stopped"  # human: `runyard kill`
TIME_LIMIT = "time_limit"  # scheduler
DEPENDENCY_FAILED = "dependency_failed"  # scheduler: a run named by --after did not finish
HANDED_BACK = "handed_back"  # scheduler: the slot proved busy just before the start; no attempt is used
STAGING_FAILED = "staging_failed"  # infra: the directory could not be filled
SUPERVISOR_DIED = "supervisor_died"  # infra
HOST_LOST = "host_lost"  # infra: nothing heard for too long, or the host says that the process is gone
HOST_REBOOTED = "host_rebooted"  # infra
SUPERSEDED = "superseded"  # infra: another attempt of the run took over
END_REASONS = (
    EXITED, SIGNALED, NOT_STARTED, OUT_OF_MEMORY, STOPPED, TIME_LIMIT, DEPENDENCY_FAILED, HANDED_BACK,
    STAGING_FAILED, SUPERVISOR_DIED, HOST_LOST, HOST_REBOOTED, SUPERSEDED,
)  # fmt: skip

INFRA_LOSS_BUDGET = 2
"""Losses of infrastructure after which a run is no longer requeued."""
LEASE_S = 60.0
HEARTBEAT_S = 15.0
LOST_REQUEUE_S = 600.0
"""A lost run is requeued when its host says that the process is gone, or after this many seconds."""
TIMES_US = (-62_135_596_800_000_000, 253_402_300_799_999_999)
"""First and last time of the years 1 to 9999, in microseconds since 1970; files may be dated outside of them."""
GRACE_S = 30.0
"""Default seconds between SIGTERM and SIGKILL."""
