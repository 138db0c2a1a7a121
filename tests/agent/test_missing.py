"""The remedy for a file that only the submitter's directory has."""

from __future__ import annotations

from pathlib import Path

import pytest

from runyard.agent import missing


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A source with ignored files, and a run's tree without them."""
    source, tree = tmp_path / "work" / "proj", tmp_path / "run" / "proj"
    for directory in (source, tree):
        (directory / "sub").mkdir(parents=True)
        (directory / "sub" / "train.py").write_text("")
    for name in ("cfg/a b.json", "sub/big.csv", "../shared/x.csv"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("")
    return source, tree


def remedy(places: tuple[Path, Path], log: str, cwd: str = "") -> str:
    source, tree = places
    (tree.parent / "log").write_bytes(log.encode())
    found = missing.remedy("r1", str(tree.parent / "log"), str(tree / cwd), str(tree), str(source))
    return found.partition(": ")[2]


@pytest.mark.parametrize(
    ("line", "cwd", "link"),
    [
        ("FileNotFoundError: [Errno 2] No such file or directory: 'cfg/a b.json'", "", "cfg"),
        ("cat: sub/big.csv: No such file or directory", "", "sub/big.csv"),
        ("cat: big.csv: No such file or directory", "sub", "big.csv"),
        ("cannot open file '../cfg/a b.json'", "sub", "../cfg"),
        ("error: ../shared/x.csv does not exist", "", "../shared"),
        ("(unable to open file: name = '../../shared/x.csv', errno = 2)", "sub", "../../shared"),
        ("cannot open {tree}/cfg/a b.json for reading", "", ""),
        ('File not found: "{tree}/sub/big.csv"', "", "sub/big.csv"),
    ],
)
def test_the_first_directory_that_is_missing_is_named_from_where_the_user_stood(
    places: tuple[Path, Path], line: str, cwd: str, link: str
) -> None:
    said = remedy(places, "epoch 1\r\n" + line.format(tree=places[1]) + "\r\n", cwd)
    assert said == ("runyard rerun r1 --link " + link if link else "")


@pytest.mark.parametrize(
    "log",
    [
        "",
        "read cfg/a b.json\n",  # no complaint
        "No such file or directory: 'nowhere.csv'\n",
        "No such file or directory: 'sub/train.py'\n",  # in the run, too
        "No such file or directory: '/etc/hostname'\n",
        "No such file or directory: '../../../etc/hostname' '.' '..' '\0' '%s'\n" % ("x" * 2000),
    ],
)
def test_what_is_missing_everywhere_or_nowhere_needs_no_remedy(places: tuple[Path, Path], log: str) -> None:
    assert remedy(places, log) == ""


def test_only_the_last_words_count_and_no_log_is_no_words(places: tuple[Path, Path]) -> None:
    line = "No such file or directory: 'sub/big.csv'\n"
    assert remedy(places, line + "x" * 9000) == ""
    assert missing.remedy("r1", "/nowhere/log", str(places[1]), str(places[1]), str(places[0])) == ""


@pytest.mark.parametrize(
    ("name", "why"), [("big.csv", "ignored by git, or new"), ("../../shared/x.csv", "outside of the")]
)
def test_the_missing_file_is_named_by_its_whole_path(places: tuple[Path, Path], name: str, why: str) -> None:
    source, tree = places
    (tree.parent / "log").write_text("No such file or directory: '%s'\n" % name)
    said = missing.remedy("r1", str(tree.parent / "log"), str(tree / "sub"), str(tree), str(source))
    assert said.startswith("%s is there, but not in the run (%s" % ((source / "sub" / name).resolve(), why))
