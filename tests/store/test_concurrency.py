"""Several writers on one PostgreSQL database: what a transaction decides must still hold when it writes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from runyard import scheduler
from runyard.services import assign
from runyard.services.yard import Yard
from runyard.store.database import Connection, Database
from runyard.testing.clock import ManualClock
from runyard.testing.stage import ME, FakeAgent, Opened, Stage, make_spec
from runyard.wire import states
from runyard.wire.errors import UnavailableError
from tests.store.backends import dump, make_stage, open_inner


@pytest.fixture
def stage(home: Path, postgres_url: str) -> Iterator[Stage]:
    stage = make_stage(home, postgres_url)
    yield stage
    stage.close()


def between_plan_and_start(work: Callable[[], Any]) -> Any:
    """Return a replacement of the planner after which something else happens once."""
    plan, left = scheduler.plan, [work]

    def planned(*args: Any, **options: Any) -> Any:
        found = plan(*args, **options)
        if left:
            left.pop()()
        return found

    return planned


def killed_while_planned(stage: Stage) -> None:
    """A run that is killed after the plan was made, and before it is carried out, must not start."""
    agent = stage.agent(slots=2)
    killed, other = stage.submit(), stage.submit()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assign, "plan", between_plan_and_start(lambda: stage.yard.kill(killed, False, ME)))
        stage.tick()
    assert stage.state(killed) == states.KILLED
    assert stage.run(killed)["attempts"] == []
    stage.tick()
    agent.poll()
    assert [item["run"] for item in agent.has.values()] == [other]
    assert [slot["run"] for slot in stage.yard.status()["slots"] if slot["run"]] == [other]


def test_a_run_killed_while_it_is_planned_does_not_start(stage: Stage) -> None:
    killed_while_planned(stage)


def test_a_run_held_while_it_is_planned_does_not_start(stage: Stage) -> None:
    agent = stage.agent()
    run_id = stage.submit()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assign, "plan", between_plan_and_start(lambda: stage.yard.hold(run_id, ME)))
        stage.tick()
    assert (stage.state(run_id), agent.poll()["assign"]) == (states.HELD, [])


def _opened(yard: Yard, _clock: ManualClock) -> Opened:
    return Opened(service=yard, inner=yard, close=yard.close)


def test_two_yards_on_one_database_never_give_a_slot_twice(home: Path, postgres_url: str) -> None:
    clock = ManualClock()
    yards = [open_inner(home / str(number), postgres_url, clock) for number in range(2)]
    stages = [
        Stage(lambda _, yard=yard: Opened(service=yard, inner=yard, close=yard.close), str, remote=False)  # type: ignore[misc]
        for yard in yards
    ]
    try:
        agents = [FakeAgent(stages[0], f"agent{number}", slots=3) for number in range(2)]
        for agent in agents:
            agent.hello()
        twins = [FakeAgent(stages[1], agent.name, slots=3) for agent in agents]
        ids = yards[0].submit([make_spec() for _ in range(40)], None, ME)
        started: list[str] = []
        for _ in range(60):
            for agent in (*agents, *twins):
                agent.poll()  # both yards hear of both agents
            together(*(yard.tick for yard in yards))
            held = [slot["run"] for slot in yards[0].status()["slots"] if slot["run"]]
            assert len(held) == len(set(held))
            for agent in agents:
                agent.poll()
                started += [item["run"] for item in agent.has.values()]
                for attempt in list(agent.has):
                    agent.start(attempt)
                    assert agent.end(attempt) == "accepted"
            if len(started) == len(ids):
                break
        assert sorted(started) == sorted(ids)
        assert {run["state"] for run in yards[1].runs({"limit": 100}, ME)["runs"]} == {states.FINISHED}
    finally:
        for yard in yards:
            yard.close()


def together(*works: Callable[[], Any]) -> None:
    """Run these at the same time; raise what one of them raises."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> None:
        barrier.wait(10)
        try:
            work()
        except Exception as exc:  # noqa: BLE001 - raised below
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_deadlocks_are_tried_again(postgres_url: str) -> None:
    db = Database(postgres_url)
    try:
        db.write(lambda c: c.execute(text("CREATE TABLE t (id INT PRIMARY KEY, n INT)")))
        db.write(lambda c: c.execute(text("INSERT INTO t VALUES (1, 0), (2, 0)")))
        db.write(lambda c: c.execute(text(f"ALTER DATABASE \"{db.url.database}\" SET deadlock_timeout = '50ms'")))
        db.engine.dispose()
        first = [threading.Barrier(2), threading.Barrier(2)]
        tries = [0, 0]

        def work(number: int, connection: Connection) -> None:
            tries[number] += 1
            mine, other = number + 1, 2 - number
            connection.execute(text("UPDATE t SET n = n + 1 WHERE id = :id"), {"id": mine})
            if tries[number] == 1:
                first[0].wait(10)  # both hold what the other wants
            connection.execute(text("UPDATE t SET n = n + 1 WHERE id = :id"), {"id": other})

        together(*(lambda n=n: db.write(lambda c: work(n, c)) for n in range(2)))
        with db.read() as connection:
            assert list(connection.execute(text("SELECT n FROM t ORDER BY id")).scalars()) == [2, 2]
        assert sorted(tries) == [1, 2]
    finally:
        db.close()


