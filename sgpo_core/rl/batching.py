"""Which responses are trained on together: mini-batches of groups, then micro-batches by token budget.

A micro-batch is packed (`packing`): there is no padding, and responses that share a prompt, side by side in it, cost
the prompt once. Everything is deterministic in its arguments.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One response: which prompt it answers, and how many tokens both have."""

    prompt: Hashable
    prompt_tokens: int
    tokens: int


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """For each rank its micro-batches, each a tuple of row indices. All ranks have the same number of micro-batches
    (collectives would hang otherwise); a rank that runs out has empty ones, which train on nothing."""

    ranks: tuple[tuple[tuple[int, ...], ...], ...]
    computed_tokens: int  # of all micro-batches, each prompt as often as it is computed
    separate_tokens: int  # of all responses with a prompt each


def plan_batches(rows: Sequence[Row], token_budget: int, world_size: int) -> BatchPlan:
    """Splits the responses over the ranks and cuts each rank's share into micro-batches of at most `token_budget`
    tokens. Responses to the same prompt stay together as far as budget and a fair share for every rank allow; a
    response longer than the budget gets a micro-batch of its own."""
    groups: dict[Hashable, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row.prompt, []).append(i)
    fair = -(-sum(_cost(rows, group) for group in groups.values()) // world_size) if rows else 0
    chunks = [
        chunk
        for group in groups.values()
        for chunk in _cut(rows, group, min(token_budget, fair + rows[group[0]].prompt_tokens))
    ]
    shares: list[list[list[int]]] = [[] for _ in range(world_size)]
    loads = [0] * world_size
    for chunk in sorted(chunks, key=lambda c: (-_cost(rows, c), c)):
        rank = loads.index(min(loads))
        shares[rank].append(chunk)
        loads[rank] += _cost(rows, chunk)
    ranks = [_micro_batches(rows, share, token_budget) for share in shares]
    most = max(len(r) for r in ranks)
    return BatchPlan(
        ranks=tuple(tuple(r) + ((),) * (most - len(r)) for r in ranks),
        computed_tokens=sum(_cost(rows, batch) for r in ranks for batch in r),
        separate_tokens=sum(row.prompt_tokens + row.tokens for row in rows),
    )


def _cost(rows: Sequence[Row], batch: Sequence[int]) -> int:
    """Tokens that are computed for it, each prompt once."""
    prompts = {rows[i].prompt: rows[i].prompt_tokens for i in batch}
    return sum(prompts.values()) + sum(rows[i].tokens for i in batch)


def _cut(rows: Sequence[Row], group: Sequence[int], limit: int) -> list[list[int]]:
    """A group, longest response first, in pieces of at most `limit` tokens."""
    chunks: list[list[int]] = []
    for i in sorted(group, key=lambda i: (-rows[i].tokens, i)):
        if chunks and _cost(rows, [*chunks[-1], i]) <= limit:
            chunks[-1].append(i)
        else:
            chunks.append([i])
    return chunks


def _micro_batches(rows: Sequence[Row], chunks: Sequence[list[int]], token_budget: int) -> list[tuple[int, ...]]:
    """Chunks of like length side by side: attention computes texts of like lengths together."""
    batches: list[list[int]] = []
    for chunk in sorted(chunks, key=lambda c: (-max(rows[i].tokens for i in c), c)):
        if batches and _cost(rows, batches[-1] + chunk) <= token_budget:
            batches[-1] += chunk
        else:
            batches.append(list(chunk))
    return [tuple(batch) for batch in batches]


def mini_batches(groups: Sequence[int], count: int, seed: str) -> list[list[int]]:
    """Groups in an order given by `seed`, in at most `count` nearly equal, non-empty mini-batches."""
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    count = min(count, len(order))
    return [order[i * len(order) // count : (i + 1) * len(order) // count] for i in range(count)]
