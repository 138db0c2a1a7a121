"""Which of several like processes this is, as their launcher says."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LAUNCHERS = (
    ("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_ID"), ("OMPI_COMM_WORLD_RANK", ""), ("PMI_RANK", ""),
    ("PMIX_RANK", ""), ("LOCAL_RANK", "LOCAL_WORLD_SIZE"),
)  # fmt: skip
"""A variable with the number of a process, and another one without which it means something else (a LoRA has a rank, too).

torchrun and its like, Slurm, Open MPI, MPICH, PMIx.
"""


def rank(environ: Mapping[str, str]) -> int | None:
    """Return the number of this process among those that a launcher started; None when no launcher says one."""
    for name, beside in LAUNCHERS:
        if environ.get(name, "").isdigit() and (not beside or beside in environ):
            return int(environ[name])
    return None
