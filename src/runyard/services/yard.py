"""The yard in process: the services over one store (see `services.api.YardService` for the contract)."""

from __future__ import annotations

import math
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runyard.services import (
    assign,
    backup,
    compact,
    control,
    disk,
    files,
    finish,
    hashing,
    lease,
    notices,
    own,
    phases,
    search,
    table,
    tokens,
    views,
)
from runyard.services import submit as submitting
from runyard.services.api import Actor, Json, LogPlace
from runyard.services.context import Change, Clock, Context, change, settle_doubts, sweep_launches
from runyard.services.find import find_run
from runyard.services.guard import ExpiryGuard
from runyard.services.tracking import Tracking, fill
from runyard.store import attempts, events, hosts, migrate, outputs, records, runs
from runyard.store.database import Connection, Database
from runyard.wire import states
from runyard.wire.errors import ConflictError, StaleError, UnavailableError
from runyard.wire.files import write_atomic
from runyard.wire.ids import new_attempt_id
from runyard.wire.paths import Home
from runyard.wire.timing import Timing

LIMIT_MAX = 1000


def open_yard(
    home: str,
    settings: Mapping[str, Any],
    *,
    database_url: str = "",
    clock: Clock | None = None,
    timing: Timing | None = None,
) -> Yard:
    """Open (and if need be make or migrate) the yard of a home; tests give it a clock and waits of their own.

    Raises:
        ConfigError: the database is newer than this version, or its URL is wrong.
        UnavailableError: the database does not answer.
        OSError: the home cannot be written.
    """
    place = Home(home)
    os.makedirs(place.path, 0o700, exist_ok=True)
    url = database_url or str(settings.get("database") or "") or "sqlite:///" + place.database
    db = Database(url)
    try:
        migrate.upgrade(db.url, copies=place.backups)
    except BaseException:
        db.close()
        raise
    context = Context(
        db=db, home=place, settings=settings, clock=clock or Clock(db), secret=_secret(place.secret),
        timing=timing or Timing(),
    )  # fmt: skip
    return Yard(context)


