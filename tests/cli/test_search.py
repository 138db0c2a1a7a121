from __future__ import annotations

import json

import pytest

from runyard.cli import text
from runyard.wire.errors import InvalidError
from tests.cli.conftest import Cli
from tests.cli.fake import NOW, FakeYard


def submitted(yard: FakeYard, *letters: str) -> list[str]:
    """Submit runs, oldest first."""
    for letter in letters:
        yard.submit(
            {
                "id": "aaaaaaaaaaa" + letter, "project": "digits", "name": None, "tags": [], "command": ["true"],
                "message": "", "cwd": "", "priority": 0, "resources": {}, "snapshot": {"tree": "0" * 40}, "source": "/s",
                "repo_name": "digits", "program": "/bin/true", "links": [], "hold": False, "in_place": False,
            }
        )  # fmt: skip
    return ["aaaaaaaaaaa" + letter for letter in letters]


def test_what_is_wrong_with_a_query_is_shown_in_it(cli: Cli, yard: FakeYard) -> None:
    query = 'metrics.loss < 1 and run.sate == "x"'
    yard.refusal = InvalidError(
        "column 26 of the query: run has no field sate", "did you mean run.state?", query=query, column=26
    )
    for words in (["ls", query], ["ls", "--columns", "lr", query], ["kill", "--query", query]):
        done = cli(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines() == [
            "runyard: column 26 of the query: run has no field sate",
            "  " + query,
            "  " + " " * 25 + "^",
            "  did you mean run.state?",
        ]


@pytest.mark.parametrize(
    ("query", "column", "shown"),
    [
        ("abc", 1, ["abc", "^"]),
        ("abc", 4, ["abc", "   ^"]),
        ("a\nb\x1bc", 5, ["a\\nb\\x1bc", " " * 8 + "^"]),
        ("a" * 30 + "!" + "b" * 30, 31, ["…" + "a" * 10 + "!" + "b" * 9 + "…", " " * 11 + "^"]),
        ("", 1, ["", "^"]),
    ],
)
def test_the_caret_stands_below_its_column(query: str, column: int, shown: list[str]) -> None:
    assert text.place(query, column, 20) == shown


def test_where_nothing_fits_near_names_are_shown(cli: Cli, yard: FakeYard) -> None:
    yard.hints = ["no run has metrics.los; did you mean metrics.loss?"]
    for words, first in ((["ls", "metrics.los<1"], "no runs fit"), (["rm", "--query", "metrics.los<1"], "no run fits")):
        done = cli(*words)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == first + "\n  no run has metrics.los; did you mean metrics.loss?\n"


def test_the_order_goes_to_the_server(cli: Cli, yard: FakeYard) -> None:
    submitted(yard, "a")
    assert cli("ls", "--order", "-metrics.acc", "x > 1").returncode == 0
    assert any("order=-metrics.acc" in path and "q=x%20%3E%201" in path for _, path in yard.requests)


def test_columns(cli: Cli, yard: FakeYard) -> None:
    names = ["id", "run.state", "run.created", "run.project", "run.name", "run.message", "lr", 'metrics["a,b"]']
    yard.table = {
        "columns": names, "next": None, "hints": [],
        "data": [["aaaaaaaaaaaa", "aaaaaaaaaaab"], ["finished", "queued"], [NOW, NOW], ["digits", "digits"],
                 [None, "best"], ["", ""], [0.123456789, None], ["NaN", True]],
    }  # fmt: skip
    done = cli("ls", "-c", 'lr, metrics["a,b"]')
    head, first, second = done.stdout.splitlines()
    assert head.split() == ["ID", "STATE", "AGE", "PROJECT", "NAME/MESSAGE", "lr", 'metrics["a,b"]']
    assert first.split()[0:2] + first.split()[4:] == ["aaaaaaaaaaaa", "finished", "-", "0.123457", "NaN"]
    assert second.split()[4:] == ["best", "-", "true"]
    assert json.loads(cli("ls", "--json", "--columns", 'lr,metrics["a,b"]').stdout) == [
        {"id": "aaaaaaaaaaaa", "lr": 0.123456789, 'metrics["a,b"]': "NaN"},
        {"id": "aaaaaaaaaaab", "lr": None, 'metrics["a,b"]': True},
    ]
    empty = cli("ls", "--columns", " , ")
    assert (empty.returncode, empty.stdout) == (2, "")
    assert "names nothing" in empty.stderr


def test_archive_and_back(cli: Cli, yard: FakeYard) -> None:
    first, second = submitted(yard, "a", "b")
    done = cli("archive", first)
    assert (done.returncode, done.stdout) == (0, first + " archived\n")
    assert cli("ls", "-q").stdout.split() == [second]
    assert cli("ls", "-q", "--archived").stdout.split() == [first]
    done = cli("archive", "--undo", "--query", "true")
    assert (done.returncode, done.stdout) == (0, first + " is back\n")
    assert cli("ls", "-q").stdout.split() == [second, first]
