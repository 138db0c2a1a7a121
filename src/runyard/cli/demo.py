"""``demo``: a small repository in a temporary directory, and what Runyard does with it. Offline, under a minute."""

from __future__ import annotations

import importlib.resources
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from runyard.cli import common, follow, text
from runyard.client.api import Api
from runyard.wire.errors import UnavailableError

NAME = "iris-demo"
DEADLINE_S = 120.0
TRAIN = ("python", "train.py", "--epochs", "40")
BEFORE, AFTER = "MOMENTUM = 0.0", "MOMENTUM = 0.9"


class Demo:
    """The repository of the demo, and the commands that are shown while they run."""

    def __init__(self, top: Path, api: Api) -> None:
        self.top = top
        self.api = api
        # `python` is to be the one that Runyard runs in, whatever the user's shell has; the demo needs no packages.
        path = "%s%s%s" % (os.path.dirname(sys.executable), os.pathsep, os.environ.get("PATH", ""))
        self.environ = {**os.environ, "PATH": path}
        self.deadline = time.monotonic() + DEADLINE_S

    def make_repository(self) -> None:
        """Copy the demo's files and commit them, with no setting of the user's git."""
        with importlib.resources.as_file(importlib.resources.files("runyard") / "demo" / "iris") as files:
            shutil.copytree(files, self.top, ignore=shutil.ignore_patterns("__pycache__"))
        who = ["-c", "user.name=Demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false"]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | {"GIT_CONFIG_GLOBAL": os.devnull}
        for words in (["init", "-q", "-b", "main"], ["add", "."], [*who, "commit", "-q", "-m", "Start"]):
            subprocess.run(["git", *words], cwd=self.top, env=environ, check=True)

    def title(self, line: str) -> None:
        """Say what comes next."""
        click.echo("\n%s" % line)

    def show(self, *words: str) -> None:
        """Show a command and what it prints."""
        click.echo("$ runyard " + text.command_line(words))
        subprocess.run([sys.executable, "-m", "runyard.cli", *words], cwd=self.top, env=self.environ, check=True)

    def submit(self, message: str, *words: str, hold: bool = False) -> str:
        """Queue a run and return its id."""
        self.show("-m", message, *(["--hold"] if hold else []), *TRAIN, *words)
        return str(self.api.run("@last")["id"])

    def wait(self, *ids: str) -> None:
        """Wait until the runs have ended."""
        for run_id in ids:
            run = self.api.run(run_id)
            while not follow.has_ended(run):
                left = self.deadline - time.monotonic()
                if left <= 0:
                    why = text.reasons(run.get("wait_reasons") or []) or run["state"]
                    raise UnavailableError("run %s has not ended in time: %s" % (run_id, why), "runyard doctor")
                run = self.api.wait(run_id, min(left, 5.0))


@common.command(
    "demo", help="See it work: queue, edit, fail, compare; a small model in plain Python. Offline, under a minute."
)
def demo() -> int:
    """Show what Runyard does."""
    top = Path(tempfile.mkdtemp(prefix="runyard-demo-")) / NAME
    with common.server() as api:
        shown = Demo(top, api)
        shown.make_repository()
        _play(shown)
        status = api.status()
    click.echo("\nThe page: %s  (runyard open lets your browser in)" % status.get("url"))
    click.echo("The repository is %s: go there and try `runyard -f python train.py --hidden 8`." % top)
    click.echo("To remove it all: rm -r %s; runyard rm $(runyard ls -q -p %s)" % (top.parent, NAME))
    return 0


def _play(demo: Demo) -> None:
    demo.title("1. Three runs with different parameters. train.py knows nothing of Runyard.")
    runs = [
        demo.submit("small steps", "--lr", "0.005"),
        demo.submit("larger steps", "--lr", "0.05"),
        demo.submit("no hidden layer", "--lr", "0.05", "--hidden", "0"),
    ]
    demo.title("2. One that fails: its data is not there.")
    failing = demo.submit("missing data", "--data", "missing.csv")
    demo.title("3. One that waits while train.py is edited: it will run the code as it was when it was queued.")
    held = demo.submit("before the edit", "--lr", "0.02", hold=True)
    script = demo.top / "train.py"
    script.write_text(script.read_text().replace(BEFORE, AFTER))
    click.echo("(train.py edited: %s -> %s)" % (BEFORE, AFTER))
    edited = demo.submit("after the edit", "--lr", "0.02")
    demo.show("release", held)
    demo.wait(*runs, failing, held, edited)
    demo.title("4. What the failed run said, and what the edit changed.")
    demo.show("logs", "-n", "1", failing)
    demo.show("diff", held, edited)
    for run_id in (held, edited):
        demo.show("logs", "-n", "1", run_id)
    demo.title("5. All runs, and the files that one of them wrote.")
    demo.show("ls", "-p", NAME)
    demo.show("outputs", edited)


COMMANDS = {"demo": demo}