def _secret(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        write_atomic(path, os.urandom(32), 0o600, sync=True)
        return _secret(path)


class Yard(Tracking):
    """One yard. Thread-safe; see `services.api.YardService`."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.guard = ExpiryGuard(context.timing)
        self._contact: dict[str, float] = {}
        self._assigning = threading.Lock()
        self._greeting = threading.Lock()
        self._greeted: dict[str, tuple[str, int]] = {}
        """Boot id and ``sent`` of the last hello of each agent."""
        self._expired_at = -math.inf
        self._awaited: set[str] = context.db.write(_awaited)
        self._awaited_until = context.clock.monotonic() + context.timing.lost_requeue_s
        self.yard_id: str = context.db.write(lambda c: records.fact(c, "yard", new_attempt_id()))
        sweep_launches(context)

    def close(self) -> None:
        """Close the database."""
        self.context.db.close()

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with the topics of each commit."""
        return self.context.topics.subscribe(callback)

    def _change(self, work: Callable[[Change], Any]) -> Any:
        return change(self.context, work)

    # People and programs

    def status(self) -> Json:
        """Return what is going on in the yard."""
        with self.context.db.read() as connection:
            accepting = self._accepting()
            oldest = runs.oldest_queued(connection)
            age_us = None if oldest is None else self.context.clock.now_us(connection) - oldest
            return {
                "yard": self.yard_id,
                "database": self.context.db.dialect,
                "counts": dict.fromkeys(states.RUN_STATES, 0) | runs.counts(connection),
                "agents": [views.agent_json(row, row.id in accepting) for row in hosts.all_agents(connection)],
                "slots": [views.slot_json(row) for row in hosts.slots_in_use(connection)],
                "disk": {"free": self._disk_free(), "min_free": assign.min_free(self.context)},
                "paused": self._pause() or None,
                "queue_age_s": None if age_us is None else max(age_us, 0) / 1e6,
            }

    def submit(self, specs: Sequence[Json], env: Mapping[str, str] | None, actor: Actor) -> list[str]:
        """Queue runs; see `services.submit.submit`."""
        return submitting.submit(self.context, specs, env, actor)

    def run(self, ref: str, actor: Actor) -> Json:
        """Return one run, with why it waits: to start, or, once its processes were killed, to end."""
        with self.context.db.read() as connection:
            row = find_run(connection, ref, actor)
            value = views.runs_json(self.context, connection, [row], with_outputs=True)[0]
            fill(connection, [row], [value], whole=True)
            if value["phase"] == states.STOPPING:  # its slots say so when it cannot be killed
                value["wait_reasons"] = hosts.whys(connection, row.host_id, value["slots"])
            value["environment"] = records.find_environment(connection, row.env_hash) if row.env_hash else None
        if row.state in (states.QUEUED, states.HELD):
            reasons, start = assign.explain(self.context, row, self._accepting(), self._pause())
            value.update(wait_reasons=reasons, expected_start=views.iso(start))
        return value

    def runs(self, filters: Mapping[str, Any], actor: Actor) -> Json:
        """Return a page of the runs that fit; see `services.search.prepare`."""
        with self.context.db.read() as connection:
            prepared = search.prepare(self.context, connection, filters)
            page = prepared.page(connection, search.limit_of(filters, 100, LIMIT_MAX))
            rows = runs.records(page.rows)
            values = views.runs_json(self.context, connection, rows, bool(filters.get("outputs")))
            fill(connection, rows, values, whole=False)
            return {"runs": values, "next": page.next, "hints": prepared.hints(connection, page)}

    def table(self, filters: Mapping[str, Any], actor: Actor) -> Json:
        """Return a page of the runs that fit, as columns; see `services.table.make`."""
        with self.context.db.read() as connection:
            return table.make(self.context, connection, filters, search.limit_of(filters, 10_000, table.LIMIT_MAX))

    def edit(self, ref: str, changes: Mapping[str, Any], actor: Actor) -> Json:
        """Change what is said about a run."""
        return self.run(self._change(lambda c: control.edit(c, ref, changes, actor)), actor)

    def kill(self, ref: str, now: bool, actor: Actor) -> Json:
        """Stop a run."""
        return self.run(self._change(lambda c: control.kill(c, ref, now, actor)), actor)

    def hold(self, ref: str, actor: Actor) -> Json:
        """Keep a queued run from starting."""
        return self.run(self._change(lambda c: control.hold(c, ref, actor)), actor)

    def release(self, ref: str, actor: Actor) -> Json:
        """Let a held run compete again."""
        return self.run(self._change(lambda c: control.release(c, ref, actor)), actor)

    def remove(self, ref: str, now: bool, actor: Actor) -> Json:
        """Move an ended run to the trash, or away for good."""
        value = self.run(ref, actor)
        with self.context.db.read() as connection:
            row = find_run(connection, value["id"], actor)
        self._change(lambda c: control.remove(c, row.id, actor))
        control.move_directory(self.context.run_path(row.dir), control.trash_path(self.context, row.dir))
        if not now:
            return self.run(row.id, actor)
        try:
            disk.discard(self.context, row, None, actor)
        except OSError as exc:
            raise ConflictError(
                f"run {row.id} is removed, but not all of its files: {exc}",
                "delete what is left below trash/ as its owner; Runyard tries again as well",
            ) from exc
        return value

    def restore(self, ref: str, actor: Actor) -> Json:
        """Bring a removed run back."""
        run_id = self._change(lambda c: control.restore(c, ref, actor))
        with self.context.db.read() as connection:
            row = find_run(connection, run_id, actor)
        control.move_directory(control.trash_path(self.context, row.dir), self.context.run_path(row.dir))
        return self.run(run_id, actor)

    def events(self, ref: str, after: int, actor: Actor) -> list[Json]:
        """Return the events of a run after a number."""
        with self.context.db.read() as connection:
            rows = events.of_run(connection, find_run(connection, ref, actor).id, after)
        return [views.event_json(row) for row in rows]

    def outputs(self, ref: str, actor: Actor) -> list[Json]:
        """Return the outputs of a run."""
        with self.context.db.read() as connection:
            run_id = find_run(connection, ref, actor).id
            rows = outputs.of_runs(connection, [run_id]).get(run_id, [])
            return views.outputs_json(rows, outputs.steps(connection, [run_id]).get(run_id, {}))

    def log_place(self, ref: str, attempt: int | None, actor: Actor) -> LogPlace:
        """Return the path of a log, and whether no more will come."""
        return files.log_place(self.context, self._row(ref, actor), attempt)

    def output_place(self, ref: str, path: str, actor: Actor) -> str:
        """Return the path of an output."""
        return files.output_place(self.context, self._row(ref, actor), path)

    def _row(self, ref: str, actor: Actor) -> Any:
        with self.context.db.read() as connection:
            return find_run(connection, ref, actor)

    # Tokens

    def authenticate(self, token: str) -> Actor:
        """Return whom a token stands for."""
        return tokens.authenticate(self.context, token)

    def create_token(self, name: str, scope: str, lifetime_s: float | None, actor: Actor) -> Json:
        """Make a named token."""
        made: Json = self._change(lambda c: tokens.create(c, name, scope, lifetime_s, actor))
        return made

    def tokens(self, actor: Actor) -> list[Json]:
        """Return the named tokens."""
        return tokens.listing(self.context)

    def revoke_token(self, name: str, actor: Actor) -> None:
        """End a named token."""
        self._change(lambda c: tokens.revoke(c, name))

    # Agents

    def hello(self, agent: str, body: Json) -> Json:
        """Register an agent."""
        with self._greeting:
            self._refuse_old(agent, body)
            answer: Json = self._change(lambda c: lease.hello(c, agent, body))
        if agent in self._awaited:
            self._awaited.discard(agent)
            left = ",".join(sorted(self._awaited))
            self.context.db.write(lambda c: records.set_fact(c, backup.AWAITED, left))
        self._contact[agent] = self.context.clock.monotonic()
        self.context.topics.publish(["queue"])
        timing = self.context.timing
        return {"yard": self.yard_id, "lease_s": timing.lease_s, "heartbeat_s": timing.heartbeat_s, **answer}

    def _refuse_old(self, agent: str, body: Json) -> None:
        """Refuse a hello that was sent before one that is here already: it does not name what was started since."""
        try:
            sent = (str(body["host"]["boot_id"]), int(body.get("sent") or 0))
        except (KeyError, TypeError, ValueError):
            return  # `lease.hello` says what is wrong with it
        last = self._greeted.get(agent)
        if sent[1] and last is not None and last[0] == sent[0] and last[1] >= sent[1]:
            raise StaleError(f"agent {agent} has said hello again since", "the later hello counts")
        self._greeted[agent] = sent

    def heartbeat(self, agent: str, body: Json) -> Json:
        """Renew an agent's leases."""
        answer: Json = self._change(lambda c: lease.heartbeat(c, agent, body))
        self._contact[agent] = self.context.clock.monotonic()
        return answer

    def poll(self, agent: str, known: Sequence[str]) -> Json:
        """Return at once what an agent must do."""
        new = agent in self._contact
        self._contact[agent] = self.context.clock.monotonic()
        answer = lease.poll(self.context, agent, known)
        if not new:
            self.context.topics.publish(["queue"])
        return answer

    def drain(self, agent: str, on: bool, actor: Actor) -> Json:
        """Let an agent take nothing new and end when idle."""
        answer: Json = self._change(lambda c: lease.drain(c, agent, on))
        return answer

    def begin_own(self, agent: str, begun: Sequence[Json]) -> list[Json]:
        """Take in runs that programs began by themselves."""
        found: list[Json] = self._change(lambda c: own.begin(c, agent, begun))
        return found

    def phase(self, attempt: str, epoch: int, phase: str) -> Json:
        """Let an attempt enter a phase."""
        answer: Json = self._change(lambda c: phases.enter(c, attempt, epoch, phase))
        return answer

    def finish(self, ends: Sequence[Json]) -> dict[str, str]:
        """Take in ends of attempts."""
        finish.check(ends)
        answer: dict[str, str] = self._change(lambda c: finish.finish(c, ends))
        return answer

    def hand_back(self, attempt: str, epoch: int, why: str) -> Json:
        """Take back an attempt that has not started."""
        answer: Json = self._change(lambda c: phases.hand_back(c, attempt, epoch, why))
        return answer

    def append_log(self, attempt: str, offset: int, data: bytes) -> int:
        """Append to the log of an attempt."""
        return files.append_log(self.context, attempt, offset, data)

    def report_outputs(self, attempt: str, outputs: Sequence[Json]) -> list[str]:
        """Record the outputs of an attempt."""
        wanted: list[str] = self._change(lambda c: files.report_outputs(c, attempt, outputs))
        return wanted

    def upload_place(self, attempt: str, path: str) -> str:
        """Return where an output's bytes are to be written."""
        return files.upload_place(self.context, attempt, path)

    def uploaded(self, attempt: str, path: str, place: str) -> None:
        """Put an output, whose bytes are at ``place``, where it belongs."""
        self._change(lambda c: files.uploaded(self.context, c, attempt, path, place))

    # Upkeep

    def du(self) -> Json:
        """Return what the yard's files cost."""
        return disk.du(self.context)

    def gc(self, body: Json, actor: Actor) -> Json:
        """Say what can be given back, and give it back when asked to."""
        return disk.gc(self.context, body)

    def backup(self, path: str, actor: Actor) -> Json:
        """Write database and snapshots into one file."""
        return backup.backup(self.context, path)

    def upkeep(self, stop: Callable[[], bool]) -> int:
        """Hash outputs, empty the trash, thin old code; return how much was done. Long: call it from its own thread."""
        done = compact.compact(self.context, stop) + hashing.hash_outputs(self.context, stop)
        return done + disk.upkeep(self.context, stop)

    def notify(self, run_id: str, url: str) -> bool:
        """Send the notice about an ended run that the settings ask for; may take ``notify_timeout``."""
        if not self.context.settings["notify"]:
            return False
        return notices.notify(self.context, self.run(run_id, Actor(user="yard")), url)

    # The yard's own work

    def tick(self) -> float:
        """Assign what can start and expire leases; return the seconds until it is due again."""
        try:
            if self.context.clock.monotonic() - self._expired_at >= self.context.timing.tick_s / 5:
                self._expire()
                settle_doubts(self.context)
            with self._assigning:
                assign.assign(self.context, self._accepting(), self._pause())
        except UnavailableError:
            self.guard.outage()
        return self.context.timing.tick_s

    def _expire(self) -> None:
        clock, guard = self.context.clock, self.guard
        with self.context.db.read() as connection:
            looked = clock.now_us(connection)
        allowed = guard.look(looked, clock.monotonic())

        def work(changes: Change) -> None:  # may run more than once
            if guard.step_us:
                attempts.shift_lost(changes.connection, guard.step_us)
            if guard.renew:
                attempts.renew_all(changes.connection, changes.lease_until)
            if allowed and abs(changes.now_us - looked) <= self.context.timing.clock_tolerance_s * 1e6:
                lease.expire(changes)

        self._change(work)
        guard.applied()
        self._expired_at = clock.monotonic()

    def _accepting(self) -> set[str]:
        since = self.context.clock.monotonic() - self.context.timing.contact_s
        return {agent for agent, last in list(self._contact.items()) if last >= since}

    def _pause(self) -> str:
        free = self._disk_free()
        if free < assign.min_free(self.context):
            return f"the disk of {self.context.home.path} has {free >> 20} MiB free, less than min_free"
        if self._awaited and self.context.clock.monotonic() < self._awaited_until:
            left = (self._awaited_until - self.context.clock.monotonic()) / 60
            return (
                "restored from a backup: the agents that were there report first; "
                f"without them the queue goes on by itself in {math.ceil(left)} min"
            )
        return ""

    def _disk_free(self) -> int:
        return shutil.disk_usage(self.context.home.path).free


def _awaited(connection: Connection) -> set[str]:
    """Return the agents that must report before anything is assigned (after a restore)."""
    return set((records.find_fact(connection, backup.AWAITED) or "").split(",")) - {""}
