"""Contract: logs and outputs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from runyard.services.api import Json
from runyard.testing.contract_lease import lost, replaced
from runyard.testing.stage import ME, FakeAgent, Stage
from runyard.wire import states
from runyard.wire.errors import ConflictError, NotFoundError, RunyardError, StaleError, UnavailableError


def started(stage: Stage, shared_home: str | None = None, **fields: Any) -> tuple[str, FakeAgent, str]:
    """Start a run; return run, agent, attempt."""
    run_id = stage.submit(**fields)
    agent = stage.agent(shared_home=shared_home)
    return run_id, agent, agent.take_and_start()


def log_of(stage: Stage, run_id: str, attempt: int | None = None) -> tuple[bytes, bool]:
    """Return what a reader of the log gets, and whether it is complete."""
    path, over, _ = stage.inner.log_place(run_id, attempt, ME)
    if not os.path.exists(path):
        return b"", over
    with open(path, "rb") as file:
        return file.read(), over


def output(path: str, size: int = 3, mtime_us: int = 1, kind: str = "text/plain") -> Json:
    """Return an output as an agent reports it."""
    return {"path": path, "size": size, "mtime_us": mtime_us, "type": kind}


def upload(stage: Stage, attempt: str, path: str) -> None:
    """Send an output, as the server does it for an agent."""
    place = stage.inner.upload_place(attempt, path)
    Path(place).write_bytes(b"abc")
    stage.inner.uploaded(attempt, path, place)


class FilesContract:
    """Data belongs to its attempt and is taken in however late."""

    # Logs

    def test_a_log_in_pieces(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage)
        assert log_of(stage, run_id) == (b"", False)
        assert stage.yard.append_log(attempt, 0, b"hello ") == 6
        assert stage.yard.append_log(attempt, 6, b"world") == 11
        assert log_of(stage, run_id) == (b"hello world", False)
        agent.end(attempt)
        assert log_of(stage, run_id) == (b"hello world", True)

    def test_a_log_of_which_a_part_is_on_its_way_is_not_complete(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage)
        stage.yard.append_log(attempt, 0, b"hello ")
        agent.end(attempt, log_bytes=11)
        assert (log_of(stage, run_id), log_of(stage, run_id, 1)) == ((b"hello ", False),) * 2
        stage.yard.append_log(attempt, 6, b"world")
        assert (log_of(stage, run_id), log_of(stage, run_id, 1)) == ((b"hello world", True),) * 2

    def test_what_was_removed_from_a_shared_home_is_not_waited_for(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage, shared_home=stage.inner.context.home.path)
        stage.yard.append_log(attempt, 0, b"hello ")
        assert not log_of(stage, run_id)[1]
        agent.end(attempt, log_bytes=11)
        assert (log_of(stage, run_id), log_of(stage, run_id, 1)) == ((b"hello ", True),) * 2
        os.unlink(stage.inner.log_place(run_id, None, ME)[0])
        assert log_of(stage, run_id) == (b"", True)

    def test_what_never_comes_is_not_waited_for_for_ever(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage)
        agent.end(attempt, log_bytes=11)
        assert log_of(stage, run_id) == (b"", False)
        stage.clock.advance(90)
        assert log_of(stage, run_id) == (b"", True)

    def test_duplicates_overlaps_and_gaps(self, stage: Stage) -> None:
        run_id, _agent, attempt = started(stage)
        stage.yard.append_log(attempt, 0, b"0123456789")
        assert stage.yard.append_log(attempt, 0, b"0123456789") == 10
        assert stage.yard.append_log(attempt, 2, b"2345") == 10
        assert stage.yard.append_log(attempt, 8, b"89ab") == 12
        assert stage.yard.append_log(attempt, 0, b"") == 12
        with pytest.raises(ConflictError) as caught:
            stage.yard.append_log(attempt, 13, b"x")
        assert caught.value.details["size"] == 12
        assert log_of(stage, run_id)[0] == b"0123456789ab"
        with pytest.raises(RunyardError):
            stage.yard.append_log(attempt, -1, b"x")
        with pytest.raises(NotFoundError):
            stage.yard.append_log("0" * 32, 0, b"x")

    def test_each_attempt_has_its_log(self, stage: Stage) -> None:
        run_id, agent, first = started(stage, retries=1)
        stage.yard.append_log(first, 0, b"one")
        agent.end(first, 1)
        assert log_of(stage, run_id) == (b"one", False)
        second = agent.take_and_start()
        stage.yard.append_log(second, 0, b"two")
        assert log_of(stage, run_id) == (b"two", False)
        assert log_of(stage, run_id, 1) == (b"one", True)
        stage.yard.append_log(first, 3, b", late")
        assert log_of(stage, run_id, 1)[0] == b"one, late"
        agent.end(second)
        assert (log_of(stage, run_id), log_of(stage, run_id, 2)) == ((b"two", True), (b"two", True))
        with pytest.raises(NotFoundError):
            stage.inner.log_place(run_id, 3, ME)

    def test_the_log_of_a_superseded_attempt_is_kept(self, stage: Stage) -> None:
        run_id, _old, attempt, other, second = replaced(stage)
        other.start(second)
        stage.yard.append_log(second, 0, b"new")
        assert stage.yard.append_log(attempt, 0, b"old") == 3
        assert (log_of(stage, run_id)[0], log_of(stage, run_id, 1)[0]) == (b"new", b"old")

    def test_a_run_that_never_started_has_a_complete_empty_log(self, stage: Stage) -> None:
        run_id = stage.submit()
        assert log_of(stage, run_id) == (b"", False)
        stage.yard.kill(run_id, False, ME)
        assert log_of(stage, run_id) == (b"", True)

    def test_the_log_goes_with_the_run_to_the_trash(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage)
        stage.yard.append_log(attempt, 0, b"one")
        agent.end(attempt)
        stage.yard.remove(run_id, False, ME)
        assert log_of(stage, run_id) == (b"one", True)

    # Outputs

    def test_outputs_of_an_agent_that_shares_the_home(self, stage: Stage) -> None:
        run_id, _agent, attempt = started(stage, shared_home="/home/ada/.runyard")
        assert stage.yard.report_outputs(attempt, [output("b/model.pt", 7), output("a.txt")]) == []
        found = stage.yard.outputs(run_id, ME)
        assert [(item["path"], item["size"], item["type"]) for item in found] == [
            ("a.txt", 3, "text/plain"), ("b/model.pt", 7, "text/plain"),
        ]  # fmt: skip
        assert stage.run(run_id)["outputs"] == found
        bare = stage.submit()
        assert all("outputs" not in run for run in stage.yard.runs({}, ME)["runs"])
        assert [(run["id"], run["outputs"]) for run in stage.yard.runs({"outputs": True}, ME)["runs"]] == [
            (bare, []), (run_id, found),
        ]  # fmt: skip
        assert stage.yard.report_outputs(attempt, [output("a.txt", 9, 2)]) == []
        (left,) = stage.yard.outputs(run_id, ME)
        assert (left["path"], left["size"], left["modified_at"]) == ("a.txt", 9, "1970-01-01T00:00:00.000002Z")

    def test_outputs_of_another_machine_are_wanted_until_they_have_come(self, stage: Stage) -> None:
        run_id, _agent, attempt = started(stage)
        listed = [output("a.txt"), output("dir/b.txt")]
        assert stage.yard.report_outputs(attempt, listed) == ["a.txt", "dir/b.txt"]
        assert stage.yard.report_outputs(attempt, listed) == ["a.txt", "dir/b.txt"]
        upload(stage, attempt, "dir/b.txt")
        assert stage.yard.report_outputs(attempt, listed) == ["a.txt"]
        assert stage.yard.report_outputs(attempt, [output("a.txt"), output("dir/b.txt", 4, 5)]) == [
            "a.txt", "dir/b.txt",
        ]  # fmt: skip
        place = stage.inner.output_place(run_id, "dir/b.txt", ME)
        assert place == os.path.join(os.path.realpath(stage.run(run_id)["run_dir"]), "dir", "b.txt")
        assert Path(place).read_bytes() == b"abc"
        assert os.stat(place).st_mtime_ns == output("dir/b.txt")["mtime_us"] * 1000

    def test_many_outputs_are_written_together(self, stage: Stage) -> None:
        run_id, _agent, attempt = started(stage, shared_home="/home/ada/.runyard")
        statements: list[str] = []

        def count(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            statements.append(statement)

        event.listen(Engine, "before_cursor_execute", count)
        try:
            for size in (3, 4):
                stage.yard.report_outputs(attempt, [output(f"{n}.txt", size) for n in range(2000)])
            stage.yard.report_outputs(attempt, [output("1.txt", 4), output("new.txt"), output("new.txt")])
        finally:
            event.remove(Engine, "before_cursor_execute", count)
        found = stage.yard.outputs(run_id, ME)
        assert [(item["path"], item["size"]) for item in found] == [("1.txt", 4), ("new.txt", 3)]
        assert len(statements) < 100

    def test_names_of_outputs_keep_every_byte(self, stage: Stage) -> None:
        run_id, _agent, attempt = started(stage, shared_home="/home/ada/.runyard")
        names = sorted(["caf\udce9.txt", "new\nline", "🧪", "a\x1ab", "x" * 200 + "/" + "y" * 200, " ", "%2e%2e"])
        stage.yard.report_outputs(attempt, [output(name) for name in names])
        assert sorted(item["path"] for item in stage.yard.outputs(run_id, ME)) == names

    @pytest.mark.parametrize(
        "path", ["../x", "/etc/passwd", "a/../../x", "", ".", "a/..", "a\0b", "a/../b", "//x"], ids=repr
    )
    def test_paths_that_leave_the_run_are_refused(self, stage: Stage, path: str) -> None:
        run_id, _agent, attempt = started(stage)
        with pytest.raises(RunyardError) as caught:
            stage.yard.report_outputs(attempt, [output("fine"), output(path)])
        assert caught.value.status == 400
        assert stage.yard.outputs(run_id, ME) == []
        with pytest.raises(RunyardError) as caught:
            stage.inner.upload_place(attempt, path)
        assert caught.value.status in (400, 403, 404)
        with pytest.raises(RunyardError) as caught:
            stage.inner.output_place(run_id, path, ME)
        assert caught.value.status in (400, 403, 404)

    def test_links_out_of_the_run_are_not_followed(self, stage: Stage) -> None:
        run_id, _agent, attempt = started(stage)
        top = stage.run(run_id)["run_dir"]
        os.makedirs(top)
        outside = os.path.join(stage.inner.context.home.path, "outside")
        os.makedirs(outside)
        with open(os.path.join(outside, "secret"), "w", encoding="utf-8") as file:
            file.write("s")
        os.symlink(outside, os.path.join(top, "door"))
        os.symlink(os.path.join(outside, "secret"), os.path.join(top, "key"))
        stage.yard.report_outputs(attempt, [output("door/secret"), output("key"), output("door/new")])
        for path in ("door/secret", "key"):
            with pytest.raises(RunyardError) as caught:
                stage.inner.output_place(run_id, path, ME)
            assert caught.value.status == 403
        for path in ("door/new", "key", "door/secret"):
            with pytest.raises(RunyardError) as caught:
                stage.inner.upload_place(attempt, path)
            assert caught.value.status == 403
        assert os.listdir(outside) == ["secret"]

    def test_only_reported_outputs_can_be_sent(self, stage: Stage) -> None:
        run_id, _agent, attempt = started(stage)
        with pytest.raises(NotFoundError):
            stage.inner.upload_place(attempt, "surprise")
        with pytest.raises(NotFoundError):
            stage.yard.report_outputs("0" * 32, [])
        with pytest.raises(NotFoundError):
            stage.inner.output_place(run_id, "surprise", ME)

    def test_a_late_report_of_the_current_attempt_counts(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage, shared_home="/home/ada/.runyard")
        agent.end(attempt)
        stage.yard.report_outputs(attempt, [output("late.txt")])
        assert [item["path"] for item in stage.yard.outputs(run_id, ME)] == ["late.txt"]

    def test_a_lost_attempt_may_still_report(self, stage: Stage) -> None:
        run_id, _agent, attempt = lost(stage)
        stage.yard.report_outputs(attempt, [output("kept.txt")])
        assert [item["path"] for item in stage.yard.outputs(run_id, ME)] == ["kept.txt"]

    def test_a_superseded_attempt_changes_no_shown_output(self, stage: Stage) -> None:
        run_id, _old, attempt, other, second = replaced(stage)
        other.start(second)
        stage.yard.report_outputs(second, [output("model.pt", 10)])
        stage.yard.report_outputs(attempt, [output("model.pt", 99), output("old.txt")])
        found = stage.yard.outputs(run_id, ME)
        assert [(item["path"], item["size"], item["attempt"]) for item in found] == [("model.pt", 10, second)]
        other.lose(second)
        assert stage.state(run_id) == states.QUEUED
        stage.yard.report_outputs(attempt, [output("model.pt", 99)])
        assert stage.yard.outputs(run_id, ME) == found

    def test_a_superseded_attempt_sends_no_file_over_that_of_its_successor(self, stage: Stage) -> None:
        run_id, _old, attempt, other, second = replaced(stage)
        stage.yard.report_outputs(attempt, [output("model.pt", 99)])
        on_its_way = stage.inner.upload_place(attempt, "model.pt")
        Path(on_its_way).write_bytes(b"of the first")
        other.start(second)
        assert stage.yard.report_outputs(second, [output("model.pt", 10)]) == ["model.pt"]
        with pytest.raises(StaleError):
            stage.inner.upload_place(attempt, "model.pt")
        stage.inner.uploaded(attempt, "model.pt", on_its_way)
        assert not os.path.exists(on_its_way)
        assert stage.yard.report_outputs(second, [output("model.pt", 10)]) == ["model.pt"]
        with pytest.raises(NotFoundError):
            stage.inner.output_place(run_id, "model.pt", ME)
        upload(stage, second, "model.pt")
        assert Path(stage.inner.output_place(run_id, "model.pt", ME)).read_bytes() == b"abc"

    def test_what_a_transfer_that_broke_off_has_left_is_removed(self, stage: Stage) -> None:
        run_id, _agent, attempt = started(stage)
        stage.yard.report_outputs(attempt, [output("a.txt")])
        left = Path(stage.inner.upload_place(attempt, "a.txt") + ".part")
        left.write_bytes(b"a")
        first = stage.inner.upload_place(attempt, "a.txt")
        assert not left.exists()
        Path(first).write_bytes(b"abc")
        second = stage.inner.upload_place(attempt, "a.txt")
        stage.inner.uploaded(attempt, "a.txt", first)  # which the second transfer has removed
        assert stage.yard.report_outputs(attempt, [output("a.txt")]) == ["a.txt"]
        Path(second).write_bytes(b"abc")
        for _ in range(2):  # the first commit may have failed
            stage.inner.uploaded(attempt, "a.txt", second)
        assert stage.yard.report_outputs(attempt, [output("a.txt")]) == []
        assert os.listdir(stage.run(run_id)["run_dir"]) == ["a.txt"]

    def test_an_output_for_whose_name_there_is_a_directory_stays_wanted(self, stage: Stage) -> None:
        run_id, _agent, attempt = started(stage)
        os.makedirs(os.path.join(stage.run(run_id)["run_dir"], "a.txt"))
        stage.yard.report_outputs(attempt, [output("a.txt")])
        with pytest.raises(UnavailableError):
            upload(stage, attempt, "a.txt")
        assert stage.yard.report_outputs(attempt, [output("a.txt")]) == ["a.txt"]
