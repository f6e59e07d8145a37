"""Which responses are trained on together: mini-batches of groups, then micro-batches by token budget.

Rows are sorted by length, so that a micro-batch pads little; attention is causal and padding is on the right, so that
padding changes no value and needs no mask. Everything is deterministic in its arguments.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """For each rank its micro-batches, each a tuple of row indices. All ranks have the same number of micro-batches
    (collectives would hang otherwise); a rank that runs out has empty ones, which train on nothing."""

    ranks: tuple[tuple[tuple[int, ...], ...], ...]
    padding_frac: float  # share of the computed tokens that is padding


def micro_batches(rows: Sequence[int], lengths: Sequence[int], token_budget: int) -> list[tuple[int, ...]]:
    """Rows, longest first, cut so that (rows in it) x (its longest row) <= token_budget tokens.

    `lengths[row]` is in tokens, prompt included. A row longer than the budget gets a micro-batch of its own.
    """
    batches: list[tuple[int, ...]] = []
    current: list[int] = []
    for row in sorted(rows, key=lambda r: (-lengths[r], r)):
        if current and (len(current) + 1) * lengths[current[0]] > token_budget:
            batches.append(tuple(current))
            current = []
        current.append(row)
    return [*batches, tuple(current)] if current else batches


def plan_batches(rows: Sequence[int], lengths: Sequence[int], token_budget: int, world_size: int) -> BatchPlan:
    """Splits rows over the ranks by length, back and forth, so that every rank gets about the same tokens, and cuts
    each rank's share into micro-batches."""
    shares: list[list[int]] = [[] for _ in range(world_size)]
    for position, row in enumerate(sorted(rows, key=lambda r: (-lengths[r], r))):
        lap, place = divmod(position, world_size)
        shares[place if lap % 2 == 0 else world_size - 1 - place].append(row)
    ranks = [micro_batches(share, lengths, token_budget) for share in shares]
    most = max(len(r) for r in ranks)
    computed = sum(len(batch) * lengths[batch[0]] for r in ranks for batch in r)
    useful = sum(lengths[row] for row in rows)
    return BatchPlan(
        ranks=tuple(tuple(r) + ((),) * (most - len(r)) for r in ranks),
        padding_frac=1.0 - useful / computed if computed else 0.0,
    )


def mini_batches(groups: Sequence[int], count: int, seed: str) -> list[list[int]]:
    """Groups in an order given by `seed`, in at most `count` nearly equal, non-empty mini-batches."""
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    count = min(count, len(order))
    return [order[i * len(order) // count : (i + 1) * len(order) // count] for i in range(count)]
