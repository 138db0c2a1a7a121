"""The parts of the agent that need no process: checks, paths, slots, caches, the copy of the client half."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import tarfile
import threading
import venv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runyard.agent import assignment, environment, gpulock, outputs, slots
from runyard.agent.gpus import chosen
from runyard.agent.keep import Keeper
from runyard.agent.link import BACKOFF_FIRST_S, Backoff
from runyard.agent.owners import owner
from runyard.agent.stage import CACHED_TREES, TreeCache
from runyard.wire import procs, states
from runyard.wire.errors import InvalidError, UnavailableError
from tests.agent.fake_server import assignment as make_assignment
from tests.agent.fake_server import wait_for

words = st.text(st.sampled_from("ab/.:-"), max_size=8)


# -- assignments


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
@settings(max_examples=30, deadline=None)
def test_nonsense_is_refused_and_never_crashes(value: object) -> None:
    with pytest.raises(InvalidError):
        assignment.check(value)


@given(
    field=st.sampled_from(sorted(make_assignment("0" * 40, ["a"]))),
    value=st.none() | st.integers() | st.lists(st.none()),
)
def test_a_wrong_field_never_crashes(field: str, value: object) -> None:
    made = make_assignment("0" * 40, ["a"])
    made[field] = value
    try:
        assignment.check(made)
    except InvalidError:
        pass


@pytest.mark.parametrize(
    "path", ["../x", "/x", "a/../../b", "a\0b", ""],
)  # fmt: skip
def test_the_directory_stays_in_the_home(path: str) -> None:
    with pytest.raises(InvalidError):
        assignment.check(make_assignment("0" * 40, ["a"], dir=path))


@given(path=words)
def test_paths_of_the_spec_stay_in_the_runs_directory(path: str) -> None:
    for changes in (
        {"cwd": path},
        {"links": [{"path": path, "target": "/t"}]},
        {"also": [{"path": path, "source": "/s"}]},
    ):
        made = make_assignment("0" * 40, ["a"])
        made["spec"].update(changes)
        try:
            assignment.check(made)
        except InvalidError:
            continue
        top = "/h/run/tree"
        allowed = top if "cwd" in changes else "/h/run"
        assert (os.path.normpath(os.path.join(top, path)) + "/").startswith(allowed + "/")


@pytest.mark.parametrize("kind", ["links", "also", "adopt"])
@pytest.mark.parametrize("path", ["", ".", "..", "../", "a//b", "a/", "./a", "a/.git/x", "../.runyard/x", "a\0b"])
def test_nothing_is_put_where_it_has_no_place(kind: str, path: str) -> None:
    made = make_assignment("0" * 40, ["a"])
    made["spec"][kind] = [{"path": path, "target": "/t", "source": "/s"}]
    with pytest.raises(InvalidError, match="nothing can be put"):
        assignment.check(made)
    made["spec"][kind][0]["path"] = "a/b"
    assignment.check(made)
    made["spec"][kind][0]["path"] = "../b"
    if kind == "adopt":  # what is handed on is in the tree
        with pytest.raises(InvalidError):
            assignment.check(made)
    else:
        assignment.check(made)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".runyard"])
def test_the_name_of_the_working_tree_is_a_name(name: str) -> None:
    with pytest.raises(InvalidError):
        assignment.check(make_assignment("0" * 40, ["a"], spec_repo_name=name))


# -- environment


@given(given=st.none() | st.lists(words).map(":".join), first=st.lists(st.sampled_from(["src", "lib/x", "."])))
def test_python_path_never_has_an_empty_entry_and_keeps_the_order(given: str | None, first: list[str]) -> None:
    path = environment.python_path(given, "/tree", "/tree/sub", "/source", first)
    if path is None:
        assert not given
        assert not first
        return
    entries = path.split(":")
    assert "" not in entries
    assert len(entries) == len(set(entries))
    wanted = [os.path.normpath("/tree/" + part) for part in first]
    assert entries[: len(set(wanted))] == list(dict.fromkeys(wanted))


def test_paths_of_the_source_become_paths_of_the_tree(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "src").mkdir(parents=True)
    (tree / "data").symlink_to("/etc")
    source = "/home/u/digits"
    assert environment.frozen(source + "/src", source, str(tree)) == str(tree / "src")
    assert environment.frozen(source, source, str(tree)) == str(tree)
    assert environment.frozen(source + "/.venv/bin", source, str(tree)) == source + "/.venv/bin", "not in the tree"
    assert environment.frozen(source + "/data", source, str(tree)) == source + "/data", "leads out of the tree"
    assert environment.frozen("/home/u/digits2/src", source, str(tree)) == "/home/u/digits2/src"


def test_a_program_of_the_tree_is_the_frozen_one(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("")
    spec: dict[str, Any] = {
        "command": ["./run.sh", "-x"],
        "program": "/home/u/digits/run.sh",
        "source": "/home/u/digits",
    }
    assert environment.argv(spec, str(tmp_path)) == (str(tmp_path / "run.sh"), ["./run.sh", "-x"])
    spec = {"command": ["python", "a.py"], "program": "/home/u/digits/.venv/bin/python", "source": "/home/u/digits"}
    assert environment.argv(spec, str(tmp_path)) == ("/home/u/digits/.venv/bin/python", ["python", "a.py"])


def test_the_python_of_a_venv_given_by_a_relative_path_is_that_of_the_venv(tmp_path: Path) -> None:
    source, tree = tmp_path / "digits", tmp_path / "tree"
    tree.mkdir()
    venv.create(source / ".venv", with_pip=False)
    python = str(source / ".venv/bin/python")
    for word in (".venv/bin/python", "../digits/.venv/bin/python"):
        spec = {"command": [word, "-c", "import sys; print(sys.prefix)"], "program": python, "source": str(source)}
        program, argv = environment.argv(spec, str(tree))
        done = subprocess.run(argv, executable=program, cwd=tree, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(source / ".venv"), word
    in_place = environment.argv({"command": [".venv/bin/python"], "program": python, "source": str(source)}, "")
    assert in_place == (python, [".venv/bin/python"]), "as typed: it starts where it was typed"


def test_ports_are_given_once() -> None:
    taken: list[int] = []
    for _ in range(50):
        taken.append(environment.free_port(taken))
    assert len(set(taken)) == 50
    assert all(environment.FIRST_PORT <= port <= environment.LAST_PORT for port in taken)


# -- slots


def _cgroup(tmp_path: Path, membership: str, **values: str) -> tuple[str, str]:
    for name, value in values.items():
        path = (
            tmp_path
            / "cg"
            / name.replace("__", "/").replace("_max", ".max").replace("cfs", "cpu.cfs").replace("limit", "memory.limit")
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")
    (tmp_path / "membership").write_text(membership)
    return str(tmp_path / "cg"), str(tmp_path / "membership")


def test_the_tightest_cgroup_counts(tmp_path: Path) -> None:
    root, membership = _cgroup(tmp_path, "0::/a/b\n", a__cpu_max="250000 100000", a__b__cpu_max="max 100000")
    assert slots.cgroup_cpus(root, membership) == 2.5
    root, membership = _cgroup(tmp_path, "0::/a/b\n", a__b__memory_max="1048576", a__memory_max="max")
    assert slots.cgroup_memory(root, membership) == 1048576


def test_cgroup_version_1(tmp_path: Path) -> None:
    root, membership = _cgroup(
        tmp_path, "4:cpu,cpuacct:/job\n3:memory:/job\n", cpu__job__cfs_quota_us="150000",
        cpu__job__cfs_period_us="100000", memory__job__limit_in_bytes="2097152",
    )  # fmt: skip
    assert slots.cgroup_cpus(root, membership) == 1.5
    assert slots.cgroup_memory(root, membership) == 2097152


def test_no_cgroup_no_limit(tmp_path: Path) -> None:
    assert slots.cgroup_cpus(str(tmp_path), str(tmp_path / "none")) is None
    assert slots.cgroup_memory(str(tmp_path), str(tmp_path / "none")) is None


def test_affinity_counts() -> None:
    one = min(os.sched_getaffinity(0))
    code = "import os; os.sched_setaffinity(0, {%d}); from runyard.agent import slots; print(slots.cores())" % one
    root = str(Path(slots.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, env={"PYTHONPATH": root}, check=True)
    assert done.stdout == b"1\n"


@pytest.mark.parametrize(
    ("setting", "cores", "count", "threads"),
    [(-1, 2, 1, 2), (-1, 64, 16, 4), (-1, 10, 2, 5), (8, 2, 8, 1), (0, 8, 0, 0)],
)
def test_cpu_slots(setting: int, cores: int, count: int, threads: int) -> None:
    found = slots.cpu_slots(setting, cores)
    assert len(found) == count
    assert all(slot["threads"] == threads for slot in found)


@given(choice=st.lists(st.sampled_from(["0", "1", "GPU-a", "GPU-b", "-1", "x", ""])).map(",".join))
def test_cuda_reads_a_list_up_to_the_first_word_that_names_nothing(choice: str) -> None:
    reached: set[str] = set()
    for word in choice.split(","):
        if word in ("-1", "x", ""):
            break
        reached.add(word)
    assert chosen(choice, 0, "GPU-abc") == bool(reached & {"0", "GPU-a"})


# -- other parts


def test_backoff_grows_to_its_cap_and_starts_over() -> None:
    backoff = Backoff(3.0)
    waits = [backoff.next_s() for _ in range(40)]
    assert all(wait <= 3.0 for wait in waits)
    assert 0.5 * BACKOFF_FIRST_S <= waits[0] <= BACKOFF_FIRST_S
    assert len({round(wait, 6) for wait in waits[10:]}) > 10, "with jitter"
    assert min(waits[10:]) >= 1.5
    backoff.reset()
    assert backoff.next_s() <= 0.1


def test_outputs_are_what_is_not_the_code(tmp_path: Path) -> None:
    from runyard.wire import tree as trees
    from tests.agent.fake_server import make_tree

    name, tar = make_tree({"a.py": "1", "sub/b.py": "2", "link": "->a.py"})
    top, manifest = tmp_path / "w", str(tmp_path / "manifest")
    trees.fill(io.BytesIO(tar), str(top), name, None, "main", (), manifest)
    assert outputs.scan(str(top), [("", manifest)]) == []
    (top / "sub" / "out.png").write_bytes(b"123")
    (top / "a.py").write_text("changed")
    (top / "__pycache__").mkdir()
    (top / "__pycache__" / "x.pyc").write_text("")
    (top / "elsewhere").symlink_to("/etc")
    os.mkfifo(top / "pipe")
    found = {output["path"]: output for output in outputs.scan(str(top), [("", manifest)])}
    assert sorted(found) == ["a.py", "sub/out.png"]
    assert found["sub/out.png"]["type"] == "image"
    assert found["sub/out.png"]["size"] == 3
    assert found["a.py"]["type"] == "code"


def test_a_file_of_the_far_future_is_listed_with_a_time_that_has_a_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`touch -d @400000000000` on btrfs or NFS; ext4 holds no such time."""
    info = os.stat_result((0o100644, 0, 0, 1, 0, 0, 3, 0, 4 * 10**11, 0), {"st_mtime_ns": 4 * 10**20})
    monkeypatch.setattr(outputs, "_files", lambda top: [(b"x", info)])
    assert [found["mtime_us"] for found in outputs.scan(str(tmp_path), [])] == [states.TIMES_US[1]]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a/model.PT", "model"),
        ("x.tar.gz", "archive"),
        ("events.out.tfevents.1.host", "events"),
        ("README", "file"),
        ("a.b/c", "file"),
    ],
)
def test_types_of_outputs(path: str, kind: str) -> None:
    assert outputs.type_of(path) == kind


