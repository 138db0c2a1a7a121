"""Runs that programs began by themselves: found in the home, told to the server, sent and ended."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.agent.fake_server import DROP_AFTER, wait_for
from tests.client.streams import SRC

if TYPE_CHECKING:
    from tests.agent.conftest import AgentBox

MANY = """
import runyard, sys
for number in range(int(sys.argv[1])):
    with runyard.init(project="refused" if number == 3 else "own", name="n%d" % number):
        runyard.log({"number": number})
"""


def program(box: AgentBox, code: str, *args: str) -> subprocess.Popen[bytes]:
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": SRC,
        "RUNYARD_HOME": str(box.home),
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    return subprocess.Popen([sys.executable, "-c", code, *args], env=env, cwd=box.home)


def ended(box: AgentBox, count: int) -> list[dict[str, Any]]:
    wait_for(lambda: len(box.yard.ends) == count, 40, f"{count} ends, {box.log()}")
    return [end for ends in box.yard.ends.values() for end in ends]


def left(box: AgentBox) -> list[str]:
    return os.listdir(os.path.join(box.paths.host_dir(), "own"))


def test_many_are_told_of_together_and_one_that_is_refused_holds_up_no_other(box: AgentBox) -> None:
    assert program(box, MANY, "20").wait(60) == 0
    box.start()
    ends = ended(box, 19)
    assert {end["exit_code"] for end in ends} == {0}
    assert sorted(spec["name"] for spec in box.yard.own) == sorted(f"n{number}" for number in range(20) if number != 3)
    assert all(0 <= end["ended_at"] - end["started_at"] < 5_000_000 for end in ends)
    logged = [record for records in box.yard.records.values() for record in records]
    assert len(box.yard.records) == 19 and sum(record.kind == 2 for record in logged) == 19
    wait_for(lambda: len(left(box)) == 1, what="what was taken in to be removed")
    asked = [path for method, path in box.yard.requests if method == "POST" and path.endswith("/runs")]
    assert len(asked) <= 1 + 20, "one together, then each by itself"


def test_when_nothing_is_wrong_few_requests_tell_of_many(box: AgentBox) -> None:
    assert program(box, MANY.replace("refused", "own"), "60").wait(60) == 0
    box.yard.fault(DROP_AFTER, "POST", "/runs$")
    box.start()
    ended(box, 60)
    asked = [path for method, path in box.yard.requests if method == "POST" and path.endswith("/runs")]
    finished = [path for _, path in box.yard.requests if path.endswith("/finish")]
    assert len(asked) <= 8 and len(finished) <= 30, (len(asked), len(finished))
    wait_for(lambda: not left(box), what="what was taken in to be removed")


def test_one_that_goes_on_is_followed_by_the_next_agent(box: AgentBox) -> None:
    process = program(box, "import runyard\nrunyard.log({'a': 1.0})\nimport time\ntime.sleep(60)\n")
    first = box.start()
    wait_for(lambda: box.yard.records, what="what was logged, %s" % box.log())
    box.kill(first)
    process.kill()
    process.wait()
    box.start()
    (end,) = ended(box, 1)
    assert (end["reason"], end["exit_code"]) == ("signaled", None)
