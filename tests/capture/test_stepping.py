"""At which step a metric was printed."""

from __future__ import annotations

import pytest

from runyard.capture.lines import LineParser


def steps(*lines: str) -> list[int]:
    parser = LineParser()
    return [point.step for point in parser.feed("".join(line + "\n" for line in lines).encode(), 1) + parser.flush(1)]


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("loss: 0.5 (step 7)", 7),
        ("loss: 0.5 (7)", 7),
        ("loss: 0.5 (7.5)", 0),
        ("step=7 loss=0.5", 7),
        ("loss=0.5 step=7", 7),
        ("epoch: 7 loss: 0.5", 7),
        ("Epoch 7/10 - loss: 0.5", 7),
        ("Epoch #7: loss=0.5", 7),
        ("Iteration 7, loss = 0.5", 7),
        ("iter 1,007: loss 0.5", 1007),
        ("global_step: 7 epoch: 1 loss: 0.5", 7),
        ("Epoch: 1, Batch: 7, Loss: 0.5", 7),
        ("[7]\ttrain-logloss:0.5", 7),
        ("7:\tlearn: 0.5", 7),
        ("Episode 7\tLast reward: 20.00", 7),
        ('{"step": 7, "loss": 0.5}', 7),
        ('{"epoch": 7, "loss": 0.5}', 7),
        ("{'epoch': 1, 'step': 7, 'loss': 0.5}", 7),
        ("Epoch(train)  [1][  7/1000]  loss: 0.5", 7),
    ],
)
def test_a_line_says_its_step(line: str, step: int) -> None:
    assert steps(line) == [step]


def test_a_step_holds_for_later_lines() -> None:
    assert steps("step: 10", "loss: 0.5", "acc: 0.9", "step: 20", "loss: 0.4") == [10, 10, 20]
    assert steps("Epoch 1/3", "loss: 0.5", "loss: 0.4", "Epoch 2/3", "loss: 0.3") == [1, 1, 2]
    assert steps("Test: 5", "Starting epoch 3", "loss: 0.5") == [0, 3]


def test_without_a_step_the_next_begins_when_a_name_comes_again() -> None:
    assert steps("loss: 0.5", "acc: 0.9", "loss: 0.4", "acc: 0.91", "acc: 0.92") == [0, 0, 1, 1, 2]


def test_steps_that_begin_anew_in_each_epoch_go_on() -> None:
    lines = [f"Epoch [{epoch}/2], Step [{step}/600], Loss: 0.5" for epoch in (1, 2) for step in (300, 600)]
    assert steps(*lines) == [300, 600, 900, 1200]
    lines = [f"epoch {epoch} step {step} loss 0.5" for epoch in (0, 1, 2) for step in (0, 1, 2)]
    assert steps(*lines) == [0, 1, 2, 2, 3, 4, 4, 5, 6]
    lines = [f"Train Epoch: {epoch} [{at}/60000 ({at // 600}%)]\tLoss: 0.5" for epoch in (1, 2) for at in (0, 640)]
    assert steps(*lines) == [0, 640, 60000, 60640]
    header = [line for epoch in (1, 2) for line in (f"Epoch {epoch}", "step 1 loss 0.5", "step 2 loss 0.4")]
    assert steps(*header) == [1, 2, 3, 4]


def test_steps_that_go_on_over_epochs_are_left_alone() -> None:
    lines = [f"epoch {epoch} step {epoch * 100 + step} loss 0.5" for epoch in (0, 1) for step in (0, 50)]
    assert steps(*lines) == [0, 50, 100, 150]


def test_an_epoch_is_the_step_only_where_nothing_finer_is_said() -> None:
    assert steps("epoch 1 step 100 loss 0.5", "epoch 1: val_loss 0.4", "epoch 2 step 200 loss 0.3") == [100, 100, 200]
    assert steps("Step 1: preparing", "Epoch 1: loss 0.5", "Epoch 2: loss 0.4", "Epoch 3: loss 0.4")[1:] == [2, 3]
    assert steps("epoch 3 step 9 loss 0.5", "epoch 1 loss 0.5", "epoch 2 loss 0.5") == [9, 1, 2]


def test_metrics_after_training_keep_its_last_step() -> None:
    assert steps("iter 10: loss 0.5", "test accuracy: 0.9") == [10, 10]
