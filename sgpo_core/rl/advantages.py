"""Advantages: one number a response, A = (r - baseline) / scale, of the whole batch of groups at once.

    baseline  group           mean of the group                     GRPO, arXiv 2402.03300
              leave_one_out   mean of the group's others            RLOO, arXiv 2402.14740: G / (G-1) (r - mean)
              batch           mean of all responses (verl and       REINFORCE++, arXiv 2501.03262
                              OpenRLHF: of all tokens)
              none            0                                     RAFT and Reinforce, arXiv 2504.11343
    scale     group           std + eps of the group                GRPO
              floor           max(std of the group, std_floor)      [ours]
              batch           std + eps of what the baseline left   REINFORCE++ and its baseline form
              none            1                                     Dr. GRPO, arXiv 2503.20783

Std divides by n - 1. Responses that don't count (excluded or filtered out) are in no mean, no std, and get 0. With
`group` the std cancels the scale of the rewards: inside an all-negative group two distinct values give the same
advantages whatever beta and gamma are, so noise of the judge gets full weight; `floor` limits that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

from sgpo_core.config.algorithm import AdvantageSettings
from sgpo_core.types import Credit

Rewards = list[list[float]]  # of each group's responses that count


def batch_advantages(
    groups: Sequence[Sequence[Credit]], settings: AdvantageSettings | None = None
) -> list[list[float]]:
    """Advantages of every response of every group, in order; 0 for those that don't count.

    Exactly 0 where all rewards under one baseline are equal, or fewer than two count: rounding in the mean must not
    turn "no signal" into a tiny signal that Adam then blows up.
    """
    settings = settings or AdvantageSettings()
    if settings.separate_rewards:
        counted = separately_normalized(groups, settings.eps)
    else:
        counted = _normalized([[c.shaped_reward for c in g if c.counts] for g in groups], settings)
    if settings.entropy_coef > 0:
        counted = without_signal(groups, counted, settings.entropy_coef)
    return [_put_back(group, advantages) for group, advantages in zip(groups, counted, strict=True)]


def separately_normalized(groups: Sequence[Sequence[Credit]], eps: float) -> Rewards:
    """GDPO (arXiv 2601.05242): each reward normalized in its group, the results added, and the sum divided by its std
    over the batch's responses (as TRL; verl goes by tokens). Its mean is 0 already, as each group's is.

    The rewards are the outcome and RTS (1 of a correct response)."""
    plain = AdvantageSettings(eps=eps)
    outcome = _normalized([[float(c.correct) for c in g if c.counts] for g in groups], plain)
    rts = _normalized([[1.0 if c.correct else c.rts or 0.0 for c in g if c.counts] for g in groups], plain)
    summed = [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(outcome, rts, strict=True)]
    return _normalized(summed, AdvantageSettings(baseline="none", std="batch", eps=eps))


def lacks_signal(group: Sequence[Credit]) -> bool:
    """Whether a group has no signal: what counts of it is all correct or all wrong, with equal rewards."""
    counted = [c for c in group if c.counts]
    return len({(c.correct, c.shaped_reward) for c in counted}) == 1


def without_signal(groups: Sequence[Sequence[Credit]], advantages: Rewards, coef: float) -> Rewards:
    """RL-ZVP (arXiv 2509.21880): +coef for all-correct groups, -coef for all-wrong ones; what each token gets of it
    depends on its entropy (`token_credit.entropy_share`). Groups with a signal keep theirs."""
    return [
        [coef if any(c.correct for c in group) else -coef] * len(given) if lacks_signal(group) else given
        for group, given in zip(groups, advantages, strict=True)
    ]


def _normalized(rewards: Rewards, settings: AdvantageSettings) -> Rewards:
    centered = _centered(rewards, settings)
    if settings.std == "none":
        return centered
    if settings.std == "batch":
        scale = _std(list(chain.from_iterable(centered))) + settings.eps
        return [[a / scale for a in group] for group in centered]
    result = []
    for group, around in zip(rewards, centered, strict=True):
        std = _std([*group, 1.0] if settings.virtual_success and group else group)
        scale = max(std, settings.std_floor) if settings.std == "floor" else std + settings.eps
        result.append([a / scale for a in around])
    return result


def _centered(rewards: Rewards, settings: AdvantageSettings) -> Rewards:
    if settings.baseline == "none":
        return [list(group) for group in rewards]
    if settings.baseline == "batch":
        everything = list(chain.from_iterable(rewards))
        mean = _mean(everything)
        return [[r - mean for r in group] for group in rewards]
    result = []
    for group in rewards:
        members = [*group, 1.0] if settings.virtual_success and group else group
        mean, n = _mean(members), len(group)
        others = n / (n - 1) if settings.baseline == "leave_one_out" and n > 1 else 1.0
        result.append([others * (r - mean) for r in group])
    return result


def _mean(values: Sequence[float]) -> float:
    """Of equal values exactly that value: a third of the sum of three 0.1 is not 0.1."""
    if not values:
        return 0.0
    return values[0] if min(values) == max(values) else math.fsum(values) / len(values)


def _std(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / max(1, len(values) - 1))


def _put_back(group: Sequence[Credit], counted: Sequence[float]) -> list[float]:
    values = iter(counted)
    return [next(values) if credit.counts else 0.0 for credit in group]
