"""Why a run waits, in sentences for people."""

from __future__ import annotations

from collections.abc import Sequence

from runyard.model.placement import HostState, Request
from runyard.scheduler.candidate import Candidate
from runyard.scheduler.needs import Shortfall, asked_text, plural, size_text

_HOSTS_SHOWN = 4
_NAMES_SHOWN = 3


def impossible(request: Request, shortfalls: Sequence[Shortfall], hosts: Sequence[HostState]) -> tuple[str, ...]:
    """Say what was asked for and what the hosts have, for a run that no connected host could ever start."""
    if not hosts:
        return ("no host is connected yet",)
    texts = list(dict.fromkeys(shortfall.text for shortfall in shortfalls if shortfall.text))
    if not texts:
        return (f"host {request.host} is not connected; connected: {_names([host.name for host in hosts])}",)
    return f"no connected host can run this: it asks for {asked_text(request)}", *_cut(texts)


def waiting(options: Sequence[Candidate], closed: Sequence[Candidate]) -> tuple[str, ...]:
    """Say, for every host that could run it, what is missing there now."""
    texts = [text for option in options for text in _missing(option)]
    for candidate in closed:
        if not candidate.host.accepts:
            texts.append(f"{candidate.host.name} takes no new runs: {candidate.host.why or 'no reason given'}")
        else:
            texts.append(_out_of_service(candidate))
    return tuple(_cut(texts))


def _missing(option: Candidate) -> list[str]:
    host, need, pool = option.host, option.need, option.pool
    free = [lane for lane in option.lanes if not lane.taken]
    noun = "GPU" if need.kind == "gpu" else "CPU slot"
    texts = [f"{host.name} {option.refused}"] if option.refused else []
    if len(free) < need.count:
        texts.append(
            f"{host.name}: {need.count} of {plural(len(need.slots), noun)} needed, {len(free)} free" + _holders(option)
        )
    if need.cpus and pool.taken_cpus + need.cpus > pool.cpus:
        texts.append(
            f"{host.name}: {max(0, pool.cpus - pool.taken_cpus)} of {pool.cpus} cores free, {need.cpus} needed"
        )
    if need.mem and pool.taken_mem + need.mem > pool.mem:
        left = size_text(max(0, pool.mem - pool.taken_mem))
        texts.append(f"{host.name}: {left} of {size_text(pool.mem)} memory free, {size_text(need.mem)} needed")
    if not texts:
        keepers = list(dict.fromkeys(lane.kept_for for lane in free if lane.kept_for is not None))
        named = f" ({_names(keepers)})" if keepers else ""
        texts.append(f"{host.name}: what it needs is free, but kept for runs before it{named}")
    return texts


def _holders(option: Candidate) -> str:
    runs = list(dict.fromkeys(lane.holder for lane in option.lanes if lane.taken and lane.holder is not None))
    texts = [f"running: {_names(runs)}"] if runs else []
    planned = {lane.slot.id for lane in option.lanes}
    texts += [
        f"{slot.name}: {slot.why or 'not available'}"
        for slot in option.need.slots
        if not slot.free and slot.holder_run is None and (slot.why or slot.id not in planned)
    ]
    return "".join("; " + text for text in _cut(texts))


def _out_of_service(candidate: Candidate) -> str:
    noun = "GPU" if candidate.need.kind == "gpu" else "CPU slot"
    usable = len(candidate.lanes)
    return (
        f"{candidate.host.name}: {candidate.need.count} of {plural(len(candidate.need.slots), noun)} needed, "
        f"{usable} available" + _holders(candidate)
    )


def _names(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _cut(texts: list[str]) -> list[str]:
    more = len(texts) - _HOSTS_SHOWN
    return texts[:_HOSTS_SHOWN] + ([f"and {more} more"] if more > 0 else [])
