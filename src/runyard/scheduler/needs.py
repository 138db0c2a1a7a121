"""What a request needs on a host, and whether the host could ever give it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runyard.model.placement import HostState, Plan, Request, Slot, SlotKind


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """What a request takes of one host."""

    kind: SlotKind
    count: int  # slots
    cpus: int  # cores, counted against the host's
    mem: int  # bytes, counted against the host's
    slots: tuple[Slot, ...]  # that would do, free or not, the most suitable first; at least `count`


@dataclass(frozen=True, kw_only=True, slots=True)
class Shortfall:
    """Why a host could never run a request, for people: ``a has 1 GPU``. Empty text: another host was asked for."""

    text: str


class Supply:
    """What a host has, put in order once for all requests of a plan."""

    def __init__(self, host: HostState) -> None:
        self.host = host
        slots = sorted(host.slots, key=lambda s: (s.mem, s.index, s.name, s.id))
        self.slots: dict[SlotKind, list[Slot]] = {
            "gpu": [slot for slot in slots if slot.kind == "gpu"],
            "cpu": [slot for slot in slots if slot.kind == "cpu"],
        }
        """The most suitable first."""
        cores = sum(slot.threads for slot in self.slots["cpu"])
        self.cpus, self.mem = max(host.cpus, cores), host.mem
        """Cores and bytes; CPU slots may have been configured for more cores than the host has."""
        self.threads = max(1, min((slot.threads for slot in self.slots["cpu"]), default=1))
        self._fitting: dict[str | None, tuple[Slot, ...]] = {None: tuple(self.slots["gpu"])}

    def fitting(self, model: str | None) -> tuple[Slot, ...]:
        """Return the GPUs whose model is the one asked for."""
        if model not in self._fitting:
            models = {slot.model for slot in self.slots["gpu"]}
            good = {name for name in models if model is None or model_fits(model, name)}
            self._fitting[model] = tuple(slot for slot in self.slots["gpu"] if slot.model in good)
        return self._fitting[model]

    def wants_gpu(self, request: Request) -> bool:
        """Tell whether the request takes GPUs on this host: asked for, or by default where the host has any."""
        if request.gpus is not None:
            return request.gpus > 0
        return request.gpu_model is not None or bool(self.slots["gpu"])


def held_resources(request: Request, slots: Sequence[Slot]) -> tuple[int, int]:
    """Return what a run on these slots adds to its host's (cpus_used, mem_used): cores, bytes.

    Beside GPUs these are the cores that it asked for, on CPU slots those that the slots stand for.
    """
    cores = (request.cpus or 0) if slots[0].kind == "gpu" else sum(slot.threads for slot in slots)
    return cores, request.mem or 0


def need_on(request: Request, supply: Supply) -> Need | Shortfall:
    """Return what the request takes on this host when it has it to itself, or what the host lacks for good."""
    host = supply.host
    if request.host is not None and not _is_named(host, request.host):
        return Shortfall(text="")
    kind: SlotKind = "gpu" if supply.wants_gpu(request) else "cpu"
    if kind == "gpu":
        fitting = supply.fitting(request.gpu_model)
        count = 1 if request.gpus is None else request.gpus
    elif request.gpu_model is not None:
        return Shortfall(text="a GPU model was asked for together with no GPU")
    else:
        fitting = tuple(supply.slots["cpu"])
        count = max(1, -(-(request.cpus or 0) // supply.threads))
    if len(fitting) < count:
        return Shortfall(text=f"{host.name} has {_slots_text(kind, fitting, supply.slots[kind], request)}")
    cpus, mem = held_resources(request, fitting[:count])
    if cpus > supply.cpus:
        return Shortfall(text=f"{host.name} has {plural(supply.cpus, 'core')}")
    if mem > supply.mem:
        return Shortfall(text=f"{host.name} has {size_text(supply.mem)} of memory")
    return Need(kind=kind, count=count, cpus=cpus, mem=mem, slots=fitting)


def model_fits(asked: str, model: str) -> bool:
    """Tell whether a driver's GPU name has every word that was asked for: ``a100-80gb``, ``rtx3090``, ``RTX 3090``.

    Words are compared by their runs of letters and digits, so ``a10`` is not an A100, nor ``t4`` a T400 with 4 GB.
    """
    have = _atoms(model)
    return all(_contains(have, _atoms(word)) for word in re.split(r"[^A-Za-z0-9]+", asked) if word)


def resource_key(request: Request) -> str:
    """Return a text that is equal for runs that place alike, whoever submitted them.

    Of two runs with one key the later never starts while the earlier waits, unless a host has just refused the earlier.
    """
    model = None if request.gpu_model is None else " ".join(request.gpu_model.lower().split())
    parts = [request.gpus, request.cpus, request.mem, model, request.host, limit_us(request)]
    return json.dumps(parts, separators=(",", ":"))


def blocked_keys(requests: Iterable[Request], plan: Plan) -> frozenset[str]:
    """Return the keys of which nothing more can start now: those of the runs that the plan lets wait.

    A caller that looks further down the queue skips runs with these keys, and plans the others together with the
    runs that wait already, which keep what they are waiting for.
    """
    return frozenset(resource_key(request) for request in requests if request.run_id in plan.waits)


def limit_us(request: Request) -> int | None:
    """Return the time limit in microseconds, at least 1; None: no limit."""
    return None if request.time_limit_s is None else max(1, round(request.time_limit_s * 1_000_000))


def size_text(size: int) -> str:
    """Return bytes for people: ``1.5 GiB``."""
    value, unit = float(size), "B"
    for bigger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, bigger
    return f"{value:.4g} {unit}"


def plural(count: int, noun: str) -> str:
    """Return ``no GPU``, ``1 GPU``, ``2 GPUs``."""
    return f"no {noun}" if count == 0 else f"{count} {noun}{'' if count == 1 else 's'}"


def asked_text(request: Request) -> str:
    """Return what a run asks for, for people: ``2 GPUs of model a100, 8 cores, 32 GiB of memory``."""
    parts = []
    if request.gpus or request.gpu_model is not None:
        parts.append(plural(1 if request.gpus is None else request.gpus, "GPU"))
        if request.gpu_model is not None:
            parts[0] += f" of model {request.gpu_model}"
    elif request.cpus is None:
        parts.append("a CPU slot" if request.gpus == 0 else "a GPU or CPU slot")
    if request.cpus is not None:
        parts.append(plural(request.cpus, "core"))
    if request.mem is not None:
        parts.append(size_text(request.mem) + " of memory")
    return ", ".join(parts)


def _is_named(host: HostState, name: str) -> bool:
    return name == host.id or name.lower() in (host.name.lower(), host.name.lower().partition(".")[0])


def _atoms(text: str) -> list[str]:
    return re.findall(r"[a-z]+|[0-9]+", text.lower())


def _contains(have: list[str], part: list[str]) -> bool:
    return any(have[i : i + len(part)] == part for i in range(len(have) - len(part) + 1))


def _slots_text(kind: SlotKind, fitting: tuple[Slot, ...], slots: list[Slot], request: Request) -> str:
    """Say what a host has that fits, and where a model was asked for, which models there are."""
    if kind == "cpu":
        return plural(len(slots), "CPU slot") + (f" of {plural(slots[0].threads, 'core')} each" if slots else "")
    text = plural(len(fitting), "GPU")
    if request.gpu_model is None:
        return text
    others = sorted({slot.model or "unknown" for slot in slots} - {slot.model or "unknown" for slot in fitting})
    return f"{text} of that model" + (f" (others there: {', '.join(others)})" if others else "")