def test_a_read_sees_one_state(postgres_url: str) -> None:
    db = Database(postgres_url)
    try:
        db.write(lambda c: c.execute(text("CREATE TABLE t (n INT)")))
        count = text("SELECT count(*) FROM t")
        with db.read() as connection:
            before = connection.execute(count).scalar()
            db.write(lambda c: c.execute(text("INSERT INTO t VALUES (1)")))
            assert connection.execute(count).scalar() == before == 0
        with db.glance() as connection:
            assert connection.execute(count).scalar() == 1
            db.write(lambda c: c.execute(text("INSERT INTO t VALUES (1)")))
            assert connection.execute(count).scalar() == 2
    finally:
        db.close()


def administer(url: str, *statements: str) -> None:
    """Execute statements beside a database; ``:name`` is the database's name."""
    target = make_url(url).set(drivername="postgresql+psycopg")
    admin = create_engine(target.set(database="postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        for statement in statements:
            connection.execute(text(statement.replace("{name}", str(target.database))), {"name": target.database})
    admin.dispose()


KILL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"


def kill_connections(url: str) -> None:
    """End every connection to a database, as an administrator or a restart of the server does."""
    administer(url, KILL)


@contextmanager
def away(url: str) -> Iterator[None]:
    """Nobody can connect to the database, as long as the block lasts."""
    administer(url, 'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false', KILL)
    yield
    administer(url, 'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def test_a_transaction_whose_connection_is_killed_is_tried_again(stage: Stage, postgres_url: str) -> None:
    first = stage.submit()
    calls = []

    def work(connection: Connection) -> None:
        calls.append(1)
        connection.execute(text("UPDATE runs SET message = 'half'"))
        if len(calls) == 1:
            kill_connections(postgres_url)
        connection.execute(text("UPDATE runs SET message = 'all'"))

    stage.inner.context.db.write(work)  # from the start again, on another connection
    assert len(calls) == 2
    assert stage.run(first)["message"] == "all"


def test_a_connection_killed_again_and_again_changes_nothing(stage: Stage, postgres_url: str) -> None:
    stage.submit()
    before = dump(postgres_url)

    def work(connection: Connection) -> None:
        connection.execute(text("UPDATE runs SET message = 'half'"))
        kill_connections(postgres_url)
        connection.execute(text("UPDATE runs SET message = 'all'"))

    with pytest.raises(UnavailableError):
        stage.inner.context.db.write(work)
    assert dump(postgres_url) == before
    assert stage.state(stage.submit()) == states.QUEUED


def patiently(work: Callable[[], Any]) -> Any:
    """Do something that reads; connections used a moment ago are found dead only when they are used."""
    for _ in range(3):
        try:
            return work()
        except UnavailableError:
            continue
    return work()


def test_connections_killed_while_idle_are_replaced(stage: Stage, postgres_url: str) -> None:
    run_id = stage.submit()
    agent = stage.agent()
    attempt = agent.take_and_start()
    kill_connections(postgres_url)
    patiently(lambda: stage.run(run_id))
    assert agent.end(attempt) == "accepted"
    assert stage.state(run_id) == states.FINISHED


def test_a_database_that_was_away_ends_no_lease(stage: Stage, postgres_url: str) -> None:
    agent = stage.agent()
    stage.warm_up(agent)
    run_id = stage.submit()
    agent.take_and_start()
    with away(postgres_url):
        for _ in range(30):
            stage.clock.advance(5)
            stage.tick()
        with pytest.raises(UnavailableError):
            agent.heartbeat()
    stage.clock.advance(5)
    patiently(stage.tick)
    assert patiently(lambda: stage.state(run_id)) == states.RUNNING
    stage.pass_time(30, agent)
    assert stage.run(run_id)["phase"] == "running"
