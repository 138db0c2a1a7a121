"""What programs log arrives, once, whatever happens to the server, the agent and the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e.harness import Cli, wait_for

LOGGER = """
import os, sys, time, runyard
steps, pause = int(sys.argv[1]), float(sys.argv[2])
first = 0 if not os.environ.get("RUNYARD_RESUMED") else 30
for step in range(first, first + steps):
    runyard.log({"loss": step + first / 1000, "acc": 0.5}, step=step)
    time.sleep(pause)
sys.exit(int(sys.argv[3]) if len(sys.argv) > 3 and not first else 0)
"""


def points(cli: Cli, run_id: str, metric: str = "loss") -> list[tuple[int, float]]:
    found = cli.api("GET", f"/api/v1/runs/{run_id}/series?metric={metric}&points=0")
    return list(zip(found["steps"], found["values"], strict=True))


def settled(cli: Cli, run_id: str, count: int) -> dict[str, Any]:
    """Return the run once all points are there."""

    def look() -> Any:
        run = cli.show(run_id)
        return run if (run["metrics"].get("loss") or {}).get("count") == count else None

    return dict(wait_for(look, f"{count} points of {run_id}"))


def some_points(cli: Cli, run_id: str) -> None:
    """Wait until more has arrived."""

    def count() -> int:
        return int((cli.show(run_id)["metrics"].get("loss") or {"count": 0})["count"])

    before = count()
    wait_for(lambda: count() > before or count() == 2000, "more points")


def test_a_server_that_is_away_for_the_whole_run(cli: Cli) -> None:
    (cli.cwd / "log.py").write_text(LOGGER)
    run_id = cli.submit("python", "log.py", "100", "0.01")
    cli.until(run_id, "running")
    cli.call("stop")
    attempts = next(cli.home.glob("hosts/*/attempts"))
    wait_for(
        lambda: any(
            (a / "status.json").exists() and '"end"' in (a / "status.json").read_text() for a in attempts.iterdir()
        ),
        "its end",
    )
    cli.call("start")
    assert cli.until(run_id, "finished")["metrics"]["loss"]["count"] == 100, "there when the end is"
    assert points(cli, run_id) == [(step, float(step)) for step in range(100)]
    wait_for(lambda: not list(attempts.iterdir()), "the spool to be removed")


def test_a_server_and_an_agent_that_are_killed_while_it_logs(cli: Cli) -> None:
    (cli.cwd / "log.py").write_text(LOGGER)
    run_id = cli.submit("python", "log.py", "2000", "0.003")
    cli.until(run_id, "running")
    for number in range(4):
        cli.kill("server" if number % 2 == 0 else "agent")
        cli.call("ls")
        some_points(cli, run_id)
    cli.until(run_id, "finished")
    settled(cli, run_id, 2000)
    assert points(cli, run_id) == [(step, float(step)) for step in range(2000)]


def test_a_retry_takes_the_series_over(cli: Cli) -> None:
    (cli.cwd / "log.py").write_text(LOGGER)
    run_id = cli.submit("--retries", "1", "python", "log.py", "50", "0", "3")
    cli.until(run_id, "finished")
    settled(cli, run_id, 80)
    expected = [(step, float(step)) for step in range(30)] + [(step, step + 0.03) for step in range(30, 80)]
    assert points(cli, run_id) == expected


def test_a_retry_goes_on_with_the_files_that_are_there(cli: Cli) -> None:
    code = """
import os, sys
first = not os.path.exists("metrics.jsonl")
with open("metrics.jsonl", "a") as file:
    for step in range(0 if first else 5, 5 if first else 10):
        file.write('{"step": %d, "loss": %d}\\n' % (step, step))
sys.exit(first)
"""
    (cli.cwd / "log.py").write_text(code)
    run_id = cli.submit("--retries", "1", "python", "log.py")
    cli.until(run_id, "finished")
    settled(cli, run_id, 10)
    assert points(cli, run_id) == [(step, float(step)) for step in range(10)]


def own(cli: Cli, code: str, **env: str) -> subprocess.Popen[bytes]:
    """Start a program by hand."""
    (cli.cwd / "hand.py").write_text(code)
    return subprocess.Popen([sys.executable, "hand.py", "--lr", "1"], cwd=cli.cwd, env={**cli.env, **env})


def test_a_program_started_by_hand_with_no_yard_running(cli: Cli) -> None:
    code = """
import runyard
run = runyard.init(project="by-hand", name="mine", params={"lr": 0.5}, tags=["t"], message="why")
for step in range(10):
    runyard.log({"loss": float(step)})
with open(run.directory + "/out.txt", "w") as file:
    file.write("result")
with open("../notes.txt", "w") as file:
    file.write("notes")
