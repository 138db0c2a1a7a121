"""Contract: runs that programs of a host began by themselves."""

from __future__ import annotations

from typing import Any

import pytest

from runyard.testing.spooled import Spooled
from runyard.testing.stage import ME, FakeAgent, Stage, make_spec
from runyard.wire import states
from runyard.wire.errors import ConflictError, InvalidError, NotFoundError

Json = dict[str, Any]


def begun(stage: Stage, ago_us: int = 0, **fields: Any) -> Json:
    """Return what an agent says of a run that began a while ago."""
    spec = make_spec(in_place=True, requeue=False, repo_name="files", **fields)
    return {"run": spec, "started_us": stage.clock.database_us - ago_us}


def taken_in(stage: Stage, agent: FakeAgent, *bodies: Json) -> list[Json]:
    """Let the agent tell of runs; it has them from then on."""
    found = stage.yard.begin_own(agent.name, bodies)
    for item in found:
        agent.has[item["attempt"]] = {**item, "phase": states.PHASE_RUNNING}
    return found


class OwnContract:
    """They are running when the yard hears of them, and hold no slot."""

    def test_they_run_at_once_and_end_as_others_do(self, stage: Stage) -> None:
        agent = stage.agent()
        bodies = [begun(stage, 5_000_000, name=f"n{number}", tags=["a", f"t{number}"]) for number in range(3)]
        found = taken_in(stage, agent, *bodies)
        assert [item["run"] for item in found] == [body["run"]["id"] for body in bodies]
        assert len({item["attempt"] for item in found}) == 3
        stream = Spooled()
        stream.row({"loss": 1.5}, 1)
        for number, item in enumerate(found):
            run = stage.run(item["run"])
            assert (run["state"], run["phase"], run["name"], run["host"]) == (
                "running",
                "running",
                f"n{number}",
                agent.host,
            )
            assert run["tags"] == ["a", f"t{number}"]
            assert run["slots"] == []
            stream.send(stage.yard, item["attempt"])
            assert agent.end(item["attempt"], number) == "accepted"
            assert stage.state(item["run"]) == (states.FAILED if number else states.FINISHED)
            assert stage.run(item["run"])["metrics"]["loss"]["last"] == 1.5
        assert [event["kind"] for event in stage.events(found[0]["run"])] == ["began", "ended"]

    def test_their_time_is_that_of_the_program(self, stage: Stage) -> None:
        """They may be taken in long after their end."""
        agent = stage.agent()
        now = stage.clock.database_us
        (item,) = taken_in(stage, agent, begun(stage, 90_000_000))
        agent.end(item["attempt"], started_at=now - 90_000_000, ended_at=now - 60_000_000)
        found = stage.yard.runs({"q": 'run.duration == "30s"'}, ME)["runs"]
        assert [run["id"] for run in found] == [item["run"]]
        assert found[0]["created_at"] == found[0]["started_at"]

    def test_telling_of_them_again_changes_nothing(self, stage: Stage) -> None:
        agent = stage.agent()
        old, new = begun(stage), begun(stage)
        (first,) = taken_in(stage, agent, old)
        again, other = taken_in(stage, agent, old, new)
        assert again == first
        assert other["run"] == new["run"]["id"]
        agent.end(first["attempt"])
        assert stage.yard.begin_own(agent.name, [old]) == [first]
        assert stage.state(first["run"]) == states.FINISHED

    def test_all_are_taken_in_or_none(self, stage: Stage) -> None:
        agent, other = stage.agent(), stage.agent("other")
        theirs, good = begun(stage), begun(stage)
        taken_in(stage, other, theirs)
        with pytest.raises(ConflictError):
            stage.yard.begin_own(agent.name, [good, theirs])
        bad = begun(stage)
        bad["run"]["command"] = []
        with pytest.raises(InvalidError):
            stage.yard.begin_own(agent.name, [good, bad])
        with pytest.raises(NotFoundError):
            stage.yard.begin_own("nobody", [good])
        with pytest.raises(NotFoundError):
            stage.run(good["run"]["id"])
        taken_in(stage, agent, good)

    def test_their_agent_is_asked_to_stop_them(self, stage: Stage) -> None:
        agent = stage.agent()
        (item,) = taken_in(stage, agent, begun(stage))
        stage.yard.kill(item["run"], False, ME)
        agent.poll()
        assert [stop["attempt"] for stop in agent.stops] == [item["attempt"]]
        assert agent.end(item["attempt"], None, signal=15, reason=states.SIGNALED) == "accepted"
        assert stage.state(item["run"]) == states.KILLED

    def test_many_are_compacted_together(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("runyard.services.compact.AT_ONCE", 8)  # so that the third run takes several turns
        agent = stage.agent()
        found = taken_in(stage, agent, *(begun(stage) for _ in range(20)))
        expected = {}
        for number, item in enumerate(found):
            stream = Spooled()
            steps = 20 if number == 2 else 1 + number % 2
            for step in range(steps):
                stream.row({"loss": number + step / 100, "acc": 1.0}, step)
                stream.send(stage.yard, item["attempt"], len(stream.records) - 1 if step else 0)
            agent.end(item["attempt"])
            expected[item["run"]] = [(step, number + step / 100) for step in range(steps)]
        stage.clock.advance(60)
        assert stage.inner.upkeep(lambda: False) >= 20
        assert stage.inner.upkeep(lambda: False) == 0
        for run_id, values in expected.items():
            series = stage.yard.series(run_id, "loss", ME, points=0)
            assert list(zip(series.steps, series.values, strict=True)) == values
            assert stage.run(run_id)["metrics"]["loss"]["count"] == len(values)
