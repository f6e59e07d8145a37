"""Shaped rewards, by hand."""

from __future__ import annotations

import math

import pytest

from sgpo_core.config.algorithm import CreditSettings
from sgpo_core.rl.shaping import (
    Sampled,
    difficulty_weight,
    domain_shares,
    domain_weight,
    overlong_penalty,
    shape,
    unlikeliness_rewards,
)
from sgpo_core.types import Credit

RIGHT, WRONG = Credit(1.0, correct=True), Credit(0.0)


def test_unlikeliness() -> None:
    # Ranks, likeliest first: -0.1, -0.2, -0.3, -0.4 have 1, 2, 3, 4: 1 - 0.25 * (3, 2, 1, 0) / 4; wrong ones stay at 0
    assert unlikeliness_rewards([1, 1, 0, 1], [-0.2, -0.4, -0.3, -0.1], 0.25) == [0.875, 1.0, 0.0, 0.8125]
    assert unlikeliness_rewards([1, 1], [-0.5, -0.5], 0.5) == [0.875, 0.875]  # both have rank 1.5


def test_difficulty_and_domain() -> None:
    assert difficulty_weight([True, False, False, False], eps=0.25) == 2.0  # 1 / (1/4 + 1/4)
    assert difficulty_weight([False], eps=0.5) == 2.0
    assert domain_weight(1 / 3) == pytest.approx(math.log(4))
    assert domain_shares(["a", "b", "a", "a"]) == {"a": 0.75, "b": 0.25}


@pytest.mark.parametrize(("length", "penalty"), [(0, 0), (80, 0), (81, 0.05), (90, 0.5), (100, 1), (101, 1)])
def test_overlong_penalty(length: int, penalty: float) -> None:
    assert overlong_penalty(length, max_length=100, buffer=0.2) == pytest.approx(penalty)


def test_shape_composes_and_touches_rewards_alone() -> None:
    settings = CreditSettings(scope="none", difficulty_weight=True, overlong_buffer=0.5, overlong_penalty=0.5)
    sampled = [Sampled(10, 10), Sampled(7, 10), Sampled(1, 10)]
    excluded = Credit(0.0, excluded=True)
    right, wrong, other = shape([RIGHT, WRONG, excluded], sampled, settings)
    # One of the two that count is correct: weight 1 / (1/2 + 1e-5); penalties 1, (7 - 5) / 5, 0, times 1/2
    assert right.shaped_reward == pytest.approx(2 - 0.5, abs=1e-4)
    assert wrong.shaped_reward == pytest.approx(-0.2)
    assert other == excluded
    assert right.correct and not wrong.correct


def test_nothing_is_shaped_unless_asked_for() -> None:
    group = [RIGHT, WRONG, Credit(0.3, rts=0.4)]
    assert shape(group, [Sampled(100, 100)] * 3, CreditSettings()) == group
