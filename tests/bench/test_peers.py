"""Programs are measured with all that they start, and what is not there is not measured."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import peers
from bench.common import Report
from bench.processes import ProgramError, cpu_in_turn, cpu_of, tree
from bench.readers import beside

ENV = {"PATH": "/usr/bin:/bin"}
BUSY = "import time\nend = time.process_time() + %s\nwhile time.process_time() < end: pass\n"
STARTS = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", %r], start_new_session=True)
print("done")
"""


def test_what_a_program_leaves_behind_is_waited_for_and_counted(tmp_path: Path) -> None:
    alone = tree([sys.executable, "-c", "print('done')"], ENV, tmp_path)
    found = tree([sys.executable, "-c", STARTS % (BUSY % 0.3)], ENV, tmp_path)
    assert alone.output == found.output == "done\n"
    assert found.cpu >= alone.cpu + 0.25
    assert found.wall_all >= 0.3 and found.wall_all > found.wall


def test_processor_time_is_not_time_on_the_clock(tmp_path: Path) -> None:
    sleeps = [sys.executable, "-c", "import time; time.sleep(0.5)"]
    works = [sys.executable, "-c", BUSY % 0.3]
    assert cpu_of(works, ENV, tmp_path) >= 0.3
    taken = cpu_in_turn({"sleeps": (sleeps, ENV, tmp_path), "works": (works, ENV, tmp_path)}, 3)
    assert taken["works"][0].median >= 0.3 and len(taken["works"][0].values) == 3
    assert taken["sleeps"][0].median < 0.3 and taken["sleeps"][1].median >= 0.5


def test_a_program_that_fails_or_hangs_is_an_error(tmp_path: Path) -> None:
    fails = [sys.executable, "-c", "raise SystemExit('so it is')"]
    for measured in (tree, cpu_of):
        with pytest.raises(ProgramError, match="so it is"):
            measured(fails, ENV, tmp_path)
    begun = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        tree([sys.executable, "-c", "import time; time.sleep(60)"], ENV, tmp_path, timeout=0.5)
    assert time.monotonic() - begun < 30


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A peer that is installed: this very Python."""
    monkeypatch.setattr(peers, "PLACE", tmp_path)
    (tmp_path / "this" / "bin").mkdir(parents=True)
    (tmp_path / "this" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "this" / "ready").touch()
    return "this"


def test_a_peer_runs_in_an_empty_directory_and_says_what_it_took(peer: str) -> None:
    code = (
        "import json, os, sys\nopen('out', 'w').write('x' * 1000)\n"
        "print(json.dumps({'said': sys.argv[1:], 'home': os.environ['HOME']}))"
    )
    said = peers.run(peer, code, "1", "2")
    assert said["said"] == ["1", "2"] and said["disk"] == 1000 and said["tree_cpu"] > 0
    assert not Path(said["home"]).exists()
    for bad, why in (("raise SystemExit('no')", "this failed: no"), ("pass", "no result")):
        with pytest.raises(peers.PeerError, match=why):
            peers.run(peer, bad)


def test_a_peer_that_does_not_install_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PLACE", tmp_path / "peers")
    monkeypatch.setitem(peers.REQUIREMENTS, "nothing", [str(tmp_path / "no-such-directory")])
    report = Report("any", quick=True, results=tmp_path)
    beside(report, "nothing", "print('{}')", 1, {"all": ("nothing: all", 1.0)})
    (row,) = report.rows
    assert row["met"] == "not measured" and "does not install" in row["why"]
    assert report.finish() == 0
