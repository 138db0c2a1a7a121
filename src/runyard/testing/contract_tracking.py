"""Contract: what runs log."""

from __future__ import annotations

import math
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from runyard.store import tracked
from runyard.testing.contract_files import started
from runyard.testing.contract_lease import replaced
from runyard.testing.spooled import START_US, Spooled
from runyard.testing.stage import ME, Stage
from runyard.wire import spool
from runyard.wire.errors import ConflictError, InvalidError, NotFoundError

ODD_NAMES = ["val/acc", "naïve 🧪", "a b", "'\"\\;--", "x" * 1000, "CASE", "case", "tab\t", "\u0000zero", "\ud800"]


def points(stage: Stage, run_id: str, metric: str, **options: Any) -> list[tuple[int, Any]]:
    """Return all points of a metric: step and value."""
    found = stage.yard.series(run_id, metric, ME, **{"points": 0, **options})
    return list(zip(found.steps, found.values, strict=True))


def compact(stage: Stage) -> None:
    """Let the yard compact what is due."""
    stage.clock.advance(60)
    stage.inner.upkeep(lambda: False)


class TrackingContract:
    """Each record is taken in once, and comes back bit for bit."""

    def test_what_is_logged_is_summed_up_and_read_back(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage)
        stream = Spooled()
        values = [0.1 * step * (-1) ** step for step in range(100)]
        for step, value in enumerate(values):
            stream.row({"loss": value, "acc": 1 / 3}, step)
        assert stream.send(stage.yard, attempt) == len(stream.records)
        loss = stage.run(run_id)["metrics"]["loss"]
        assert loss["last"] == values[-1]
        assert loss["min"] == min(values)
        assert loss["max"] == max(values)
        assert (loss["count"], loss["step"], loss["min_step"], loss["max_step"]) == (100, 99, 99, 98)
        assert loss["mean"] == pytest.approx(sum(values) / 100)
        assert points(stage, run_id, "loss") == list(enumerate(values))
        times = stage.yard.series(run_id, "loss", ME, points=0).times
        assert list(times) == [START_US + step * 1000 for step in range(100)]
        agent.end(attempt)
        compact(stage)
        assert points(stage, run_id, "loss") == list(enumerate(values))
        assert points(stage, run_id, "acc") == [(step, 1 / 3) for step in range(100)]

    def test_whoever_cuts_the_stream_each_record_counts_once(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream, rng = Spooled(), random.Random(1)
        for step in range(60):
            stream.row({"loss": float(step)} if step % 3 else {"loss": float(step), "acc": 0.5}, step)
        here = 0
        while here < len(stream.records):
            first = rng.randint(0, here)
            here = max(here, stream.send(stage.yard, attempt, first, rng.randint(first, len(stream.records))))
        assert stream.send(stage.yard, attempt) == len(stream.records)
        assert points(stage, run_id, "loss") == [(step, float(step)) for step in range(60)]
        assert stage.run(run_id)["metrics"]["loss"]["count"] == 60
        assert stage.run(run_id)["metrics"]["acc"]["count"] == 20

    def test_a_gap_is_refused_unless_it_is_known_to_be_lost(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        for step in range(10):
            stream.row({"loss": float(step)}, step)
        stream.send(stage.yard, attempt, 0, 4)
        with pytest.raises(ConflictError) as caught:
            stream.send(stage.yard, attempt, 6)
        assert caught.value.details["next"] == 4
        assert stream.send(stage.yard, attempt, 6, lost=True) == len(stream.records)
        assert [step for step, _ in points(stage, run_id, "loss")] == [0, 1, 2, 5, 6, 7, 8, 9]

    def test_what_is_no_record_is_refused_whole(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        stream.row({"loss": 1.0}, 1)
        data = stream.part(0)
        for bad in (data[:-8], data[:-1] + b"\1", b"nonsense", data + b"\0" * 24):
            with pytest.raises(InvalidError):
                stage.yard.append_spool(attempt, stream.stream, 0, bad)
        with pytest.raises(InvalidError, match="shape"):
            stage.yard.append_spool(attempt, stream.stream, 1, stream.records[1], lost=True)
        with pytest.raises(NotFoundError):
            stream.send(stage.yard, "f" * 32)
        assert stage.run(run_id)["metrics"] == {}

    def test_a_group_is_taken_in_whole(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        stream.group(
            [({"loss": 1.0}, 1), ({"acc": 2.0}, 1)], [{"type": "params", "values": {"lr": 0.1}, "origin": "cli"}]
        )
        stream.send(stage.yard, attempt)
        run = stage.run(run_id)
        assert run["metrics"]["loss"]["last"] == 1.0
        assert run["metrics"]["acc"]["last"] == 2.0
        assert run["params"] == {"lr": 0.1}

    def test_what_is_no_finite_number(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage)
        stream = Spooled()
        values = [math.nan, 2.0, math.inf, -math.inf, 1.0, math.nan, -0.0, 5e-324, 1.7976931348623157e308]
        for step, value in enumerate(values):
            stream.row({"odd": value, "nan": math.nan}, step)
        stream.send(stage.yard, attempt)
        run = stage.run(run_id)["metrics"]
        assert (run["odd"]["min"], run["odd"]["max"]) == ("-Infinity", "Infinity")
        assert {run["nan"][name] for name in ("last", "min", "max", "mean")} == {"NaN"}
        agent.end(attempt)
        for _ in range(2):
            found = points(stage, run_id, "odd")
            assert struct.pack("9d", *(value for _, value in found)) == struct.pack("9d", *values)
            compact(stage)

    def test_steps_in_any_order_and_again(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        for number, step in enumerate([5, -3, 5, 2**63 - 1, -(2**63), 0]):
            stream.row({"loss": float(number)}, step, START_US + number)
        stream.send(stage.yard, attempt)
        assert points(stage, run_id, "loss") == [
            (-(2**63), 4.0),
            (-3, 1.0),
            (0, 5.0),
            (5, 0.0),
            (5, 2.0),
            (2**63 - 1, 3.0),
        ]
        assert points(stage, run_id, "loss", start=-3, end=5) == [(-3, 1.0), (0, 5.0), (5, 0.0), (5, 2.0)]
        assert stage.run(run_id)["metrics"]["loss"]["last"] == 5.0

    def test_names_of_every_kind(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        stream.row({name: float(number) for number, name in enumerate(ODD_NAMES)}, 0)
        stream.row({"y" * 1001: 1.0, "kept": 2.0}, 0)
        stream.message("params", values={name: name for name in ODD_NAMES}, origin="call", source="params()")
        stream.send(stage.yard, attempt)
        run = stage.run(run_id)
        assert {name: item["last"] for name, item in run["metrics"].items()} == {
            **{name: float(number) for number, name in enumerate(ODD_NAMES)}, "kept": 2.0
        }  # fmt: skip
        assert run["params"] == {name: name for name in ODD_NAMES}

    def test_names_that_cannot_be_taken_are_said(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream, long = Spooled(), "y" * 1001
        for step in range(3):
            stream.row({long: 1.0, "": 2.0, "kept": 3.0}, step)
        stream.message("params", values={long: 1, "": 2, "kept": 3}, origin="call")
        stream.message("summary", values={long: 1, "": 2, "best": 3})
        stream.message("media", b"x", name="", kind="text", format="txt")
        stream.send(stage.yard, attempt)
        run = stage.run(run_id)
        assert set(run["metrics"]) == {"kept", "best"}
        assert run["params"] == {"kept": 3}
        refused = {item["name"]: (item["count"], item["why"]) for item in run["capture"]["refused"]}
        why = "a name has 1 to 1000 characters"
        assert refused == {long[:1000]: (5, why), "": (6, why)}

    def test_what_is_missing_is_added_up(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        for records in (3, 4, math.nan, -1, 10**400, "5", True):
            stream.message("missing", records=records, why="disk full")
        stream.send(stage.yard, attempt, 0, 1)
        stream.send(stage.yard, attempt, 1)
        assert stage.run(run_id)["capture"]["missing"] == 7

    @pytest.mark.parametrize("depth", [90, 300, 480, 900, 5000])
    @pytest.mark.parametrize("kind", ["list", "dict"])
    def test_what_is_nested_deeply_is_taken_or_refused(self, stage: Stage, depth: int, kind: str) -> None:
        run_id, _, attempt = started(stage)
        start, end = ("[", "]") if kind == "list" else ('{"a":', "}")
        text = '{"type":"params","origin":"call","values":{"x":%s1%s}}' % (start * depth, end * depth)
        stream = Spooled()
        stream.records.append(spool.record(0, spool.MESSAGE, 0, struct.pack("<I", len(text)) + text.encode()))
        if depth < spool.MAX_DEPTH:
            stream.send(stage.yard, attempt)
            assert len(stage.run(run_id)["params"]) == 1
        else:
            with pytest.raises(InvalidError, match="nested too deeply"):
                stream.send(stage.yard, attempt)

    def test_wide_rows(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage)
        stream = Spooled()
        for step in range(3):
            stream.row({f"m{number}": float(number + step) for number in range(1000)}, step)
        stream.send(stage.yard, attempt)
        agent.end(attempt)
        for _ in range(2):
            assert len(stage.run(run_id)["metrics"]) == 1000
            assert points(stage, run_id, "m999") == [(0, 999.0), (1, 1000.0), (2, 1001.0)]
            compact(stage)

    def test_compaction_while_the_run_goes_on(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        streams = [Spooled("00000000000000aa"), Spooled("00000000000000bb")]
        for step in range(150):
            stream = streams[step % 2]
            stream.row({"loss": float(step)}, step)
            stream.send(stage.yard, attempt, len(stream.records) - (1 if step > 1 else 2))
            if step % 40 == 39:
                compact(stage)
        compact(stage)
        assert points(stage, run_id, "loss") == [(step, float(step)) for step in range(150)]
        assert stage.run(run_id)["metrics"]["loss"]["count"] == 150

    def test_few_points_of_many(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        for step in range(5000):
            stream.row({"loss": 100.0 if step == 1234 else -100.0 if step == 4321 else math.sin(step)}, step)
        stream.send(stage.yard, attempt)
        for method in ("lttb", "minmax"):
            found = stage.yard.series(run_id, "loss", ME, points=100, method=method)
            assert found.total == 5000
            assert 90 <= len(found.steps) <= 100
            assert list(found.steps) == sorted(set(found.steps))
            assert (found.steps[0], found.steps[-1]) == (0, 4999)
            assert {100.0, -100.0} <= set(found.values)
        assert len(stage.yard.series(run_id, "loss", ME, points=5000).steps) == 5000
        with pytest.raises(NotFoundError, match="no points"):
            stage.yard.series(run_id, "los", ME)

    @pytest.mark.parametrize("nans", [False, True])
    def test_never_more_points_than_were_asked_for(self, stage: Stage, nans: bool) -> None:
        run_id, _, attempt = started(stage)
        stream, rng = Spooled(), random.Random(1)
        for step in range(1000):
            stream.row({"loss": math.nan if nans and step % 3 == 0 else rng.random()}, step)
        stream.send(stage.yard, attempt)
        for method in ("lttb", "minmax"):
            for wanted in (1, 2, 3, 4, 5, 6, 7, 50, 99, 100, 999):
                steps = list(stage.yard.series(run_id, "loss", ME, points=wanted, method=method).steps)
                assert (method, wanted, len(steps) <= wanted) == (method, wanted, True)
                assert steps[-1] == 999
                assert steps[0] == (0 if wanted > 1 else 999)
                assert len(steps) >= (wanted - 2) * 2 // 3

    def test_a_retry_takes_a_series_over_from_its_first_step(self, stage: Stage) -> None:
        run_id, _, first, other, second = replaced(stage)
        other.start(second)
        old, new = Spooled("00000000000000aa"), Spooled("00000000000000bb")
        for step in range(10):
            old.row({"loss": float(step), "old": 1.0}, step)
        for step in range(6, 12):
            new.row({"loss": 100.0 + step}, step)
        new.send(stage.yard, second)
        old.send(stage.yard, first)  # late: data belongs to its attempt
        expected = [(step, float(step)) for step in range(6)] + [(step, 100.0 + step) for step in range(6, 12)]
        assert points(stage, run_id, "loss") == expected
        summary = stage.run(run_id)["metrics"]["loss"]
        assert (summary["count"], summary["last"], summary["min"], summary["max"]) == (12, 111.0, 0.0, 111.0)
        assert stage.run(run_id)["metrics"]["old"]["count"] == 10

    def test_results_tags_progress_and_what_was_not_taken(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        stream.message("summary", values={"best": 0.93, "bad": "text"})
        stream.message("tags", add=["baseline", "", 7])
        stream.message("progress", done=5, total=10, left_s=2.5, source="tqdm")
        stream.message("capture", active=["argparse"], off=["data"], notes=["a note"])
        stream.message("refused", name="x", why="no number", count=3)
        stream.message("missing", records=4, why="disk full")
        stream.message("something of a later version", values=[])
        stream.send(stage.yard, attempt)
        run = stage.run(run_id)
        assert run["metrics"]["best"]["last"] == 0.93
        assert run["metrics"]["best"]["count"] == 0
        assert run["tags"] == ["baseline"]
        assert run["progress"]["done"] == 5
        assert run["capture"]["active"] == ["argparse"]
        assert run["capture"]["missing"] == 4
        assert {item["name"] for item in run["capture"]["refused"]} == {"x", "bad", "", "7"}

    def test_a_result_of_the_name_of_a_metric_leaves_its_points_alone(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        for step in range(3):
            stream.row({"acc": step / 10}, step)
        stream.message("summary", values={"acc": 0.9, "later": 5.0})
        stream.send(stage.yard, attempt)
        acc = stage.run(run_id)["metrics"]["acc"]
        assert (acc["last"], acc["count"], acc["min"], acc["max"], acc["step"]) == (0.9, 3, 0.0, 0.2, 2)
        here = len(stream.records)
        stream.row({"acc": 0.3, "later": 1.0}, 3)
        stream.send(stage.yard, attempt, here)
        metrics = stage.run(run_id)["metrics"]
        assert (metrics["acc"]["last"], metrics["acc"]["count"], metrics["acc"]["max"]) == (0.3, 4, 0.3)
        assert (metrics["later"]["last"], metrics["later"]["count"], metrics["later"]["max"]) == (1.0, 1, 1.0)

    def test_media(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        for step in (2, 1):
            stream.message("media", b"\x89PNG" + bytes([step]), name="samples/a", step=step, kind="image", format="png")
        stream.message("media", b"x", name="evil", kind="image", format="../png")
        stream.send(stage.yard, attempt)
        found = stage.yard.media(run_id, ME)
        assert [(item["name"], item["step"], item["size"]) for item in found] == [
            ("samples/a", 1, 5),
            ("samples/a", 2, 5),
        ]
        assert stage.run(run_id)["media"] == [
            {"name": "samples/a", "kind": "image", "count": 2, "min_step": 1, "max_step": 2}
        ]
        assert Path(stage.inner.media_place(run_id, found[0]["sha256"], ME)).read_bytes() == b"\x89PNG\1"
        with pytest.raises(NotFoundError):
            stage.inner.media_place(run_id, "0" * 64, ME)
        assert [item["name"] for item in stage.run(run_id)["capture"]["refused"]] == ["evil"]

    def test_a_medium_that_a_power_loss_emptied_is_written_again(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        stream.message("media", b"content", name="a", step=1, kind="text", format="txt")
        stream.send(stage.yard, attempt)
        place = Path(stage.inner.media_place(run_id, stage.yard.media(run_id, ME)[0]["sha256"], ME))
        place.write_bytes(b"")
        stream.message("media", b"content", name="a", step=2, kind="text", format="txt")
        stream.send(stage.yard, attempt, 1)
        assert place.read_bytes() == b"content"

    def test_the_step_that_a_run_names_goes_over_the_one_of_a_name(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        stream.message("output", path="best.png", step=7)
        stream.message("output", path="models", step=3)
        stream.message("output", path="a_1.png", step=1 << 70)
        stream.message("output", path="models", step=4)
        stream.send(stage.yard, attempt)
        kind = {"size": 1, "mtime_us": 1, "type": "image"}
        listed = [
            {**kind, "path": "a_1.png", "step": 1, "series": "a"},
            {**kind, "path": "best.png"},
            {**kind, "path": "models/é_2/w.pt", "step": 2, "series": "models/é"},
        ]
        stage.yard.report_outputs(attempt, listed)
        found = {item["path"]: (item["step"], item["series"]) for item in stage.yard.outputs(run_id, ME)}
        assert found == {"a_1.png": (1, "a"), "best.png": (7, None), "models/é_2/w.pt": (4, "models/é")}
        assert {item["path"]: (item["step"], item["series"]) for item in stage.run(run_id)["outputs"]} == found

    def test_data(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        file = {"path": "data/train.csv", "size": 10, "mtime_us": START_US, "via": "open"}
        stream.message("data", files=[file, {**file, "path": "data/é\udcff"}, {"path": 7}, "x"])
        stream.message("data", files=[{**file, "sha256": "ab" * 32}])
        stream.send(stage.yard, attempt)
        found = {item["path"]: item for item in stage.run(run_id)["data"]}
        assert set(found) == {"data/train.csv", "data/é\udcff"}
        assert found["data/train.csv"]["sha256"] == "ab" * 32
        assert found["data/é\udcff"]["sha256"] is None

    def test_a_directory_that_was_opened_file_by_file_stands_for_what_was_seen_in_it(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        first, second = Spooled(), Spooled("0f" * 8)
        paths = ["Images/a.png", "images/a.png", "images/b/c.png", "images2/a.png", "/images/a.png", "images/own.png"]
        files = [{"path": path, "size": 3, "mtime_us": START_US, "via": "open"} for path in paths]
        files[-1]["via"] = "declared"
        first.message("data", files=[*files[:3], {"path": "images/b", "count": 200, "size": 600, "via": "open"}])
        first.message("data", files=[*files[3:], {"path": "images", "count": 300, "size": 900, "via": "open"}])
        first.send(stage.yard, attempt)
        second.message("data", files=[{**files[1], "path": "images/later.png"}, {**files[1], "via": "fd"}])
        second.message("data", files=[{"path": "images/a.png", "via": None, "sha256": "ab" * 32}])
        second.message("data", files=[{"path": "images", "count": 100, "size": 300, "via": "open"}])
        second.send(stage.yard, attempt)
        found = {item["path"]: item for item in stage.run(run_id)["data"]}
        assert set(found) == {"Images/a.png", "images2/a.png", "/images/a.png", "images/own.png", "images"}
        assert (found["images"]["files"], found["images"]["size"]) == (300, 900)
        second.message("data", files=[{"path": ".", "count": 400, "size": 1200, "via": "open"}])
        second.send(stage.yard, attempt, 3)
        assert {item["path"] for item in stage.run(run_id)["data"]} == {"/images/a.png", "images/own.png", "."}

    def test_words_that_a_database_may_not_hold_are_left_out(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        file = {"size": 1, "mtime_us": 1}
        for number, odd in enumerate(["\0", "\ud800", "é" * 16, 7, ["open"]]):
            stream.message("data", files=[{**file, "path": f"{number}.csv", "via": odd, "sha256": odd}])
        stream.send(stage.yard, attempt)
        found = stage.run(run_id)["data"]
        assert [(item["path"], item["via"], item["sha256"]) for item in found] == [
            (f"{number}.csv", "", None) for number in range(5)
        ]

    def test_what_is_said_has_bounds(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream, long = Spooled(), "x" * 1_000_000
        more: dict[str, Any] = {f"more{number}": 1 for number in range(1000)}
        stream.message("process", writer="sdk", pid=1, program=long, **more)
        stream.message("params", values={f"p{number}": 1 for number in range(200)}, origin="call", source=long)
        stream.message("params", values={f"q{number}": 1 for number in range(10_002)}, origin="call")
        stream.message("media", b"x", name="m", kind="text", format="txt", caption=long)
        stream.message("progress", done=1, total=10**400, source=long, **more)
        stream.message("capture", notes=[long])
        stream.message("refused", name="x", why=long)
        stream.message("missing", records=1, why=long)
        stream.message("data", files=[{"path": long, "size": 1, "mtime_us": 1}])
        stream.message("output", path=long, step=1)
        stream.send(stage.yard, attempt)
        run = stage.run(run_id)
        assert len(run["params"]) == 200 + 10_000
        assert run["param_sources"]["p7"] == "x" * 1000
        assert [len(item["caption"]) for item in stage.yard.media(run_id, ME)] == [1000]
        assert (run["progress"]["done"], len(run["progress"]["source"])) == (1, 1000)
        assert set(run["progress"]) <= {"at", "done", "total", "left_s", "source"}
        refused = {item["name"]: len(item["why"]) for item in run["capture"]["refused"]}
        assert refused.keys() == {"x", "q10000"}
        assert refused["x"] == len(run["capture"]["notes"][0]) == len(run["capture"]["missing_why"]) == 1000
        assert run["data"] == []
        with stage.inner.context.db.read() as connection:
            row = tracked.find_stream(connection, attempt, stream.stream)
        assert row is not None
        assert set(row.process) == {"at", "writer", "pid", "program"}

    def test_it_goes_with_the_run_and_survives_a_restart(self, stage: Stage) -> None:
        run_id, agent, attempt = started(stage)
        stream = Spooled()
        stream.row({"loss": 1.5}, 1)
        stream.message("params", values={"lr": 0.1}, origin="cli")
        stream.send(stage.yard, attempt)
        stage.restart()
        stream.row({"loss": 2.5}, 2)
        assert stream.send(stage.yard, attempt) == 4
        assert points(stage, run_id, "loss") == [(1, 1.5), (2, 2.5)]
        agent.end(attempt)
        listed = stage.yard.runs({}, ME)["runs"][0]
        assert listed["params"] == {"lr": 0.1}
        assert listed["metrics"]["loss"]["count"] == 2
        stage.yard.remove(run_id, True, ME)
