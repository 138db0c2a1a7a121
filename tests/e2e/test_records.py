"""What is kept of runs, brought back, moved and thrown away."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.harness import Cli, git, wait_for


@contextmanager
def sink(delay_s: float = 0.0, status: int = 200) -> Iterator[tuple[int, list[Any]]]:
    """A web server that takes notices: its port, and what it got."""
    got: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            time.sleep(delay_s)
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1], got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def configure(cli: Cli, text: str) -> None:
    cli.home.mkdir(exist_ok=True)
    (cli.home / "config.toml").write_text(text)


def test_a_notice_says_how_a_run_ended(cli: Cli) -> None:
    with sink() as (port, got):
        configure(cli, f'notify = ["json://127.0.0.1:{port}/"]\n')
        run_id = cli.submit("-m", "the message", "python", "train.py", "--exit", "7")
        cli.until(run_id, "failed")
        notice = wait_for(lambda: got and got[0], "the notice")
    assert "failed" in notice["title"]
    assert "7" in notice["title"]
    assert "the message" in notice["message"]
    assert run_id in notice["title"] + notice["message"]


def test_a_notice_that_cannot_be_sent_changes_nothing(cli: Cli) -> None:
    with sink(delay_s=20.0) as (port, got):
        configure(cli, f'notify = ["json://127.0.0.1:{port}/", "json://127.0.0.1:1/"]\nnotify_timeout = 2.0\n')
        first = cli.submit("python", "train.py")
        assert cli.until(first, "finished")["end"]["exit_code"] == 0
        wait_for(lambda: got, "the first notice to be on its way")
        second = cli.submit("python", "train.py")
        assert cli.until(second, "finished")["end"]["exit_code"] == 0
        wait_for(lambda: "notice about run" in cli.server_log(), "the notice to be given up")


def test_removed_runs_come_back_until_they_are_gone(cli: Cli) -> None:
    run_id = cli.submit("python", "train.py")
    run = cli.until(run_id, "finished")
    cli.call("rm", run_id)
    assert cli.json("ls") == []
    assert not Path(run["run_dir"]).exists()
    cli.call("rm", "--undo", run_id)
    assert cli.show(run_id)["files"] == "here"
    assert (Path(run["run_dir"]) / "model.txt").exists()
    cli.call("rm", "--now", run_id)
    assert "no run" in cli.call("show", run_id, code=1).stderr
    assert not Path(run["run_dir"]).exists()


def test_a_running_run_cannot_be_removed(cli: Cli) -> None:
    run_id = cli.submit("python", "train.py", "--sleep", "600")
    cli.until(run_id, "running")
    assert "kill" in cli.call("rm", run_id, code=1).stderr
    assert cli.show(run_id)["state"] == "running"
    cli.call("kill", "--now", run_id)
    cli.until(run_id, "killed")


def test_a_directory_removed_by_hand_is_said_to_be_gone(cli: Cli) -> None:
    run = cli.until(cli.submit("python", "train.py"), "finished")
    shutil.rmtree(Path(run["run_dir"]).parent)
    assert cli.show(run["id"])["files"] == "gone"
    assert "gone" in cli.out("show", run["id"])
    assert "is gone" in cli.call("logs", run["id"], code=1).stderr
    assert "are gone" in cli.call("get", run["id"], "model.json", code=1).stderr


def test_gc_says_what_it_would_free_and_thinned_code_comes_back(cli: Cli, tmp_path: Path) -> None:
    run = cli.until(cli.submit("python", "train.py"), "finished")
    script = Path(run["run_dir"]) / "train.py"
    assert "1 run" in cli.out("gc")
    assert script.exists()
    cli.call("gc", "--yes")
    assert not script.exists()
    assert (Path(run["run_dir"]) / "model.txt").exists()
    assert cli.show(run["id"])["files"] == "thinned"
    cli.call("checkout", run["id"], str(tmp_path / "code"))
    assert (tmp_path / "code" / "train.py").read_text() == (cli.cwd / "train.py").read_text()


def test_checkpoints_are_thinned_by_a_pattern(cli: Cli) -> None:
    configure(cli, 'checkpoints = ["*.pt"]\n')
    script = "import time\nfor i in range(3): open(f'e{i}.pt', 'w').write('x'); time.sleep(0.02)"
    run = cli.until(cli.submit("python", "-c", script), "finished")
    assert "e0.pt" in cli.out("gc", "--checkpoints")
    cli.call("gc", "--checkpoints", "--yes")
    assert sorted(path.name for path in Path(run["run_dir"]).glob("*.pt")) == ["e2.pt"]
    assert [output["path"] for output in cli.show(run["id"])["outputs"]] == ["e2.pt"]


def test_rerun_repeats_the_code_with_other_parameters(cli: Cli) -> None:
    first = cli.submit("python", "train.py", "--lr", "0.1")
    cli.until(first, "finished")
    script = cli.cwd / "train.py"
    script.write_text(script.read_text().replace("version 1", "version 2"))
    again = cli.json("rerun", first, "--set", "lr=0.5")["id"]
    cli.until(again, "finished")
    assert cli.out("logs", again) == "lr 0.5 version 1\n"
    now = cli.json("rerun", first, "--code", "now")["id"]
    cli.until(now, "finished")
    assert cli.out("logs", now) == "lr 0.1 version 2\n"
    assert "version 2" in cli.out("diff", first, ".")
    assert "version 2" in cli.out("diff", first, now)


def test_what_is_said_of_a_run_can_be_changed(cli: Cli) -> None:
    run_id = cli.submit("--hold", "python", "train.py")
    cli.call("note", run_id, "a better message")
    cli.call("tag", run_id, "-t", "good")
    cli.call("rename", run_id, "best-one")
    cli.call("move", run_id, "-p", "elsewhere")
    for name, word in (("@last", "@"), (run_id, "id"), ("a/b", "slash")):
        assert word in cli.call("rename", run_id, name, code=2).stderr
    run = cli.show("best-one")
    assert (run["message"], run["tags"], run["project"]) == ("a better message", ["good"], "elsewhere")
    kinds = [event["kind"] for event in cli.api("GET", f"/api/v1/runs/{run_id}/events")["events"]]
    assert kinds.count("edited") == 4


def test_a_backup_restores_into_an_empty_home(cli: Cli, tmp_path: Path) -> None:
    run = cli.until(cli.submit("-m", "kept", "python", "train.py"), "finished")
    cli.call("backup", str(tmp_path / "b.tgz"))
    assert "stop" in cli.call("restore", str(tmp_path / "b.tgz"), code=1).stderr
    cli.call("stop")
    fresh = cli.home.with_name(cli.home.name + "-new")
    other = Cli(fresh, cli.cwd)
    try:
        other.call("restore", str(tmp_path / "b.tgz"))
        again = other.json("show", run["id"])
        assert (again["message"], again["state"], again["files"]) == ("kept", "finished", "gone")
        other.call("checkout", run["id"], str(tmp_path / "code"))
        assert (tmp_path / "code" / "train.py").read_text() == (cli.cwd / "train.py").read_text()
        other.call("stop")
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    assert git(cli.cwd, "status", "--porcelain") == ""
