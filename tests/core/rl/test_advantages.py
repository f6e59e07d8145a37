"""Group-relative advantages, by hand: A = (r - mean) / scale, std with n - 1."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from sgpo_core.config.algorithm import AdvantageSettings, AdvantageStd
from sgpo_core.rl.advantages import batch_advantages, lacks_signal
from sgpo_core.types import Credit

N = None  # stands for an excluded response


def advantages(
    rewards: list[float | None], std: AdvantageStd = "group", floor: float = 0.1, eps: float = 1e-6
) -> list[float]:
    credits = [Credit(0.0, excluded=True) if r is None else Credit(r) for r in rewards]
    return batch_advantages([credits], AdvantageSettings(std=std, std_floor=floor, eps=eps))[0]


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
        # the excluded one is in neither: mean 1/3; (4 + 1 + 1)/9 / 2 = 1/3, std 0.5773503; 0.6666667 / 0.5773503
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


def of(*groups: str, **settings: Any) -> list[list[float]]:
    """Advantages of groups of correct (1) and wrong (0) responses; x was filtered out."""
    credits = [[Credit(float(c == "1"), correct=c == "1", filtered=c == "x") for c in group] for group in groups]
    return batch_advantages(credits, AdvantageSettings(**{"eps": 1e-12, **settings}))


def test_leave_one_out_by_hand() -> None:
    # RLOO: 1 - (0 + 0 + 1)/3, 0 - (1 + 1 + 0)/3: G/(G-1) (r - mean) = 4/3 * 1/2
    assert of("1010", baseline="leave_one_out", std="none") == [pytest.approx([2 / 3, -2 / 3, 2 / 3, -2 / 3])]
    assert of("1", "11", baseline="leave_one_out", std="none") == [[0.0], [0.0, 0.0]]


def test_batch_baseline_by_hand() -> None:
    # REINFORCE++: mean 1/4 of all eight, variance (2 * 9 + 6 * 1)/16 / 7 = 3/14: the all-wrong group is pushed down
    std = (3 / 14) ** 0.5
    mixed, wrong = of("1100", "0000", baseline="batch", std="batch")
    assert mixed == pytest.approx([0.75 / std, 0.75 / std, -0.25 / std, -0.25 / std])
    assert wrong == pytest.approx([-0.25 / std] * 4)
    assert of("0000", "00", baseline="batch", std="batch") == [[0.0] * 4, [0.0] * 2]


def test_group_baseline_with_batch_std_by_hand() -> None:
    # REINFORCE++-baseline: centered 1/2, -1/2, 0, 0; variance (1/4 + 1/4) / 3 = 1/6; equal rewards stay exactly 0
    [mixed, wrong] = of("10", "00", std="batch")
    assert mixed == pytest.approx([0.5 * 6**0.5, -0.5 * 6**0.5])
    assert wrong == [0.0, 0.0]


def test_no_baseline_is_the_reward() -> None:
    assert of("1x1", "xx", baseline="none", std="none") == [[1.0, 0.0, 1.0], [0.0, 0.0]]  # RAFT


def test_virtual_success_by_hand() -> None:
    # NGRPO, all wrong: mean 1/4 with the virtual one, variance ((3/4)^2 + 3 (1/4)^2) / 3 = 1/4: -1/4 / 1/2, that is
    # -1/sqrt(G + 1)
    assert of("000", virtual_success=True) == [pytest.approx([-0.5] * 3)]
    # mixed: rewards 1, 0 and the virtual 1: mean 2/3, variance (1/9 + 4/9 + 1/9) / 2 = 1/3
    assert of("10", virtual_success=True) == [pytest.approx([3**0.5 / 3, -2 * 3**0.5 / 3])]
    assert of("11", virtual_success=True) == [[0.0, 0.0]]


def test_separate_rewards_by_hand() -> None:
    # GDPO. Outcome (1, 0 | 0, 0): +-1/sqrt 2 and 0. RTS (1, 0.5 | 0.2, 0.8): +-1/sqrt 2 in both groups.
    # Sums (sqrt 2, -sqrt 2 | -1/sqrt 2, 1/sqrt 2); their mean is 0, the variance (2 + 2 + 1/2 + 1/2) / 3 = 5/3.
    groups = [[Credit(1.0, correct=True), Credit(0.5, 0.5)], [Credit(0.05, 0.2), Credit(0.95, 0.8)]]
    given = batch_advantages(groups, AdvantageSettings(separate_rewards=True, eps=1e-12))
    a, b = (2 / (5 / 3)) ** 0.5, (0.5 / (5 / 3)) ** 0.5
    assert given == [pytest.approx([a, -a]), pytest.approx([-b, b])]
    # A group that says nothing stays exactly 0, although the batch is normalized.
    same = [Credit(1.0, correct=True)] * 2
    assert batch_advantages([*groups, same], AdvantageSettings(separate_rewards=True))[2] == [0.0, 0.0]


def test_entropy_coef_speaks_where_nothing_else_does() -> None:
    # RL-ZVP: +-coef for groups without signal, whose tokens share it by entropy; the mixed group keeps its own.
    up, down, mixed, out = of("11", "000", "10", "xx", entropy_coef=0.1)
    assert (up, down, out) == ([0.1, 0.1], [-0.1] * 3, [0.0, 0.0])
    assert mixed == pytest.approx([0.5**0.5, -(0.5**0.5)])
    assert lacks_signal([Credit(0.2), Credit(0.2, excluded=True)]) and not lacks_signal([Credit(0.2), Credit(0.4)])
    assert not lacks_signal([Credit(0.0, excluded=True)])
    # The sign is that of the responses that count, wherever an ungraded one stands.
    right, unknown = Credit(1.0, correct=True), Credit(0.0, excluded=True)
    [given] = batch_advantages([[unknown, right, right]], AdvantageSettings(entropy_coef=0.1))
    assert given == [0.0, 0.1, 0.1]


@pytest.mark.parametrize(
    "settings",
    [
        {"baseline": "leave_one_out", "std": "none"},
        {"baseline": "batch", "std": "batch"},
        {"std": "batch"},
        {"virtual_success": True},
        {"entropy_coef": 0.1},
        {"separate_rewards": True},
    ],
    ids=str,
)
def test_permuting_a_group_permutes_its_advantages(settings: dict[str, Any]) -> None:
    group = [Credit(1.0, correct=True), Credit(0.1, 0.2), Credit(0.6, 0.5), Credit(0.0, excluded=True)]
    other = [Credit(0.3, 0.4), Credit(0.2, 0.3)]
    base = batch_advantages([group, other], AdvantageSettings(**settings))
    for order in itertools.permutations(range(4)):
        permuted = batch_advantages([[group[i] for i in order], other], AdvantageSettings(**settings))
        assert permuted[0] == pytest.approx([base[0][i] for i in order], abs=1e-12)
        assert permuted[1] == pytest.approx(base[1], abs=1e-12)
