"""What the path of an output says of it: its type, the step it was written at, and the series that it belongs to."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterator

_TYPES = {
    "image": "png jpg jpeg gif bmp webp tif tiff avif heic",
    "figure": "svg pdf eps",
    "model": "pt pth ckpt safetensors h5 hdf5 keras onnx pkl pickle joblib gguf msgpack tflite pb mlmodel",
    "array": "npy npz mat",
    "table": "csv tsv parquet feather arrow xlsx",
    "data": "json jsonl ndjson yaml yml toml xml ini db sqlite",
    "html": "html htm",
    "text": "txt md rst log out err tex",
    "audio": "wav mp3 flac ogg opus m4a",
    "video": "mp4 mkv avi webm mov m4v",
    "archive": "zip tar gz tgz bz2 xz zst 7z",
    "code": "py sh c cc cpp h hpp cu rs js ts ipynb r jl",
}
_PACKED = frozenset("tar gz bz2 xz zst".split())
_STEP_WORDS = (
    "global_step", "total_steps", "steps", "step", "iterations", "iteration", "iters", "iter", "it", "updates", "update",
    "epochs", "epoch", "ep", "e", "checkpoint", "ckpt", "chkpt",
)  # fmt: skip
"""The earlier ones go over the later ones: ``epoch=3-step=100`` is of step 100."""
_NO_STEP = frozenset(
    "of v ver version rev seed fold rank gpu cuda worker part shard split run trial exp try job task layer head block lr bs "
    "resnet resnext densenet vgg efficientnet mobilenet vit bert gpt llama yolo cifar mnist imagenet top python".split()
)
"""A number behind one of these words counts or sizes something else."""
MAX_DIGITS = 9
"""Numbers with more are times or ids."""
PADDED_DIGITS = 3
"""Digits, the first a zero, that are a step without anything before them."""


def type_of(path: str) -> str:
    """Return the type of a file by its name.

    One of image, figure, model, array, table, data, html, text, audio, video, archive, code, events, or ``file``.
    """
    name = path.rpartition("/")[2]
    if name.lower().endswith(".pth.tar"):
        return "model"
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    if name.startswith("events.out.tfevents"):
        return "events"
    for kind, suffixes in _TYPES.items():
        if suffix and suffix in suffixes.split():
            return kind
    return "model" if name in ("pytorch_model.bin", "adapter_model.bin") else "file"


def step_of(path: str) -> tuple[str, int | None]:
    """Return the series that an output belongs to, and its step: ``samples/img_0003.png``: ``samples/img``, 3.

    A number with a word for steps (``epoch=3-step=100``, ``checkpoint-500/``) counts first, the deepest of the path; then
    one at the end of the file's name, set apart (``sample_12``) or with zeros before it (``frame0012``). Dates, versions,
    seeds, fractions, sizes and names of models are no steps. Without a step the series is the path without its suffix.
    """
    directory, _, name = path.rpartition("/")
    parts = [part for part in directory.split("/") if part]
    if type_of(path) == "events":
        return "/".join([*parts, name]), None
    parts.append(_stem(name))
    for place in range(len(parts) - 1, -1, -1):
        found = _worded(parts[place])
        if found is not None:
            return _series(parts, place, found[0] if place == len(parts) - 1 else ""), found[1]
    found = _numbered(parts[-1])
    if found is not None:
        return _series(parts, len(parts) - 1, found[0]), found[1]
    return "/".join(parts), None


def _series(parts: list[str], place: int, rest: str) -> str:
    """Return a path whose part at ``place`` has lost its number; a part of nothing else disappears."""
    kept = [*parts[:place], rest, *parts[place + 1 :]]
    return "/".join(part for part in kept if part)


def _stem(name: str) -> str:
    """Return a name without its suffixes: ``a.pth.tar`` is ``a``, but ``frame.0001`` stays."""
    for _ in range(2):
        start, _, suffix = name.rpartition(".")
        if not start or not suffix.isalnum() or suffix.isdigit() or len(suffix) > 12:
            return name
        name = start
        if suffix.lower() not in _PACKED:
            break
    start, _, suffix = name.rpartition(".")
    return start if start and any(suffix.lower() in known.split() for known in _TYPES.values()) else name


def _worded(part: str) -> tuple[str, int] | None:
    """Return what is left of a name without the numbers that have a word for steps, and the number that counts."""
    found = list(_pairs(_without_dates(part)))
    if not found:
        return None
    rest = part
    for start, end, _, _ in reversed(found):
        rest = _joined(rest[:start], rest[end:])
    _, _, word, step = min(found, key=_rank)
    return _without_version(_without_fractions(rest)) or word, step


def _rank(pair: tuple[int, int, str, int]) -> int:
    return _STEP_WORDS.index(pair[2])


def _pairs(part: str) -> Iterator[tuple[int, int, str, int]]:
    """Yield start, end, word and number of each word for steps that has a whole number behind it."""
    import re

    for found in re.finditer(r"(?<![A-Za-z0-9])([A-Za-z]+(?:_[A-Za-z]+)*)([-_=. ]{0,2})(\d+)(?![A-Za-z\d]|\.\d)", part):
        words, gap, number = found.groups()
        pieces = words.lower().split("_")
        word = "_".join(pieces[-2:]) if "_".join(pieces[-2:]) in _STEP_WORDS else pieces[-1]
        # "_e12" is of an epoch; "type_e_12" is not.
        if word in _STEP_WORDS and (word != "e" or not gap) and len(number) <= MAX_DIGITS:
            yield found.end(1) - len(word), found.end(), word, int(number)


def _numbered(part: str) -> tuple[str, int] | None:
    """Return a name without the number at its end, and that number; None when it has none that is a step."""
    import re

    part = _without_fractions(part)
    found = re.fullmatch(r"(.*?)([-_=. ]*)(\d{1,%d})" % MAX_DIGITS, _without_dates(part), re.DOTALL)
    if found is None:
        return None
    rest, gap, number = found.groups()
    if rest and not gap and not (len(number) >= PADDED_DIGITS and number.startswith("0")):
        return None
    word = re.search(r"[A-Za-z]+$", rest)
    if (word is not None and word.group().lower() in _NO_STEP) or re.search(
        r"\d$|\de[-+]?$", rest + gap if gap == "-" else ""
    ):
        return None
    return part[: len(rest)], int(number)


def _without_dates(part: str) -> str:
    """Return a name of the same length in which dates, and times behind them, are no digits."""
    import re

    time = r"(?:[-_T .]{0,2}(?:[01]\d|2[0-3])[-_:.h]?[0-5]\d(?:[-_:.m]?[0-5]\d)?)?(?!\d)"
    dates = (
        r"(?<!\d)(?:19|20)\d\d([-_.]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])" + time,
        r"(?<!\d)(?:0[1-9]|[12]\d|3[01])([-_.])(?:0[1-9]|1[0-2])\1(?:19|20)\d\d" + time,
    )
    for pattern in dates:
        part = re.sub(pattern, _blank, part)
    return part


def _blank(found: re.Match[str]) -> str:
    return "#" * len(found.group())


def _without_fractions(part: str) -> str:
    """Return a name without the fractions in it, which are results and settings: ``weights.03-0.25`` is ``weights.03``."""
    import re

    return re.sub(r"[-_= ]*(?<![\d.])\d+\.\d+(?![\d.])", "", part)


def _without_version(part: str) -> str:
    """Return a name without what Lightning adds to one that exists: ``last-v1``."""
    import re

    return re.sub(r"(?:^|-)v\d+$", "", part)


def _joined(left: str, right: str) -> str:
    left, right = left.rstrip("-_=. "), right.lstrip("-_=. ")
    return left + "-" + right if left and right else left + right
