"""Write requirements/lock.txt: the newest versions that pip offers for Runyard, its extras and its tools.

Usage: python tools/lock.py
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
LOCK = TOP / "requirements" / "lock.txt"
HEADER = "# Written by `make lock`; used as a constraint file. See requirements/README.md.\n"


def resolve() -> dict[str, str]:
    """Return ``{normalised name: version}`` of what ``pip install .[dev]`` would install; raises CalledProcessError."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "-qq", "--dry-run", "--ignore-installed"),
                *("--report", report.name, f"{TOP}[dev]"),
            ],
            check=True,
        )
        items = json.load(report)["install"]
    found = {normalise(item["metadata"]["name"]): item["metadata"]["version"] for item in items}
    del found["runyard"]
    return found


def normalise(name: str) -> str:
    """Return the normalised name of a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Resolve and write the file."""
    pins = "".join(f"{name}=={version}\n" for name, version in sorted(resolve().items()))
    LOCK.write_text(HEADER + pins, encoding="utf-8")
    print(f"wrote {LOCK.relative_to(TOP)}")


if __name__ == "__main__":
    main()
