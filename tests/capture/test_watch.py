"""Finding files of metrics in a run's directory, and reading all of them turn by turn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runyard.capture import found as found_module
from runyard.capture import watch
from runyard.capture.found import Found, apart
from runyard.capture.watch import FileWatcher, reader_of
from runyard.wire import jsonlite
from tests.fuzz import MORE

from .writer import FIXTURES, event, field, messages, opening, points, read_all, said, scalar

JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["log_history", "step", "a"]), inner),
)
DOCUMENTS = st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())
TABLE = "step,loss\n1,0.5\n"


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def names(found: Found) -> set[str]:
    return {name for name, _, _ in points([found])}


def restored(tree: Path, state: object) -> FileWatcher:
    watcher = FileWatcher(str(tree))
    watcher.restore(json.loads(jsonlite.dumps(state)))
    return watcher


def test_files_are_found_in_new_directories_and_read_as_they_grow(tmp_path: Path) -> None:
    watcher = FileWatcher(str(tmp_path))
    assert points([watcher.turn()]) == []
    path = write(tmp_path / "a" / "b" / "metrics.csv", TABLE)
    assert points([watcher.turn()]) == [("loss", 1, "0.5")]
    with path.open("a") as file:
        file.write("2,0.25\n")
    write(tmp_path / "a" / "c" / "metrics.jsonl", '{"step": 1, "acc": 1}\n')
    assert points([watcher.turn()]) == [("loss", 2, "0.25"), ("acc", 1, "1.0")]
    assert points([watcher.turn(final=True)]) == []
    assert not watcher.behind


def test_a_directory_that_was_made_long_after_its_parent_was_listed_is_found(tmp_path: Path) -> None:
    past = 1_600_000_000
    os.utime(tmp_path, (past, past))
    watcher = FileWatcher(str(tmp_path))
    watcher.turn()
    write(tmp_path / "out" / "metrics.csv", TABLE)
    assert points([watcher.turn(final=True)]) == [("loss", 1, "0.5")]


def test_a_second_file_at_the_same_tick_of_the_clock_is_found(tmp_path: Path) -> None:
    now = time.time_ns()
    write(tmp_path / "a.csv", TABLE)
    os.utime(tmp_path, ns=(now, now))
    watcher = FileWatcher(str(tmp_path))
    watcher.turn()
    write(tmp_path / "b.csv", TABLE)
    os.utime(tmp_path, ns=(now, now))
    assert points([watcher.turn()]) == [("b/loss", 1, "0.5")]


def test_new_values_at_the_same_tick_of_the_clock_are_read(tmp_path: Path) -> None:
    now, path = time.time_ns(), tmp_path / ".last_summary.json"
    watcher, found = FileWatcher(str(tmp_path)), []
    for value in (0.5, 0.7):
        write(path, '{"loss": %s}' % value)
        os.utime(path, ns=(now, now))
        found.append(watcher.turn())
    assert [message["values"] for message, _ in messages(found, "summary")] == [{"loss": 0.5}, {"loss": 0.7}]


def test_a_last_line_without_an_end_counts_when_the_run_has_ended(tmp_path: Path) -> None:
    for name, last in (("a", "2,2"), ("b", "")):
        path = write(tmp_path / ("%s.csv" % name), "step,%s\n1,1\n%s" % (name, last))
        os.utime(path, (1_600_000_000, 1_600_000_000))
    watcher = FileWatcher(str(tmp_path))
    found = [watcher.turn(), watcher.turn(0.0)]  # the second one ends after a.csv
    assert sorted(points(found)) == [("a", 1, "1.0"), ("b", 1, "1.0")]
    ends = [watcher.turn(0.0, final=True)]
    while watcher.behind:
        ends.append(watcher.turn(0.0, final=True))
    assert points(ends) == [("a", 2, "2.0")]
    assert points([restored(tmp_path, watcher.state()).turn(final=True)]) == []


def test_links_code_and_what_belongs_to_tools_are_not_looked_at(tmp_path: Path) -> None:
    elsewhere, tree = tmp_path / "elsewhere", tmp_path / "tree"
    write(elsewhere / "metrics.csv", TABLE)
    write(tree / "metrics.csv", TABLE)
    for name in (".git", ".runyard", "__pycache__", ".venv", "x/node_modules"):
        write(tree / name / "metrics.csv", TABLE)
    (tree / "data").symlink_to(elsewhere)
    (tree / "results.csv").symlink_to(elsewhere / "metrics.csv")
    watcher = FileWatcher(str(tree), ignore=["metrics.csv"])
    assert points([watcher.turn(final=True)]) == []
    assert watcher.state()["files"] == {}


def test_a_link_in_the_place_of_a_directory_is_not_followed(tmp_path: Path) -> None:
    elsewhere, tree = tmp_path / "elsewhere", tmp_path / "tree"
    write(elsewhere / "metrics.csv", TABLE)
    (tree / "data").mkdir(parents=True)
    watcher = FileWatcher(str(tree))
    watcher.turn()
    (tree / "data").rmdir()
    (tree / "data").symlink_to(elsewhere)
    assert points([watcher.turn(), watcher.turn(final=True)]) == []


def test_pipes_and_directories_with_such_names_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.csv")
    write(tmp_path / "log.csv" / "history.csv", TABLE)
    assert points([read_all(tmp_path)]) == [("loss", 1, "0.5")]


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.csv", TABLE)
    watcher = FileWatcher(str(tmp_path))
    watcher.turn()
    path.unlink()
    os.mkfifo(path)
    assert points([watcher.turn(final=True)]) == []
    path.unlink()
    path.symlink_to(write(tmp_path / "real.txt", TABLE + "2,0.25\n"))
    assert points([watcher.turn(final=True)]) == []


@pytest.fixture
def somebody() -> Iterator[None]:
    """Not root, which may read everything: nobody, for the time of the test."""
    if os.getuid() == 0:
        os.seteuid(65534)
    yield
    os.seteuid(os.getuid())


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody reaches, which pytest's own, below one of mode 700, is not."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_a_file_that_may_not_be_read_is_named_once(open_folder: Path, request: pytest.FixtureRequest) -> None:
    write(open_folder / "metrics.csv", TABLE).chmod(0)
    os.utime(open_folder / "metrics.csv", (1_600_000_000, 1_600_000_000))
    request.getfixturevalue("somebody")
    watcher = FileWatcher(str(open_folder))
    found = [watcher.turn(), watcher.turn(), watcher.turn()]
    ((message, _),) = messages(found, "refused")
    assert (message["name"], message["count"]) == ("metrics.csv", 1)


def test_a_tree_that_is_gone_has_nothing(tmp_path: Path) -> None:
    write(tmp_path / "run" / "metrics.csv", TABLE)
    watcher = FileWatcher(str(tmp_path / "run"))
    watcher.turn()
    shutil.rmtree(tmp_path / "run")
    assert points([watcher.turn(final=True)]) == []
    write(tmp_path / "run" / "history.csv", TABLE)
    assert points([watcher.turn(final=True)]) == [("history/loss", 1, "0.5")]


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    for directory in (b"a\xff", b"b\xff"):
        place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + directory))
        write(place / "metrics.csv", TABLE)
    watcher = FileWatcher(str(tmp_path))
    found = watcher.turn(final=True)
    assert len(points([found])) == 2
    assert points([restored(tmp_path, watcher.state()).turn(final=True)]) == []
    for name in names(found):
        name.encode()


# --- names


def test_the_first_that_uses_a_name_has_it_and_others_get_what_sets_them_apart(tmp_path: Path) -> None:
    for fold in ("fold1", "fold2", "fold3"):
        write(tmp_path / "out" / fold / "metrics.csv", TABLE)
    assert names(read_all(tmp_path)) == {"loss", "fold2/loss", "fold3/loss"}


def test_event_files_of_one_directory_are_one_source(tmp_path: Path) -> None:
    for directory, number in (("a", 1), ("a", 2), ("b", 3)):
        data = opening() + event(number, scalar("loss", 0.5)) + event(number, scalar("%s_only" % directory, 0.5))
        write(tmp_path / "runs" / directory / ("events.out.tfevents.%d.host" % number), data)
    assert points([read_all(tmp_path)]) == [
        ("loss", 1, "0.5"), ("a_only", 1, "0.5"), ("loss", 2, "0.5"), ("a_only", 2, "0.5"),
        ("b/loss", 3, "0.5"), ("b_only", 3, "0.5"),
    ]  # fmt: skip


def test_a_table_and_events_with_the_same_name(tmp_path: Path) -> None:
    write(tmp_path / "metrics.csv", TABLE)
    write(tmp_path / "metrics.jsonl", '{"step": 1, "loss": 1}')
    write(tmp_path / "runs" / "events.out.tfevents.1.host", opening() + event(1, scalar("loss", 0.5)))
    assert names(read_all(tmp_path)) == {"loss", "metrics/loss", "runs/loss"}


@pytest.mark.parametrize(
    ("path", "other", "part"),
    [
        ("a/b/m.csv", "a/c/m.csv", "b"),
        ("m.csv", "a/m.csv", "m.csv"),
        ("a/m.csv", "m.csv", "a"),
        ("a/x.csv", "a/y.csv", "x.csv"),
        ("runs/a", "", "runs/a"),
        ("a/a", "a", "a"),
    ],
)
def test_what_sets_paths_apart(path: str, other: str, part: str) -> None:
    assert apart(path, other) == part


# --- turns, state


def test_a_turn_is_bounded_and_the_next_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_module, "MAX_ROWS", 50)
    for name in ("a", "b", "c"):
        write(tmp_path / name / "metrics.csv", "step,%s\n" % name + "".join("%d,1\n" % step for step in range(40)))
    watcher = FileWatcher(str(tmp_path))
    turns = [watcher.turn(0.0)]
    while watcher.behind:
        turns.append(watcher.turn(0.0))
    assert len(turns) >= 3
    assert sorted(points(turns)) == sorted((name, step, "1.0") for name in "abc" for step in range(40))


def test_a_large_file_does_not_keep_others_from_being_read(tmp_path: Path) -> None:
    write(tmp_path / "a" / "metrics.csv", "step,a\n" + "1,1\n" * 500_000)
    write(tmp_path / "b" / "metrics.csv", "step,b\n1,1\n")
    watcher = FileWatcher(str(tmp_path))
    seen = [names(watcher.turn(0.001)) for _ in range(6)]
    assert watcher.behind
    assert any("b" in found for found in seen)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=40 * MORE)
@given(st.data())
def test_whenever_it_is_started_again_nothing_is_read_twice_or_missed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Real files of libraries, growing by pieces in any order, before a watcher that is replaced at any time."""
    tree = tmp_path_factory.mktemp("run")
    sources = [FIXTURES / "torch", FIXTURES / "keras", FIXTURES / "tensorboardx"]
    top = data.draw(st.sampled_from(sources))
    left = {path.relative_to(top): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}
    pieces = data.draw(
        st.lists(st.tuples(st.integers(0, 9), st.integers(1, 600), st.booleans(), st.booleans()), max_size=20)
    )
    watcher, found = FileWatcher(str(tree)), []
    # All at once first: which of two sources has a name depends on which of them was seen with it first.
    whole = read_all(top)
    for name in left:
        write(tree / name, b"")
    for which, size, look, again in [*pieces, *((place, 1 << 20, False, False) for place in range(len(left)))]:
        name = sorted(left)[which % len(left)]
        with (tree / name).open("ab") as file:
            file.write(left[name][:size])
        left[name] = left[name][size:]
        if look:
            found.append(watcher.turn(60.0))
        if again:
            watcher = restored(tree, watcher.state())
    found.append(watcher.turn(60.0, final=True))
    assert sorted(points(found)) == sorted(points([whole]))
    assert sorted(said(found)) == sorted(said([whole]))


