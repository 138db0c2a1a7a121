"""Frozen code comes back: archives, checkouts, damage, and thinning."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runyard.snapshot.restore import archive, checkout, open_archive
from runyard.wire import gitobjects, tree
from runyard.wire.errors import NotFoundError, SnapshotError
from runyard.wire.gitobjects import EXECUTABLE, FILE, SYMLINK, Entry
from tests.snapshot.trees import verify

if TYPE_CHECKING:
    from tests.snapshot.conftest import Repo, Yard


def git(where: Path, *args: str) -> str:
    done = subprocess.run(["git", *args], cwd=where, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_head_in_a_checkout_answers_the_parent_commit(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("a", "1")
    commit = repo.commit()
    repo.git("checkout", "-q", "-b", "feature/größe")
    frozen = yard.freeze(repo.path)
    out = yard.checkout(frozen, tmp_path / "out")
    assert git(out, "rev-parse", "HEAD") == commit
    assert git(out, "rev-parse", "--short", "HEAD") == commit[:7]
    assert git(out, "rev-parse", "--abbrev-ref", "HEAD") == "feature/größe"
    assert git(out, "rev-parse", "--show-toplevel") == str(out)
    assert sum(1 for _ in (out / ".git").rglob("*")) + 1 <= 6
    detached = tmp_path / "detached"
    checkout(yard.home, frozen.main.tree, str(detached), commit)
    assert git(detached, "rev-parse", "HEAD") == commit


def test_head_with_sha256(yard: Yard, repo: Repo, tmp_path: Path) -> None:
    path = tmp_path / "new"
    path.mkdir()
    git(path, "init", "-q", "-b", "main", "--object-format=sha256")
    (path / "a").write_text("1")
    git(path, "add", "a")
    git(path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x")
    frozen = yard.freeze(path)
    assert frozen.main.changed_paths == []
    out = yard.checkout(frozen, tmp_path / "out")
    assert git(out, "rev-parse", "HEAD") == git(path, "rev-parse", "HEAD") == frozen.main.commit


def test_checkout_needs_a_missing_or_empty_directory(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("a", "1")
    frozen = yard.freeze(repo.path)
    (tmp_path / "empty").mkdir()
    yard.checkout(frozen, tmp_path / "empty")
    for name in ("full", "file", "link"):
        path = tmp_path / name
        if name == "full":
            path.mkdir()
            (path / "mine").write_text("x")
        elif name == "file":
            path.write_text("x")
        else:
            path.symlink_to(tmp_path / "home")
        with pytest.raises(SnapshotError, match="not empty"):
            yard.checkout(frozen, path)
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine"]


def test_unknown_and_malformed_trees_are_not_found(repo: Repo, yard: Yard) -> None:
    repo.write("a", "1")
    yard.freeze(repo.path)
    for name in ("0" * 40, "../../config", "", "HEAD", "--output=/tmp/x"):
        with pytest.raises(NotFoundError):
            archive(yard.home, name)


def test_a_damaged_object_is_noticed(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("a", "1" * 5000)
    frozen = yard.freeze(repo.path)
    oid = yard.files(frozen.main.tree)[b"a"].oid
    path = Path(yard.home, "snapshots.git", "objects", oid[:2], oid[2:])
    path.chmod(0o600)
    path.write_bytes(b"")
    with pytest.raises(SnapshotError, match=r"git archive failed: .*; fatal: ") as info:
        yard.checkout(frozen, tmp_path / "out")
    assert "\n" not in str(info.value)
    assert "snapshots.git fsck" in info.value.hint
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_an_archive_that_is_not_read_to_its_end_leaves_nothing_behind(repo: Repo, yard: Yard) -> None:
    from runyard.snapshot.repository import Repository

    repo.write("a", os.urandom(3_000_000))
    frozen = yard.freeze(repo.path)
    pieces = archive(yard.home, frozen.main.tree)
    assert next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    with Repository(yard.home).lock(exclusive=True):
        pass


def tar_of(*members: tuple[str, bytes, bytes | str]) -> io.BytesIO:
    """Make a tar: (name, type, content or target)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            data = content if isinstance(content, bytes) else b""
            info.linkname = content if isinstance(content, str) else ""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out


