"""One writer with group commit on SQLite: what is answered is durable, what fails fails alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from runyard.store.database import Connection, Database, TakenError, translated
from runyard.wire.errors import ConfigError, UnavailableError

COUNT = text("SELECT count(*) FROM t")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    db = Database(f"sqlite:///{tmp_path / 'x.db'}")
    db.write(lambda c: c.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")))
    yield db
    db.close()


def insert(number: int, then: Callable[[], None] | None = None) -> Callable[[Connection], int]:
    """Return a job that inserts a row."""

    def work(connection: Connection) -> int:
        connection.execute(text("INSERT INTO t (id) VALUES (:id)"), {"id": number})
        if then is not None:
            then()
        return number

    return work


def ids(db: Database) -> list[int]:
    with db.read() as connection:
        return list(connection.execute(text("SELECT id FROM t ORDER BY id")).scalars())


class Group:
    """Jobs that come while another is at work, so that they are committed together."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.answers: dict[int, Any] = {}
        self.threads: list[threading.Thread] = []

    def commit(self, jobs: dict[int, Callable[[Connection], Any]]) -> dict[int, Any]:
        """Return what each job's caller got: its result, or what was raised."""
        entered, gate = threading.Event(), threading.Event()

        def first(_: Connection) -> None:
            entered.set()
            gate.wait(10)

        self._start(-1, first)
        assert entered.wait(10)
        for number, job in jobs.items():
            self._start(number, job)
        while self.db._writer is None or self.db._writer._queue.qsize() < len(jobs):
            pass
        gate.set()
        for thread in self.threads:
            thread.join(10)
        return {number: self.answers[number] for number in jobs}

    def _start(self, number: int, job: Callable[[Connection], Any]) -> None:
        def call() -> None:
            try:
                self.answers[number] = self.db.write(job)
            except Exception as exc:  # noqa: BLE001 - that is what the test asks for
                self.answers[number] = exc

        self.threads.append(threading.Thread(target=call))
        self.threads[-1].start()


