"""Group-relative advantages (GRPO, arXiv 2402.03300, eq. for outcome supervision), on shaped rewards.

    A_i = (r_i - mean r) / scale,   scale = std(r) + eps | max(std(r), std_floor) | 1,   std with n - 1

Mean and std are taken over the group's responses that are not neutral. With `group`, the std cancels the scale of the
rewards: inside an all-negative group two distinct values give the same advantages whatever beta and gamma are, so noise
of the judge gets full weight. `floor` [ours] limits that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from sgpo_core.types import Credit

AdvantageStd = Literal["group", "floor", "none"]


def group_advantages(
    credits: Sequence[Credit], std: AdvantageStd = "group", std_floor: float = 0.1, eps: float = 1e-6
) -> list[float]:
    """Advantages of one group, in order; 0 for neutral responses.

    All are exactly 0 when fewer than two responses count or all rewards are equal (rounding in the mean must not turn
    "no signal" into a tiny signal that Adam then blows up).
    """
    rewards = [c.shaped_reward for c in credits if not c.neutral]
    if len(rewards) < 2 or min(rewards) == max(rewards):
        return [0.0] * len(credits)
    mean = math.fsum(rewards) / len(rewards)
    deviation = math.sqrt(math.fsum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    scale = {"group": deviation + eps, "floor": max(deviation, std_floor), "none": 1.0}[std]
    return [0.0 if c.neutral else (c.shaped_reward - mean) / scale for c in credits]
