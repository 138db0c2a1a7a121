"""What counts as a metric in a printed line, and what does not."""

from __future__ import annotations

import math
from typing import Any

import pytest

from runyard.capture.lines import LINE_MAX, LineParser, Point

AT = 1_700_000_000_000_000
METRICS: dict[str, dict[str, float]] = {
    # Guild's lines
    "loss: 0.5": {"loss": 0.5},
    "val/loss: 1e-3": {"val/loss": 0.001},
    "loss: .5": {"loss": 0.5},
    "loss: 0.5 (best so far)": {"loss": 0.5},
    "x: -inf": {"x": -math.inf},
    "x: +Inf": {"x": math.inf},
    "accuracy : 0.9": {"accuracy": 0.9},
    "lr: 0.1": {"lr": 0.1},
    # with an equals sign
    "loss=0.25": {"loss": 0.25},
    "val_acc = 0.93": {"val_acc": 0.93},
    "loss=0.5 acc=0.9": {"loss": 0.5, "acc": 0.9},
    "loss:0.5 acc:0.9": {"loss": 0.5, "acc": 0.9},
    # behind a logger's prefix
    "INFO 2026-01-01 12:00:01 loss: 0.5": {"loss": 0.5},
    "INFO:root:loss: 0.5": {"loss": 0.5},
    "INFO:root:Validation loss: 0.5": {"Validation_loss": 0.5},
    "2026-11-21 13:20:11,431 - root - INFO - Accuracy: 0.91": {"Accuracy": 0.91},
    "2026-11-21 13:20:11,431 - train - INFO - Accuracy: 0.91": {"Accuracy": 0.91},
    "[2026-01-01 12:00:01,123][__main__][INFO] - loss: 0.5": {"loss": 0.5},
    "2026-01-01 12:00:01.123 | INFO     | __main__:main:12 - loss: 0.5, acc: 0.9": {"loss": 0.5, "acc": 0.9},
    "2026-01-01T12:00:01Z loss=0.5": {"loss": 0.5},
    "I0101 12:00:01.123456 1234 train.py:55] loss: 0.5": {"loss": 0.5},
    "[rank0]: loss: 0.5": {"loss": 0.5},
    # several, with words, units, percent, separated thousands
    "epoch 1 | loss 1.000 | acc 91.2% | 3.2s": {"loss": 1.0, "acc": 91.2},
    "iter 100: loss 2.3, time 12.30ms, mfu -100.00%": {"loss": 2.3, "time": 12.3, "mfu": -100.0},
    "step 100: train loss 2.3, val loss 2.4": {"train_loss": 2.3, "val_loss": 2.4},
    "Epoch 3, train loss: 0.5, best accuracy: 91.5%": {"train_loss": 0.5, "best_accuracy": 91.5},
    "time: 3.2s": {"time": 3.2},
    "speed: 12it/s": {"speed": 12.0},
    "tokens: 1,234,567, loss: 0.5": {"tokens": 1234567.0, "loss": 0.5},
    "Training finished in 12.5 s, best accuracy: 0.93": {"best_accuracy": 0.93},
    "Best accuracy so far: 0.93.": {"Best_accuracy_so_far": 0.93},
    "mse: 0.3 +/- 0.1": {"mse": 0.3},
    "Test set: Average loss: 0.05, Accuracy: 9829/10000 (98%)": {"test/Average_loss": 0.05, "test/Accuracy": 0.9829},
    "[train] loss: 0.5, acc: 0.9": {"train/loss": 0.5, "train/acc": 0.9},
    "Validation - loss: 0.5": {"val/loss": 0.5},
    "Epoch 1: Train: loss 0.5 Val: loss 0.6": {"train/loss": 0.5, "val/loss": 0.6},
    "val: val_loss=0.5": {"val_loss": 0.5},
    "Epoch: [0][ 10/20]\tTime  0.125 ( 0.130)\tLoss 5.9e+00 (6.9e+00)\tAcc@1  10.00 (  0.78)": {
        "Time": 0.125, "Loss": 5.9, "Acc@1": 10.0,
    },
    "[10]\ttrain-logloss:0.5\tval-logloss:0.6": {"train-logloss": 0.5, "val-logloss": 0.6},
    "[100]\tvalid_0's l2: 0.24\tvalid_0's auc: 0.8": {"valid_0_l2": 0.24, "valid_0_auc": 0.8},
    " iteration      100/     500 | consumed samples:         1600 | lm loss: 8.1E+00 | grad norm: 3.1 |": {
        "consumed_samples": 1600.0, "lm_loss": 8.1, "grad_norm": 3.1,
    },
    " iteration 100/ 500 | elapsed time per iteration (ms): 1234.5 | throughput per GPU (TFLOP/s/GPU): 123.4 | lm loss: 8.1 |"
    " number of nan iterations:   0 |": {
        "elapsed_time_per_iteration_ms": 1234.5, "throughput_per_GPU_TFLOP/s/GPU": 123.4, "lm_loss": 8.1,
        "number_of_nan_iterations": 0.0,
    },
    # as tensors print themselves
    "loss: tensor(0.54, grad_fn=<NllLossBackward0>)": {"loss": 0.54},
    "loss tensor(0.5, device='cuda:0', grad_fn=<DivBackward0>) acc 0.9": {"loss": 0.5, "acc": 0.9},
    "epoch 3 loss tensor([0.25], requires_grad=True), lr: 0.1": {"loss": 0.25, "lr": 0.1},
    "score: tensor(0.5, device='cuda:1')": {"score": 0.5},
    "loss: tf.Tensor(0.5, shape=(), dtype=float32)": {"loss": 0.5},
    "loss: tensor(inf, device='cuda:0') acc: np.float64(0.3)": {"loss": math.inf, "acc": 0.3},
    # of a validation
    " *   Acc@1 12.340 Acc@5 33.210": {"test/Acc@1": 12.34, "test/Acc@5": 33.21},
    " * Acc@1 12.340 Acc@5 33.210 loss 1.5": {"test/Acc@1": 12.34, "test/Acc@5": 33.21, "test/loss": 1.5},
    # units are dropped, but not what scales a number
    "loss: 0.5, memory: 40.12GiB(42.1%), speed: 3 it/s, params: 1.2M, rate: 5k/s, tokens: 3.1B": {
        "loss": 0.5, "memory": 40.12, "speed": 3.0,
    },
    "| epoch 001:    100 / 1000 loss=5.6, ppl=48, wps=1234": {"loss": 5.6, "ppl": 48.0, "wps": 1234.0},
    # objects
    '{"step": 3, "loss": 0.5, "phase": "train", "ok": true}': {"loss": 0.5},
    '{"epoch": 3, "train": {"loss": 0.5}, "val": {"loss": 0.6}}': {"train/loss": 0.5, "val/loss": 0.6},
    '{"loss": Infinity, "acc": -Infinity}': {"loss": math.inf, "acc": -math.inf},
    '{"level": "info", "ts": 1700000000.5, "line": 12, "loss": 0.5}': {"loss": 0.5},
    "{'loss': 0.5, 'acc': 0.9}": {"loss": 0.5, "acc": 0.9},
    "{'loss': tensor(0.5, device='cuda:0'), 'acc': np.float64(0.3)}": {"loss": 0.5, "acc": 0.3},
    "INFO step 10: {'loss': 0.5, 'note': None}": {"loss": 0.5},
}  # fmt: skip
NOTHING = """\
params: 1.2M
score: 3k
layer: Linear(in_features=784, out=tensor(0.5))
weights: tensor([0.1, 0.2])
ratio: 3:4
3:4
CUDA_VISIBLE_DEVICES=0
OMP_NUM_THREADS=1 NCCL_DEBUG=2
Listening on http://127.0.0.1:8086
see https://example.org/?loss=0.5&acc=0.9
server=127.0.0.1:80
localhost:8080
node01:8080 joined
port: 8080
10.0.0.1 - - [01/Jan/2026:12:00:01 +0000] "GET /x?a=1&b=2 HTTP/1.1" 200 1234
Python: 3.11.7
version: 2.0
torch: 2.13.0
torch==2.13.0
numpy>=1.2
Collecting torch==2.0 (from -r requirements.txt (line 3))
  Downloading numpy-1.26.4-cp311.whl (18.3 MB)
     ━━━━━━━━━━━━━━━━━━━━━━ 18.3/18.3 MB 45.6 MB/s eta 0:00:00
Successfully installed numpy-1.26.4 torch-2.0
Requirement already satisfied: numpy>=1.2 in ./x (1.26.4)
Using seed=42 for the run
seed: 42
lr=0.1 batch_size=32 epochs=10
Namespace(lr=0.1, epochs=10, batch_size=32)
Linear(in_features=784, out_features=10, bias=True)
  (0): Dropout(p=0.1, inplace=False)
tensor([0.1000, 0.2000])
tensor(0.5, grad_fn=<MseLossBackward0>)
    betas: (0.9, 0.999)
    eps: 1e-08
learning_rate=5e-05,
  "hidden_size": 768,
"loss": 0.5,
{"name": "bert", "hidden_size": 768, "dropout": 0.1}
{'lr': 0.1, 'model': 'resnet'}
python train.py --lr=0.1 --epochs=10
+ python train.py lr=0.1
>>> loss = 0.5
Saving checkpoint to epoch=3-val_loss=0.25.ckpt
/data/run/loss=0.5/model.pt saved
Total params: 21,840
Trainable params: 5 (20.00 B)
GPU available: False, used: False
Modules in train mode: 1
number of parameters: 0.80M
RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 15.78 GiB total capacity)
ValueError: size mismatch, m1: [32 x 10], m2: [5 x 3]
Elapsed: 0:10:05
Time: 12:30:11
date: 2026-01-01
size: 3x224x224
image size: 224 x 224
range: 0.1-0.5
done: 3/10
commit: 1e5f2a9
id: 0x1f
Running 8 jobs on 4 GPUs
Found 100 images belonging to 10 classes.
Downloaded 3 files in 2.5 seconds
train.py:12: error: no such thing
return 0.5
if loss == 0.5:
a += 1
a == 0.5
shape=(3, 4)
| 0 | layer | Linear | 5 | train |
WARNING: batch 3 has 5 NaN values
Setting up worker 3: memory=8 GiB
real	0m3.2s
CPU times: user 3.2 s, sys: 0.1 s, total: 3.3 s
info: information
\ufffd\ufffd 12 \x01 3""".splitlines()


