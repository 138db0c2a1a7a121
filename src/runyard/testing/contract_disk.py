"""Contract: what is given back of the disk, and what never is."""

from __future__ import annotations

import errno
import os
import shutil
from typing import Any

import pytest

from runyard.testing.contract_files import output, started
from runyard.testing.contract_lease import LONG_S, lost
from runyard.testing.stage import ME, Stage
from runyard.wire import states
from runyard.wire.errors import ConflictError, NotFoundError
from runyard.wire.ids import RUN_ID_LENGTH
from runyard.wire.tree import describe, write_manifest


def code_of(stage: Stage, run_id: str) -> str:
    """Lay out the code of a run as an agent does: one file, and the manifest that names it; return its path."""
    top = stage.run(run_id)["run_dir"]
    os.makedirs(top)
    path = os.path.join(top, "train.py")
    with open(path, "wb") as file:
        file.write(b"pass\n")
    # What `git hash-object` says of it.
    oid = "2ae28399f5fda2dfb1b04405f4a3b4895f5fac1e"
    records = describe(os.fsencode(top), {b"train.py": oid})
    write_manifest(os.path.join(os.path.dirname(top), ".runyard", "manifest"), records)
    return path


def checkpoints(stage: Stage, patterns: list[str], *paths: str, shared: bool = True) -> tuple[str, str]:
    """Let a run write these files, each newer than the one before, and end; return run and working tree."""
    stage.inner.context.settings = {**stage.inner.context.settings, "checkpoints": patterns}
    run_id, agent, attempt = started(stage, shared_home="/home" if shared else None)
    top = stage.run(run_id)["run_dir"]
    stage.yard.report_outputs(attempt, [output(path, 3, 1_000_000 * n, "model") for n, path in enumerate(paths, 1)])
    for n, path in enumerate(paths, 1):
        place = os.path.join(top, path) if shared else stage.inner.upload_place(attempt, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as file:
            file.write(b"abc")
        if shared:
            os.utime(place, (n, n))
        else:
            stage.inner.uploaded(attempt, path, place)
    agent.end(attempt)
    return run_id, top


def removed(stage: Stage, run_id: str) -> list[str]:
    """Thin checkpoints; return which are removed, and that no other is forgotten."""
    before = {item["path"] for item in stage.yard.outputs(run_id, ME)}
    found = stage.yard.gc({"do": False, "checkpoints": True}, ME)["checkpoints"]
    assert stage.yard.gc({"do": True, "checkpoints": True}, ME)["checkpoints"] == found
    gone = {item["path"] for item in found["files"]}
    assert {item["path"] for item in stage.yard.outputs(run_id, ME)} == before - gone
    top = stage.run(run_id)["run_dir"]
    assert not any(os.path.lexists(os.path.join(top, path)) for path in gone)
    assert found["bytes"] == 3 * len(gone)
    return sorted(gone)


def trashed(stage: Stage) -> str:
    """Return a run that is in the trash with a file."""
    run_id = stage.submit()
    code_of(stage, run_id)
    stage.yard.kill(run_id, False, ME)
    stage.yard.remove(run_id, False, ME)
    return run_id


def kept(stage: Stage, part: str) -> set[str]:
    """Return the runs of which there are files below ``trash/`` or ``runs/``."""
    top = os.path.join(stage.inner.context.home.path, part)
    names = os.listdir(os.path.join(top, "digits")) if os.path.isdir(os.path.join(top, "digits")) else []
    return {name.removesuffix(".deleting")[-RUN_ID_LENGTH:] for name in names}


class DiskContract:
    """`gc`, upkeep, and what is removed."""

    def test_du_counts_what_runs_downloaded(self, stage: Stage) -> None:
        before = stage.yard.du()["total"]
        os.makedirs(stage.inner.context.home.downloads)
        with open(os.path.join(stage.inner.context.home.downloads, "set.bin"), "wb") as file:
            file.write(bytes(1 << 20))
        found = stage.yard.du()
        assert found["parts"]["downloads"]["bytes"] >= 1 << 20
        assert found["total"] - before >= 1 << 20

    def test_gc_leaves_code_alone_below_a_process_that_may_live(self, stage: Stage) -> None:
        run_id, agent, attempt = lost(stage, requeue=False)
        path = code_of(stage, run_id)
        stage.pass_time(LONG_S)
        assert (stage.state(run_id), stage.run(run_id)["end"]["reason"]) == (states.LOST, states.HOST_LOST)
        assert stage.yard.gc({"do": True, "checkpoints": True}, ME)["code"]["files"] == 0
        assert os.path.exists(path)
        agent.heartbeat()
        assert (stage.state(run_id), stage.run(run_id)["files"]) == (states.RUNNING, "here")
        agent.end(attempt)
        assert stage.yard.gc({"do": True}, ME)["code"]["files"] == 1
        assert (os.path.exists(path), stage.run(run_id)["files"]) == (False, "thinned")

    def test_what_cannot_be_deleted_of_a_removed_run_is_not_lost(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second, third = trashed(stage), trashed(stage), trashed(stage)

        def rmtree(path: str, **_how: Any) -> None:
            if third not in path:
                raise PermissionError(errno.EACCES, "somebody else's files", path)
            real(path)

        real = shutil.rmtree
        monkeypatch.setattr(shutil, "rmtree", rmtree)
        with pytest.raises(ConflictError, match="not all of its files"):
            stage.yard.remove(first, True, ME)
        stage.clock.advance(8 * 86400.0)
        stage.inner.upkeep(lambda: False)
        for run_id in (first, second, third):
            with pytest.raises(NotFoundError):
                stage.run(run_id)
        assert kept(stage, "trash") == {first, second}
        monkeypatch.undo()
        stage.inner.upkeep(lambda: False)
        assert (kept(stage, "trash"), kept(stage, "runs")) == (set(), set())

    def test_a_crash_while_a_run_goes_to_the_trash_leaves_nothing_behind(self, stage: Stage) -> None:
        run_id = trashed(stage)
        here = os.path.dirname(stage.run(run_id)["run_dir"])
        os.rename(here, os.path.join(stage.inner.context.home.runs, "digits", os.path.basename(here)))
        stage.clock.advance(8 * 86400.0)
        stage.inner.upkeep(lambda: False)
        assert (kept(stage, "trash"), kept(stage, "runs")) == (set(), set())
        assert stage.yard.runs({"trashed": True}, ME)["runs"] == []

    @pytest.mark.parametrize("wrong", ["manifest", "directory"])
    def test_a_run_that_cannot_be_thinned_holds_up_no_other(
        self, stage: Stage, wrong: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stage.inner.context.settings = {**stage.inner.context.settings, "keep_code": "never"}
        ids, paths, agent = [], [], stage.agent(shared_home="/home")
        for _ in range(3):
            ids.append(stage.submit())
            attempt = agent.take_and_start()
            paths.append(code_of(stage, ids[-1]))
            with open(os.path.join(stage.run(ids[-1])["run_dir"], "out.txt"), "wb") as file:
                file.write(b"abc")
            stage.yard.report_outputs(attempt, [output("out.txt")])
            agent.end(attempt)
        if wrong == "manifest":
            with open(os.path.join(os.path.dirname(paths[0]), "..", ".runyard", "manifest"), "wb") as file:
                file.write(bytes(100))
        else:
            real = os.unlink

            def unlink(path: Any, **how: Any) -> None:
                if os.fsdecode(path) == paths[0]:
                    raise PermissionError(errno.EACCES, "a read-only directory", paths[0])
                real(path, **how)

            monkeypatch.setattr(os, "unlink", unlink)
        stage.clock.advance(1)
        assert stage.yard.gc({"do": False}, ME)["code"]["runs"] == (2 if wrong == "manifest" else 3)
        stage.inner.upkeep(lambda: False)
        assert [os.path.exists(path) for path in paths] == [True, False, False]
        assert [stage.run(run_id)["files"] for run_id in ids] == ["here", "thinned", "thinned"]
        assert all(stage.yard.outputs(run_id, ME)[0]["sha256"] for run_id in ids)
        found = stage.yard.gc({"do": True}, ME)
        assert (found["skipped"], found["code"]["runs"]) == (1, 0)

    @pytest.mark.parametrize("shared", [True, False])
    def test_the_newest_checkpoint_of_each_directory_stays(self, stage: Stage, shared: bool) -> None:
        paths = ("a.pt", "fold1/a.pt", "fold2/a.pt", "fold1/b.pt", "b.pt", "fold2/notes.txt")
        run_id, _top = checkpoints(stage, ["*.pt"], *paths, shared=shared)
        assert removed(stage, run_id) == ["a.pt", "fold1/a.pt"]
        assert removed(stage, run_id) == []

    def test_a_pattern_with_a_slash_keeps_the_newest_of_all(self, stage: Stage) -> None:
        run_id, _top = checkpoints(stage, ["step-*/*.pt"], "step-1/a.pt", "step-2/a.pt", "x.pt")
        assert removed(stage, run_id) == ["step-1/a.pt"]

    def test_checkpoints_that_were_moved_and_linked_back_stay(self, stage: Stage) -> None:
        run_id, top = checkpoints(stage, ["*.pt"], "ckpt/a.pt", "ckpt/b.pt", "a.pt", "b.pt", "c.pt")
        other = os.path.join(stage.inner.context.home.path, "large-disk")
        os.rename(os.path.join(top, "ckpt"), other)
        os.symlink(other, os.path.join(top, "ckpt"))
        os.rename(os.path.join(top, "a.pt"), os.path.join(other, "c.pt"))
        os.symlink(os.path.join(other, "c.pt"), os.path.join(top, "a.pt"))
        assert removed(stage, run_id) == ["b.pt"]
        assert sorted(os.listdir(other)) == ["a.pt", "b.pt", "c.pt"]

    @pytest.mark.parametrize("how", ["size", "time"])
    def test_a_file_that_took_the_place_of_a_checkpoint_stays(self, stage: Stage, how: str) -> None:
        run_id, top = checkpoints(stage, ["*.pt"], "a.pt", "b.pt", "c.pt")
        path = os.path.join(top, "a.pt")
        with open(path, "wb") as file:
            file.write(b"more" if how == "size" else b"abc")
        if how == "size":
            os.utime(path, (1, 1))
        assert removed(stage, run_id) == ["b.pt"]
        assert os.path.exists(path)
