"""Which value of a metric is the better one: by the goal of a run, else by the words of the metric's name (docs/search.md)."""

from __future__ import annotations

import re

from runyard.wire.settings import parse_goal

SMALLER = frozenset(
    "loss losses error errors err perplexity ppl mse mae rmse mape nll wer cer ter fid bpc bpb regret latency "
    "divergence kl distance".split()
)
"""Words in the name of a metric that say: the smaller the better."""
LARGER = frozenset(
    "acc accuracy auc auroc bleu dice f1 iou map precision psnr recall reward rouge r2 score ssim".split()
)
"""Words that say: the larger the better. Without any, larger is taken for better, but nothing is called an improvement."""
_LETTERS = re.compile(r"[^\W\d_]+")
_WORDS = re.compile(r"[^\W_]+")


def smaller_is_better(metric: str) -> bool:
    """Tell by its name whether the least value of a metric is the best one: ``val/loss``, ``train_mse``, ``WER``."""
    return not SMALLER.isdisjoint(_LETTERS.findall(metric.lower()))


def sign(metric: str, goal: str = "") -> int:
    """Return 1 where the largest value of a metric is the best one, -1 where the least is; ``goal``: that of the run."""
    wanted = parse_goal(goal)
    if wanted is not None and wanted[1] == metric:
        return wanted[0]
    return -1 if smaller_is_better(metric) else 1


def verdict(metric: str, difference: float, goal: str = "") -> str:
    """Return ``better`` or ``worse`` for a change of a metric, ``""`` where neither goal nor name say which it is."""
    wanted = parse_goal(goal)
    known = wanted is not None and wanted[1] == metric
    if not known and not smaller_is_better(metric) and LARGER.isdisjoint(_WORDS.findall(metric.lower())):
        return ""
    improvement = difference * sign(metric, goal)
    return "better" if improvement > 0 else "worse" if improvement < 0 else ""