@pytest.mark.parametrize("state", [{}, [], {"version": 2}, {"version": 1, "ledger": {}, "files": {}}, None])
def test_what_is_no_state_is_refused(state: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="state"):
        FileWatcher(str(tmp_path)).restore(state)  # type: ignore[arg-type]


def test_a_program_that_is_read_while_it_writes(tmp_path: Path) -> None:
    """Lines in any pieces, a reader that runs at the same time."""
    code = (
        "import sys\nfor n in range(20000):\n    sys.stdout.write('%d,%r\\n' % (n, n / 8) if n else 'step,loss\\n')\n"
        "    if not n % 100: sys.stdout.flush()\n"
    )
    with (tmp_path / "metrics.csv").open("wb") as out:
        child = subprocess.Popen([sys.executable, "-c", code], stdout=out)
    watcher, found = FileWatcher(str(tmp_path)), []
    while child.poll() is None:
        found.append(watcher.turn(0.05))
    found.append(watcher.turn(60.0, final=True))
    assert points(found) == [("loss", step, repr(step / 8)) for step in range(1, 20000)]


def test_a_table_rewritten_by_a_thread_is_never_given_twice(tmp_path: Path) -> None:
    """As pandas' `to_csv` after each epoch: truncated, then written, any number of times while it is read."""
    path, epochs = tmp_path / "history.csv", 150

    def work() -> None:
        for epoch in range(1, epochs + 1):
            path.write_text("epoch,loss\n" + "".join("%d,%r\n" % (step, step / 8) for step in range(epoch)))

    thread = threading.Thread(target=work)
    thread.start()
    watcher, found = FileWatcher(str(tmp_path)), []
    while thread.is_alive():
        found.append(watcher.turn(0.05))
    thread.join()
    found += [watcher.turn(60.0), watcher.turn(60.0, final=True)]
    assert points(found) == [("loss", step, repr(step / 8)) for step in range(epochs)]


