"""What a finished run costs on disk once its unchanged code is thinned: 1,000 of them are to fit into 60 MB."""

from __future__ import annotations

from bench.disk import COMMAND, finished_and_thinned
from bench.yard import running
from tests.e2e.harness import write_repository

FIXED_BYTES, FIXED_INODES = 30_000_000, 500
"""Frozen code of 10 MB, the agent's copy of it, the client half, the database's log: whatever the number of runs."""
BYTES, INODES = (60_000_000 - FIXED_BYTES) // 1000, (20_000 - FIXED_INODES) // 1000


def test_finished_runs_cost_their_outputs_and_little_else() -> None:
    with running(4) as yard:
        files = {f"package{n % 8}/module{n}.py": "x = 1\n" * 500 for n in range(40)}
        repository = write_repository(yard.home.parent / "digits", files)
        yard.first_run(repository, *COMMAND)
        before = finished_and_thinned(yard, 12)
        after = finished_and_thinned(yard, 28)
        run = max((yard.home / "runs" / "digits").iterdir())
        assert [path.name for path in (run / "digits").iterdir()] == ["result.bin"]
        assert not list((yard.home / "launch").iterdir())
        assert not list(yard.home.glob("hosts/*/attempts/*"))
    assert (after[0] - before[0]) / 28 <= BYTES
    assert (after[1] - before[1]) / 28 <= INODES
    assert before[0] <= FIXED_BYTES / 2 + 13 * BYTES
    assert before[1] <= FIXED_INODES + 13 * INODES
