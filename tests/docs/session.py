"""Running the console blocks of a page, one after another, as its reader would."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(kw_only=True)
class Session:
    """A reader's terminal: its directory and environment last from one command to the next."""

    cwd: Path
    environ: dict[str, str]
    #: seconds that one command may take
    timeout: float = 100.0

    #: id of a run on the page -> id of the run that it stands for
    names: dict[str, str] = field(default_factory=dict)

    def remember(self, on_page: list[str], printed: list[str]) -> None:
        """The first id that the page shows for a command is the first that the command printed."""
        if on_page and printed:
            self.names.setdefault(on_page[0], printed[0])

    def named(self, command: str) -> str:
        """Return a command of the page with the ids of this session."""
        for on_page, real in self.names.items():
            command = command.replace(on_page, real)
        return command

    def run(self, command: str) -> tuple[int, str]:
        """Run one command line with bash; return its exit status, and stdout and stderr as they came."""
        marker = self.environ["HOME"] + "/.session"
        # The directory is written last, so that `cd` lasts; the status is that of the command.
        script = f'{command}\nstatus=$?\npwd -P >"{marker}"\nexit $status\n'
        with subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-c", script],
            cwd=self.cwd,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                data, _ = process.communicate(timeout=self.timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                data, _ = process.communicate()
                raise AssertionError(f"{command!r} took too long:\n{data.decode(errors='replace')}") from None
        if Path(marker).exists():
            self.cwd = Path(Path(marker).read_text(encoding="utf-8").strip())
        return process.returncode, data.decode("utf-8", "replace")
