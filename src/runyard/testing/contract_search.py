"""Contract: searching runs by what they logged, sorting them, pages, columns, archived runs."""

from __future__ import annotations

import math
from typing import Any

import pytest

from runyard.store.types import escape
from runyard.testing.logged import add
from runyard.testing.stage import ME, Stage
from runyard.wire.errors import InvalidError

ODD_NAMES = ("loss", "val/acc", "größe", "a b", "🧪", "'; DROP TABLE runs; --", '"]', "\\", "%", "lambda", "loss.min")


class SearchContract:
    """Finding runs."""

    @staticmethod
    def found(stage: Stage, q: str = "", **filters: Any) -> list[str]:
        return [str(run["id"]) for run in stage.yard.runs({"q": q, **filters}, ME)["runs"]]

    def test_parameters_and_metrics(self, stage: Stage) -> None:
        a, b, c = (stage.submit() for _ in range(3))
        add(stage, a, params_={"lr": 0.1, "opt": "adam"}, metrics_={"loss": [0.9, 0.2], "acc": [0.5, 0.8]})
        add(stage, b, params_={"lr": 1, "opt": "sgd"}, metrics_={"loss": [0.1, 0.4]})
        add(stage, c, metrics_={"loss": [math.nan]})
        for query, ids in {
            "metrics.loss < 0.3": [a], "metrics.loss.min <= 0.2": [b, a], "metrics.loss.best < 0.15": [b],
            "metrics.acc.best == 0.8": [a], "metrics.loss.count == 2 and metrics.loss.step == 1": [b, a],
            "metrics.loss is nan": [c], "has(metrics.acc)": [a], "params.lr is None": [c], "params.lr == 1": [b],
            'params.opt == "adam"': [a], 'params.opt in ("adam", "sgd")': [b, a], '"da" in params.opt': [a],
            "0.05 < params.lr < 0.5": [a], "not (params.lr == 1)": [c, a], "params.lr != 1": [a],
            "metrics.loss < metrics.acc": [a], "metrics.nowhere < 1": [], "not metrics.nowhere < 1": [c, b, a],
            '"lr=0.1"': [a], "opt=SGD": [b],
        }.items():  # fmt: skip
            assert self.found(stage, query) == ids, query

    def test_the_goal_of_a_run_says_what_is_best(self, stage: Stage) -> None:
        usual, own = stage.submit(), stage.submit()
        goals: dict[str, dict[str, Any]] = {usual: {}, own: {"goal_metric": "loss", "goal_sign": 1}}
        for run_id, goal in goals.items():
            add(stage, run_id, metrics_={"loss": [1.0, 3.0], "acc": [1.0, 3.0]}, **goal)
        assert self.found(stage, "metrics.loss.best == 1") == [usual]
        assert self.found(stage, "metrics.loss.best == 3") == [own]
        assert self.found(stage, "metrics.acc.best == 3") == [own, usual]
        assert self.found(stage, "run.goal == 'max loss'") == [own]
        assert self.found(stage, "run.goal is None") == [usual]
        table = stage.yard.table({"columns": ["run.goal"]}, ME)
        assert table["data"] == [["max loss", None]]

    def test_fields_of_runs(self, stage: Stage) -> None:
        a = stage.submit(name="one", tags=["baseline", "ü"], message="first", priority=3,
                         snapshot={"tree": "0" * 40, "commit": "abc123", "branch": "main", "dirty": True})  # fmt: skip
        stage.clock.advance(100)
        agent = stage.agent()
        attempt = agent.take_and_start()
        stage.clock.advance(10)
        agent.end(attempt, 3)
        b = stage.submit(environment={"python": {"version": "3.12.1"}, "packages": {"torch": "2.10.0"}})
        for query, ids in {
            'run.state == "failed"': [a], 'run.state not in ("failed", "lost")': [b], "run.exit_code == 3": [a],
            'run.name == "one"': [a], 'run.name != "two"': [a], "run.name is None": [b], 'run.host == "host-agent"': [a],
            "run.priority > 0": [a], 'run.created < "30s ago"': [a], "run.attempts == 1": [a],
            '"baseline" in tags': [a], '"x" not in tags': [b, a], '"ü" in tags and "first"': [a],
            'code.commit.startswith("abc")': [a], "not code.dirty and has(code.branch)": [b], "code.dirty": [a],
            'env.packages.torch >= "2.9"': [b], 'env.python == "3.12.1"': [b], 'env.packages.jax == "1"': [],
            'run.duration < "1m" and run.duration > 0': [a], 'run.user == "ada"': [b, a],
            'run.command == "python train.py"': [b, a],
        }.items():  # fmt: skip
            if stage.remote and "run.user" in query:
                continue  # who submits is who the connection says
            assert self.found(stage, query) == ids, query

    def test_data_and_the_end_of_the_log(self, stage: Stage) -> None:
        a, b = stage.submit(), stage.submit()
        add(stage, a, data={"/data/train.csv": {"size": 9, "sha256": "ab"}}, log_tail="Epoch 9: CUDA error\nbye")
        add(stage, b, data={"other/not-train.csv": {}})
        assert self.found(stage, 'data["train.csv"]') == [a]
        assert self.found(stage, '"/data/train.csv" in data') == [a]
        assert self.found(stage, 'data["train.csv"].sha256 == "ab" and data.train.csv.size > 8') == [a]
        assert self.found(stage, 'data["train.csv"].sha256 != "ab"') == []
        assert self.found(stage, "has(data)") == [b, a]
        assert self.found(stage, "cuda error") == [a]

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_any_name(self, stage: Stage, name: str) -> None:
        run_id, other = stage.submit(), stage.submit()
        add(stage, run_id, params_={name: name}, metrics_={name: [0.5]})
        add(stage, other, params_={name + "2": name}, metrics_={name + "2": [0.5]})
        quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
        assert self.found(stage, f"params[{quoted}] == {quoted} and metrics[{quoted}] == 0.5") == [run_id]
        assert self.found(stage, order=f"metrics[{quoted}]") == [run_id, other]
        table = stage.yard.table({"columns": [f"metrics[{quoted}]", f"params[{quoted}]"]}, ME)
        assert table["data"] == [[None, 0.5], [None, name]]

    def test_what_is_written_in_a_query_is_never_sql(self, stage: Stage) -> None:
        run_id = stage.submit(name="it's")
        for attempt in (
            "' OR '1'='1",
            "x'; DROP TABLE runs; --",
            "\\'; --",
            "%",
            "_",
            ":v0",
            "%(v0)s",
            "\0",
            escape("\0"),
        ):
            text = '"' + attempt.replace("\\", "\\\\").replace('"', '\\"') + '"'
            for query in (f"run.name == {text}", f"{text} in tags", f"params[{text}] == {text}", f"metrics[{text}] > 1",
                          f"params.x.startswith({text})", f"env.packages[{text}] == {text}", f"data[{text}]"):  # fmt: skip
                assert self.found(stage, query) == [], query
            assert self.found(stage, f"not (run.name == {text})") == [run_id]
        assert self.found(stage, 'run.name == "it\'s"') == [run_id]

    def test_errors_have_a_place_and_a_remedy(self, stage: Stage) -> None:
        for query, column, message, hint in (
            (
                "metrics.loss < 0.5 and run.sate == 1",
                28,
                "run has no field sate",
                "did you mean run.state or run.started?",
            ),
            ("metric.loss < 1", 1, "there is no metric", "did you mean metrics?"),
            ('run.state == "don"', 14, "no run is ever 'don'", "states: queued"),
        ):
            with pytest.raises(InvalidError) as caught:
                stage.yard.runs({"q": query}, ME)
            assert caught.value.details["column"] == column
            assert caught.value.details["query"] == query
            assert caught.value.message == f"column {column} of the query: {message}"
            assert caught.value.hint.startswith(hint)

    def test_names_that_no_run_has_are_pointed_out(self, stage: Stage) -> None:
        run_id = stage.submit()
        add(stage, run_id, params_={"lr": 1}, metrics_={"loss": [1.0]})
        for query, hint in {
            "metrics.los < 5": "no run has metrics.los; did you mean metrics.loss?",
            "params.lrr == 1": "no run has params.lrr; did you mean params.lr?",
            "metrics.lr == 1": "no run has metrics.lr, but some have params.lr",
        }.items():
            answer = stage.yard.runs({"q": query}, ME)
            assert (answer["runs"], answer["hints"]) == ([], [hint])
        assert stage.yard.runs({"q": "metrics.los < 5 or params.lr == 1"}, ME)["hints"] == []
        assert stage.yard.runs({"order": "metrics.los"}, ME)["hints"]
        with pytest.raises(InvalidError, match="no run has a metric or parameter los"):
            stage.yard.runs({"order": "los"}, ME)

    def test_order_and_pages_while_runs_are_added(self, stage: Stage) -> None:
        values = [3.0, 1.0, math.nan, 2.0, 1.0, None, math.inf]
        ids = [stage.submit() for _ in values]
        for run_id, value in zip(ids, values, strict=True):
            if value is not None:
                add(
                    stage, run_id, metrics_={"loss": [value]}, params_={"lr": value, "kind": "b" if value == 1 else "a"}
                )
        up = [ids[n] for n in (1, 4, 3, 0, 6, 2, 5)]
        assert self.found(stage, order="metrics.loss") == up
        assert self.found(stage, order="loss") == up
        assert self.found(stage, order="-params.lr") == [ids[n] for n in (6, 0, 3, 4, 1, 5, 2)]
        assert self.found(stage, order="params.kind,-metrics.loss") == [ids[n] for n in (6, 0, 3, 2, 1, 4, 5)]
        seen: list[str] = []
        before: dict[str, str] = {}
        while len(seen) < len(ids):
            page = stage.yard.runs({"order": "metrics.loss", "limit": 2, **before}, ME)
            seen += [run["id"] for run in page["runs"] if run["id"] in ids]
            add(stage, stage.submit(), metrics_={"loss": [-1.0]})  # before all pages: it shifts none
            before = {"before": page["next"]}
        assert seen == up
        for wrong in ({"order": "-metrics.loss", **before}, {"before": "abc", "order": "loss"}, {"order": "tags"}):
            if wrong.get("before", "x") is not None:
                with pytest.raises(InvalidError):
                    stage.yard.runs(wrong, ME)

    def test_archived_runs_are_left_out_until_asked_for(self, stage: Stage) -> None:
        kept, gone = stage.submit(), stage.submit()
        assert stage.yard.edit(gone, {"archived": True}, ME)["archived_at"]
        assert self.found(stage) == [kept]
        assert self.found(stage, archived=True) == [gone]
        assert self.found(stage, "run.archived") == [gone]
        assert self.found(stage, "run.archived or not run.archived") == [gone, kept]
        assert stage.run(gone)["id"] == gone
        assert stage.yard.edit(gone, {"archived": False}, ME)["archived_at"] is None
        assert self.found(stage) == [gone, kept]
        with pytest.raises(InvalidError):
            stage.yard.edit(gone, {"archived": "yes"}, ME)

    def test_a_bare_name_that_is_a_parameter_of_some_runs_and_a_metric_of_others(self, stage: Stage) -> None:
        a, b, c, d = (stage.submit() for _ in range(4))
        add(stage, a, params_={"lr": 0.3})
        add(stage, b, params_={"lr": 0.1})
        add(stage, c, metrics_={"lr": [0.5, 0.01]})
        table = stage.yard.table({"columns": ["id", "lr", "metrics.lr"]}, ME)
        assert table["data"] == [[d, c, b, a], [None, 0.01, 0.1, 0.3], [None, 0.01, None, None]]
        assert self.found(stage, order="lr")[:2] == [b, a]
        add(stage, d, metrics_={"lr": [0.02]})
        add(stage, stage.submit(), metrics_={"lr": [0.03]})
        assert self.found(stage, order="lr")[:2] == [c, d]

    def test_columns(self, stage: Stage) -> None:
        a, b = stage.submit(name="one"), stage.submit()
        long = "x" * 300
        add(stage, a, params_={"lr": 0.1, "n": 3, "on": True, "text": long, "none": None, "nan": math.nan},
            metrics_={"loss": [2.0, 1.0], "bad": [math.nan], "big": [-math.inf], "system/memory": [1.0]})  # fmt: skip
        table = stage.yard.table({}, ME)
        columns = dict(zip(table["columns"], table["data"], strict=True))
        assert columns == {
            "id": [b, a], "project": ["digits"] * 2, "name": [None, "one"], "state": ["queued"] * 2,
            "created_at": [stage.run(b)["created_at"], stage.run(a)["created_at"]],
            "params.lr": [None, 0.1], "params.n": [None, 3], "params.on": [None, True], "params.text": [None, long],
            "params.none": [None, None], "params.nan": [None, "NaN"],
            "metrics.loss": [None, 1.0], "metrics.bad": [None, "NaN"], "metrics.big": [None, "-Infinity"],
        }  # fmt: skip
        assert (table["next"], table["hints"]) == (None, [])
        asked = [
            'metrics["system/memory"]',
            "metrics.loss.best",
            "loss",
            "run.archived",
            "metrics.loss.step",
            "params.nothing",
            "metrics.loss.mean",
        ]
        table = stage.yard.table({"columns": asked, "q": "has(metrics.loss)"}, ME)
        assert (table["columns"], table["data"]) == (asked, [[1.0], [1.0], [1.0], [False], [1], [None], [1.5]])
        first = stage.yard.table({"columns": ["id"], "limit": 1}, ME)
        second = stage.yard.table({"columns": ["id"], "limit": 1, "before": first["next"]}, ME)
        assert (first["data"], second["data"], second["next"]) == ([[b]], [[a]], None)
        assert stage.yard.table({"q": "nothing like it", "columns": ["id", "metrics.*"]}, ME)["data"] == [[]]
        for wrong in (["tags"], ["run.sate"], ["nowhere"], [""]):
            with pytest.raises(InvalidError):
                stage.yard.table({"columns": wrong}, ME)
