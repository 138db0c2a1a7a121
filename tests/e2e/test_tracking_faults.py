"""What programs log when something is wrong: with what they log, with the server, the agent, a disk or a clock."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from typing import Any

import pytest

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


def refused(run: dict[str, Any]) -> dict[str, str]:
    """Return why things were refused: by name, ``count reason`` in the order of their coming."""
    found: dict[str, str] = {}
    for item in run["capture"]["refused"]:
        found[item["name"]] = f"{found.get(item['name'], '')}{item['count']} {item['why']}; "
    return found


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
    why = "3 a spool record cannot be read: a message is nested too deeply; "
    assert refused(run) == {"a record of the spool": why}
    assert set(run["params"]) == {"ok0", "ok1500", "ok2999"} and "missing" not in run["capture"]
    assert "a record of the spool  3" in cli.out("show", run["id"])


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
    later = [str(path) for path in spool.glob("*.00003")]
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


ODD = r"""
import math
names = ["new\nline", "nul\0", "\ud800", "\udc80", "esc\x1b[31m", "\U0001f600", " ", "n" * 1000, "ä/ö", "'\"\\;--"]
for number, name in enumerate(names):
    runyard.log({name: float(number)}, step=number)
    runyard.params({name: name})
runyard.log({"long" * 2500: 1.0, "": 2.0, "text" * 2500: "x"})
for step in (-2**63, 2**63 - 1, 0, -7, 2**63, 1e30, math.nan, "x"):
    runyard.log({"steps": 1.0}, step=step)
for step, value in enumerate((1.0, "a text", b"\x89PNG\r\n\x1a\n...", [{"a": 1}], "x" * (1 << 20), 2.0)):
    runyard.log({"mixed": value}, step=step)
loop = {"a": 1}
loop["b"] = loop
runyard.params({"loop": loop, "large": "y" * (2 << 20), "huge": 10**5000, "inf": -math.inf, "big": 2**80, "after": 1})
runyard.tag("t" * 201, "a\nb", "fine")
runyard.summary({"s": 1.5, "loop": loop, "no": "text"})
runyard.log({"last": 1.0}, step=5)
"""


def test_values_and_names_of_every_kind(cli: Cli) -> None:
    run = logged(cli, ODD)
    names = ["new\nline", "nul\0", "\ud800", "\udc80", "esc\x1b[31m", "😀", " ", "n" * 1000, "ä/ö", "'\"\\;--"]
    metrics, params, said = run["metrics"], run["params"], refused(run)
    assert {name: metrics[name]["last"] for name in names} == {name: float(n) for n, name in enumerate(names)}
    assert {name: params[name] for name in names} == {name: name for name in names}
    assert said[""] == said["long" * 250] == said["text" * 250] == "1 a name has 1 to 1000 characters; "
    assert [step for step, _ in points(cli, run["id"], "steps")] == [-(2**63), -7, 0, 2**63 - 1]
    assert "a step has 64 bits" in said["log"] and "not nan" in said["log"] and "not 'x'" in said["log"]
    assert metrics["mixed"]["count"] == 2
    media = cli.api("GET", f"/api/v1/runs/{run['id']}/media")["media"]
    kinds = {item["step"]: (item["kind"], item["size"]) for item in media if item["name"] == "mixed"}
    assert {step: kind for step, (kind, _) in kinds.items()} == {1: "text", 2: "image", 3: "table", 4: "text"}
    assert kinds[4][1] == 1 << 20
    assert params["large"] == "y" * (1 << 20) and params["big"] == 2**80 and params["inf"] == "-Infinity"
    assert params["after"] == 1 and params["loop.b.b.a"] == 1 and "16610 bits" in said["huge"]
    assert run["tags"] == ["fine"] and {"t" * 201, "a\nb"} < set(said)
    assert metrics["s"]["last"] == 1.5 and metrics["last"]["last"] == 1.0
    assert "esc\\x1b[31m" in (shown := cli.out("show", run["id"])) and "\x1b" not in shown and "\0" not in shown
    for name in ("new\nline", "esc\x1b[31m", "😀", "'\"\\;--"):
        assert [found["id"] for found in cli.json("ls", f"metrics[{name!r}] >= 0")] == [run["id"]]
    for form in ("csv", "json", "tex", "parquet"):
        cli.call("export", "-o", "all." + form)
    assert "new\nline" in (cli.cwd / "all.csv").read_text() and "\\ud800" in (cli.cwd / "all.csv").read_text()
    cli.call("export", "--history", 'metrics["steps"]', "-o", "steps.csv")
    assert (cli.cwd / "steps.csv").read_text().count("\n") == 5


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_thousand_names(cli: Cli) -> None:
    run = logged(cli, """
