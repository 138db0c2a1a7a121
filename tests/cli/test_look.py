from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.fake import FakeYard


@pytest.fixture
def five(cli: Cli, yard: FakeYard, repository: Path) -> list[str]:
    """Five runs, oldest first: true in project digits, sleep in project other."""
    for number, letter in enumerate("abcde"):
        late = number > 2
        yard.submit(
            {
                "id": "aaaaaaaaaaa" + letter, "project": "other" if late else "digits", "name": None, "tags": [],
                "command": ["sleep" if late else "true", str(number)], "message": "m%d" % number, "cwd": "",
                "priority": 0, "resources": {}, "snapshot": {"tree": "0" * 40}, "source": "/s", "repo_name": "digits",
                "links": [], "in_place": False, "program": "/bin/true", "hold": False,
            }
        )  # fmt: skip
    return list(yard.runs)


def test_ls_lists_newest_first_through_all_pages(cli: Cli, yard: FakeYard, five: list[str]) -> None:
    done = cli("ls")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ID", *reversed(five)]
    assert "\x1b" not in done.stdout
    assert cli("ls", "-q").stdout.split() == list(reversed(five))
    listed = json.loads(cli("ls", "--json").stdout)
    assert [run["id"] for run in listed] == list(reversed(five))
    assert listed == [json.loads(cli("show", "--json", run_id).stdout) for run_id in reversed(five)]
    assert cli("ls", "-q", "-n", "3").stdout.split() == list(reversed(five))[:3]


def test_ls_filters(cli: Cli, yard: FakeYard, five: list[str]) -> None:
    yard.end(five[0], 1)
    assert cli("ls", "-q", "-p", "other").stdout.split() == [five[4], five[3]]
    assert cli("ls", "-q", "-s", "failed").stdout.split() == [five[0]]
    assert cli("ls", "-q", "sleep").stdout.split() == [five[4], five[3]]
    assert cli("ls", "-q", "-s", "failed", "sleep").stdout == ""
    assert "failed as a word; runs in that state: runyard ls -s failed" in cli("ls", "failed").stderr
    wrong = cli("ls", "-s", "dead")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "states: queued" in wrong.stderr


def test_all_that_was_not_taken_is_shown(cli: Cli, yard: FakeYard, five: list[str]) -> None:
    refused = [{"name": "x%d" % number, "count": number, "why": "no number"} for number in range(1, 31)]
    yard.runs[five[0]]["capture"] = {"refused": refused}
    yard.end(five[0])
    lines = cli("show", five[0]).stdout.splitlines()
    start = lines.index("NOT TAKEN  TIMES  WHY")
    assert [line.split(maxsplit=2) for line in lines[start + 1 :]] == [
        [item["name"], str(item["count"]), item["why"]] for item in refused
    ]


def test_what_somebody_gave_for_this_run_is_shown_first(cli: Cli, yard: FakeYard, five: list[str]) -> None:
    given = {"z": "cli", "y": "call", "x": "file"}
    defaults = {"a%02d" % number: "default" for number in range(30)}
    zero = {"last": 0.5, "min": 0.5, "max": 0.5, "mean": 0.5, "step": None}
    yard.runs[five[0]].update(
        params=dict.fromkeys({**given, **defaults}, 1), param_origins={**given, **defaults},
        metrics={"best": {**zero, "count": 0}, "loss": {**zero, "count": 9}},
    )  # fmt: skip
    params, metrics = cli("show", five[0]).stdout.split("\n\n")[1:3]
    assert [line.split()[0] for line in params.splitlines()][1:6] == ["z", "y", "x", "a00", "a01"]
    assert params.splitlines()[-1] == "13 more: runyard show --all %s" % five[0]
    assert [line.split()[0] for line in metrics.splitlines()] == ["METRIC", "loss", "best"]
    everything = cli("show", "--all", five[0]).stdout.split("\n\n")[1]
    assert len(everything.splitlines()) == 34 and "more" not in everything