runyard.output("../notes.txt", step=3)
open(run.directory + "/sample_0012.txt", "w").write("12")
"""
    assert own(cli, code).wait(30) == 0
    cli.call("ls")  # any command starts the server, whose agent takes the run in
    run = cli.until(wait_for(lambda: cli.json("ls")[:1], "the run")[0]["id"], "finished")
    assert (run["project"], run["name"], run["message"], run["tags"]) == ("by-hand", "mine", "why", ["t"])
    assert run["params"] == {"lr": 0.5} and run["metrics"]["loss"]["count"] == 10
    assert {output["path"]: (output["step"], output["series"]) for output in run["outputs"]} == {
        "notes.txt": (3, None), "out.txt": (None, None), "sample_0012.txt": (12, "sample"),
    }  # fmt: skip
    assert cli.out("get", run["id"], "out.txt", "-o", "-") == "result"
    assert run["command"][1:] == ["hand.py", "--lr", "1"] and run["code_frozen"]
    cli.call("checkout", run["id"], "copy")
    assert (cli.cwd / "copy" / "hand.py").read_text() == code
    assert run["environment"]["python"]["version"].startswith("3.")
    wait_for(lambda: not list(next(cli.home.glob("hosts/*/own")).iterdir()), "what lay there to be removed")


def named(cli: Cli, name: str) -> dict[str, Any]:
    """Return the run of that name, once it is there."""
    return dict(wait_for(lambda: cli.json("ls", "--name", name), name)[0])


def test_programs_started_by_hand_that_end_otherwise(cli: Cli) -> None:
    cli.call("start")
    start = "import runyard, os, sys, time\nrunyard.log({'loss': 1.0})\n"
    ends = {
        "raises": ("raise ValueError('x')\n", "failed", 1),
        "says": ("runyard.finish(3)\n", "failed", 3),
        "killed": ("os.kill(os.getpid(), 9)\n", "failed", None),
    }
    for name, (code, state, exit_code) in ends.items():
        own(cli, start.replace("runyard.log", f"runyard.init(name={name!r})\nrunyard.log") + code).wait(30)
        run = cli.until(named(cli, name)["id"], state)
        assert run["end"]["exit_code"] == exit_code, name
        settled(cli, run["id"], 1)
    process = own(cli, start + "time.sleep(60)\n")
    run_id = wait_for(lambda: cli.json("ls", "-s", "running"), "the run")[0]["id"]
    settled(cli, run_id, 1)
    cli.kill("agent")
    cli.call("kill", run_id)
    assert process.wait(30) == -signal.SIGTERM
    assert cli.until(run_id, "killed")["end"]["origin"] == "human"


def test_what_was_captured_is_shown(cli: Cli) -> None:
    (cli.cwd / "log.py").write_text(
        "import runyard\nrunyard.params(lr=0.125)\nrunyard.log({'loss': 0.25, 'x': None}, step=4)\n"
    )
    done = cli.call("run", "-f", "python", "log.py")
    assert "captured  its log, 1 parameter, 1 metric" in done.stderr
    assert "metrics   loss 0.25" in done.stderr
    assert "x was not taken (1 times)" in done.stderr
    shown = cli.out("show", "@last")
    assert "lr         0.125  runyard.params" in shown and "loss    0.25  0.25  0.25  0.25  4     1" in shown


def test_everything_is_captured_of_a_program_that_knows_nothing_of_it(cli: Cli) -> None:
    (cli.cwd / "conf.yaml").write_text("optim:\n  name: adam\n  eps: 1e-8\n")
    (cli.cwd / "train.py").write_text("""
import argparse, csv, json, time
LAYERS = 3
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--epochs", type=int, default=4)
args = parser.parse_args()
config = open("conf.yaml").read()
with open("history.csv", "w") as file:
    table = csv.writer(file)
    table.writerow(["epoch", "val_acc"])
    for epoch in range(args.epochs):
        print(f"epoch {epoch}: loss {1 / (epoch + 1):.4f}")
        table.writerow([epoch, epoch / 10])
""")
    run = cli.until(cli.submit("python", "train.py", "--lr", "0.5"), "finished")
    assert run["params"] == {"LAYERS": 3, "epochs": 4, "lr": 0.5, "optim.eps": 1e-8, "optim.name": "adam"}
    assert run["param_sources"]["optim.eps"] == "conf.yaml" and run["param_sources"]["LAYERS"].startswith("train.py:")
    assert (run["metrics"]["loss"]["last"], run["metrics"]["loss"]["step"]) == (0.25, 3)
    assert (run["metrics"]["val_acc"]["last"], run["metrics"]["val_acc"]["count"]) == (0.3, 4)
    assert {"logs", "files", "argparse"} <= set(run["capture"]["active"])


def test_a_program_that_is_not_python(cli: Cli) -> None:
    script = cli.cwd / "train.sh"
    script.write_text("#!/bin/sh\nprintf 'step: 1\\nloss: 0.5\\n'\n")
    script.chmod(0o755)
    run = cli.until(cli.submit("./train.sh", "--lr", "0.5", "model=big"), "finished")
    assert run["params"] == {"lr": 0.5, "model": "big"} and run["param_sources"]["lr"] == "command line"
    assert not run["capture"]["notes"]
    assert run["metrics"]["loss"]["last"] == 0.5


def test_arguments_of_a_script_and_of_a_program_that_reads_them_itself(cli: Cli) -> None:
    (cli.cwd / "c.json").write_text('{"lr": 0.1, "seed": 1}')
    (cli.cwd / "own.py").write_text("""
