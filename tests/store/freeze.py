"""Write a frozen database of this version, for the upgrade tests of all later ones.

Usage: python -m tests.store.freeze    writes tests/store/frozen/<version>.sql and .json; once, when a version is released
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import runyard
from runyard.testing.stage import ME, Stage
from runyard.wire import states
from tests.store.backends import make_stage, sqlite_template

FROZEN = Path(__file__).parent / "frozen"
OF_THE_MOMENT = ("wait_reasons", "expected_start", "run_dir")
"""Fields of a run that follow from when and where one looks."""
ODD = "zero \0, no UTF-8 caf\udce9 \udcff, emoji 🧪, ' \" \\ % _\r\n\ttab"
LOST_ONE, BUSY, WAITING = "the host is away", "goes on", "waits for another"


def play(stage: Stage) -> None:
    """Leave runs in every state, with everything that can be recorded of them."""
    agent = stage.agent("near", slots=8, gpus=2)
    environment = {"python": "3.12.1", "packages": {"numpy": "2.1"}}
    first = stage.submit(message=ODD, tags=["baseline", "naïve"], name="first", environment=environment,
                         env={"SECRET": "is in no table"}, resources={"cpus": 1})  # fmt: skip
    attempt = agent.take_and_start()
    stage.yard.report_outputs(attempt, [{"path": "out/model.pt", "size": 5, "mtime_us": 1, "type": "model"}])
    stage.clock.advance(2)
    agent.end(attempt)
    failed = stage.submit(priority=5, retries=1, time_limit_s=60.5)
    for _ in range(2):
        agent.end(agent.take_and_start(), 3)
    stage.submit(after=[failed], message="depends on a failed one")
    agent.lose(_started(stage, agent, message="requeued once"))
    agent.end(agent.take_and_start(), None, signal=11, reason=states.SIGNALED)
    killed = stage.submit(message="killed while it waits", hold=True)
    stage.yard.kill(killed, False, ME)
    stage.yard.remove(killed, False, ME)
    stage.submit(resources={"gpus": 1, "host": "host-far", "mem": 1 << 30}, message=LOST_ONE)
    far = stage.agent("far", slots=0, gpus=1, cpus=4)
    far.start(far.take()[0]["attempt"])
    stage.warm_up(agent)
    stage.pass_time(states.LEASE_S + 30, agent)
    busy = _started(stage, agent, message=BUSY, resources={"gpus": 2})
    assert agent.has[busy]
    stage.submit(after=[stage.yard.runs({"q": BUSY}, ME)["runs"][0]["id"], first], message=WAITING)
    stage.submit(hold=True, message="held", links=[{"path": "data", "target": "/data", "why": "ignored data"}])
    stage.yard.create_token("laptop", "agent", None, ME)
    stage.yard.edit(first, {"message": ODD + " edited", "add_tags": ["late"]}, ME)


def _started(stage: Stage, agent: Any, **fields: Any) -> str:
    stage.submit(**fields)
    return str(agent.take_and_start())


def picture(yard: Any) -> dict[str, Any]:
    """Return all that the yard shows of its runs, except what is of the moment; JSON values."""
    shown = {}
    for trashed in (False, True):
        for item in yard.runs({"limit": 1000, "trashed": trashed}, ME)["runs"]:
            run = yard.run(item["id"], ME)
            shown[run["id"]] = {
                "run": {name: value for name, value in run.items() if name not in OF_THE_MOMENT},
                "outputs": yard.outputs(run["id"], ME),
                "events": [event["kind"] for event in yard.events(run["id"], 0, ME)],
            }
    value: dict[str, Any] = json.loads(json.dumps({"runs": shown, "tokens": yard.tokens(ME)}))
    return value


def main() -> None:
    """Play, and write both files."""
    with tempfile.TemporaryDirectory(prefix="ry-") as home, sqlite_template() as template:
        path = Path(home, "yard.db")
        path.write_bytes(template.read_bytes())
        stage = make_stage(Path(home), f"sqlite:///{path}")
        play(stage)
        seen = picture(stage.yard)
        stage.close()
        with sqlite3.connect(path) as connection:
            dump = "\n".join(connection.iterdump()) + "\n"
        connection.close()
    FROZEN.mkdir(exist_ok=True)
    (FROZEN / f"{runyard.__version__}.sql").write_text(dump, encoding="utf-8")
    (FROZEN / f"{runyard.__version__}.json").write_text(
        json.dumps(seen, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