def test_long_names_do_not_make_wide_tables(cli: Cli, yard: FakeYard, five: list[str]) -> None:
    zero = {"last": 0.5, "min": 0.5, "max": 0.5, "mean": 0.5, "step": None, "count": 1}
    long = "n" * 600
    for number, run in enumerate(five[:2]):
        yard.runs[run].update(params={long: "v" * 600 + str(number)}, metrics={long: {**zero, "last": number}})
    yard.table = {"columns": ["id", *["run." + c for c in ("state", "created", "project", "name", "message")], long],
                  "data": [["a"], ["finished"], [None], ["p"], [None], [None], ["v" * 600]], "next": None}  # fmt: skip
    for words in (["show", five[0]], ["diff", *five[:2]], ["compare", *five[:2]], ["ls", "--columns", long]):
        done = cli(*words)
        assert done.returncode == 0 and "n" * 59 + "…" in done.stdout, done.stderr
        assert max(map(len, done.stdout.splitlines())) < 300


def test_nothing_to_list_is_said_on_stderr_only(cli: Cli, yard: FakeYard) -> None:
    done = cli("ls")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no runs yet" in done.stderr
    for words in (["x"], ["-t", "x"], ["--trash"], ["-s", "failed"], ["--name", "x"]):
        assert cli("ls", *words).stderr == "no runs fit\n"
    assert json.loads(cli("ls", "--json").stdout) == []


def test_text_of_others_cannot_act_on_the_terminal(cli: Cli, yard: FakeYard, five: list[str]) -> None:
    yard.runs[five[0]]["message"] = "a\x1b[2Jb\nc\u202e"
    out = cli("ls").stdout + cli("show", five[0]).stdout
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "a\\x1b[2Jb\\nc\\u202e" in out


def test_bytes_that_are_no_utf_8_can_be_shown(cli: Cli, yard: FakeYard, five: list[str]) -> None:
    yard.runs[five[0]]["command"] = ["cat", "caf\udce9"]
    assert "caf\\udce9" in cli("ls").stdout
    assert json.loads(cli("show", "--json", five[0]).stdout)["command"] == ["cat", "caf\udce9"]


def test_show_says_why_a_run_waits(cli: Cli, yard: FakeYard, five: list[str]) -> None:
    yard.runs[five[0]]["wait_reasons"] = ["box: 1 of 1 GPU needed, 0 free"]
    assert "waits    box: 1 of 1 GPU needed, 0 free" in cli("show", five[0]).stdout.replace("waits      ", "waits    ")


def test_show_says_what_a_run_was_given_only_where_there_is_something(
    cli: Cli, yard: FakeYard, five: list[str]
) -> None:
    yard.runs[five[0]].update(
        source="/home/ada/digits", rerun_of=five[1], retries=2, time_limit_s=90.0,
        also=[{"path": "../lib", "source": "/home/ada/lib"}], links=[{"path": "data", "target": "/big/data"}],
        environment={
            "python": {"version": "3.11.7"}, "packages": {"numpy": "2.1", "torch": "2.5"}, "files": ["uv.lock"],
            "driver": "NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024",
            "variables": {"TZ": "a b", "LANG": "C"}, "editable": {"mylib": "/home/ada/mylib"},
        },
        attempts=[{"number": 1, "log_dropped": 2048}], state="finished", end={"exit_code": 0},
    )  # fmt: skip
    rows = dict(line.split(None, 1) for line in cli("show", five[0]).stdout.splitlines())
    assert rows["rerun"].split() == ["of", five[1]]
    assert (rows["source"], rows["also"]) == ("/home/ada/digits", "../lib from /home/ada/lib")
    assert (rows["links"], rows["program"]) == ("data -> /big/data", "/bin/true")
    assert (rows["retries"], rows["limit"]) == ("2", "1m30s")
    assert rows["env"] == "Python 3.11.7, 2 packages, NVIDIA driver 550.54.14, uv.lock"
    assert (rows["variables"], rows["editable"]) == ("TZ='a b' LANG=C", "mylib: /home/ada/mylib")
    assert rows["warning"].startswith("2.0 kB of its output are not in the log")
    plain = cli("show", five[1]).stdout.splitlines()
    assert {line.split()[0] for line in plain}.isdisjoint(rows.keys() - {"id", "state", "project", "message", "command",
            "user", "created", "code", "tree", "source", "program", "files"})  # fmt: skip