REG, SYM, LNK, DIR, FIFO = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE


@pytest.mark.parametrize(
    "members",
    [
        [("/abs", REG, b"x")],
        [("../up", REG, b"x")],
        [("a/../../up", REG, b"x")],
        [("./a", REG, b"x")],
        [("a//b", REG, b"x")],
        [(".git/config", REG, b"x")],
        [("sub/.GIT/hooks/x", REG, b"x")],
        [("link", SYM, "/tmp"), ("link/file", REG, b"x")],
        [("link", SYM, "."), ("link/file", REG, b"x")],
        [("link", SYM, "x"), ("link", REG, b"x")],
        [("a", REG, b"x"), ("a", REG, b"y")],
        [("a", REG, b"x"), ("a/b", REG, b"y")],
        [("hard", LNK, "/etc/passwd")],
        [("pipe", FIFO, b"")],
    ],
)  # fmt: skip
def test_hostile_archives_write_nothing_outside(tmp_path: Path, members: list[tuple[str, bytes, bytes | str]]) -> None:
    inside = tmp_path / "deep" / "in"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SnapshotError):
        tree.fill(tar_of(*members), str(inside), "0" * 40)
    assert not inside.exists()
    assert [p for p in sorted(tmp_path.rglob("*")) if p not in before] in ([], [tmp_path / "deep"])


@pytest.mark.parametrize("cut", [0, 1, 100, 512, 600, 1024, 1500])
def test_a_cut_or_wrong_archive_is_refused(tmp_path: Path, cut: int) -> None:
    data = tar_of(("a", REG, b"x" * 700), ("b", REG, b"y")).getvalue()
    right = gitobjects.tree_id([Entry(b"a", FILE, gitobjects.object_id(b"blob", b"x" * 700)),
                                Entry(b"b", FILE, gitobjects.object_id(b"blob", b"y"))])  # fmt: skip
    with pytest.raises(SnapshotError):
        tree.fill(io.BytesIO(data[:cut]), str(tmp_path / "out"), right)
    assert not (tmp_path / "out").exists()
    assert tree.fill(io.BytesIO(data), str(tmp_path / "out"), right) == 2
    with pytest.raises(SnapshotError, match="not tree"):
        tree.fill(io.BytesIO(data), str(tmp_path / "other"), "0" * 40)


def test_a_fill_that_was_killed_is_begun_again(tmp_path: Path) -> None:
    partial = tmp_path / "out.partial" / "sub"
    partial.mkdir(parents=True)
    (partial / "half").write_text("x")
    right = gitobjects.tree_id([Entry(b"b", FILE, gitobjects.object_id(b"blob", b"y"))])
    tree.fill(tar_of(("b", REG, b"y")), str(tmp_path / "out"), right)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b"]