def parse(text: str | bytes, **settings: Any) -> list[Point]:
    parser = LineParser(**settings)
    data = text.encode() if isinstance(text, str) else text
    return parser.feed(data, AT) + parser.flush(AT)


def rows(text: str | bytes, **settings: Any) -> list[tuple[int, dict[str, float]]]:
    return [(point.step, point.values) for point in parse(text, **settings)]


@pytest.mark.parametrize("line", METRICS)
def test_metrics(line: str) -> None:
    assert [point.values for point in parse(line + "\n")] == [METRICS[line]]


@pytest.mark.parametrize("line", NOTHING)
def test_no_metrics(line: str) -> None:
    assert parse(line + "\n") == []


def test_nan_is_a_value() -> None:
    for line in ("loss: nan", "loss=NaN", '{"loss": NaN}', "{'loss': nan}", "step 3: loss nan"):
        (point,) = parse(line)
        assert list(point.values) == ["loss"]
        assert math.isnan(point.values["loss"])


def test_a_point_has_the_time_at_which_its_line_ended() -> None:
    parser = LineParser()
    assert parser.feed(b"step: 3\nloss: 0.", 1) == []
    assert parser.feed(b"5\nacc: 0.9\n", 2) == [Point({"loss": 0.5}, 3, 2), Point({"acc": 0.9}, 3, 2)]


