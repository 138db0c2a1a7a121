"""Links: data that a run sees where its program looks for it, without being copied."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runyard.wire.errors import SnapshotError
from tests.snapshot.trees import verify

if TYPE_CHECKING:
    from runyard.snapshot.freeze import Frozen
    from tests.snapshot.conftest import Repo, Yard


def links_of(frozen: Frozen) -> dict[str, str]:
    return {link["path"]: link["target"] for link in frozen.links}


def run(working: Path, cwd: str, program: str) -> str:
    """Run a program in a filled working tree and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=working / cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_ignored_data_at_the_top_is_linked_by_default(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write(".gitignore", "data/\n/weights\nother/\nraw\n")
    repo.write("train.py", "x")
    for name in ("data/x.csv", "weights", "other/y.csv", "src/data/z.csv"):
        repo.write(name, "1")
    frozen = yard.freeze(repo.path)
    assert links_of(frozen) == {"data": str(repo.path / "data"), "weights": str(repo.path / "weights")}
    assert {link["why"] for link in frozen.links} == {"ignored data"}
    assert yard.names(frozen) == {b".gitignore", b"train.py"}
    working = yard.fill(frozen, tmp_path / "run")
    assert run(working, "", "print(open('data/x.csv').read())") == "1"
    (working / "data" / "new.csv").write_text("written through")
    assert (repo.path / "data" / "new.csv").exists()


def test_data_that_is_not_ignored_is_frozen(repo: Repo, yard: Yard) -> None:
    repo.write("data/small.csv", "1")
    frozen = yard.freeze(repo.path)
    assert frozen.links == [] and yard.names(frozen) == {b"data/small.csv"}


@pytest.mark.parametrize("tracked", [True, False])
def test_ignored_children_of_a_data_directory_with_frozen_files(
    repo: Repo, yard: Yard, tmp_path: Path, tracked: bool
) -> None:
    repo.write(".gitignore", "data/*\n!data/README\n!data/keep/\ndata/keep/*.bin\n")
    repo.write("data/README", "about")
    repo.write("data/keep/small.txt", "s")
    if tracked:
        repo.commit()
    repo.write("data/big.csv", "big")
    repo.write("data/images/1.png", "p")
    repo.write("data/keep/large.bin", "p")
    frozen = yard.freeze(repo.path)
    assert set(links_of(frozen)) == {"data/big.csv", "data/images"}
    working = yard.fill(frozen, tmp_path / "run")
    assert (working / "data" / "README").read_text() == "about" and not (working / "data" / "README").is_symlink()
    assert (working / "data" / "big.csv").is_symlink() and (working / "data" / "images" / "1.png").exists()


def test_data_beside_the_tree(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("train.py", "x")
    repo.write("sub/train.py", "x")
    (repo.path.parent / "data").mkdir()
    (repo.path.parent / "data" / "x.csv").write_text("42")
    (repo.path.parent / "unrelated").mkdir()
    frozen = yard.freeze(repo.path)
    assert links_of(frozen) == {"../data": str(repo.path.parent / "data")}
    working = yard.fill(frozen, tmp_path / "run")
    assert run(working, "", "print(open('../data/x.csv').read())") == "42"
    assert run(working, "sub", "print(open('../../data/x.csv').read())") == "42"


def test_data_seen_from_a_subdirectory_and_from_the_script(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write(".gitignore", "data/\n")
    repo.write("data/x.csv", "1")
    repo.write("sub/data/y.csv", "2")
    repo.write(
        "sub/train.py", "from pathlib import Path; print((Path(__file__).parent / 'data' / 'y.csv').read_text())"
    )
    frozen = yard.freeze(repo.path / "sub")
    assert set(links_of(frozen)) == {"data", "sub/data"}
    working = yard.fill(frozen, tmp_path / "run")
    assert run(working, "sub", "print(open('../data/x.csv').read())") == "1"
    done = subprocess.run(
        [sys.executable, "-I", "train.py"], cwd=working / "sub", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "2"


def test_large_untracked_files_are_linked_and_tracked_ones_are_not(repo: Repo, yard: Yard) -> None:
    repo.write("tracked.bin", b"x" * 3000)
    repo.commit()
    repo.write("big.npy", b"x" * 3000)
    repo.write("small.npy", b"x" * 2000)
    frozen = yard.freeze(repo.path, max_file=2048)
    assert links_of(frozen) == {"big.npy": str(repo.path / "big.npy")}
    assert "2 kB" in frozen.links[0]["why"]
    assert yard.names(frozen) == {b"tracked.bin", b"small.npy"}
    assert frozen.main.changed_paths == ["small.npy"]


def test_links_that_are_asked_for(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("a", "1")
    repo.commit()
    repo.write("sub/corpus/one", "1")
    repo.write("cache/two", "2")
    repo.write("single.bin", "3")
    outside = repo.path.parent / "shared"
    outside.mkdir()
    asked = ["corpus", "../cache/", "../../shared"]
    frozen = yard.freeze(repo.path / "sub", link=asked, project_link=["single.bin", "missing"])
    assert links_of(frozen) == {
        "sub/corpus": str(repo.path / "sub" / "corpus"),
        "cache": str(repo.path / "cache"),
        "../shared": str(outside),
        "single.bin": str(repo.path / "single.bin"),
    }
    assert yard.names(frozen) == {b"a"}
    assert frozen.warnings == ["missing is to be linked, but does not exist"]
    working = yard.fill(frozen, tmp_path / "run")
    assert (working / "sub" / "corpus" / "one").read_text() == "1"
    assert os.readlink(tmp_path / "run" / "shared") == str(outside)


def test_a_link_never_replaces_a_tracked_file(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("conf/a.yml", "tracked")
    repo.write("b.yml", "tracked")
    os.symlink("conf", repo.path / "alias")
    repo.commit()
    repo.write("conf/local.yml", "untracked")
    repo.write("conf/more/x", "untracked")
    frozen = yard.freeze(repo.path, link=["conf", "b.yml", "alias/a.yml"])
    assert set(links_of(frozen)) == {"conf/local.yml", "conf/more"}
    assert len(frozen.warnings) == 2
    working = yard.fill(frozen, tmp_path / "run")
    assert not (working / "conf" / "a.yml").is_symlink() and (working / "conf" / "local.yml").is_symlink()


def test_links_that_cannot_be_made_are_refused(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("a", "1")
    (tmp_path / "far").mkdir()
    for name, words in (
        ("nowhere", "no such file"),
        (".", "the code is in it"),
        ("..", "the code is in it"),
        ("../../far", "more than one level above"),
    ):
        with pytest.raises(SnapshotError, match=words):
            yard.freeze(repo.path, link=[name])
    assert yard.freeze(repo.path, link=[str(tmp_path / "far")]).links == []


def test_symlinks_out_of_the_tree_lead_to_the_same_place(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "x").write_text("1")
    os.symlink("../../lake", repo.path / "big")
    os.symlink(tmp_path / "lake", repo.path / "absolute")
    os.symlink("../../gone", repo.path / "dangling")
    repo.commit()
    frozen = yard.freeze(repo.path)
    assert links_of(frozen) == {"big": str(tmp_path / "lake")}
    working = yard.fill(frozen, tmp_path / "deep" / "down" / "run")
    assert (working / "big" / "x").read_text() == "1" and (working / "absolute" / "x").read_text() == "1"
    assert os.readlink(yard.checkout(frozen, tmp_path / "out") / "big") == "../../lake"


DOWNLOADER = """
import pathlib
if not pathlib.Path('data').exists():
    pathlib.Path('data').mkdir()
    pathlib.Path('data/x.csv').write_text('1')
    print('downloaded')
print(pathlib.Path('data/x.csv').read_text())
"""


@pytest.mark.parametrize("pattern", ["data/", "/data", "data", "data/*"])
def test_what_one_run_downloads_the_next_one_finds(repo: Repo, yard: Yard, tmp_path: Path, pattern: str) -> None:
    repo.write(".gitignore", pattern + "\n")
    repo.write("train.py", "x")
    first = yard.freeze(repo.path)
    assert [item["path"] for item in first.adopt] == ["data"] and first.links == []
    working = yard.fill(first, tmp_path / "run1")
    assert run(working, "", DOWNLOADER) == "downloaded\n1"
    kept = Path(first.adopt[0]["target"])
    assert kept.is_relative_to(tmp_path / "home" / "downloads")
    kept.parent.mkdir(parents=True)
    (working / "data").rename(kept)  # what an agent does at the end of a run that finished
    second = yard.freeze(repo.path)
    assert second.adopt == [] and [link["why"] for link in second.links] == ["downloaded by an earlier run"]
    assert run(yard.fill(second, tmp_path / "run2"), "", DOWNLOADER) == "1"
    assert not (repo.path / "data").exists()


def test_only_ignored_and_missing_data_is_handed_on(repo: Repo, yard: Yard) -> None:
    repo.write(".gitignore", "data/\ninputs/\nweights/\n")
    repo.write("raw/x", "not ignored")
    repo.write("inputs/x", "there")
    frozen = yard.freeze(repo.path)
    assert [item["path"] for item in frozen.adopt] == ["data"]
    assert [link["path"] for link in frozen.links] == ["inputs"]


def test_directories_frozen_beside_the_tree(repo: Repo, yard: Yard, make_repo: type[Repo], tmp_path: Path) -> None:
    repo.write("a", "1")
    library = make_repo(repo.path.parent / "lib")
    library.write("lib.py", "v1")
    commit = library.commit()
    library.write("lib.py", "v2")
    part = make_repo(tmp_path / "mono")
    part.write("tools/t.py", "t")
    part.write("rest/r.py", "r")
    part.commit()
    frozen = yard.freeze(repo.path, also=["../lib", str(part.path / "tools")])
    assert [path for path, _ in frozen.also] == ["../lib", "../tools"]
    spec = frozen.spec()["also"][0]
    assert (spec["commit"], spec["dirty"], spec["changed"], spec["source"]) == (commit, True, 1, str(library.path))
    library.write("lib.py", "v3")
    working = yard.fill(frozen, tmp_path / "run")
    assert (working.parent / "lib" / "lib.py").read_text() == "v2"
    assert sorted(p.name for p in (working.parent / "tools").iterdir()) == [".git", "t.py"]
    assert verify(str(working.parent / "lib")) == frozen.also[0][1].tree
    assert frozen.also[1][1].changed_paths == []


def test_an_ignored_repository_inside_of_the_tree_can_be_frozen_too(
    repo: Repo, yard: Yard, make_repo: type[Repo], tmp_path: Path
) -> None:
    repo.write(".gitignore", "libs/\n")
    make_repo(repo.path / "libs" / "foo").write("f.py", "f")
    frozen = yard.freeze(repo.path, also=["libs/foo"])
    working = yard.fill(frozen, tmp_path / "run")
    assert (working / "libs" / "foo" / "f.py").read_text() == "f"


def test_what_cannot_be_frozen_beside_the_tree(repo: Repo, yard: Yard, tmp_path: Path) -> None:
    repo.write("pkg/a", "1")
    (tmp_path / "digits").mkdir()
    for name, words in (
        ("../nowhere", "no directory"),
        ("..", "the code is in it"),
        ("pkg", "part of the code already"),
        ("../../digits", "is taken"),
    ):
        with pytest.raises(SnapshotError, match=words):
            yard.freeze(repo.path, also=[name])