def raises(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def test_a_job_that_fails_fails_alone(db: Database) -> None:
    error = ValueError("mine")
    answers = Group(db).commit({1: insert(1), 2: insert(2, raises(error)), 3: insert(3)})
    assert answers == {1: 1, 2: error, 3: 3}
    assert ids(db) == [1, 3]


def test_a_refused_constraint_fails_alone(db: Database) -> None:
    answers = Group(db).commit({1: insert(1), 2: insert(1), 3: insert(3)})
    assert sorted(map(str, map(type, answers.values()))) == sorted(map(str, [int, TakenError, int]))
    assert ids(db) == [1, 3]


def test_a_job_that_cannot_be_committed_fails_with_its_group_and_the_next_works(db: Database) -> None:
    db.write(lambda c: c.execute(text("CREATE TABLE child (t INT REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED)")))

    def dangling(connection: Connection) -> None:
        connection.execute(text("INSERT INTO child VALUES (99)"))

    answers = Group(db).commit({1: insert(1), 2: dangling})
    assert all(isinstance(answer, TakenError) for answer in answers.values())
    assert ids(db) == []
    assert db.write(insert(7)) == 7
    assert ids(db) == [7]


def test_a_full_disk_fails_the_job_and_not_the_yard(db: Database) -> None:
    def fill(connection: Connection) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={int(pages or 0) + 4}")
        connection.execute(text("INSERT INTO t (v) VALUES (:v)"), {"v": "x" * 1_000_000})

    with pytest.raises(UnavailableError, match=r"disk is full: .*/x\.db cannot grow"):
        db.write(fill)
    assert ids(db) == []
    db.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count=1000000"))
    assert db.write(insert(1)) == 1


def test_a_full_disk_of_a_database_server_is_said_to_be_one() -> None:
    class DiskFullError(Exception):
        sqlstate = "53100"  # PostgreSQL: disk_full

    with pytest.raises(UnavailableError, match="the disk of the database server is full"), translated():
        raise OperationalError("INSERT", {}, DiskFullError("could not extend file"))


def test_a_job_too_large_for_the_disk_undoes_its_group_and_says_why(
    tmp_path: Path, require: Callable[[str], None]
) -> None:
    """SQLite itself rolls back all of a transaction that it cannot go on with, the savepoints of other jobs too."""
    require("root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("may not mount")
    db = Database(f"sqlite:///{tmp_path / 'x.db'}")
    try:
        db.write(lambda c: c.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)")))

        def huge(connection: Connection) -> None:
            for _ in range(400):
                connection.execute(text("INSERT INTO t (v) VALUES (randomblob(100000))"))

        answers = Group(db).commit({1: insert(1), 2: huge, 3: insert(3)})
        for answer in answers.values():
            assert isinstance(answer, UnavailableError)
            assert "disk is full" in answer.message
        assert ids(db) == []
        assert db.write(insert(1)) == 1
    finally:
        db.close()
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_reads_see_what_was_answered_and_cannot_write(db: Database) -> None:
    with db.read() as connection:
        assert connection.execute(COUNT).scalar() == 0
        db.write(insert(1))
        assert connection.execute(COUNT).scalar() == 0  # one state, as at the first statement
    assert ids(db) == [1]
    with pytest.raises(UnavailableError), db.read() as connection:
        connection.execute(text("INSERT INTO t (id) VALUES (2)"))


def test_a_closed_database(db: Database) -> None:
    answers = Group(db)
    assert answers.commit({1: insert(1)}) == {1: 1}
    db.close()
    db.close()
    with pytest.raises(UnavailableError):
        db.write(insert(2))


def test_what_is_queued_when_it_closes_is_committed(db: Database, tmp_path: Path) -> None:
    entered = threading.Event()
    answers: list[int] = []

    def slow(connection: Connection) -> int:
        entered.set()
        return insert(1)(connection)

    threads = [threading.Thread(target=lambda: answers.append(db.write(slow)))]
    threads[0].start()
    assert entered.wait(10)
    db.close()
    threads[0].join(10)
    again = Database(f"sqlite:///{tmp_path / 'x.db'}")
    assert (answers, ids(again)) == ([1], [1])
    again.close()


KILLED = """
import sys, threading
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from runyard.store.database import Database

db = Database(sys.argv[1])
lock = threading.Lock()

def work(first):
    for number in range(first, 10**6, 4):
        db.write(lambda c: c.execute(text("INSERT INTO t (id) VALUES (:id)"), {"id": number}))
        with lock:
            sys.stdout.write("%d\\n" % number)
            sys.stdout.flush()

for first in range(4):
    threading.Thread(target=work, args=(first,), daemon=True).start()
threading.Event().wait()
"""


def test_what_was_answered_survives_a_kill(db: Database, tmp_path: Path) -> None:
    db.close()
    url = f"sqlite:///{tmp_path / 'x.db'}"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", KILLED, url], stdout=subprocess.PIPE, env=environ) as child:
        assert child.stdout is not None
        answered = [int(child.stdout.readline()) for _ in range(200)]
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split(b"\n")[:-1]
    answered += map(int, rest)
    again = Database(url)
    missing = set(answered) - set(ids(again))
    again.close()
    assert missing == set()


@pytest.mark.parametrize(
    "url", ["nonsense", "oracle://x/y", "mysql://root@127.0.0.1/test", "mariadb+pymysql://h/d", ""]
)
def test_a_wrong_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Database(url)
    assert "postgresql://" in caught.value.hint


def test_a_server_that_is_not_there(home: Path) -> None:
    from runyard.services.yard import open_yard
    from tests.store.backends import SETTINGS

    with pytest.raises(UnavailableError):
        open_yard(str(home), SETTINGS, database_url="postgresql://nobody@127.0.0.1:1/nothing")


def test_a_file_that_is_no_database(home: Path) -> None:
    from runyard.services.yard import open_yard
    from runyard.wire.errors import RunyardError
    from tests.store.backends import SETTINGS

    (home / "yard.db").write_bytes(b"this is no database, but long enough to be taken for one" * 100)
    with pytest.raises(RunyardError) as caught:
        open_yard(str(home), SETTINGS)
    assert "database" in caught.value.message
