"""What paths of outputs say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.capture.steps import step_of, type_of


@pytest.mark.parametrize(
    ("path", "series", "step"),
    [
        ("sample_0003.png", "sample", 3),
        ("out/sample-12.png", "out/sample", 12),
        ("frame0012.jpg", "frame", 12),
        ("frame.0001", "frame", 1),
        ("samples/0003.png", "samples", 3),
        ("model_10000.pt", "model", 10000),
        ("fig_e12.png", "fig", 12),
        ("Epoch_7.png", "epoch", 7),
        ("iter_40000.pth", "iter", 40000),
        ("epoch=3-step=100.ckpt", "step", 100),
        ("epoch=3-step=100-v1.ckpt", "step", 100),
        ("epoch=3-val_loss=0.21.ckpt", "val_loss", 3),
        ("global_step=1000/pred.png", "pred", 1000),
        ("weights.03-0.25.hdf5", "weights", 3),
        ("model.ckpt-1000.index", "model", 1000),
        ("ckpt/model_12.pth.tar", "ckpt/model", 12),
        ("checkpoint-500/model.safetensors", "model", 500),
        ("out/checkpoint-500/model-00001-of-00002.safetensors", "out/model-00001-of-00002", 500),
        ("epoch_3/image_7.png", "image_7", 3),
        ("out_2026-01-01/sample_3.png", "out_2026-01-01/sample", 3),
    ],
)
def test_steps(path: str, series: str, step: int) -> None:
    assert step_of(path) == (series, step)


@pytest.mark.parametrize(
    "path",
    "2026-01-01.png 20260101.png run_2026-01-01_12-30-45.png 20260101123456.png 31-12-2025.png x_1722512345.png "
    "resnet50.pt resnet-50.pt v2.png model_v2.pt seed_42.png fold_3.csv rank-1.log acc_0.93.pt lr_1e-3.png lr1e-3.png "
    "1.5.png img_256x256.png llama-7b.bin model-00001-of-00002.safetensors fig1.png loss.png last.ckpt "
    "events.out.tfevents.1722512345.host.12.0".split(),
)
def test_what_is_no_step(path: str) -> None:
    assert step_of(path)[1] is None


@given(st.text(alphabet="aev019_-=. /step", max_size=40) | st.text(max_size=40))
def test_any_path_has_a_series_and_perhaps_a_step(path: str) -> None:
    series, step = step_of(path)
    assert isinstance(series, str)
    assert step is None or 0 <= step < 10**9


@given(
    st.sampled_from(["sample", "out/pred", "grid"]), st.integers(0, 10**6), st.sampled_from(["_%d", "-%04d", "_step%d"])
)
def test_files_of_one_series_have_one_name(stem: str, step: int, form: str) -> None:
    assert step_of(stem + form % step + ".png") == (stem, step)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a.PNG", "image"), ("a.svg", "figure"), ("a.pdf", "figure"), ("a.pt", "model"), ("a.pth.tar", "model"),
        ("x/pytorch_model.bin", "model"), ("a.html", "html"), ("a.wav", "audio"), ("a.mp4", "video"), ("a.csv", "table"),
        ("a.log", "text"), ("a.jsonl", "data"), ("a.npy", "array"), ("a.zip", "archive"), ("a.py", "code"),
        ("runs/events.out.tfevents.1.h", "events"), ("a", "file"), ("a.b/c", "file"), (".gitignore", "file"),
    ],
)  # fmt: skip
def test_types(path: str, kind: str) -> None:
    assert type_of(path) == kind
