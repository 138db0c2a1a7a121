"""Contract: submitting runs."""

from __future__ import annotations

import json
import os
import stat
import threading
from typing import Any

import pytest

from runyard.testing.stage import ME, Stage, make_spec
from runyard.wire import states
from runyard.wire.errors import ConflictError, InvalidError, NotFoundError, RunyardError
from runyard.wire.ids import new_run_id

SECRET = "s3cr3t-8f41c2"


class SubmitContract:
    """Submit, repeat, conflict, all or nothing; environments."""

    def test_a_new_run_is_queued(self, stage: Stage) -> None:
        run_id = stage.submit(message="hello", tags=["b", "a"], priority=3, retries=2, resources={"gpus": 2})
        run = stage.run(run_id)
        assert run["id"] == run_id
        assert (run["state"], run["phase"], run["end"], run["attempts"]) == (states.QUEUED, None, None, [])
        assert (run["message"], run["tags"], run["priority"], run["retries"]) == ("hello", ["a", "b"], 3, 2)
        assert run["resources"] == {"gpus": 2, "cpus": None, "mem": None, "gpu_model": None, "host": None}
        assert (run["command"], run["project"]) == (["python", "train.py"], "digits")
        assert run["created_at"] == "2027-01-15T08:00:00.000000Z"
        assert run["run_dir"].endswith(f"/runs/digits/20270115-0800-{run_id}/digits")
        assert run["started_at"] is None
        assert run["ended_at"] is None

    def test_submitting_again_changes_nothing(self, stage: Stage) -> None:
        spec = make_spec(tags=["a"], message="once")
        for _ in range(3):
            assert stage.yard.submit([spec], {"A": "1"}, ME) == [spec["id"]]
        assert [run["id"] for run in stage.yard.runs({}, ME)["runs"]] == [spec["id"]]
        assert [event["kind"] for event in stage.events(spec["id"])] == ["submitted"]
        assert len(stage.launch_files) == 1

    def test_submitting_again_is_harmless_after_the_run_has_ended(self, stage: Stage) -> None:
        spec = make_spec()
        stage.yard.submit([spec], {"A": "1"}, ME)
        stage.yard.kill(spec["id"], False, ME)
        stage.yard.submit([spec], {"A": "1"}, ME)
        assert stage.state(spec["id"]) == states.KILLED
        assert stage.launch_files == []

    def test_another_spec_under_the_same_id_is_refused(self, stage: Stage) -> None:
        spec = make_spec(message="first")
        stage.yard.submit([spec], None, ME)
        with pytest.raises(ConflictError):
            stage.yard.submit([{**spec, "message": "second"}], {"A": "1"}, ME)
        assert stage.run(spec["id"])["message"] == "first"
        assert stage.launch_files == []

    def test_one_id_twice_in_a_batch(self, stage: Stage) -> None:
        spec = make_spec()
        assert stage.yard.submit([spec, dict(spec)], None, ME) == [spec["id"]] * 2
        assert len(stage.yard.runs({}, ME)["runs"]) == 1
        other = make_spec()
        with pytest.raises(ConflictError):
            stage.yard.submit([other, {**other, "message": "different"}], None, ME)
        with pytest.raises(NotFoundError):
            stage.run(other["id"])

    def test_the_same_submit_from_many_threads_at_once(self, stage: Stage) -> None:
        spec = make_spec(environment={"python": "3.11"})
        errors: list[BaseException] = []

        def submit() -> None:
            try:
                stage.yard.submit([spec], {"A": "1"}, ME)
            except RunyardError as exc:
                errors.append(exc)

        threads = [threading.Thread(target=submit) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(stage.yard.runs({}, ME)["runs"]) == 1
        assert len(stage.launch_files) == 1

    def test_different_submits_at_once_share_user_and_environment(self, stage: Stage) -> None:
        errors: list[BaseException] = []

        def submit() -> None:
            try:
                stage.submit(environment={"python": "3.11"}, env={"A": "1"})
            except RunyardError as exc:
                errors.append(exc)

        threads = [threading.Thread(target=submit) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len({run["env_hash"] for run in stage.yard.runs({}, ME)["runs"]}) == 1

    @pytest.mark.parametrize(
        "wrong",
        [
            {"id": "UPPER"},
            {"command": []},
            {"command": ["a\0b"]},
            {"project": "a/b"},
            {"project": ".."},
            {"repo_name": ""},
            {"cwd": "../up"},
            {"cwd": "/abs"},
            {"tags": [""]},
            {"tags": ["x" * 300]},
            {"tags": ["a\0b"]},
            {"priority": 10**7},
            {"retries": -1},
            {"retries": 2**40},
            {"time_limit_s": 0},
            {"time_limit_s": float("nan")},
            {"resources": {"gpus": -1}},
            {"resources": {"cpus": 0}},
            {"resources": {"gpu": 1}},
            {"resources": {"mem": True}},
            {"name": ""},
            {"name": "@last"},
            {"name": "abcdefghijkl"},
            {"after": ["zzzzzzzzzzzz"]},
            {"after": [17]},
            {"after": "abcdefghijkl"},
            {"snapshot": {}},
            {"environment": {"loss": float("nan")}},
            {"nonsense": 1},
            {"message": "x" * ((1 << 20) + 1)},
            {"links": ["data"]},
            {"program": 7},
        ],
        ids=str,
    )
    def test_a_bad_spec_is_refused_and_nothing_is_left(self, stage: Stage, wrong: dict[str, Any]) -> None:
        good, bad = make_spec(), make_spec(**wrong)
        with pytest.raises(RunyardError) as caught:
            stage.yard.submit([good, bad], {"A": "1"}, ME)
        assert caught.value.code in ("invalid", "usage")
        assert stage.yard.runs({}, ME)["runs"] == []
        assert stage.launch_files == []

    def test_all_problems_are_named_at_once(self, stage: Stage) -> None:
        with pytest.raises(RunyardError) as caught:
            stage.submit(priority="high", retries=-1, nonsense=1)
        text = caught.value.message + json.dumps(caught.value.details)
        assert all(name in text for name in ("priority", "nonsense"))

    def test_a_batch_with_a_conflict_is_refused_as_a_whole(self, stage: Stage) -> None:
        first = make_spec()
        stage.yard.submit([first], None, ME)
        new = make_spec()
        with pytest.raises(ConflictError):
            stage.yard.submit([new, {**first, "message": "other"}], {"A": "1"}, ME)
        with pytest.raises(NotFoundError):
            stage.run(new["id"])
        assert stage.launch_files == []

    def test_a_batch_keeps_its_order(self, stage: Stage) -> None:
        specs = [make_spec() for _ in range(30)]
        ids = stage.yard.submit(specs, None, ME)
        assert ids == [spec["id"] for spec in specs]
        assert [run["id"] for run in stage.yard.runs({}, ME)["runs"]] == ids[::-1]

    def test_a_cycle_in_one_batch_is_refused(self, stage: Stage) -> None:
        a, b, c = new_run_id(), new_run_id(), new_run_id()
        specs = [make_spec(a, after=[c]), make_spec(b, after=[a]), make_spec(c, after=[b])]
        with pytest.raises(InvalidError) as caught:
            stage.yard.submit(specs, {"A": "1"}, ME)
        assert any(run in caught.value.message for run in (a, b, c))
        with pytest.raises(InvalidError):
            stage.yard.submit([make_spec(a, after=[a])], None, ME)
        assert stage.yard.runs({}, ME)["runs"] == []
        assert stage.launch_files == []

    # Environments

    def test_the_environment_file_is_private_and_reaches_the_attempt_only(self, stage: Stage) -> None:
        run_id = stage.submit(env={"TOKEN": SECRET, "EMPTY": "", "ODD": "\udcff é"})
        place = os.path.join(stage.inner.context.home.launch, stage.launch_files[0])
        assert stat.S_IMODE(os.stat(place).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(os.path.dirname(place)).st_mode) == 0o700
        (assignment,) = stage.agent().take()
        assert assignment["run"] == run_id
        assert assignment["env"] == {"TOKEN": SECRET, "EMPTY": "", "ODD": "\udcff é"}
        assert SECRET not in json.dumps(assignment["spec"])

    def test_the_environment_file_is_on_disk_before_the_submit_is_answered(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[str] = []
        fsync = os.fsync

        def recorded(fd: int) -> None:
            synced.append(os.readlink(f"/proc/self/fd/{fd}"))
            fsync(fd)

        monkeypatch.setattr(os, "fsync", recorded)
        stage.submit(env={"TOKEN": SECRET})
        place = os.path.realpath(stage.inner.context.home.launch)
        assert [path for path in synced if path.startswith(os.path.join(place, stage.launch_files[0]))]
        assert place in synced, "its name, too"

    def test_secrets_are_nowhere_but_in_the_environment_file(self, stage: Stage) -> None:
        run_id = stage.submit(env={"TOKEN": SECRET}, environment={"python": "3.11"}, retries=1)
        agent = stage.agent()
        attempt = agent.take_and_start()
        agent.end(attempt, 1)
        attempt = agent.take_and_start()
        agent.heartbeat()
        stage.yard.kill(run_id, False, ME)
        seen = [
            stage.dump(), json.dumps(stage.run(run_id)), json.dumps(stage.events(run_id)),
            json.dumps(stage.yard.runs({}, ME)), json.dumps(stage.yard.status()),
        ]  # fmt: skip
        assert all(SECRET not in text for text in seen)
        agent.end(attempt, 1)
        assert SECRET not in stage.dump()
        assert stage.launch_files == []

    def test_the_environment_file_goes_with_the_last_run_that_needs_it(self, stage: Stage) -> None:
        first, second, third, last = stage.yard.submit(
            [make_spec(), make_spec(retries=1), make_spec(), make_spec()], {"A": "1"}, ME
        )
        other = stage.submit(env={"B": "2"})
        agent = stage.agent()
        agent.end(agent.take_and_start())
        assert stage.state(first) == states.FINISHED
        attempt = agent.take_and_start()
        agent.end(attempt, 1)
        assert stage.state(second) == states.QUEUED
        stage.yard.kill(third, False, ME)
        stage.yard.kill(last, False, ME)
        assert len(stage.launch_files) == 2  # the retry needs it
        agent.end(agent.take_and_start(), 1)
        assert stage.state(second) == states.FAILED
        assert len(stage.launch_files) == 1
        stage.yard.kill(other, False, ME)
        stage.yard.remove(other, True, ME)
        assert stage.launch_files == []

    def test_the_environment_file_goes_when_a_dependency_fails(self, stage: Stage) -> None:
        first = stage.submit()
        second = stage.submit(after=[first], env={"A": "1"})
        assert len(stage.launch_files) == 1
        stage.yard.kill(first, False, ME)
        assert stage.state(second) == states.FAILED
        assert stage.launch_files == []

    def test_an_environment_file_is_not_left_by_a_run_that_fails_at_once(self, stage: Stage) -> None:
        first = stage.submit()
        stage.yard.kill(first, False, ME)
        second = stage.submit(after=[first], env={"A": "1"})
        assert stage.state(second) == states.FAILED
        assert stage.launch_files == []

    def test_environment_files_left_by_a_crash_go_at_the_next_start(self, stage: Stage) -> None:
        run_id = stage.submit(env={"A": "1"})
        keep = stage.launch_files[0]
        place = stage.inner.context.home.launch
        orphan = os.path.join(place, "0" * 32 + ".json")
        with open(orphan, "w", encoding="utf-8") as file:
            file.write("{}")
        stage.restart()
        assert stage.launch_files == [keep]
        assert stage.state(run_id) == states.QUEUED

    def test_ends_at_once_leave_no_environment_file(self, stage: Stage) -> None:
        ids = stage.yard.submit([make_spec() for _ in range(8)], {"A": "1"}, ME)
        threads = [threading.Thread(target=stage.yard.kill, args=(run_id, False, ME)) for run_id in ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stage.launch_files == []
