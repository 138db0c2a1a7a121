"""What is found in the consoles of real libraries (transcripts/README.md), through a pipe and through a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from runyard.capture.lines import LineParser

TRANSCRIPTS = Path(__file__).parent / "transcripts"
Series = dict[str, list[tuple[int, float]]]

KERAS = {
    "accuracy": [(1, 0.4688), (2, 0.4896), (3, 0.5104), (1, 0.5052), (2, 0.5156)],
    "loss": [(1, 0.8523), (2, 0.7480), (3, 0.7084), (1, 0.6961), (2, 0.6930)],
    "val_accuracy": [(1, 0.5938), (2, 0.5), (3, 0.5156), (1, 0.5312), (2, 0.5)],
    "val_loss": [(1, 0.7153), (2, 0.7024), (3, 0.7024), (1, 0.7039), (2, 0.7048)],
    "eval/accuracy": [(3, 0.5117)],
    "eval/loss": [(3, 0.6967)],
}
LIGHTNING = {
    "train_loss_step": list(enumerate((
        4.34, 2.91, 1.32, 1.03, 0.557, 0.985, 0.361, 0.205, 0.068, 0.079, 0.0343, 0.0214, 0.0182, 0.0148, 0.00915, 0.00775,
        0.00241, 0.004, 0.0015, 0.000797, 0.000855, 0.000476, 0.000347, 0.000384,
    ), 1)),
    "val_loss": [(8, 0.0854), (16, 0.0033), (24, 0.000175), (24, 0.00017507265147287399)],
}  # fmt: skip
HF = {
    "loss": [(5, 0.6932), (10, 0.6914), (15, 0.6867), (20, 0.691)],
    "grad_norm": [(5, 0.2335), (10, 0.1237), (15, 0.2218), (20, 0.1532)],
    "learning_rate": [(5, 0.0008333), (10, 0.000625), (15, 0.0004167), (20, 0.0002083)],
    "eval_loss": [(8, 0.6892), (16, 0.6866), (24, 0.6849), (24, 0.6849473714828491)],
    "train_loss": [(24, 0.6898)],
    "epoch": [
        (5, 0.625), (8, 1.0), (10, 1.25), (15, 1.875), (16, 2.0), (20, 2.5), (24, 3.0), (24, 3.0), (24, 3.0),
    ],
}  # fmt: skip
HF_SPEEDS = {
    "pipe": {
        "eval_runtime": [(8, 0.0044), (16, 0.004), (24, 0.004), (24, 0.0035)],
        "eval_samples_per_second": [(8, 3605.0), (16, 3960.0), (24, 3970.0), (24, 4616.735)],
        "eval_steps_per_second": [(8, 450.6), (16, 495.0), (24, 496.3), (24, 577.092)],
        "train_runtime": [(24, 0.2266)],
        "train_samples_per_second": [(24, 847.2)],
        "train_steps_per_second": [(24, 105.9)],
    },
    "pty": {
        "eval_runtime": [(8, 0.013), (16, 0.0098), (24, 0.0076), (24, 0.0047)],
        "eval_samples_per_second": [(8, 1231.0), (16, 1633.0), (24, 2114.0), (24, 3415.731)],
        "eval_steps_per_second": [(8, 153.8), (16, 204.1), (24, 264.3), (24, 426.966)],
        "train_runtime": [(24, 0.171)],
        "train_samples_per_second": [(24, 1123.0)],
        "train_steps_per_second": [(24, 140.3)],
    },
}
TQDM = {
    # The first bar: 20 steps, drawn every fifth. Then three inner bars of 8. Then a bar of 5,000 bytes.
    "loss": [
        (5, 0.1), (10, 0.0667), (15, 0.05), (5, 0.125), (8, 0.0769), (13, 0.0625), (16, 0.0476), (21, 0.0417),
        (1000, 0.1), (2000, 0.2), (3000, 0.3), (4000, 0.4),
    ],
    "lr": [(5, 0.001)],
    "val_loss": [(1, 0.5), (2, 0.25), (3, 0.167)],
}  # fmt: skip
PYTORCH = {
    "train/Loss": [
        (0, 2.3), (640, 0.209091), (1280, 0.109524), (1920, 0.074194), (2560, 0.056098), (3200, 0.045098), (3840, 0.037705),
        (4480, 0.032394),
    ],
    "test/Average_loss": [(1920, 0.0005), (4480, 0.0005)],
    "test/Accuracy": [(1920, 2100 / 2560), (4480, 2200 / 2560)],
    "Time": [(0, 0.125), (10, 0.125), (20, 0.125), (30, 0.125)],
    "Loss": [(0, 6.9), (10, 5.9), (20, 6.9), (30, 5.9), (100, 0.01), (200, 0.005), (300, 0.001)],
    "Acc@1": [(0, 0.0), (10, 10.0), (20, 0.0), (30, 10.0)],
    "test/Acc@1": [(10, 0.0), (30, 10.0)],
    "test/Acc@5": [(10, 0.0), (30, 20.0)],
    "train_loss": [(0, 4.2874)],
    "val_loss": [(0, 4.2823)],
    "loss": [(0, 4.2), (10, 3.2), (20, 2.2), (1, 1.0), (2, 0.5), (3, 0.25)],
    "time": [(0, 12.3), (10, 12.3), (20, 12.3)],
    "mfu": [(0, -100.0), (10, -100.0), (20, -100.0)],
    "acc": [(1, 91.2), (2, 92.2)],
    "lr": [(3, 0.001)],
    "Accuracy": [(3, 0.91)],
}  # fmt: skip
RICH_END = [(24, 0.0), (24, 0.00017507265147287399)]
EXPECTED: dict[str, Series] = {
    "keras.pipe": KERAS,
    "keras.pty": KERAS,
    # In 100 columns the bar has no room for the last of its metrics.
    "lightning.pipe": {**LIGHTNING, "train_loss_epoch": [(8, 1.46), (16, 0.0316), (24, 0.00135)]},
    "lightning.pty": LIGHTNING,
    # Rich draws only the end of a bar through a pipe, and some frames a second on a terminal.
    "lightning_rich.pipe": {
        "train_loss_step": [(8, 0.0)],
        "val_loss": [(8, 0.0), (8, 0.00017507265147287399)],
        "train_loss_epoch": [(8, 0.001)],
    },
    "lightning_rich.pty": {
        "train_loss_step": [(8, 0.205), (11, 0.034), (15, 0.009), (16, 0.008), (24, 0.0)],
        "val_loss": [(8, 0.085), (16, 0.003), *RICH_END],
        "train_loss_epoch": [(8, 1.464), (16, 0.032), (24, 0.001)],
    },
    "hf_trainer.pipe": {**HF, **HF_SPEEDS["pipe"]},
    "hf_trainer.pty": {**HF, **HF_SPEEDS["pty"]},
    "tqdm.pipe": TQDM,
    "tqdm.pty": TQDM,
    "tqdm_steady.pipe": {},
    "tqdm_steady.pty": {},
    "pytorch.pipe": PYTORCH,
    "pytorch.pty": PYTORCH,
}


def read(name: str) -> bytes:
    return (TRANSCRIPTS / f"{name}.log").read_bytes()


def test_every_transcript_is_tested() -> None:
    assert {path.stem for path in TRANSCRIPTS.glob("*.log")} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_metrics(name: str) -> None:
    parser = LineParser()
    found: Series = {}
    for point in parser.feed(read(name), 1) + parser.flush(2):
        for key, value in point.values.items():
            found.setdefault(key, []).append((point.step, value))
    assert found == EXPECTED[name]


@pytest.mark.parametrize(
    ("name", "so_far", "progress"),
    [
        ("keras.pty", b"23/24\x1b[0m", (23, 72)),
        ("hf_trainer.pty", b" 8/24 [", (8, 24)),
        # The bar of an evaluation is within that of the training.
        ("hf_trainer.pty", b" 2/2 [", (8, 24)),
        # An inner bar is within the outer one, which says `Epochs:  33%|...| 1/3`.
        ("tqdm.pty", b"Epoch 2/3:  62%", (1, 3)),
        ("lightning.pipe", b"Epoch 1:  50%", (4, 8)),
        ("lightning_rich.pty", b" 3/8 ", (11, 24)),
    ],
)
def test_progress(name: str, so_far: bytes, progress: tuple[int, int]) -> None:
    data = read(name)
    at = data.index(so_far)
    end = data.index(b"\r", at)
    parser = LineParser()
    parser.feed(data[: end + 1], 1)
    assert parser.progress is not None
    assert parser.progress[:2] == progress


def test_the_end_of_a_bar_is_known_before_the_next_line() -> None:
    data = read("tqdm_steady.pty")
    parser = LineParser()
    parser.feed(data[: data.index(b" 60/60 [")] + b" 60/60 [00:06<00:00,  9.95it/s]", 1)
    assert parser.progress == (60, 60, 0.0, "steady")


@pytest.mark.parametrize("poll_us", [0, 1_000_000])
def test_the_time_left_of_a_steady_loop(poll_us: int) -> None:
    # The times at which the bytes came, or those of a reader that looks only once a second.
    data = read("tqdm_steady.pty")
    pairs = [line.split() for line in (TRANSCRIPTS / "tqdm_steady.times").read_text().splitlines()]
    times = [(int(offset), int(at)) for offset, at in pairs]
    whole = times[-1][1]
    parser = LineParser()
    said = {}
    for number, (offset, at) in enumerate(times):
        end = times[number + 1][0] if number + 1 < len(times) else len(data)
        parser.feed(data[offset:end], at if not poll_us else -(-at // poll_us) * poll_us)
        if parser.progress is not None:
            said[at] = parser.progress[2]
    half = min(said, key=lambda at: abs(at - whole / 2))
    left = said[half]
    assert left is not None
    assert left * 1e6 == pytest.approx(whole - half, rel=0.1)
