"""Mini- and micro-batches."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sgpo_core.rl.batching import micro_batches, mini_batches, plan_batches

LENGTHS = [5, 3, 9, 1, 4, 2]


def skewed(count: int, seed: int = 0) -> list[int]:
    """Lengths as sampling gives them: many short ones, few long ones, from 1 to 1024 tokens."""
    rng = random.Random(seed)
    return [min(1024, max(1, round(rng.lognormvariate(4.5, 1.0)))) for _ in range(count)]


def test_micro_batches_by_hand() -> None:
    # Longest first: 9 | 5 4 (2 * 5 = 10; a third row would make 15) | 3 2 1 (3 * 3 = 9)
    assert micro_batches(range(6), LENGTHS, 10) == [(2,), (0, 4), (1, 5, 3)]
    # 9 5 4 (27) | 3 2 1 (9): a fourth row would make 36 > 30
    assert micro_batches(range(6), LENGTHS, 30) == [(2, 0, 4), (1, 5, 3)]
    # Each alone; 9 and 5 are over the budget of 4
    assert micro_batches(range(6), LENGTHS, 4) == [(2,), (0,), (4,), (1,), (5, 3)]
    assert micro_batches([], LENGTHS, 4) == []


def test_plan_by_hand() -> None:
    # One rank: 9 + 2 * 5 + 3 * 3 = 28 computed tokens, 24 useful.
    plan = plan_batches(range(6), LENGTHS, 10, 1)
    assert plan.ranks == (((2,), (0, 4), (1, 5, 3)),)
    assert plan.padding_frac == pytest.approx(1 / 7)
    # Two ranks, dealt back and forth: 9 3 2 and 5 4 1; computed 9 + 2 * 3 and 2 * 5 + 1, together 26.
    plan = plan_batches(range(6), LENGTHS, 10, 2)
    assert plan.ranks == (((2,), (1, 5)), ((0, 4), (3,)))
    assert plan.padding_frac == pytest.approx(1 / 13)


def test_a_rank_that_runs_out_has_empty_micro_batches() -> None:
    # 8 | 8 8, budget 8: the first rank has one, the second two
    assert plan_batches(range(3), [8, 8, 8], 8, 2).ranks == (((0,), ()), ((1,), (2,)))
    assert plan_batches([1], [8, 8], 8, 3).ranks == (((1,),), ((),), ((),))
    assert plan_batches([], [], 8, 2).ranks == ((), ())


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("budget", [64, 1024, 4096])
@pytest.mark.parametrize("count", [1, 7, 300])
def test_plan_invariants(count: int, budget: int, world_size: int) -> None:
    lengths = skewed(2 * count)
    rows = range(0, 2 * count, 2)  # a mini-batch is some of the rows
    plan = plan_batches(rows, lengths, budget, world_size)
    assert len(plan.ranks) == world_size
    assert len({len(rank) for rank in plan.ranks}) == 1
    assert Counter(i for rank in plan.ranks for batch in rank for i in batch) == Counter(rows)
    for batch in (b for rank in plan.ranks for b in rank):
        assert len(batch) <= 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    assert any(plan.ranks[0])
    assert plan == plan_batches(list(reversed(rows)), lengths, budget, world_size)  # nor does order matter


def test_padding_is_small_on_skewed_lengths() -> None:
    lengths = skewed(512)
    padding = plan_batches(range(512), lengths, 4096, 2).padding_frac
    # In order of arrival, 4 rows a batch, each batch as wide as its longest, about half would be padding.
    arrival = [lengths[i : i + 4] for i in range(0, 512, 4)]
    assert padding < 0.2 < 0.4 < 1 - sum(lengths) / sum(4 * max(batch) for batch in arrival)


def test_ranks_get_about_the_same_tokens() -> None:
    lengths = skewed(512)
    ranks = plan_batches(range(512), lengths, 4096, 4).ranks
    tokens = [sum(lengths[i] for batch in rank for i in batch) for rank in ranks]
    assert max(tokens) - min(tokens) <= 1024  # no more than the longest row


@pytest.mark.parametrize(("groups", "count"), [(16, 2), (7, 3), (3, 5), (1, 4), (10, 10)])
def test_mini_batches_are_a_partition(groups: int, count: int) -> None:
    names = [10 * g for g in range(groups)]
    batches = mini_batches(names, count, "0/1/0")
    sizes = [len(b) for b in batches]
    assert sorted(g for b in batches for g in b) == names
    assert len(batches) == min(count, groups)
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


def test_mini_batches_are_decided_by_their_arguments() -> None:
    names = list(range(20))
    assert mini_batches(names, 4, "a") == mini_batches(names[::-1], 4, "a")
    assert mini_batches(names, 4, "a") != mini_batches(names, 4, "b")
    assert mini_batches([], 4, "a") == []