runyard.log({"wide/%d" % number: float(number) for number in range(100_000)}, step=7)
for number in range(1000):
    runyard.log({"single/%d" % number: float(number)}, step=number)
""")  # fmt: skip
    assert len(run["metrics"]) == 101_000 and run["metrics"]["wide/99999"]["last"] == 99999.0
    assert points(cli, run["id"], "wide/54321") == [(7, 54321.0)]
    assert points(cli, run["id"], "single/999") == [(999, 999.0)]
    assert "100980 more" in cli.out("show", run["id"])


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"project": " a/b\nc ", "name": "@x/y"}, ("a_b_c", "x_y")),
        ({"project": "..", "name": "abcdefghijkl", "message": "m" * (2 << 20) + "\0"}, ("digits", "abcdefghijkl_")),
        ({"project": "ä" * 300, "name": "\ud800", "message": "\0\ud800"}, ("ä" * 100, "_")),
        ({"project": 7, "name": ["x"]}, ("7", "['x']")),
    ],
)
def test_what_a_run_begun_by_hand_cannot_be_called(cli: Cli, given: dict[str, Any], shown: tuple[str, str]) -> None:
    code = f"import runyard, sys\nsys.argv += [1, 'a\\0b']\nrunyard.init(**{given!r})\nrunyard.log({{'a': 1.0}})\n"
    (cli.cwd / "hand.py").write_text(code, errors="backslashreplace")
    done = subprocess.run([sys.executable, "hand.py"], cwd=cli.cwd, env=cli.env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.count("runyard: ") <= 2, done.stderr
    cli.call("start")
    run = cli.until(wait_for(lambda: cli.json("ls"), "the run", 60)[0]["id"], "finished")
    assert (run["project"], run["name"]) == shown and run["command"][-2:] == ["1", "ab"]
    assert run["metrics"]["a"]["count"] == 1


def test_a_damaged_block_is_named_and_the_other_metrics_can_be_read(cli: Cli) -> None:
    run = logged(cli, """
for step in range(100): runyard.log({"good": float(step)})
for step in range(100): runyard.log({"bad": float(step)})
""")  # fmt: skip
    connection = sqlite3.connect(f"file:{cli.home / 'yard.db'}?mode=ro", uri=True)
    loose = "SELECT count(*) FROM metric_blocks WHERE name_id IS NULL"
    wait_for(lambda: connection.execute(loose).fetchone() == (0,), "compaction", 60)
    connection.close()
    assert "sound" in cli.out("doctor", "database")
    cli.call("stop")
    connection = sqlite3.connect(cli.home / "yard.db")
    which = "name_id = (SELECT id FROM names WHERE name = 'bad')"
    (data,) = connection.execute(f"SELECT data FROM metric_blocks WHERE {which}").fetchone()
    connection.execute(
        f"UPDATE metric_blocks SET data = ? WHERE {which}", (bytes([*data[:-3], data[-3] ^ 4, *data[-2:]]),)
    )
    connection.commit()
    connection.close()
    cli.call("start")
    done = cli.call("doctor", "database", code=1)
    assert f"points of metrics of 1 runs ({run['id']})" in done.stdout
    done = cli.call("export", "--history", "bad", "-o", "bad.csv", code=1)
    assert f"the points of 'bad' of run {run['id']} are damaged: 0 of 100 can be read" in done.stderr
    assert "server failed" not in done.stderr
    assert points(cli, run["id"], "good") == [(step, float(step)) for step in range(100)]
    again = logged(cli, "runyard.log({'good': 5.0})\n")
    assert points(cli, again["id"], "good") == [(0, 5.0)] and cli.json("ls", "metrics.bad == 99")