def test_show_finds_a_run_by_prefix_name_and_last(cli: Cli, yard: FakeYard, five: list[str]) -> None:
    yard.runs[five[1]]["name"] = "best"
    for ref, run_id in (("best", five[1]), ("@last", five[4]), (five[2], five[2])):
        assert json.loads(cli("show", "--json", ref).stdout)["id"] == run_id
    ambiguous = cli("show", "aaa")
    assert (ambiguous.returncode, ambiguous.stdout) == (1, "")
    assert "fits 5 runs" in ambiguous.stderr
    for ref in ("zzz", "", "a/b", "/"):
        none = cli("show", ref)
        assert (none.returncode, none.stderr.count("there is no run %r" % ref)) == (1, 1)


def test_a_closed_pipe_is_no_error(cli: Cli, yard: FakeYard, five: list[str], environment: dict[str, str]) -> None:
    yard.runs[five[0]]["message"] = "x" * 1_000_000
    process = subprocess.Popen([sys.executable, "-m", "runyard.cli", "ls", "--json"], env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(20) == 0
    process.stderr.close()


def test_a_terminal_gets_colours_and_lines_cut_to_its_width(
    yard: FakeYard, five: list[str], environment: dict[str, str]
) -> None:
    yard.end(five[0], 0)
    yard.runs[five[0]]["command"] = ["python", "x" * 500]
    for extra, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        process = subprocess.Popen(
            [sys.executable, "-m", "runyard.cli", "ls"], env={**environment, **extra}, stdout=other
        )
        os.close(other)
        data = b""
        while True:
            try:
                piece = os.read(main, 4096)
            except OSError:
                break
            if not piece:
                break
            data += piece
        os.close(main)
        assert process.wait(20) == 0
        assert (b"\x1b[32mfinished\x1b[0m" in data) == coloured
        plain = data.decode().replace("\x1b[32m", "").replace("\x1b[34m", "").replace("\x1b[0m", "")
        assert max(len(line) for line in plain.splitlines()) == 100


def test_a_full_disk_is_named_and_a_traceback_comes_only_with_v(
    yard: FakeYard, five: list[str], environment: dict[str, str]
) -> None:
    for words, traceback in ((["ls"], False), (["ls", "-v"], True), (["-v", "ls"], True)):
        with open("/dev/full", "w") as full:
            done = subprocess.run([sys.executable, "-m", "runyard.cli", *words], env=environment, stdout=full,
                                  stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
        assert done.returncode == 1
        assert ("No space left on device" if traceback else "runyard: no space left") in done.stderr
        assert ("Traceback" in done.stderr) == traceback


def test_status(cli: Cli, yard: FakeYard) -> None:
    assert json.loads(cli("status", "--json").stdout)["url"] == yard.url
    done = cli("status")
    assert yard.url in done.stdout
    assert "1 queued" in done.stdout
    yard.version = "9.9"
    assert "the server 9.9" in cli("status").stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_error(
    cli: Cli, five: list[str], environment: dict[str, str], closed: str
) -> None:
    line = '"%s" -m runyard ls %s' % (sys.executable, closed)
    done = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_is_a_word_too(cli: Cli) -> None:
    assert cli("help").stdout == cli("--help").stdout
    assert cli("help", "ls").stdout == cli("ls", "--help").stdout


def test_version_and_help_need_no_server(cli: Cli) -> None:
    assert cli("--version").stdout.startswith("runyard ")
    assert "Freeze the code" in cli("--help").stdout
    assert "Housekeeping" in cli().stdout
    assert "--time-limit TIME" in cli("run", "--help").stdout
    wrong = cli("ls", "--nonsense")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "runyard ls --help" in wrong.stderr