def test_what_was_sent_before_goes_over_the_code_and_nowhere_else(tmp_path: Path) -> None:
    outside, sent = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    for path in ("b", "new/deep/x", "door/x", "file/x", "d"):
        (sent / path).parent.mkdir(parents=True, exist_ok=True)
        (sent / path).write_text("sent")
    members: list[tuple[str, bytes, bytes | str]] = [
        ("b", REG, b"y"),
        ("d/e", REG, b"y"),
        ("file", REG, b"y"),
        ("door", SYM, str(outside)),
    ]
    entries = [
        Entry(b"b", FILE, gitobjects.object_id(b"blob", b"y")), Entry(b"d/e", FILE, gitobjects.object_id(b"blob", b"y")),
        Entry(b"file", FILE, gitobjects.object_id(b"blob", b"y")),
        Entry(b"door", SYMLINK, gitobjects.object_id(b"blob", os.fsencode(outside))),
    ]  # fmt: skip
    right = gitobjects.tree_id(entries)
    with pytest.raises(SnapshotError, match="not empty"):
        tree.fill(tar_of(*members), str(sent), right)
    manifest = tmp_path / "manifest"
    tree.fill(tar_of(*members), str(sent), right, manifest=str(manifest), onto=True)
    found = {str(p.relative_to(sent)): p.read_text() for p in sent.rglob("*") if p.is_file() and not p.is_symlink()}
    assert found == {"b": "sent", "new/deep/x": "sent", "file": "y", "d/e": "y"}
    assert list(outside.iterdir()) == []
    unchanged = [r.path for r in tree.read_manifest(str(manifest)) if r.unchanged(os.fsencode(sent))]
    assert sorted(unchanged) == [b"d/e", b"door", b"file"]


@pytest.mark.parametrize("path", ["../../x", "a/../../x", "/etc/x", "..", "../.runyard/x", ".git/x", "a/./b", "", "."])
def test_links_that_would_leave_the_runs_directory_are_refused(tmp_path: Path, path: str) -> None:
    work = tmp_path / "run" / "work"
    work.mkdir(parents=True)
    with pytest.raises(SnapshotError, match="cannot be linked"):
        tree.place_links(os.fsencode(work), os.fsencode(work.parent), [{"path": path, "target": "/x"}])


def test_links_do_not_pass_through_symlinks_or_replace_files(tmp_path: Path) -> None:
    work = tmp_path / "run" / "work"
    work.mkdir(parents=True)
    (work / "out").symlink_to(tmp_path)
    (work / "file").write_text("x")
    for path in ("out/x", "file", "file/x"):
        with pytest.raises(SnapshotError):
            tree.place_links(os.fsencode(work), os.fsencode(work.parent), [{"path": path, "target": "/x"}])
    assert not (tmp_path / "x").exists()


