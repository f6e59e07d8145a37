"""Intervals, paired tests and summaries of curves: numbers worked out by hand, and what must hold for any."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sgpo_core.analysis.statistics import (
    Interval,
    Paired,
    area_under,
    first_reaching,
    holm,
    mean_interval,
    paired_difference,
    smallest_effect,
)


def against_zero(differences: Sequence[float], **settings: int) -> Paired:
    ours = dict(enumerate(map(float, differences)))
    return paired_difference(ours, dict.fromkeys(ours, 0.0), **settings)


# Intervals


def test_three_seeds_have_a_t_interval() -> None:
    # s = 1; with 2 degrees of freedom F(t) = 1/2 + t / (2 sqrt(2 + t^2)), so t(.975) = .95 / sqrt(2 * .975 * .025),
    # which is 4.3027.
    half = 0.95 / math.sqrt(2 * 0.975 * 0.025) / math.sqrt(3)
    interval = mean_interval([3, 1, 2])
    assert (interval.mean, interval.low, interval.high) == pytest.approx((2, 2 - half, 2 + half))
    assert interval.kind == "95 % t" and interval == mean_interval([1, 2, 3], seed=9)  # nothing is drawn
    assert interval.text() == "2.000 [95 % t: -0.484, 4.484]"
    assert interval.text("+") == "+2.000 [95 % t: -0.484, +4.484]"


def test_an_interval_ends_where_means_end() -> None:
    # Shares .1 .2 .9: mean .4, s = sqrt((.09 + .04 + .25) / 2) = .436, half width 4.303 * .436 / sqrt(3) = 1.08
    interval = mean_interval([0.1, 0.2, 0.9], limits=(0, 1))
    assert (interval.low, interval.high, interval.kind) == (0, 1, "95 % t")


def test_fewer_than_three_have_a_range_that_says_so() -> None:
    assert mean_interval([0.9, 0.5]) == Interval(0.7, 0.5, 0.9, "range")
    assert mean_interval([0.9, 0.5]).text() == "0.700 [range: 0.500, 0.900]"
    interval = mean_interval([0.7])
    assert (interval.mean, interval.kind, interval.text("+")) == (0.7, "none", "+0.700")
    assert math.isnan(interval.low) and math.isnan(interval.high)


@pytest.mark.parametrize("n", [2, 3, 6, 29, 30, 49])
def test_equal_values_say_nothing_of_the_spread(n: int) -> None:
    for value in (0.0, 0.1, 0.7, 1 / 3, -2.3):
        assert mean_interval([value] * n) == Interval(value, value, value, "range")
    assert mean_interval([0.1 + 0.2, *[0.3] * (n - 1)]).kind == "range"  # equal but for rounding


def test_from_thirty_values_on_the_interval_follows_their_skew() -> None:
    assert mean_interval([0.0, *[1.0] * 28]).kind == "95 % t"
    # 29 zeros and a one: mean 1/30. A symmetric interval would reach below 0, where no resample is.
    interval = mean_interval([0.0] * 29 + [1.0])
    assert interval.kind == "95 % BCa"
    assert 0 <= interval.low < 1 / 30 and interval.high - 1 / 30 > 2 * (1 / 30 - interval.low)


def test_a_drawn_interval_is_near_the_normal_one_and_repeats() -> None:
    values = list(np.random.default_rng(1).normal(5, 2, size=100))
    interval = mean_interval(values, seed=3)
    half = 1.96 * float(np.std(values)) / 10  # the bootstrap's std divides by n
    assert interval.low == pytest.approx(interval.mean - half, abs=0.08)
    assert interval.high == pytest.approx(interval.mean + half, abs=0.08)
    assert interval == mean_interval(values[::-1], seed=3) == mean_interval(np.array(values), seed=3)
    assert interval != mean_interval(values, seed=4)


@pytest.mark.parametrize("n", [2, 3, 6, 12, 40])
def test_intervals_follow_shift_and_scale(n: int) -> None:
    values = np.random.default_rng(n).uniform(size=n)
    interval, moved = mean_interval(list(values)), mean_interval(list(3 * values + 2))
    assert interval.low <= interval.mean <= interval.high
    assert [moved.mean, moved.low, moved.high] == pytest.approx(
        [3 * x + 2 for x in (interval.mean, interval.low, interval.high)]
    )


@pytest.mark.parametrize(("n", "coverage"), [(2, 0.5), (3, 0.95), (5, 0.95)])
def test_what_an_interval_covers_is_what_its_name_says(n: int, coverage: float) -> None:
    # The range of 2 holds the center of a symmetric distribution unless both lie on one side: 1 - 2 / 4.
    intervals = [mean_interval(list(sample)) for sample in np.random.default_rng(n).normal(size=(2000, n))]
    assert {i.kind for i in intervals} == {"range" if n == 2 else "95 % t"}
    assert np.mean([i.low <= 0 <= i.high for i in intervals]) == pytest.approx(coverage, abs=0.03)  # 3 std or more


# Paired differences


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1, 2, 3], 2 / 8),  # only +++ and --- reach 6
        ([-1, -2, -3], 2 / 8),
        ([1, 2, -3], 1),  # the sum is 0, which all reach
        ([3, 2, -1], 4 / 8),  # 4: +++ ++-, and their negatives
        ([1, 1, -1], 1),  # 1 or 3, always
        ([0, 0, 0], 1),
        ([0, 1, 1], 4 / 8),  # the 0 may have either sign
        ([5], 1),
        ([1, 1], 2 / 4),
        ([1] * 6, 2 / 64),
        ([1] * 5 + [-1], 14 / 64),  # 4 or more: at most one of six the other way, (1 + 6) * 2
        ([1] * 13, 2 / 8192),
        ([0] * 20 + [1, 1], 2 / 4),  # a 0 may have either sign, however many there are
    ],
)
def test_p_is_the_share_of_sign_patterns(differences: list[float], p: float) -> None:
    result = against_zero(differences)
    assert result.p == p
    n = len(differences)
    assert result.smallest_p == (2 / 2**n if n <= 13 else 1 / 10_001)
    assert result.mean == pytest.approx(sum(differences) / len(differences))


def test_seeds_are_paired_by_name_and_the_unpaired_counted() -> None:
    ours = {3: 0.9, 1: 0.5, 2: 0.7, 8: 0.0}
    baseline = {1: 0.4, 2: 0.5, 3: 0.6, 9: 1.0, 10: 1.0}
    result = paired_difference(ours, baseline)
    # Differences .1 .2 .3: s = .1, half width 4.3027 * .1 / sqrt(3)
    assert (result.mean, result.low, result.high) == pytest.approx((0.2, -0.04841, 0.44841), abs=1e-5)
    assert (result.kind, result.std) == ("95 % t", pytest.approx(0.1))
    assert (result.p, result.smallest_p, result.n, result.dropped) == (0.25, 0.25, 3, 3)
    other = paired_difference(baseline, ours)
    assert (other.mean, other.low, other.high, other.p) == pytest.approx((-0.2, -0.44841, 0.04841, 0.25), abs=1e-5)
    assert paired_difference(ours, baseline, limits=(0, 0.3)).low == 0


def test_one_common_seed_decides_nothing() -> None:
    result = paired_difference({0: 0.9, 1: 0.9}, {0: 0.1})
    assert (result.mean, result.p, result.smallest_p, result.n, result.dropped) == (0.8, 1, 1, 1, 1)
    assert math.isnan(result.low) and math.isnan(result.high) and math.isnan(result.std)


def test_ties_are_ties_in_spite_of_rounding() -> None:
    # By tenths +1 +2 -3: the sum is 0, which all reach; in floats it is a little off.
    assert paired_difference({0: 0.3, 1: 0.4, 2: 0.1}, {0: 0.2, 1: 0.2, 2: 0.4}).p == 1
    # +2 +1 -1 reaches 2: the six that do have sums of 4 or 2, that differ in their last digits.
    assert paired_difference({0: 0.7, 1: 0.3, 2: 0.6}, {0: 0.5, 1: 0.2, 2: 0.7}).p == 6 / 8
    # Equal values that were added up in another order.
    assert 0.1 + 0.2 != 0.3
    assert paired_difference(dict.fromkeys(range(5), 0.1 + 0.2), dict.fromkeys(range(5), 0.3)).p == 1
    same = paired_difference({0: 0.1 + 0.2, 1: 0.3, 2: 0.5}, {0: 0.3, 1: 0.1 + 0.2, 2: 0.5})
    assert (same.mean, same.low, same.high, same.kind) == (0, 0, 0, "range")


@pytest.mark.parametrize("scale", [1e-6, 1, 1e9])
def test_p_does_not_depend_on_the_unit(scale: float) -> None:
    assert against_zero([scale * d for d in (3, 2, -1, 4)]).p == against_zero([3, 2, -1, 4]).p == 4 / 16


def test_each_p_comes_as_often_as_it_claims() -> None:
    # 1, 2, 4, 8 with all signs: |sum| is 1, 3, ..., 15, each twice, so p is each of 2/16, 4/16, ..., 1 twice.
    patterns = itertools.product((1, -1), repeat=4)
    found = sorted(against_zero([s * 2**i for i, s in enumerate(pattern)]).p for pattern in patterns)
    assert found == [k / 8 for k in range(1, 9) for _ in range(2)]


@pytest.mark.parametrize(("n", "runs", "resamples"), [(6, 2000, 64), (20, 1000, 199)])
def test_p_is_uniform_when_both_are_the_same(n: int, runs: int, resamples: int) -> None:
    rng = np.random.default_rng(5)
    found = []
    for run in range(runs):
        ours, baseline = rng.exponential(size=(2, n))  # skewed; their differences are not
        found.append(
            paired_difference(dict(enumerate(ours)), dict(enumerate(baseline)), resamples=resamples, seed=run).p
        )
    for level in (1 / 32, 1 / 8, 1 / 4, 1 / 2, 3 / 4):  # 1/32 and its multiples exist for n = 6
        attained = level if n == 6 else math.floor(level * 200) / 200
        assert np.mean(np.array(found) <= level) == pytest.approx(attained, abs=0.045)  # over 3 std of 1000 runs


def test_many_seeds_are_drawn_and_near_the_exact_p() -> None:
    differences = np.random.default_rng(2).normal(0.3, 1, size=17)
    sums = np.zeros(1)
    for d in differences:
        sums = np.concatenate([sums + d, sums - d])
    exact = float(np.mean(np.abs(sums) >= abs(differences.sum()) - 1e-9))
    result = against_zero(list(differences))
    assert 0.05 < exact < 0.95
    assert result.p == pytest.approx(exact, abs=0.02)  # std below .005
    assert result.p != against_zero(list(differences), seed=1).p
    assert result == against_zero(list(differences))
    assert against_zero(list(differences), resamples=2**17).p == pytest.approx(exact)  # enough to count them all


def test_a_drawn_p_is_never_zero() -> None:
    result = against_zero([1.0] * 40, resamples=999)
    assert result.p == result.smallest_p == 1 / 1000
    assert against_zero([0.0] * 40, resamples=99).p == 1


# Several comparisons


def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, the last lifted to .06.
    given = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    adjusted = holm(given)
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(adjusted) == list(given)
    assert holm({"a": 0.25, "b": 0.25, "c": 1.0}) == {"a": 0.75, "b": 0.75, "c": 1.0}
    assert holm({"a": 0.5, "b": 0.6}) == {"a": 1.0, "b": 1.0}
    assert holm({"a": 0.3}) == {"a": 0.3}
    assert holm({}) == {}


def test_holm_lies_between_the_given_and_bonferroni_and_keeps_the_order() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        given = {str(i): float(p) for i, p in enumerate(rng.uniform(size=rng.integers(1, 9)) ** 3)}
        adjusted = holm(given)
        assert all(p <= adjusted[name] <= min(1, len(given) * p) for name, p in given.items())
        ranked = [adjusted[name] for name in sorted(given, key=lambda name: given[name])]
        assert ranked == sorted(ranked)


def test_the_smallest_effect_by_hand() -> None:
    # 2 degrees of freedom have closed quantiles, q(F) = (2 F - 1) / sqrt(2 F (1 - F)): q(.975) = 4.3027, and
    # q(.8) = .6 / sqrt(.32) = 1.0607. So (4.3027 + 1.0607) * .1 / sqrt(3).
    assert smallest_effect(0.1, 3, 0.05) == pytest.approx(0.30966, abs=1e-5)
    assert smallest_effect(0.0, 3, 0.05) == 0
    # Many pairs: (1.9600 + .8416) * 2 / 100
    assert smallest_effect(2.0, 10_000, 0.05) == pytest.approx(0.05603, abs=1e-5)


def test_the_smallest_effect_is_found_in_four_of_five_cases() -> None:
    effect = smallest_effect(1.0, 30, 0.01)
    samples = np.random.default_rng(8).normal(effect, 1, size=(400, 30))
    found = [against_zero(list(sample), resamples=1999).p <= 0.01 for sample in samples]
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)  # 3 std


# Curves


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ({0: 0, 10: 1}, 0.5),
        ({0: 0, 1: 1, 3: 1}, 2.5 / 3),  # 1/2 + 2, over 3
        ({3: 1, 0: 0, 1: 1}, 2.5 / 3),
        ({100: 0.2, 200: 0.4, 400: 0.4}, (30 + 80) / 300),
        ({5: 0.3}, 0.3),
        ({0: 0.7, 1: 0.7, 9: 0.7}, 0.7),
    ],
)
def test_area_is_the_mean_height(curve: dict[float, float], expected: float) -> None:
    assert area_under(curve) == pytest.approx(expected)


def test_the_first_x_that_reaches_the_target() -> None:
    curve = {20.0: 0.6, 0.0: 0.1, 10.0: 0.5, 30.0: 0.4}
    assert first_reaching(curve, 0.5) == 10
    assert first_reaching(curve, 0.51) == 20
    assert first_reaching(curve, 0.0) == 0
    assert first_reaching(curve, 0.7) is None
    assert first_reaching({}, 0.7) is None


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([]), "at least one value"),
        (lambda: mean_interval([0.1, math.nan]), "finite number; one is nan"),
        (lambda: paired_difference({1: 0.1}, {2: 0.1}), r"ours has \[1\], the baseline \[2\]"),
        (lambda: paired_difference({}, {}), "no seed in common"),
        (lambda: paired_difference({1: math.inf}, {1: 0.1}), "value of ours"),
        (lambda: paired_difference({1: 0.1}, {1: math.nan}), "value of the baseline"),
        (lambda: paired_difference({1: 0.1}, {1: 0.1}, resamples=0), "resamples"),
        (lambda: smallest_effect(0.1, 1, 0.05), "2 pairs"),
        (lambda: smallest_effect(-0.1, 9, 0.05), "std"),
        (lambda: smallest_effect(0.1, 9, 1.0), "level"),
        (lambda: holm({"sgpo": 1.1}), "'sgpo' is 1.1"),
        (lambda: holm({"sgpo": math.nan}), "'sgpo' is nan"),
        (lambda: area_under({}), "at least one point"),
        (lambda: area_under({0: math.nan}), "each value"),
        (lambda: area_under({math.inf: 0}), "each x"),
        (lambda: first_reaching({0: math.nan}, 0.5), "each value"),
        (lambda: first_reaching({0: 1}, math.nan), "each target"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
