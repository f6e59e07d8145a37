"""What of the advantage each token gets, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sgpo_core.rl.losses import policy_loss
from sgpo_core.rl.token_credit import entropy_share


def test_entropy_share() -> None:
    entropies = np.array([0.5, 2.0, 0.0])
    assert entropy_share(entropies, all_correct=True).tolist() == [0.5, 2.0, 0.0]
    assert entropy_share(entropies, all_correct=False).tolist() == [1.5, 0.0, 2.0]  # 2 - H
    assert entropy_share(np.zeros(0), all_correct=False).tolist() == []


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_a_weight_on_the_advantage_is_a_weight_on_the_token_s_loss(ratio: str) -> None:
    generator = torch.Generator().manual_seed(0)
    new, old, advantages = (torch.randn(12, generator=generator, dtype=torch.float64) for _ in range(3))
    share = torch.rand(12, generator=generator, dtype=torch.float64)
    rows = torch.arange(12) // 4
    each = [
        policy_loss(new, old, advantages, torch.eye(12, dtype=torch.float64)[i], ratio=ratio, rows=rows).loss
        for i in range(12)
    ]
    weighted = policy_loss(new, old, advantages * share, torch.ones(12, dtype=torch.float64), ratio=ratio, rows=rows)
    assert weighted.loss.item() == pytest.approx(float((torch.stack(each) * share).sum()), abs=1e-12)