# --- media, last values


def test_of_many_media_of_a_name_fewer_and_fewer_are_kept(tmp_path: Path) -> None:
    note = field(1, "picture") + field(4, field(4, b"\x89PNG"))
    write(tmp_path / "events.out.tfevents.1.h", b"".join(event(step, note) for step in range(1, 1001)))
    found = read_all(tmp_path)
    kept = [message["step"] for message, _ in messages([found], "media")]
    assert kept[:100] == list(range(1, 101))
    assert 100 < len(kept) < 350
    assert kept[-1] > 900
    ((refused, _),) = messages([found], "refused")
    assert (refused["name"], refused["count"]) == ("picture", 1000 - len(kept))


def test_last_values_of_gnomehat(tmp_path: Path) -> None:
    path = write(tmp_path / ".last_summary.json", '{"loss": 0.5, "name": "x", "n": 3, "ok": true}')
    write(tmp_path / "sub" / ".last_summary.json", '{"other": 1}')
    watcher = FileWatcher(str(tmp_path))
    found = [watcher.turn()]
    path.write_text('{"loss": 0.2')  # half of it is there
    found.append(watcher.turn())
    watcher = restored(tmp_path, watcher.state())
    path.write_text('{"loss": 0.25, "n": 3}')
    found += [watcher.turn(), watcher.turn(final=True)]
    assert [message["values"] for message, _ in messages(found, "summary")] == [{"loss": 0.5, "n": 3.0}, {"loss": 0.25}]