def test_tracebacks_and_warnings_hold_nothing() -> None:
    text = """\
Traceback (most recent call last):
  File "train.py", line 12, in <module>
    loss: 0.5
    acc=0.9, loss=0.5
ValueError: loss: 0.5

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "train.py", line 15, in <module>
    step(loss=0.5)
RuntimeError: the loss=0.5 is too high
[rank0]: Traceback (most recent call last):
[rank0]:   File "train.py", line 3, in main
[rank0]:     loss = 0.5
[rank0]: KeyError: 5
/env/x.py:21: UserWarning: loss: 0.5 is high
  loss = 0.5
"""
    assert rows(text + "loss: 0.25\n") == [(0, {"loss": 0.25})]


def test_a_line_that_is_too_long_holds_nothing_and_is_not_kept() -> None:
    parser = LineParser()
    for _ in range(3000):
        assert parser.feed(b"loss: 0.5 " * 1000, AT) == []
        assert len(parser.state()["partial"]) <= LINE_MAX
    assert parser.feed(b"\nloss: 0.5\n", AT) == [Point({"loss": 0.5}, 0, AT)]
    assert parser.feed(b"loss: 0.5" + b" " * LINE_MAX + b"\nacc: 1.0\r", AT) == [Point({"acc": 1.0}, 0, AT)]


def test_colours_cursor_moves_and_odd_bytes() -> None:
    assert rows(b"\x1b[1mloss\x1b[0m: \x1b[32m0.5\x1b[0m\n") == [(0, {"loss": 0.5})]
    assert rows(b"loss: 0.5\x1b[K\r\nacc: 0.9\x1b[A") == [(0, {"loss": 0.5}), (0, {"acc": 0.9})]
    assert rows(b"\xff\xfe\nloss: 0.5\ncaf\xe9: 0.5\n") == [(0, {"loss": 0.5})]
    assert rows("\x1b]0;loss: 0.9\x07verlust größe: 0.5\n") == []
    assert rows("größe=0.5\n") == [(0, {"größe": 0.5})]


def test_names_that_differ_in_a_digit_are_told_apart() -> None:
    assert rows("Acc@1: 0.1\nAcc@5: 0.5\nAcc@1: 0.2\n") == [
        (0, {"Acc@1": 0.1}),
        (0, {"Acc@5": 0.5}),
        (1, {"Acc@1": 0.2}),
    ]
