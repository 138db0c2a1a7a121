"""Contract: which value a parameter has that several say."""

from __future__ import annotations

import math

from runyard.testing.contract_files import started
from runyard.testing.spooled import Spooled
from runyard.testing.stage import Stage


class ParamsContract:
    """Parameters by origin: command line, calls, files, constants, guesses."""

    def test_the_origin_of_a_parameter_decides(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        for origin in ("cli", "constant", "file", "default", "call"):
            stream.message("params", values={"lr": origin}, origin=origin, source="from " + origin)
        for number in range(2):
            stream.message("params", values={"seed": number}, origin="call", source="")
        nested = {"optim": {"name": "adam", "betas": [0.9, 0.999], "deep": {"x": None}}, "flag": True, "empty": {}}
        stream.message("params", values={**nested, "nan": math.nan, "big": 2**70}, origin="file", source="a.yaml")
        for first in range(len(stream.records)):
            stream.send(stage.yard, attempt, first, first + 1)
        run = stage.run(run_id)
        assert run["params"] == {
            "big": 2**70, "empty": {}, "flag": True, "lr": "cli", "nan": "NaN", "optim.betas": [0.9, 0.999],
            "optim.deep.x": None, "optim.name": "adam", "seed": 1,
        }  # fmt: skip
        assert run["param_sources"]["lr"] == "from cli"
        assert run["param_origins"]["lr"] == "cli"
        assert run["param_sources"]["flag"] == "a.yaml"

    def test_a_guess_from_the_command_line_is_forgotten_once_the_program_says_what_it_means(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        stream.message("params", values={"lr": 1, "epochs": 2}, origin="command", source="command line")
        stream.message("params", values={"LAYERS": 3}, origin="constant", source="a.py:1")
        stream.send(stage.yard, attempt)
        assert stage.run(run_id)["params"] == {"LAYERS": 3, "epochs": 2, "lr": 1}
        stream.message("params", values={"learning_rate": 1.0}, origin="cli", source="argparse")
        stream.message("params", values={"lr": 5}, origin="command", source="command line")
        stream.send(stage.yard, attempt, 2)
        assert stage.run(run_id)["params"] == {"LAYERS": 3, "learning_rate": 1.0}

    def test_a_command_line_goes_over_a_file_and_that_of_a_script_stays(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        stream.message("params", values={"lr": 7, "wd": 3}, origin="script", source="command line")
        stream.message("params", values={"seed": 7}, origin="command", source="command line")
        stream.message("config", path="c.yaml", format="yaml", text="lr: 0.1\nseed: 1\n")
        stream.send(stage.yard, attempt)
        assert stage.run(run_id)["params"] == {"lr": 7, "seed": 7, "wd": 3}
        stream.message("params", values={"lr": 8}, origin="cli", source="argparse")
        stream.send(stage.yard, attempt, 3)
        assert stage.run(run_id)["params"] == {"lr": 8, "seed": 1, "wd": 3}

    def test_configuration_files_are_read_here(self, stage: Stage) -> None:
        run_id, _, attempt = started(stage)
        stream = Spooled()
        stream.message("params", values={"lr": 0.5}, origin="default", source="argparse")
        stream.message(
            "config", path="conf/a.yaml", format="yaml", text="lr: 1e-4\noptim: {name: adam, nesterov: no}\n"
        )
        stream.message("config", path="b.json", format="json", text="{not json")
        stream.send(stage.yard, attempt)
        run = stage.run(run_id)
        assert run["params"] == {"lr": 1e-4, "optim.name": "adam", "optim.nesterov": "no"}
        assert run["param_sources"]["lr"] == "conf/a.yaml"
        assert any("b.json" in note for note in run["capture"]["notes"])
