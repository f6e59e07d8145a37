"""Group-relative advantages, by hand: A = (r - mean) / scale, std with n - 1."""

from __future__ import annotations

import itertools

import pytest

from sgpo_core.advantages import AdvantageStd, group_advantages
from sgpo_core.types import Credit

N = None  # stands for a neutral response


def advantages(
    rewards: list[float | None], std: AdvantageStd = "group", floor: float = 0.1, eps: float = 1e-6
) -> list[float]:
    credits = [Credit(0.0, neutral=True) if r is None else Credit(r) for r in rewards]
    return group_advantages(credits, std, floor, eps)


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        # mean 1/4; (9 + 1 + 1 + 1)/16 / 3 = 1/4, std 1/2
        ([1, 0, 0, 0], [1.5, -0.5, -0.5, -0.5]),
        # mean 1/2; 2 * 1/4 / 1 = 1/2, std 0.7071068; 0.5 / 0.7071068
        ([1, 0], [0.7071068, -0.7071068]),
        # mean 0.3; 4 * 0.01 / 3, std 0.1154701; 0.1 / 0.1154701: two values give the same whatever their distance
        ([0.2, 0.4, 0.2, 0.4], [-0.8660254, 0.8660254, -0.8660254, 0.8660254]),
        ([0.0, 1.0, 0.0, 1.0], [-0.8660254, 0.8660254, -0.8660254, 0.8660254]),
        # the neutral one is in neither: mean 1/3; (4 + 1 + 1)/9 / 2 = 1/3, std 0.5773503; 0.6666667 / 0.5773503
        ([1, N, 0, 0], [1.1547005, 0.0, -0.5773503, -0.5773503]),
        # paper.md: one of eight at sigma(-5), the rest equal -> (1 - 1/8) / sqrt(1/8) = 2.4748737, here mirrored
        ([0.007] + [0.5] * 7, [-2.4748737] + [0.3535534] * 7),
    ],
)
def test_by_hand(rewards: list[float | None], expected: list[float]) -> None:
    assert advantages(rewards) == pytest.approx(expected, rel=1e-5)  # eps moves them by 1e-6 / std


def test_eps_is_added_to_the_std() -> None:
    # std 1/2 plus eps 1/4: 0.75 / 0.75 and -0.25 / 0.75
    assert advantages([1, 0, 0, 0], eps=0.25) == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3], abs=1e-12)


def test_floor() -> None:
    # std of (0.01, 0.03) is 0.0141 < 0.1: -0.01 / 0.1; that of (1, 0, 0, 0) is 0.5 and stays
    assert advantages([0.01, 0.03], "floor") == pytest.approx([-0.1, 0.1], abs=1e-12)
    assert advantages([0.01, 0.03], "floor", floor=0.5) == pytest.approx([-0.02, 0.02], abs=1e-12)
    assert advantages([1, 0, 0, 0], "floor") == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-12)


def test_none_only_subtracts_the_mean() -> None:
    assert advantages([1, 0, 0, 0], "none") == [0.75, -0.25, -0.25, -0.25]
    assert advantages([0.6, 0.2, N], "none") == pytest.approx([0.2, -0.2, 0.0], abs=1e-12)


@pytest.mark.parametrize("std", ["group", "floor", "none"])
@pytest.mark.parametrize(
    "rewards",
    [
        [0.0] * 8,
        [1.0] * 8,
        [0.1] * 7,  # its mean, summed naively, is 0.09999999999999999
        [0.1] * 3,  # even correctly rounded, a third of the sum of these is not 0.1
        [0.47] * 7,
        [1 / 3] * 11,
        [0.006692850924284856] * 8,
        [0.3],
        [0.3, N, N],  # one counted member says nothing of itself
        [0.2, N, 0.2],
        [N, N],
        [],
    ],
)
def test_no_signal_is_exactly_zero(rewards: list[float | None], std: AdvantageStd) -> None:
    assert advantages(rewards, std) == [0.0] * len(rewards)


def test_order_of_the_group_does_not_matter() -> None:
    rewards = [0.9, 0.1, 0.4, None, 0.1]
    base = advantages(rewards)
    for order in itertools.permutations(range(5)):
        assert advantages([rewards[i] for i in order]) == [base[i] for i in order]


@pytest.mark.parametrize("std", ["group", "floor", "none"])
def test_they_sum_to_zero_and_keep_the_order_of_rewards(std: AdvantageStd) -> None:
    rewards = [0.0, 0.07, 0.33, 0.5, 0.97]
    given = advantages(rewards, std)
    assert sum(given) == pytest.approx(0, abs=1e-12)
    assert given == sorted(given)