def test_a_training_that_begins_anew_in_the_directory_of_another(tmp_path: Path) -> None:
    path = tmp_path / "trainer_state.json"
    watcher, found = FileWatcher(str(tmp_path)), []
    for losses in ([1, 2, 3], [1, 2], [1, 2, 3, 4], [1, 5]):
        rows = [{"step": step, "loss": loss, "note": "x"} for step, loss in enumerate(losses)]
        path.write_text(json.dumps({"log_history": rows}))
        found.append(watcher.turn(final=True))
    assert [points([one]) for one in found] == [
        [("loss", 0, "1.0"), ("loss", 1, "2.0"), ("loss", 2, "3.0")], [], [("loss", 3, "4.0")], [("loss", 1, "5.0")],
    ]  # fmt: skip


@pytest.mark.parametrize("name", [".last_summary.json", "trainer_state.json"])
@given(content=DOCUMENTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=50 * MORE)
def test_any_document_is_survived(name: str, tmp_path: Path, content: bytes) -> None:
    write(tmp_path / name, content)
    read_all(tmp_path)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a/events.out.tfevents.1.h", "EventsReader"), ("trainer_state.json", "TrainerStateReader"),
        (".last_summary.json", "SummaryReader"), ("a/log.txt", "JsonLinesReader"), ("metrics.json", "JsonLinesReader"),
        ("a.log.json", "JsonLinesReader"), ("training.log", "CsvReader"), ("a.TSV", "CsvReader"), ("a.txt", ""),
        ("sub/.last_summary.json", ""), ("config.json", ""),
    ],
)  # fmt: skip
def test_kinds_of_files(name: str, kind: str) -> None:
    assert getattr(reader_of(name), "__name__", "") == kind


def test_no_more_directories_and_files_than_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MAX_FILES", 2)
    monkeypatch.setattr(watch, "MAX_DIRECTORIES", 4)
    for number in range(5):
        write(tmp_path / ("d%d" % number) / "metrics.csv", TABLE)
    watcher = FileWatcher(str(tmp_path))
    found = [watcher.turn(final=True), watcher.turn(final=True)]
    assert len(points(found)) == 2
    assert len(messages(found, "refused")) == 1
