"""Compaction: blocks of many metrics as they arrived become larger blocks of one metric each, so that one is read fast.

Blocks are inserted and deleted, never changed. A new block takes in those before it that are not larger (as a binary
counter carries), so each point is written again a logarithmic number of times, and few blocks are left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from runyard.services.context import Context
from runyard.store import blocks, metrics, tracked
from runyard.store.blocks import Points
from runyard.store.database import Connection

LOOSE_MAX = 64
"""Blocks as they arrived that a run may have while it goes on."""
AT_ONCE = 256
"""Blocks as they arrived that one transaction replaces."""
TOGETHER = 16
"""Runs that one transaction compacts: nobody else can write for so long."""
ENDED_FOR_US = 2_000_000
ROWS_MAX = 1 << 16
"""Rows of a block of one metric."""
RUNS = 100


class Plan(NamedTuple):
    """Blocks that take the place of others."""

    added: list[tuple[int, int, int, int, bytes]]
    """Attempt, source, name, rows, data."""
    removed: list[int]
    loose: int
    """How many of those are as they arrived."""


def compact(context: Context, stop: Callable[[], bool]) -> int:
    """Compact what is due; return how many runs there were. For one thread: nobody else may remove blocks."""
    with context.db.read() as connection:
        before = context.clock.now_us(connection) - ENDED_FOR_US
        due = metrics.where_loose(connection, LOOSE_MAX, before, RUNS)
    for run_seq in due:
        context.loose_blocks.pop(run_seq, None)
    return compact_runs(context, due, stop)


def compact_runs(context: Context, due: Sequence[int], stop: Callable[[], bool] = lambda: False) -> int:
    """Compact all blocks of runs that have just arrived; return how many runs are done.

    What takes time is done before the transactions, each of which takes in as many small runs as fit.
    """
    left = list(due)
    while left and not stop():
        with context.db.read() as connection:
            plans = _next_plans(connection, left)
        if plans:
            context.db.write(lambda connection, plans=plans: _carry_out(connection, plans))  # type: ignore[misc]
    return len(due) - len(left)


def _next_plans(connection: Connection, left: list[int]) -> list[tuple[int, Plan]]:
    """Return what one transaction is to do; runs of which nothing is left then go from the list."""
    plans: list[tuple[int, Plan]] = []
    size = 0
    while left and size < AT_ONCE and len(plans) < TOGETHER:
        plan = _plan(connection, left[0])
        if plan is not None:
            plans.append((left[0], plan))
            size += plan.loose
        if plan is None or plan.loose < AT_ONCE:
            del left[0]
    return plans


def _carry_out(connection: Connection, plans: Sequence[tuple[int, Plan]]) -> None:
    for run_seq, plan in plans:
        tracked.lock(connection, run_seq)
        for attempt in {item[0] for item in plan.added}:
            metrics.add_blocks(connection, run_seq, attempt, [item[1:] for item in plan.added if item[0] == attempt])
    metrics.remove_blocks(connection, [block_id for _, plan in plans for block_id in plan.removed])


def _plan(connection: Connection, run_seq: int) -> Plan | None:
    """Return what is to be replaced by what; None when nothing is left. Blocks that are damaged stay as they are."""
    loose = metrics.blocks_of(connection, run_seq, None, AT_ONCE)
    alike: dict[tuple[int, int], dict[int, list[Points]]] = {}
    whole = []
    for row in loose:
        try:
            block = blocks.decode(bytes(row.data))
        except blocks.DamagedBlockError:
            continue
        whole.append(row.id)
        found = alike.setdefault((row.attempt, row.source), {})
        for name_id, points in zip(block.names, block.points, strict=True):
            found.setdefault(name_id, []).append(points)
    if not whole:
        return None
    plan = Plan([], whole, len(loose))
    for (attempt, source), found in alike.items():
        sizes = metrics.chunk_sizes(connection, run_seq, attempt, source, found)
        for name_id, parts in found.items():
            _add(connection, plan, (attempt, source, name_id), parts, sizes.get(name_id, []))
    return plan


def _add(
    connection: Connection, plan: Plan, key: tuple[int, int, int], parts: list[Points], sizes: list[tuple[int, int]]
) -> None:
    """Plan a block for points of a metric, taking in the blocks before that are not larger.

    ``key``: attempt, source, name.
    """
    name_id = key[2]
    taken, size = [], sum(len(part.steps) for part in parts)
    while sizes and sizes[-1][1] <= size and size + sizes[-1][1] <= ROWS_MAX:
        block_id, count = sizes.pop()
        taken.append(block_id)
        size += count
    if taken:
        try:
            before = [blocks.decode_one(data, name_id) for data in metrics.block_data(connection, taken)]
        except blocks.DamagedBlockError:
            before = []
        else:
            plan.removed.extend(taken)
        parts = [part for part in before if part is not None] + parts
    points = blocks.joined(parts)
    for start in range(0, len(points.steps), ROWS_MAX):
        piece = points.part(start, start + ROWS_MAX)
        plan.added.append((*key, len(piece.steps), blocks.encode_one(name_id, piece)))