def test_thinning_removes_what_is_unchanged_and_nothing_else(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    for name in ("pkg/same.py", "pkg/edited.py", "pkg/touched.py", "deep/er/x", "top", "swapped/y"):
        repo.write(name, "content of " + name)
    repo.write(".gitignore", "data\n")
    repo.write("data/x", "1")
    os.symlink("top", repo.path / "link")
    repo.commit()
    frozen = yard.freeze(repo.path)
    working = yard.fill(frozen, tmp_path / "run")
    manifest = tmp_path / "run" / ".runyard" / "manifest"
    (working / "pkg" / "edited.py").write_text("changed by the run")
    st_touched = os.stat(working / "pkg" / "touched.py")
    (working / "pkg" / "touched.py").write_text("CONTENT OF pkg/touched.py")
    os.utime(working / "pkg" / "touched.py", ns=(st_touched.st_atime_ns, st_touched.st_mtime_ns))
    (working / "result.txt").write_text("output")
    (working / "deep" / "out").mkdir()
    (working / "swapped").rename(tmp_path / "away")
    (working / "swapped").symlink_to(tmp_path / "away")
    freed = tree.thin(str(working), str(manifest))
    left = {str(p.relative_to(working)) for p in working.rglob("*")}
    assert left == {"pkg", "pkg/edited.py", "pkg/touched.py", "result.txt", "deep", "deep/out", "swapped"}
    assert (tmp_path / "away" / "y").exists() and (repo.path / "data" / "x").exists()
    assert freed > len("content of pkg/same.py")
    assert {r.path for r in tree.read_manifest(str(manifest))} == {b"pkg/edited.py", b"pkg/touched.py", b"swapped/y"}
    assert tree.thin(str(working), str(manifest)) == 0
    with open_archive(yard.home, frozen.main.tree) as stream:
        assert tree.restore(stream, str(working)) == 5
    assert (working / "pkg" / "edited.py").read_text() == "changed by the run"
    assert (working / "deep" / "er" / "x").read_text() == "content of deep/er/x"


def test_a_thinned_run_costs_few_inodes_and_bytes(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    for number in range(500):
        repo.write("d%d/f%d" % (number % 40, number), "x")
    repo.commit()
    working = yard.fill(yard.freeze(repo.path), tmp_path / "run")
    (working / "result.txt").write_text("x" * 1024)
    tree.thin(str(working), str(tmp_path / "run" / ".runyard" / "manifest"))
    left = list((tmp_path / "run").rglob("*"))
    assert sorted(str(p.relative_to(tmp_path / "run")) for p in left) == [".runyard", "digits", "digits/result.txt"]


def test_a_real_repository_made_by_the_run_is_kept(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("a", "1")
    repo.commit()
    working = yard.fill(yard.freeze(repo.path), tmp_path / "run")
    (working / ".git" / "objects" / "ab").mkdir()
    tree.thin(str(working), str(tmp_path / "run" / ".runyard" / "manifest"))
    assert (working / ".git" / "HEAD").exists() and not (working / "a").exists()


def test_manifest_tells_outputs_from_code(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write(b"odd\nname\xff", "1", 0o755)
    repo.write("a", "22")
    repo.write("big.bin", b"x" * 100)
    frozen = yard.freeze(repo.path, link=["big.bin"])
    working = yard.fill(frozen, tmp_path / "run")
    records = {r.path: r for r in tree.read_manifest(str(tmp_path / "run" / ".runyard" / "manifest"))}
    assert {path: (r.mode, r.size) for path, r in records.items()} == {
        b"odd\nname\xff": (EXECUTABLE, 1), b"a": (FILE, 2),
        b"big.bin": (SYMLINK, len(os.fsencode(repo.path / "big.bin"))),
    }  # fmt: skip
    assert all(record.unchanged(os.fsencode(working)) for record in records.values())


NAMES = st.binary(min_size=1, max_size=6).filter(
    lambda b: b"/" not in b and b"\0" not in b and b not in (b".", b"..") and b.lower() != b".git"
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map(b"/".join), st.binary(max_size=40), max_size=8))
def test_tree_names_agree_with_git(tmp_path_factory: pytest.TempPathFactory, files: dict[bytes, bytes]) -> None:
    files = {p: c for p, c in files.items() if not any(p.startswith(other + b"/") for other in files)}
    if not files:
        return
    entries = [Entry(path, FILE, gitobjects.object_id(b"blob", data)) for path, data in files.items()]
    where = tmp_path_factory.getbasetemp() / "names.git"
    if not where.exists():
        subprocess.run(["git", "init", "-q", "--bare", str(where)], check=True)
    (where / "index").unlink(missing_ok=True)
    rows = b"".join(b"%o %s 0\t%s\0" % (e.mode, e.oid.encode(), e.path) for e in entries)
    subprocess.run(["git", "update-index", "-z", "--index-info"], cwd=where, input=rows, check=True)
    expected = subprocess.run(
        ["git", "write-tree", "--missing-ok"], cwd=where, capture_output=True, check=True, text=True
    ).stdout.strip()
    assert gitobjects.tree_id(entries) == expected


def test_verify_sees_every_kind_of_change(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("a", "1")
    repo.write("b/c", "2")
    frozen = yard.freeze(repo.path)
    out = yard.checkout(frozen, tmp_path / "out")
    assert verify(str(out)) == frozen.main.tree
    seen = {frozen.main.tree}
    for change in (
        lambda: (out / "a").write_text("2"),
        lambda: (out / "a").chmod(0o755),
        lambda: (out / "new").write_text(""),
        lambda: (out / "b" / "c").rename(out / "b" / "d"),
    ):
        change()
        seen.add(verify(str(out)))
    assert len(seen) == 5
