"""Tables of metrics while they are written: appended to, written anew, torn, damaged; and what is no such table."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runyard.capture.found import Found
from runyard.capture.tables import CsvReader, JsonLinesReader, TableReader
from runyard.wire import jsonlite

from .writer import messages, points, sink

SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
cells = st.sampled_from(["0.5", "1e-3", "nan", "", "text", 'quoted "text"', "two\nlines", "a,b", " 7 "])
tables_of = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), max_size=10)
)


def read(
    path: Path, *, kind: type[TableReader] = CsvReader, name: str = "", state: object = None, final: bool = False
) -> tuple[list[Found], object]:
    """Return what there is to read, and the state after it."""
    reader = kind(str(path), name or path.name)
    if state is not None:
        reader.restore(jsonlite.loads(jsonlite.dumps(state).encode()))
    found = []
    for _ in range(10_000):
        one = sink()
        more = reader.turn(one, final)
        found.append(one.finish())
        if not more:
            return found, reader.state()
    raise AssertionError("it does not come to an end")


def rows(found: list[Found]) -> list[tuple[dict[str, float], int]]:
    return [(values, step) for one in found for values, step, _ in one.rows]


def why(found: list[Found]) -> list[str]:
    return [message["why"] for message, _ in messages(found, "refused")]


def table(header: list[str], lines: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *lines])
    return text.getvalue().encode()


def once(tmp_path: Path, content: str | bytes, name: str = "metrics.csv") -> list[Found]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    kind = CsvReader if name.endswith(("csv", "tsv", "log")) else JsonLinesReader
    return read(path, kind=kind, final=True)[0]


@SHARED
@given(tables_of, st.lists(st.integers(0, 400), max_size=6))
def test_however_it_grows_nothing_is_read_twice_or_missed(
    tmp_path: Path, lines: list[list[str]], cuts: list[int]
) -> None:
    width = len(lines[0]) if lines else 1
    data = table(["step", *"abcd"[:width]], [[str(3 * number), *line] for number, line in enumerate(lines)])
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"")
    found: list[Found] = []
    state: object = None
    for cut in [*sorted(cuts), len(data)]:
        with path.open("r+b") as file:
            file.write(data[:cut])
        more, state = read(path, state=state)
        found += more
    wanted = [
        (name, 3 * number, repr(float(cell)))
        for number, line in enumerate(lines)
        for name, cell in zip("abcd", line, strict=False)
        if cell in ("0.5", "1e-3", "nan", " 7 ")
    ]
    assert points(found) == wanted


@SHARED
@given(st.lists(st.integers(0, 3), max_size=20), st.lists(st.integers(0, 3), max_size=20), st.integers(0, 3))
def test_a_table_written_anew_gives_what_differs(
    tmp_path: Path, first: list[int], second: list[int], same: int
) -> None:
    """Rows that both have from their start on are not given again as long as the second one has them all."""
    second = first[: len(first) // 2] + second if same == 0 else first + second if same == 1 else second
    path = tmp_path / "metrics.csv"
    path.write_bytes(table(["step", "loss"], [[str(step), str(loss)] for step, loss in enumerate(first)]))
    found, state = read(path)
    path.unlink()
    path.write_bytes(
        table(["loss", "new", "step"], [[str(loss), "", str(step)] for step, loss in enumerate(second)])
    )  # fmt: skip
    again, state = read(path, state=state)
    given_again = [(step, value) for _, step, value in points(again)]
    whole = [(step, repr(float(loss))) for step, loss in enumerate(second)]
    if second[: len(first)] == first:
        assert given_again == whole[len(first) :]
    else:
        # From a place on that is not behind the first difference; nothing, if it only became shorter.
        different = [step for step, (old, new) in enumerate(zip(first, second, strict=False)) if old != new]
        assert given_again == (whole[len(whole) - len(given_again) :])
        if given_again:
            assert given_again[0][0] <= min(different)
    assert points(read(path, state=state, final=True)[0]) == []


def test_a_table_that_is_written_anew_before_the_eyes_of_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    data = table(["epoch", "loss"], [[str(step), str(step / 8)] for step in range(20)])
    found, state = read(path)
    path.write_bytes(data)
    more, state = read(path, state=state)
    found += more
    longer = table(["epoch", "loss"], [[str(step), str(step / 8)] for step in range(25)])
    for cut in range(0, len(longer) + 1, 7):
        path.write_bytes(longer[:cut])
        more, state = read(path, state=state)
        found += more
    path.write_bytes(longer)
    more, _ = read(path, state=state)
    assert rows(found + more) == [({"loss": step / 8}, step) for step in range(25)]


def test_another_table_of_the_same_name_is_given_whole(tmp_path: Path) -> None:
    """Each fold of a cross validation writes the file anew."""
    path = tmp_path / "history.csv"
    state: object = None
    found: list[Found] = []
    for fold in (1, 2):
        path.write_bytes(table(["epoch", "loss"], [[str(step), str(fold + step / 8)] for step in range(6 - fold)]))
        more, state = read(path, state=state)
        found += more
    assert rows(found) == [({"loss": fold + step / 8}, step) for fold in (1, 2) for step in range(6 - fold)]


def test_a_table_with_nothing_in_common_takes_the_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("step,loss\n1,0.5\n")
    found, state = read(path)
    path.write_text("epoch;acc\n4;0.75\n")
    assert rows(found + read(path, state=state)[0]) == [({"loss": 0.5}, 1), ({"acc": 0.75}, 4)]


def test_a_table_written_anew_may_change_its_header_on_the_way(tmp_path: Path) -> None:
    """Rows that are read once more have the header that they had, not the one further down."""
    path = tmp_path / "metrics.csv"
    start, more = "step,loss\n1,1\n2,2\n3,3\n", "step,acc\n5,5\n6,6\n"
    path.write_text(start + more)
    _, state = read(path)
    path.write_text("step,loss\n1,1\n2,2\n3,7\n" + more)
    again, _ = read(path, state=state)
    assert points(again) == [("loss", 3, "7.0"), ("acc", 5, "5.0"), ("acc", 6, "6.0")]


def test_a_table_that_became_large_stays_one_when_it_is_written_anew(tmp_path: Path) -> None:
    path, state = tmp_path / "out.csv", None
    wide = "x" * 1000
    path.write_text("step,loss,note\n0,0,%s\n" % wide)
    found, state = read(path)
    for _ in range(2):
        path.unlink()
        path.write_text("note,step,loss\n" + "".join("%s,%d,%d\n" % (wide, step, step) for step in range(2000)))
        more, state = read(path, state=state)
        found += more
    assert rows(found) == [({"loss": float(step)}, step) for step in range(2000)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters(delimiter: str, tmp_path: Path) -> None:
    text = "epoch,a b,train/c\n1,0.5,x\n2,1.5,2\n".replace(",", delimiter)
    assert rows(once(tmp_path, text)) == [({"a b": 0.5}, 1), ({"a b": 1.5, "train/c": 2.0}, 2)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("\ufeffstep,loss\r\n1,0.5\r\n", [({"loss": 0.5}, 1)]),
        ("# made by hand\nstep,loss\n1,0.5\n", [({"loss": 0.5}, 1)]),
        ("      epoch,  train/loss\n          1,         0.5\n", [({"train/loss": 0.5}, 1)]),
        ("step,epoch,loss\n10,0.5,1\n20,1,2\n", [({"epoch": 0.5, "loss": 1.0}, 10), ({"epoch": 1.0, "loss": 2.0}, 20)]),
        ("epoch,loss\n0.5,1\n", [({"epoch": 0.5, "loss": 1.0}, 0)]),
        ("epoch,trainer/global_step,loss\n1,100,2\n", [({"epoch": 1.0, "loss": 2.0}, 100)]),
        ("loss\n3\n2\n", [({"loss": 3.0}, 0), ({"loss": 2.0}, 1)]),
        (",loss\n0,3\n5,2\n", [({"loss": 3.0}, 0), ({"loss": 2.0}, 5)]),
        ("step,loss,note\n1,0.5,\"a, b\nc\"\n2,,x\n3,0.25,y\n", [({"loss": 0.5}, 1), ({"loss": 0.25}, 3)]),
        ("step,loss\n1,0.5\nstep,loss,acc\n2,0.25,1\n", [({"loss": 0.5}, 1), ({"loss": 0.25, "acc": 1.0}, 2)]),
        ("step,loss\n1,0.5\n2,1_000\n3,0.2", [({"loss": 0.5}, 1), ({"loss": 0.2}, 3)]),
        ("step,loss\n1,0.5\n2", [({"loss": 0.5}, 1)]),
        ("step,loss\n1,inf\n2,-inf\n", [({"loss": float("inf")}, 1), ({"loss": float("-inf")}, 2)]),
        ("round,loss\n4,0.5\n", [({"loss": 0.5}, 4)]),
        ("step,loss\n1e30,0.5\n", [({"step": 1e30, "loss": 0.5}, 0)]),
    ],
)  # fmt: skip
def test_forms_of_tables(text: str, wanted: list[Any], tmp_path: Path) -> None:
    assert rows(once(tmp_path, text)) == wanted


def test_a_column_may_be_the_time(tmp_path: Path) -> None:
    found = once(tmp_path, "step,loss,timestamp\n1,0.5,1700000000.5\n2,0.5,12\n")
    assert found[0].rows[0] == ({"loss": 0.5}, 1, 1_700_000_000_500_000)
    assert found[0].rows[1][0] == {"loss": 0.5, "timestamp": 12.0}


def test_lines_of_json(tmp_path: Path) -> None:
    lines: list[Any] = [
        {"step": 1, "loss": 0.5, "train": {"acc": 1, "name": "x"}, "list": [1]}, [1], {"step": 2, "ok": True}, 3,
        {"step": 3, "loss": float("nan"), "text": "0.25"}, {"loss": 10**400, "step": 4},
    ]  # fmt: skip
    text = "\n".join(["{broken", *map(json.dumps, lines)])
    assert points(once(tmp_path, text, "metrics.jsonl")) == [
        ("loss", 1, "0.5"), ("train/acc", 1, "1.0"), ("loss", 3, "nan"), ("text", 3, "0.25"),
    ]  # fmt: skip


def test_a_whole_object_needs_no_end_of_its_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    data = b"".join(json.dumps({"step": step, "a": {"loss": step / 2}}).encode() + b"\n" for step in range(4))
    found: list[Found] = []
    state: object = None
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        more, state = read(path, kind=JsonLinesReader, state=state)
        found += more
    assert rows(found) == [({"a/loss": step / 2}, step) for step in range(4)]


@SHARED
@given(st.binary(max_size=400), st.sampled_from([CsvReader, JsonLinesReader]), st.booleans())
def test_any_bytes_are_read_to_their_end(tmp_path: Path, data: bytes, kind: type[TableReader], final: bool) -> None:
    path = tmp_path / "metrics"
    path.write_bytes(data)
    _, state = read(path, kind=kind, final=final)
    path.write_bytes(data + b"\n" + data)
    read(path, kind=kind, state=state, final=final)


FEATURES = "\n".join(["f1,f2,f3,label", *["0.1,0.2,0.3,1"] * 50])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("features.csv", FEATURES),
        ("train.csv", FEATURES),
        ("catalog.csv", FEATURES),
        ("metrics.csv", ",".join(f"c{number}" for number in range(300)) + "\n" + ",".join("1" * 300) + "\n"),
        ("train.csv", "epoch,a\n" + "1,0.5\n" * 300_000),
        ("results.csv", "id,score\n" + "1,0.5\n" * 300_000),
        ("metrics.csv", "step,loss," + "x" * 300_000 + "\n"),
        ("samples.jsonl", '{"prompt": "x", "score": 1}\n' * 3),
    ],
)
def test_data_that_a_program_writes_are_no_metrics(name: str, text: str, tmp_path: Path) -> None:
    assert rows(once(tmp_path, text, name)) == []


@pytest.mark.parametrize("name", ["train.csv", "out.csv", "output.tsv"])
def test_a_column_of_steps_makes_any_table_metrics(name: str, tmp_path: Path) -> None:
    assert rows(once(tmp_path, "epoch,loss\n1,0.5\n", name)) == [({"loss": 0.5}, 1)]


def test_a_table_that_is_refused_for_its_size_says_so(tmp_path: Path) -> None:
    found = once(tmp_path, "id,score\n" + "1,0.5\n" * 300_000, "results.csv")
    assert why(found) == ["too large, or too many columns, for metrics"]


def test_a_table_that_grows_without_end_is_read_up_to_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("step,loss\n1,0.5\n")
    found, state = read(path)
    with path.open("a") as file:
        file.write(("2,0.25," + "x" * 992 + "\n") * 10_000)
    more, state = read(path, state=state)
    assert len(rows(more)) == (8 << 20) // 1000 + 1
    assert why(more) == ["larger than what is read of a table"]
    with path.open("a") as file:
        file.write("3,0.25\n")
    assert rows(read(path, state=state)[0]) == []
