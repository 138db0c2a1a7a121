"""Processor time of programs with everything that they start, even what outlives or leaves them (wait4(2), prctl(2))."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.common import Sample

REAPER = """
import ctypes, json, os, resource, sys, time
if ctypes.CDLL(None).prctl(36, 1, 0, 0, 0):  # PR_SET_CHILD_SUBREAPER
    sys.exit("not on Linux")
answer = int(sys.argv[1])
begun, wall, status = time.perf_counter(), 0.0, 0
program = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
while True:
    try:
        pid, ended = os.wait()
    except ChildProcessError:
        break
    if pid == program:
        wall, status = time.perf_counter() - begun, os.waitstatus_to_exitcode(ended)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with os.fdopen(answer, "w") as file:
    json.dump([used.ru_utime + used.ru_stime, wall, time.perf_counter() - begun, status], file)
"""
"""Adopts what the program leaves behind, and ends when all of it has ended."""


class Taken(NamedTuple):
    """What a program took, seconds: processor time of all its processes, until it ended, until all of them had."""

    cpu: float
    wall: float
    wall_all: float
    output: str


class ProgramError(Exception):
    """A program did not end well; the text is what it said."""


def tree(words: Sequence[str], env: Mapping[str, str], cwd: Path, timeout: float | None = None) -> Taken:
    """Run a program and wait for all that it starts; raises ProgramError or TimeoutExpired."""
    read, write = os.pipe()
    with os.fdopen(read) as answer:
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", REAPER, str(write), *words], env=dict(env), cwd=cwd, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[write],
            start_new_session=True,
        ) as process:  # fmt: skip
            os.close(write)
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        said = answer.read()
    cpu, wall, wall_all, status = json.loads(said) if said else (0.0, 0.0, 0.0, process.returncode)
    if status:
        raise ProgramError(err or out or f"exit status {status}")
    return Taken(cpu, wall, wall_all, out)


def cpu_of(words: Sequence[str], env: Mapping[str, str], cwd: Path) -> float:
    """Run a program; return the processor time of it and of its children that it waited for, seconds."""
    with subprocess.Popen(
        words, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        said = b"" if process.stderr is None else process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ProgramError(said.decode(errors="replace"))
    return used.ru_utime + used.ru_stime


def cpu_in_turn(
    programs: Mapping[str, tuple[Sequence[str], Mapping[str, str], Path]], rounds: int
) -> dict[str, tuple[Sample, Sample]]:
    """Run programs in turn, once to warm up and then `rounds` times; return processor time and wall time of each."""
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in programs}
    names = list(programs)
    for number in range(-1, rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            words, env, cwd = programs[name]
            begun = time.perf_counter()
            cpu = cpu_of(words, env, cwd)
            if number >= 0:
                taken[name][0].append(cpu)
                taken[name][1].append(time.perf_counter() - begun)
    return {name: (Sample(tuple(cpu)), Sample(tuple(wall))) for name, (cpu, wall) in taken.items()}
