"""What programs log when something is wrong: with what they log, with the server, the agent, a disk or a clock."""

from __future__ import annotations

import os
from typing import Any

from tests.e2e.harness import Cli, wait_for
from tests.e2e.test_tracking import points

SHA256_OF_3_GIB_OF_ZEROS = "305b66a59d15b252092fbda9d09711230c429f351897cbd430e7b55a35fd3b97"


def logged(cli: Cli, code: str, *options: str, **env: str) -> dict[str, Any]:
    """Run a program that logs, and return the run once all that it said is there."""
    (cli.cwd / "log.py").write_text("import os, runyard\n" + code)
    run_id = cli.submit(*options, "python", "log.py", **env)
    cli.until(run_id, "finished", deadline_s=90)
    wait_for(lambda: not any(next(cli.home.glob("hosts/*/attempts")).iterdir()), "all to be sent", 60)
    return dict(cli.show(run_id))


def refused(run: dict[str, Any]) -> dict[str, tuple[int, str]]:
    return {item["name"]: (item["count"], item["why"]) for item in run["capture"]["refused"]}


def test_one_record_that_the_server_refuses_is_named_and_the_others_arrive(cli: Cli) -> None:
    run = logged(cli, """
deep = 1
for _ in range(300):
    deep = [deep]
writer = runyard.init()._writer
for step in range(3000):
    if step in (0, 1500, 2999):
        writer.message({"type": "params", "origin": "call", "values": {"deep": deep}})
        writer.message({"type": "params", "origin": "call", "values": {"ok%d" % step: 1}})
    runyard.log({"a": float(step)})
""")  # fmt: skip
    assert [step for step, _ in points(cli, run["id"], "a")] == list(range(3000))
    assert refused(run) == {
        "a record of the spool": (3, "a spool record cannot be read: a message is nested too deeply")
    }
    assert set(run["params"]) == {"ok0", "ok1500", "ok2999"} and "missing" not in run["capture"]
    assert "a record of the spool was not taken (3 times)" in cli.out("show", run["id"])


def test_an_agent_that_is_restarted_says_nothing_false_of_what_is_missing(cli: Cli) -> None:
    """What it has sent it has removed: that is nothing that got lost."""
    (cli.cwd / "log.py").write_text("""
import os, runyard, time
for step in range(30_000):
    runyard.log({"m%d" % number: float(step) for number in range(10)})
    while step == 20_000 and not os.path.exists("go"):
        time.sleep(0.01)
""")  # fmt: skip
    run_id = cli.submit("python", "log.py")
    wait_for(lambda: (cli.show(run_id)["metrics"].get("m0") or {"count": 0})["count"] == 20_001, "the first part")
    spool = next(cli.home.glob("hosts/*/attempts/*/spool"))
    later = [str(path) for path in spool.glob("*.00002")]
    assert later
    wait_for(lambda: not any(os.path.exists(path[:-1] + "0") for path in later), "the first segment to be removed")
    cli.kill("agent")
    cli.call("ls")
    (next(cli.home.glob("runs/*/*")) / "digits" / "go").touch()
    cli.until(run_id, "finished")
    wait_for(lambda: not any(next(cli.home.glob("hosts/*/attempts")).iterdir()), "the journal to be empty")
    assert "missing" not in cli.show(run_id)["capture"]
    assert points(cli, run_id, "m9") == [(step, float(step)) for step in range(30_000)]


def test_data_that_takes_longer_to_fingerprint_than_the_run(cli: Cli) -> None:
    with open(cli.home.parent / f"{cli.home.name}.bin", "wb") as file:
        os.truncate(file.name, 3 << 30)
    try:
        run = logged(cli, f"open({file.name!r}, 'rb').read(10)\n")
    finally:
        os.unlink(file.name)
    assert [item["sha256"] for item in run["data"]] == [SHA256_OF_3_GIB_OF_ZEROS]
