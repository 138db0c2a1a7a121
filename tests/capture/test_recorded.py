"""Files that other people's libraries wrote (fixtures/make.py)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from runyard.capture.watch import FileWatcher

from .writer import FIXTURES, messages, points, read_all

LOSSES = (2.5, 1.25, 0.625)
PNG = b"\x89PNG\r\n\x1a\n"
COUNTS = {"edges": [0.0, 0.5, 1.0, 1.5, 2.0], "counts": [1.0, 0.0, 2.0, 1.0]}


def test_scalars_of_torch() -> None:
    found = read_all(FIXTURES / "torch")
    rows = [(values, step) for values, step, at in found.rows]
    assert rows[:3] == [
        ({"train/loss": loss, "new": loss, "double": loss / 10}, step) for step, loss in enumerate(LOSSES)
    ]
    assert points([found])[9:] == [
        ("nan", 7, "nan"), ("loss/train", 3, "0.5"), ("loss/val", 3, "0.25"), ("hparam/acc", 0, "0.75"),
    ]  # fmt: skip
    assert all(1.7e15 < at < 2e15 for _, _, at in found.rows)


def test_media_of_torch() -> None:
    found = messages([read_all(FIXTURES / "torch")], "media")
    picture, weights, note = found
    assert picture[0] | {"at": 0} == {
        "type": "media", "name": "picture", "step": 1, "kind": "image", "format": "png", "caption": "", "at": 0,
    }  # fmt: skip
    assert picture[1].startswith(PNG)
    assert (weights[0]["name"], weights[0]["kind"], weights[0]["format"]) == ("weights", "histogram", "json")
    assert json.loads(weights[1]) == COUNTS
    assert (note[0]["name"], note[0]["step"], note[0]["kind"], note[1]) == ("note", 2, "text", b"some *text*")


def test_hparams_of_torch_are_parameters() -> None:
    ((message, _),) = messages([read_all(FIXTURES / "torch")], "params")
    assert message["values"] == {"lr": 0.1, "layers": 3, "optimizer": "sgd"}
    assert (message["origin"], message["source"]) == ("call", "TensorBoard, trial")


def test_tensorboardx() -> None:
    found = read_all(FIXTURES / "tensorboardx")
    assert points([found]) == [("loss", step, repr(loss)) for step, loss in enumerate(LOSSES)]
    media = messages([found], "media")
    assert [(item["name"], item["kind"]) for item, _ in media] == [
        ("picture", "image"), ("weights", "histogram"), ("note", "text"),
    ]  # fmt: skip
    assert json.loads(media[1][1]) == COUNTS


def test_tensorflow_2() -> None:
    found = read_all(FIXTURES / "tf")
    values, step, _ = found.rows[0]
    assert step == 5
    assert values == {
        "float32": 0.5, "float64": pytest.approx(0.1), "float16": 0.25, "int32": -3.0, "int64": float(1 << 40),
        "bfloat16": 1.5,
    }  # fmt: skip
    media = [item for item in messages([found], "media") if "old" not in item[0]["name"] and item[0]["step"] != 9]
    assert [(item["name"], item["kind"], item["format"], item["caption"]) for item, _ in media] == [
        ("pictures", "image", "png", "1 of 2"), ("pictures", "image", "png", "2 of 2"), ("note", "text", "md", ""),
        ("weights", "histogram", "json", ""), ("sound", "audio", "wav", ""),
    ]  # fmt: skip
    assert json.loads(media[3][1]) == COUNTS


def test_tensorflow_1_whose_histograms_have_endless_limits() -> None:
    found = read_all(FIXTURES / "tf" / "old")
    assert points([found]) == [("loss", 9, "0.5")]
    weights, picture = messages([found], "media")
    counts = json.loads(weights[1])
    assert (counts["edges"][0], counts["edges"][-1]) == (-1.0, 2.0)
    assert counts["edges"] == sorted(counts["edges"]) and len(counts["edges"]) == len(counts["counts"]) + 1
    assert sum(counts["counts"]) == 4.0
    assert (picture[0]["name"], picture[1][:8]) == ("picture/image/0", PNG)


def test_the_callbacks_of_keras(tmp_path: Path) -> None:
    found = read_all(FIXTURES / "keras")
    by_name: dict[str, list[tuple[int, str]]] = {}
    for name, step, value in points([found]):
        by_name.setdefault(name, []).append((step, value))
    assert by_name["loss"] == [(0, "0.08347023278474808"), (1, "0.07598208636045456"), (2, "0.0693339854478836")]
    assert by_name["train/epoch_loss"] == by_name["loss"]
    assert by_name["validation/epoch_loss"] == by_name["val_loss"]
    assert [step for step, _ in by_name["validation/evaluation_loss_vs_iterations"]] == [2, 4, 6]


def test_lightnings_table_is_written_anew_with_another_column(tmp_path: Path) -> None:
    target = tmp_path / "version_0" / "metrics.csv"
    target.parent.mkdir()
    watcher = FileWatcher(str(tmp_path))
    found = []
    for name in ("before", "after"):
        shutil.copy(FIXTURES / "lightning" / f"{name}.csv", target)
        found.append(watcher.turn(60.0))
    first, second = ([(values, step) for values, step, _ in one.rows] for one in found)
    assert first == [({"epoch": 0.0, "train_loss": 1.0}, 0), ({"epoch": 0.0, "train_loss": 1 / 11}, 10)]
    assert second == [({"epoch": 0.0, "val_loss": 0.5}, 10), ({"epoch": 1.0, "train_loss": 0.25}, 20)]


@pytest.mark.parametrize("order", [("checkpoint-2", "checkpoint-4"), ("checkpoint-4", "checkpoint-2")])
def test_the_states_of_a_trainers_checkpoints_are_one_history(order: tuple[str, str], tmp_path: Path) -> None:
    watcher = FileWatcher(str(tmp_path))
    found = []
    for name in order:
        shutil.copytree(FIXTURES / "transformers" / name, tmp_path / "out" / name)
        found.append(watcher.turn(60.0))
    losses = [(step, value) for name, step, value in points(found) if name == "loss"]
    assert [step for step, _ in losses] == [1, 2, 3, 4]
    assert losses[0] == (1, "57.241878509521484")
    assert [step for name, step, _ in points(found) if name == "eval_loss"] == [2, 4]
