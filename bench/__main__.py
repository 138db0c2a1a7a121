"""Run every benchmark, each in a process of its own, with the arguments given; status 1 if any missed its target."""

import subprocess
import sys
from pathlib import Path

HARNESS = {"__init__", "__main__", "common", "peers", "processes", "readers", "repository", "yard"}


def main() -> int:
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in HARNESS)
    failed = [
        n for n in names if subprocess.run([sys.executable, "-m", f"bench.{n}", *sys.argv[1:]], check=False).returncode
    ]
    if failed:
        print("missed or failed:", ", ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