def test_the_cache_of_trees(tmp_path: Path) -> None:
    fetched: list[str] = []

    def download(tree: str, fd: int) -> None:
        fetched.append(tree)
        os.write(fd, tree.encode())
        if tree == "bad":
            raise UnavailableError("gone")

    cache = TreeCache(str(tmp_path / "trees"), download)
    threads = [threading.Thread(target=lambda: os.close(cache.open("t1"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetched == ["t1"]
    with pytest.raises(UnavailableError):
        cache.open("bad")
    assert sorted(os.listdir(tmp_path / "trees")) == ["t1.tar"]
    for number in range(2, CACHED_TREES + 4):
        os.close(cache.open("t%d" % number))
    assert len(os.listdir(tmp_path / "trees")) == CACHED_TREES
    (tmp_path / "trees" / "x.9.partial").write_text("")
    cache.clean()
    assert not list((tmp_path / "trees").glob("*.partial"))


def test_a_tar_that_goes_while_the_cache_is_pruned_fails_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another attempt drops it because it was damaged."""
    cache = TreeCache(str(tmp_path), lambda tree, fd: None)
    for number in range(CACHED_TREES):
        (tmp_path / ("t%d.tar" % number)).write_text("x")
    unlink = os.unlink

    def gone(path: str) -> None:
        unlink(path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", gone)
    os.close(cache.open("new"))
    assert len(os.listdir(tmp_path)) == CACHED_TREES
    cache.drop("missing")


def test_files_of_this_host_are_marked_as_used_once_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else systemd-tmpfiles removes them from /var/tmp after 30 days. They are in order of their mtime, which stays."""
    now = 1000.0
    monkeypatch.setattr(procs, "uptime_s", lambda: now)
    file = tmp_path / "attempts" / "a1" / "status.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    keeper = Keeper(str(tmp_path))
    for later, kept in ((0.0, True), (3600.0, False), (86400.0, True)):
        now = 1000.0 + later
        for path in (tmp_path, file.parent, file):
            os.utime(path, (1e9, 1e9))
        keeper.keep()
        assert [path.stat().st_atime > 1e9 for path in (tmp_path, file.parent, file)] == [kept] * 3
        assert file.stat().st_mtime == 1e9


def test_a_process_belongs_to_an_attempt_by_descent_or_by_mark() -> None:
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '30']); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=dict(os.environ, RUNYARD_ATTEMPT="a1")
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            assert owner(child, {"a0": parent.pid}) == "a0"
            wait_for(lambda: owner(child, {"a1": 0}) == "a1")  # its environment shows a moment after its execution
            assert owner(child, {"a2": 0}) is None
            assert owner(1, {"a1": 0}) is None
        finally:
            os.kill(child, 9)
            parent.kill()


# -- locks of GPUs


def test_a_gpu_lock_is_held_once_and_open_to_every_user(tmp_path: Path) -> None:
    held = gpulock.take("GPU-1", str(tmp_path))
    assert held is not None
    assert gpulock.take("GPU-1", str(tmp_path), within_s=0.0) is None
    assert gpulock.is_held("GPU-1", str(tmp_path))
    mode = stat.S_IMODE(os.stat(gpulock.lock_path("GPU-1", str(tmp_path))).st_mode)
    assert mode == 0o644
    held.release()
    assert not gpulock.is_held("GPU-1", str(tmp_path))


def test_looking_at_a_gpu_lock_keeps_it_from_those_who_remove_old_files(tmp_path: Path) -> None:
    path = gpulock.lock_path("GPU-1", str(tmp_path))
    held = gpulock.take("GPU-1", str(tmp_path))
    assert held is not None
    os.utime(path, (1.0, 1.0))
    assert gpulock.is_held("GPU-1", str(tmp_path))
    assert os.stat(path).st_atime > 1.0 or os.statvfs(path).f_flag & os.ST_NOATIME
    held.release()


def test_a_removed_lock_file_is_not_trusted(tmp_path: Path) -> None:
    """A cleaner removes the file while it is held: whoever comes next makes a new one, and both know."""
    held = gpulock.take("GPU-1", str(tmp_path))
    assert held is not None
    os.unlink(gpulock.lock_path("GPU-1", str(tmp_path)))
    again = gpulock.take("GPU-1", str(tmp_path))
    assert again is not None
    assert os.fstat(again.fd).st_ino == os.stat(gpulock.lock_path("GPU-1", str(tmp_path))).st_ino
    again.release()
    held.release()


def test_a_symlink_in_the_place_of_a_lock_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    os.symlink(target, gpulock.lock_path("GPU-1", str(tmp_path)))
    with pytest.raises(OSError, match="symbolic"):
        gpulock.take("GPU-1", str(tmp_path))


def test_a_lock_of_another_user_can_be_seen_and_not_taken_away(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to be two users")
    tmp_path.chmod(0o1777)
    for parent in tmp_path.parents:
        if parent != Path("/") and str(parent).startswith("/tmp/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    held = gpulock.take("GPU-1", str(tmp_path))
    assert held is not None
    code = (
        "import os, sys\nos.setgid(65534); os.setuid(65534)\nfrom runyard.agent import gpulock\n"
        "print(gpulock.is_held('GPU-1', sys.argv[1]), gpulock.take('GPU-1', sys.argv[1], within_s=0.0),"
        " gpulock.take('GPU-2', sys.argv[1]) is not None)"
    )
    preload = "import sys; sys.path.insert(0, %r); import runyard.agent.gpulock\n" % str(
        Path(slots.__file__).parents[2]
    )
    done = subprocess.run([sys.executable, "-c", preload + code, str(tmp_path)], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"True None True\n"
    held.release()
    mine = gpulock.take("GPU-2", str(tmp_path))
    assert mine is not None, "and root may use a file that the other user made"
    mine.release()


def test_a_hostile_tar_leaves_nothing(tmp_path: Path) -> None:
    from runyard.wire import tree as trees
    from runyard.wire.errors import SnapshotError

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../escaped"), io.BytesIO())
    with pytest.raises(SnapshotError):
        trees.fill(io.BytesIO(buffer.getvalue()), str(tmp_path / "w"), "0" * 40)
    assert os.listdir(tmp_path) == []
