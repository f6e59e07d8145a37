"""Utilization, with numbers derived by hand."""

from __future__ import annotations

import pytest

from sgpo_core.sizing.hardware import GPUS
from sgpo_core.sizing.shapes import KNOWN
from sgpo_core.sizing.utilization import idle_shares, mfu

SEVEN = KNOWN["Qwen/Qwen2.5-7B-Instruct"]


def test_mfu_of_a_seven_billion_model() -> None:
    """7.07 x 10^9 parameters that a token is multiplied with (all 7.62 but the embedding of .545): 14.14 x 10^9
    operations, and in texts of 1,000 tokens 2 x 28 x 3584 x 1000 = .2 x 10^9 of attention. Three times that, for
    100,000 tokens, is 4.30 x 10^15. Eight GPUs of 989 x 10^12 could do 7.91 x 10^15 in a second: 54 % of it."""
    assert SEVEN.multiplied == pytest.approx(7.07e9, rel=1e-3)
    found = mfu(SEVEN, GPUS["H100-80"], 8, 100_000, 1000, 1.0)
    assert found == pytest.approx(0.544, abs=0.002)
    assert mfu(SEVEN, GPUS["H100-80"], 8, 100_000, 1000, 2.0) == pytest.approx(found / 2)
    adapters = mfu(SEVEN, GPUS["H100-80"], 8, 100_000, 1000, 1.0, adapters=True)
    assert adapters == pytest.approx(found * 2 / 3), "no gradients of the weights"


def test_idle_shares_of_engines_that_take_turns() -> None:
    seconds = {
        "iteration": 10.0,
        "generate": 4.0,
        "evaluate": 1.0,
        "recompute_logprobs": 1.0,
        "update": 2.0,
        "sync": 1.0,
    }
    found = idle_shares({f"time/{name}_s": value for name, value in seconds.items()})
    assert found == pytest.approx({"speed/rollout_idle_frac": 0.5, "speed/trainer_idle_frac": 0.7})
    judged = idle_shares({"time/iteration_s": 4.0, "judge/seconds": 1.0})
    assert judged["speed/judge_idle_frac"] == 0.75
    assert idle_shares({"time/iteration_s": 4.0, "judge/seconds": 0.0}) == {
        "speed/rollout_idle_frac": 1.0,
        "speed/trainer_idle_frac": 1.0,
    }
    assert idle_shares({"time/iteration_s": 0.0}) == {}