import json, sys
config = json.load(open("c.json"))
config.update(word.split("=") for word in sys.argv[1:])
""")
    run = cli.until(cli.submit("python", "own.py", "lr=7"), "finished")
    assert run["params"] == {"lr": 7, "seed": 1}
    (cli.cwd / "parses.py").write_text(
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--lr')\np.parse_args()\n"
    )
    (cli.cwd / "train.sh").write_text('python parses.py --lr "$2"\n')
    run = cli.until(cli.submit("sh", "train.sh", "--rate", "0.2", "--wd", "3"), "finished")
    assert run["params"] == {"lr": "0.2", "rate": 0.2, "wd": 3}


def test_a_python_that_lets_no_hook_in_is_named(cli: Cli) -> None:
    (cli.cwd / "train.py").write_text("print('loss: 0.5')\n")
    run_id = cli.submit("python", "-I", "train.py", "--lr", "0.5")
    assert cli.until(run_id, "finished")["params"] == {"lr": 0.5}
    assert "its Python was started with -I: not seen from inside" in cli.out("show", run_id)


def test_a_number_that_is_logged_written_and_printed_is_one_point(cli: Cli) -> None:
    (cli.cwd / "train.py").write_text("""
import runyard
with open("metrics.csv", "w") as file:
    file.write("step,loss,lr\\n")
    for step in range(10):
        runyard.log({"loss": 1 / (step + 1)}, step=step)
        file.write("%d,%r,%r\\n" % (step, 1 / (step + 1), 0.01 / (step + 1)))
        print("step %d loss: %.2f lr: %.3f" % (step, 1 / (step + 1), 0.01 / (step + 1)))
""")
    run = cli.until(cli.submit("python", "train.py"), "finished")
    assert {name: (m["count"], m["last"]) for name, m in run["metrics"].items()} == {
        "loss": (10, 0.1),
        "lr": (10, 0.001),
    }


def test_the_end_of_the_log_is_searched(cli: Cli) -> None:
    code = "print('\\x1b[31mRuntimeWarning\\x1b[0m: gradients exploded'); print('10%\\r20%\\rlast words')"
    run_id = cli.submit("python", "-c", code.replace("exploded", "ex'+'ploded"))
    cli.until(run_id, "finished")
    wait_for(lambda: [run["id"] for run in cli.json("ls", "gradients exploded")] == [run_id], "the log to be searched")
    assert cli.json("ls", "last words") and not cli.json("ls", "nothing like that")


def test_nothing_is_captured_where_that_is_switched_off(cli: Cli) -> None:
    run_id = cli.submit("--no-capture", "python", "-c", "import time; time.sleep(2.5)")
    run = cli.until(run_id, "finished")
    assert run["system"] == {} and run["capture"] is None
    (Path(cli.cwd) / "runyard.toml").write_text('capture = ["hardware"]\n')
    run = cli.until(cli.submit("python", "-c", "import time; time.sleep(2.5)"), "finished")
    assert run["system"]["memory"]["last"] > 1e6
    assert run["capture"]["active"] == ["hardware"] and "data" in run["capture"]["off"]
    assert os.path.isdir(run["run_dir"])


def test_a_program_that_makes_many_runs(cli: Cli) -> None:
    """Some are over before the agent sees them, some while it does; none is left out, or has what another logged."""
    code = """
import runyard, sys, time
for number in range(30):
    with runyard.init(project="many", params={"number": number}) as run:
        for step in range(10):
            runyard.log({"loss": number + step / 10}, step=step)
        with open(run.directory + "/out.txt", "w") as file:
            file.write(str(number))
    if number > 24:
        time.sleep(0.5)
"""
    cli.call("start")
    process = subprocess.run([sys.executable, "-c", code], cwd=cli.cwd, env=cli.env, capture_output=True, timeout=60)
    assert (process.returncode, process.stderr) == (0, b"")
    found = wait_for(
        lambda: len(runs := cli.json("ls", "-p", "many", "-s", "finished", "-n", "100")) == 30 and runs,
        "all to have ended",
    )
    for run in found:
        number = run["params"]["number"]
        assert run["metrics"]["loss"]["last"] == number + 0.9 and run["metrics"]["loss"]["count"] == 10
        assert run["code_frozen"], run["id"]
    assert sorted(run["params"]["number"] for run in found) == list(range(30))
    assert {cli.out("get", run["id"], "out.txt", "-o", "-") for run in found[:3]} == {
        str(run["params"]["number"]) for run in found[:3]
    }
    wait_for(lambda: not list(next(cli.home.glob("hosts/*/own")).iterdir()), "what lay there to be removed")
