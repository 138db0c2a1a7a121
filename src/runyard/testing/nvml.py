"""A fake NVIDIA library for tests: built from C, loaded by the real binding through LD_LIBRARY_PATH."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from runyard.wire.files import write_atomic

SOURCE = Path(__file__).with_name("fake_nvml.c")
LIBRARY = "libnvidia-ml.so.1"


def compiler() -> str | None:
    """Return the C compiler of this machine, None when it has none."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


class FakeNvml:
    """One copy of the library in a directory of its own, and the GPUs that it shows.

    `lines` are lists of words as described in fake_nvml.c, one per GPU. Programs see it with ``LD_LIBRARY_PATH``
    set to `directory`. Raises OSError or subprocess.CalledProcessError when it cannot be built.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lines: list[dict[str, object]] = []
        build(directory / LIBRARY)
        self.write()

    def show(self, *gpus: dict[str, object]) -> None:
        """Show these GPUs from the next call on."""
        self.lines = [dict(gpu) for gpu in gpus]
        self.write()

    def change(self, index: int, **words: object) -> None:
        """Change words of one GPU; None removes a word."""
        line = self.lines[index]
        line.update(words)
        self.lines[index] = {name: value for name, value in line.items() if value is not None}
        self.write()

    def write(self, *more: str) -> None:
        """Write the state file; ``more`` are further lines, such as ``init=9``."""
        rows = [" ".join(f"{name}={value}" for name, value in line.items()) for line in self.lines]
        write_atomic(str(self.directory / "gpus"), "".join(f"{row}\n" for row in [*more, *rows]).encode())


def build(target: Path) -> None:
    """Compile the library to a path."""
    found = compiler()
    if found is None:
        raise FileNotFoundError("there is no C compiler on PATH")
    subprocess.run(
        [found, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}", "-o", target, SOURCE, "-ldl"],
        check=True,
    )
