"""What the scheduler is asked and what it answers: requests, hosts with their slots, and a plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SlotKind = Literal["gpu", "cpu"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A host that was given a run, and gave it back unstarted a moment ago."""

    host_id: str
    until_us: int  # when it may be asked again
    why: str  # what it said, for people


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A queued run, as far as placing it needs."""

    run_id: str
    priority: int = 0  # higher starts first
    seq: int = 0  # place in the queue among runs of equal priority
    gpus: int | None = None  # None: one GPU where the host has any, else a CPU slot; 0: CPU slots only
    cpus: int | None = None  # cores; sets the number of CPU slots, or adds up per host beside GPUs
    mem: int | None = None  # bytes of the host's memory; adds up per host
    gpu_model: str | None = None  # words of the model's name, see `needs.model_fits`
    host: str | None = None  # name, name up to its first dot, or id of the only host that will do
    time_limit_s: float | None = None  # None: may last for ever
    user: str = ""
    refusals: tuple[Refusal, ...] = ()  # at most one of a host


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """A schedulable piece of a host: one GPU or a number of cores."""

    id: str
    host_id: str
    name: str  # as people see it: "gpu0", "cpu1"
    kind: SlotKind
    index: int  # of the GPU on its host, or of the CPU slot; counts from 0
    model: str = ""  # as the driver names it; "" for CPU slots
    mem: int = 0  # bytes of GPU memory; 0 for CPU slots
    threads: int = 1  # cores of a CPU slot
    free: bool = True  # as far as its host can tell; with a holder_run it is taken all the same
    why: str = ""  # why it is not free, for people
    busy_until_us: int | None = None  # when its holder's time limit ends; None: unknown
    holder_run: str | None = None  # run of this yard that has it; None while not free: somebody else, or out of order
    cpus_held: int | None = None  # part of the host's cpus_used that ends with the holder, on one of its slots only
    mem_held: int | None = None  # the same for mem_used; None: unknown, so it ends when all such holders have ended

    @property
    def taken(self) -> bool:
        """Whether nothing can start on it now."""
        return not self.free or self.holder_run is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class HostState:
    """A connected host, its slots, and what running attempts have of its cores and memory."""

    id: str
    name: str
    agent_id: str
    cpus: int  # cores
    mem: int  # bytes
    cpus_used: int = 0  # see `scheduler.held_resources`
    mem_used: int = 0  # bytes
    accepts: bool = True  # False: nothing new starts here now
    why: str = ""  # why not, for people
    slots: tuple[Slot, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """A run that starts now, on slots that are free now, all of one host."""

    run_id: str
    agent_id: str
    host_id: str
    slot_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """Why a run does not start now, in sentences for people, and when it will if every run lasts to its time limit."""

    reasons: tuple[str, ...]
    expected_start_us: int | None  # None: depends on something whose end is unknown


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Every request is in exactly one of the two."""

    starts: list[Start] = field(default_factory=list)
    waits: dict[str, Wait] = field(default_factory=dict)  # by run id
