"""Mini- and micro-batches."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from sgpo_core.rl.batching import Row, mini_batches, plan_batches


def skewed(count: int, seed: int = 0) -> list[int]:
    """Lengths as sampling gives them: many short ones, few long ones, from 1 to 1024 tokens."""
    rng = random.Random(seed)
    return [min(1024, max(1, round(rng.lognormvariate(4.5, 1.0)))) for _ in range(count)]


def rows(*answers: tuple[str, int], prompt_tokens: int = 4) -> list[Row]:
    return [Row(prompt, prompt_tokens, tokens) for prompt, tokens in answers]


def cost(some: Sequence[Row], batch: Sequence[int]) -> int:
    """Tokens of a micro-batch, each of its prompts once."""
    prompts = {some[i].prompt: some[i].prompt_tokens for i in batch}
    return sum(prompts.values()) + sum(some[i].tokens for i in batch)


GROUPS = rows(("a", 5), ("a", 3), ("b", 9), ("a", 1), ("b", 2))


def test_plan_by_hand() -> None:
    # Group a: 4 + 5 + 3 + 1 = 13 tokens, b: 4 + 9 + 2 = 15; separately 5 * 4 + 20 = 40. The longest response first.
    plan = plan_batches(GROUPS, 28, 1)
    assert plan.ranks == (((2, 4, 0, 1, 3),),)
    assert (plan.computed_tokens, plan.separate_tokens) == (28, 40)
    assert plan_batches(GROUPS, 27, 1).ranks == (((2, 4), (0, 1, 3)),)
    # Budget 13: b splits into 4 + 9 and 4 + 2, the latter fits nowhere (13 + 6 > 13).
    plan = plan_batches(GROUPS, 13, 1)
    assert plan.ranks == (((2,), (0, 1, 3), (4,)),)
    assert plan.computed_tokens == 13 + 13 + 6
    # 9 and 5 are over the budget of 8 with their prompt: each alone.
    assert plan_batches(GROUPS, 8, 1).ranks == (((2,), (0,), (1, 3), (4,)),)


def test_a_large_group_is_cut_into_fair_shares() -> None:
    # 24 tokens, 12 a rank and the prompt again: 4 + 4 + 4 + 4 = 16 of group a go to one rank, the rest to the other.
    some = rows(("a", 4), ("a", 4), ("a", 4), ("a", 2), ("b", 2))
    assert plan_batches(some, 100, 2).ranks == (((0, 1, 2),), ((3, 4),))
    assert plan_batches(some, 100, 1).computed_tokens == 4 + 14 + 4 + 2


def test_a_rank_that_runs_out_has_empty_micro_batches() -> None:
    alone = rows(("a", 4), ("b", 4), ("c", 4))
    assert plan_batches(alone, 8, 2).ranks == (((0,), (2,)), ((1,), ()))
    assert plan_batches(alone[:1], 8, 3).ranks == (((0,),), ((),), ((),))
    assert plan_batches([], 8, 2).ranks == ((), ())


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("budget", [64, 1024, 4096])
@pytest.mark.parametrize("count", [1, 7, 300])
def test_plan_invariants(count: int, budget: int, world_size: int) -> None:
    some = [Row(i // 8, 40 + i // 8, length) for i, length in enumerate(skewed(count))]
    plan = plan_batches(some, budget, world_size)
    batches = [batch for rank in plan.ranks for batch in rank]
    assert len(plan.ranks) == world_size
    assert len({len(rank) for rank in plan.ranks}) == 1
    assert Counter(i for batch in batches for i in batch) == Counter(range(count))
    assert all(len(batch) <= 1 or cost(some, batch) <= budget for batch in batches)
    assert plan.computed_tokens == sum(cost(some, batch) for batch in batches) <= plan.separate_tokens
    assert any(plan.ranks[0])


def test_a_group_costs_its_prompt_about_once() -> None:
    some = [Row(i // 8, 300, length) for i, length in enumerate(skewed(512))]
    plan = plan_batches(some, 8192, 2)
    assert plan.separate_tokens == sum(row.tokens for row in some) + 512 * 300
    assert plan.computed_tokens < sum(row.tokens for row in some) + 1.3 * 64 * 300


def test_ranks_get_about_the_same_tokens() -> None:
    some = [Row(i, 20, length) for i, length in enumerate(skewed(512))]
    tokens = [sum(cost(some, batch) for batch in rank) for rank in plan_batches(some, 4096, 4).ranks]
    assert max(tokens) - min(tokens) <= 1044  # no more than the longest row


def test_one_group_is_spread_over_all_ranks() -> None:
    plan = plan_batches(rows(*[("a", 100)] * 8, prompt_tokens=20), 4096, 2)
    assert [[len(batch) for batch in rank] for rank in plan.ranks] == [[4], [4]]


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
