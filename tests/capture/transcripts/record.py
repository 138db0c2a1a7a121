"""Run each program beside this file through a pipe and through a terminal, and keep what it prints.

`python record.py [NAME...]`, with the Python of an environment that has the libraries (see README). NAME.times says when
the bytes through the terminal came: offset and microseconds since the first, one pair a line.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = {
    "keras": ["keras_fit.py"],
    "lightning": ["lightning_fit.py"],
    "lightning_rich": ["lightning_fit.py", "rich"],
    "hf_trainer": ["hf_trainer.py"],
    "tqdm": ["tqdm_bars.py"],
    "tqdm_steady": ["tqdm_steady.py"],
    "pytorch": ["pytorch_examples.py"],
}


def main() -> None:
    for name in sys.argv[1:] or PROGRAMS:
        program, *words = PROGRAMS[name]
        command = [sys.executable, "-u", str(HERE / program), *words]
        for way in ("pipe", "pty"):
            said, times = through_pipe(command) if way == "pipe" else through_pty(command)
            if name == "tqdm_steady" and way == "pty":
                (HERE / f"{name}.times").write_text("".join(f"{offset} {at}\n" for offset, at in times))
            for place, other in ((sys.prefix, "/env"), (str(HERE), "/code")):
                said = said.replace(place.encode(), other.encode())
            said = re.sub(rb"https://[\w./]+", b"https://example.org/", said)
            (HERE / f"{name}.{way}.log").write_bytes(said)
            print(f"{name}.{way}.log: {len(said)} bytes")


def environment() -> dict[str, str]:
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**keep, "PYTHONUNBUFFERED": "1", "TERM": "xterm-256color", "COLUMNS": "100", "HF_HUB_OFFLINE": "1"}


def through_pipe(command: list[str]) -> tuple[bytes, list[tuple[int, int]]]:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(), check=True)
    return done.stdout, []


def through_pty(command: list[str]) -> tuple[bytes, list[tuple[int, int]]]:
    """Return what it prints on a terminal of 100 columns that changes no line ends (OPOST off)."""
    ours, its = pty.openpty()
    modes = termios.tcgetattr(its)
    modes[1] &= ~termios.OPOST
    termios.tcsetattr(its, termios.TCSANOW, modes)
    termios.tcsetwinsize(its, (40, 100))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=its, stderr=its, env=environment()) as process:
        os.close(its)
        parts: list[bytes] = []
        times: list[tuple[int, int]] = []
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # EIO: the last one that had it open is gone
                break
            if not part:
                break
            times.append((sum(map(len, parts)), time.monotonic_ns() // 1000))
            parts.append(part)
    os.close(ours)
    if process.returncode:
        raise SystemExit(f"{command} failed:\n{b''.join(parts).decode(errors='replace')}")
    return b"".join(parts), [(offset, at - times[0][1]) for offset, at in times]


if __name__ == "__main__":
    main()
