"""The words by which metrics, steps and everything else that has a number are told apart in text."""

from __future__ import annotations

import re

_METRICS = (
    "acc err error f0 auc auroc ap ap0 ap00 iou miou dice precision recall ppl perplexity bleu rouge rougel cer wer mse rmse "
    "map mape mae r0 psnr ssim fid reward rewards score kl entropy elbo nll ce bce bpb bpc mfu gnorm top0 ndcg mrr l0"
).split()
"""Whole words, lower case, ``0`` for any digit."""
METRIC = re.compile(
    r"(?i)loss|accuracy|(?:^|[^a-z])(?:%s)(?:[^a-z]|$)"
    % "|".join(_METRICS).replace("0", "[0-9]").replace("l[0-9]", "(?-i:l[0-9])")
)
"""In the name of something that is measured while training, in whatever text it stands."""

_COUNTERS = (
    "step",
    "iter",
    "itr",
    "batch",
    "update",
    "epoch",
    "ep",
    "episode",
    "round",
    "iteration",
    "updates",
    "timesteps",
)
_SPOKEN = frozenset((*_METRICS, *_COUNTERS))
_WORD = re.compile(r"(?<![^\W_])[a-z]+0{0,2}(?![^\W_])")
_MARKED = re.compile(r"[|{\[━│┃└]")
_ASSIGNED = re.compile(
    r"[:=](?:(?<=[^\s0].)|(?<=[^\W0]0.)(?<!T0.)|(?<=[^\W0]00.)(?<!T00.)|(?<=[^\W0][@/.\-]0.)|(?<=[^\s]\s.))"
    r"\s*(?:\(\s*)?[-+]?(?:\.?0|(?i:nan|inf)(?!\w))"
)


def promising(mask: str) -> bool:
    """Tell, fast, whether a line can hold anything, by its mask (every digit is ``0``); most lines can not.

    It can where a name is followed by `:` or `=` and a number, or a word for a metric or counter is in it, or a sign of a
    bar, table, object or traceback.
    """
    if _MARKED.search(mask) or "Traceback" in mask or "Warning: " in mask or 'File "' in mask or "/0" in mask[:20]:
        return True
    if _ASSIGNED.search(mask):
        return True
    lower = mask.lower()
    if "0" not in mask and "nan" not in lower and "inf" not in lower:
        return False
    return "loss" in lower or "accuracy" in lower or not _SPOKEN.isdisjoint(_WORD.findall(lower))


NO_METRIC = re.compile(
    r"(?i)(?:timestamp|ts|date|year|pid|ppid|tid|thread|process|port|https?|localhost|line|lineno|level|levelno|created|"
    r"msecs|(?:\w+_)?seed|[\w\-]*version|v_num|python|cuda|cudnn|torch|numpy|(?:local_|node_)?rank|world_size|eta|"
    r"(?:num_|n_|max_)?epochs|num_workers|batch_size|[cgt]pus?|device|nodes?|cores|\w*uid|(?:\w+_)?id|jobid|exit_code|"
    r"status|errno|code|returncode|size|shape|default)$"
)
"""Names that are never a metric: what loggers, launchers and configurations print."""

STOP = frozenset(
    "a about after all an and as at be by done down each every finished for found from gpu has in is it of on only or over "
    "per rank since than that the then to took under until up used using was when with within worker".split()
)
"""Words that are no part of a name: it begins after them."""

NEUTRAL = re.compile(r"(?i)\b(?:train|val|test|eval|results?|metrics?|summary|final|average|avg|mean|set)\b")
"""Words that may stand beside metrics in a line of nothing else."""

_ROLES = {"training": "train", "valid": "val", "validation": "val", "testing": "test", "evaluation": "eval"}
_ROLE_NAME = re.compile(r"(?i)(?:train|val|test|eval|dev)")


def in_role(role: str, name: str) -> str:
    """Return the name of a metric of a part of the data: ``val/loss``; a name that says it already stays as it is."""
    if not role or _ROLE_NAME.match(name):
        return name
    role = role.lower()
    return "%s/%s" % (_ROLES.get(role, role), name)


def normalised(name: str) -> str:
    """Return a name without spaces: what is no letter, digit or one of ``_ . / @ -`` becomes ``_``. The case stays."""
    return re.sub(r"[^\w./@\-]+", "_", name.replace("'s ", " ")).strip("_./-")
