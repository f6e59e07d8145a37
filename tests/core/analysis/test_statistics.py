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
    bootstrap_interval,
    first_reaching,
    holm,
    paired_difference,
)


def against_zero(differences: Sequence[float], **settings: int) -> Paired:
    ours = dict(enumerate(map(float, differences)))
    return paired_difference(ours, dict.fromkeys(ours, 0.0), **settings)


# Intervals


@pytest.mark.parametrize(
    ("values", "confidence", "expected"),
    [
        ([0, 1], 0.95, (0.5, 0, 1)),  # means 0, 1/2, 1/2, 1
        ([0, 1], 0.49, (0.5, 0.5, 0.5)),  # a tail of .255 * 4 = 1.02: the second smallest
        # The 27 sums of 1, 2, 3 are 3 4 5 6 7 8 9, coming 1 3 6 7 6 3 1 times.
        ([1, 2, 3], 0.95, (2, 1, 3)),  # .025 * 27 = .675: the smallest
        ([3, 1, 2], 0.9, (2, 4 / 3, 8 / 3)),  # .05 * 27 = 1.35: the second
        ([1, 2, 3], 0.7, (2, 5 / 3, 7 / 3)),  # .15 * 27 = 4.05: the fifth
        # Of 4^4 = 256 resamples of 0 0 0 1 the 1 is in none 81 times, in all once, in three 12 times: 7th from above.
        ([0, 0, 0, 1], 0.95, (0.25, 0, 0.75)),
        ([0.1] * 3, 0.95, (0.1, 0.1, 0.1)),
    ],
)
def test_the_interval_of_a_few_seeds_is_counted_out(
    values: list[float], confidence: float, expected: tuple[float, float, float]
) -> None:
    interval = bootstrap_interval(values, confidence)
    assert (interval.mean, interval.low, interval.high) == pytest.approx(expected)
    assert interval == bootstrap_interval(values, confidence, resamples=1, seed=9)  # nothing is drawn


def test_one_seed_has_a_mean_and_no_interval() -> None:
    interval = bootstrap_interval([0.7])
    assert interval.mean == 0.7
    assert math.isnan(interval.low) and math.isnan(interval.high)


@pytest.mark.parametrize("n", [2, 3, 6, 7, 49])
def test_equal_values_have_a_width_of_exactly_zero(n: int) -> None:
    for value in (0.1, 0.7, 1 / 3, -2.3):
        assert bootstrap_interval([value] * n) == Interval(value, value, value)


def test_a_drawn_interval_is_near_the_normal_one_and_repeats() -> None:
    values = list(np.random.default_rng(1).normal(5, 2, size=100))
    interval = bootstrap_interval(values, seed=3)
    half = 1.96 * float(np.std(values)) / 10  # the bootstrap's std divides by n
    assert interval.low == pytest.approx(interval.mean - half, abs=0.05)
    assert interval.high == pytest.approx(interval.mean + half, abs=0.05)
    assert interval == bootstrap_interval(values[::-1], seed=3) == bootstrap_interval(np.array(values), seed=3)
    assert interval != bootstrap_interval(values, seed=4)


def test_the_tail_is_not_one_longer_by_rounding() -> None:
    assert (1 - 0.95) / 2 * 40 > 1  # and yet it is the smallest and the largest of 40 that are meant
    values = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    assert bootstrap_interval(values, 0.95, resamples=40) == bootstrap_interval(values, 0.999, resamples=40)
    assert bootstrap_interval(values, 0.95, resamples=41) != bootstrap_interval(values, 0.999, resamples=41)


@pytest.mark.parametrize("n", [2, 4, 6, 7, 12])
def test_intervals_follow_shift_and_scale_and_widen_with_confidence(n: int) -> None:
    values = np.random.default_rng(n).uniform(size=n)
    interval, moved = bootstrap_interval(list(values)), bootstrap_interval(list(3 * values + 2))
    assert min(values) <= interval.low <= interval.mean <= interval.high <= max(values)
    assert [moved.mean, moved.low, moved.high] == pytest.approx(
        [3 * x + 2 for x in (interval.mean, interval.low, interval.high)]
    )
    wide, narrow = bootstrap_interval(list(values), 0.99), bootstrap_interval(list(values), 0.5)
    assert wide.low <= interval.low <= narrow.low and narrow.high <= interval.high <= wide.high


@pytest.mark.parametrize(("n", "coverage"), [(2, 0.5), (3, 0.75)])
def test_what_few_seeds_cover_is_what_the_module_says(n: int, coverage: float) -> None:
    samples = np.random.default_rng(n).normal(size=(2000, n))
    intervals = [bootstrap_interval(list(sample)) for sample in samples]
    assert np.mean([i.low <= 0 <= i.high for i in intervals]) == pytest.approx(coverage, abs=0.03)  # 3 std


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
        ([1] * 16, 2 / 65536),
    ],
)
def test_p_is_the_share_of_sign_patterns(differences: list[float], p: float) -> None:
    result = against_zero(differences)
    assert result.p == p
    assert result.smallest_p == 2 / 2 ** len(differences)
    assert result.mean == pytest.approx(sum(differences) / len(differences))


def test_seeds_are_paired_by_name_and_the_unpaired_counted() -> None:
    ours = {3: 0.9, 1: 0.5, 2: 0.7, 8: 0.0}
    baseline = {1: 0.4, 2: 0.5, 3: 0.6, 9: 1.0, 10: 1.0}
    result = paired_difference(ours, baseline)
    assert (result.mean, result.low, result.high) == pytest.approx((0.2, 0.1, 0.3))
    assert (result.p, result.smallest_p, result.n, result.dropped) == (0.25, 0.25, 3, 3)
    other = paired_difference(baseline, ours)
    assert (other.mean, other.low, other.high, other.p) == pytest.approx((-0.2, -0.3, -0.1, 0.25))


def test_one_common_seed_decides_nothing() -> None:
    result = paired_difference({0: 0.9, 1: 0.9}, {0: 0.1})
    assert (result.mean, result.p, result.smallest_p, result.n, result.dropped) == (0.8, 1, 1, 1, 1)
    assert math.isnan(result.low) and math.isnan(result.high)


def test_ties_are_ties_in_spite_of_rounding() -> None:
    # By tenths +1 +2 -3: the sum is 0, which all reach; in floats it is a little off.
    assert paired_difference({0: 0.3, 1: 0.4, 2: 0.1}, {0: 0.2, 1: 0.2, 2: 0.4}).p == 1
    # +2 +1 -1 reaches 2: the six that do have sums of 4 or 2, that differ in their last digits.
    assert paired_difference({0: 0.7, 1: 0.3, 2: 0.6}, {0: 0.5, 1: 0.2, 2: 0.7}).p == 6 / 8
    # Equal values that were added up in another order.
    assert 0.1 + 0.2 != 0.3
    assert paired_difference(dict.fromkeys(range(5), 0.1 + 0.2), dict.fromkeys(range(5), 0.3)).p == 1


@pytest.mark.parametrize("scale", [1e-6, 1, 1e9])
def test_p_does_not_depend_on_the_unit(scale: float) -> None:
    assert against_zero([scale * d for d in (3, 2, -1, 4)]).p == against_zero([3, 2, -1, 4]).p == 4 / 16


def test_each_p_comes_as_often_as_it_claims() -> None:
    # 1, 2, 4, 8 with all signs: |sum| is 1, 3, ..., 15, each twice, so p is each of 2/16, 4/16, ..., 1 twice.
    patterns = itertools.product((1, -1), repeat=4)
    found = sorted(against_zero([s * 2**i for i, s in enumerate(pattern)]).p for pattern in patterns)
    assert found == [k / 8 for k in range(1, 9) for _ in range(2)]


@pytest.mark.parametrize(("n", "runs", "settings"), [(6, 2000, {}), (20, 1000, {"resamples": 199})])
def test_p_is_uniform_when_both_are_the_same(n: int, runs: int, settings: dict[str, int]) -> None:
    rng = np.random.default_rng(5)
    found = []
    for run in range(runs):
        ours, baseline = rng.exponential(size=(2, n))  # skewed; their differences are not
        found.append(
            paired_difference(
                dict(enumerate(ours)), dict(enumerate(baseline)), seed=run, **{"resamples": 1, **settings}
            ).p
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
    for _ in range(50):
        given = {str(i): float(p) for i, p in enumerate(rng.uniform(size=rng.integers(1, 9)) ** 3)}
        adjusted = holm(given)
        assert all(p <= adjusted[name] <= min(1, len(given) * p) for name, p in given.items())
        ranked = [adjusted[name] for name in sorted(given, key=lambda name: given[name])]
        assert ranked == sorted(ranked)


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
        (lambda: bootstrap_interval([]), "at least one value"),
        (lambda: bootstrap_interval([0.1, math.nan]), "finite number; one is nan"),
        (lambda: bootstrap_interval([0.1], confidence=1), "confidence"),
        (lambda: bootstrap_interval([0.1], confidence=95), "it is 95"),
        (lambda: bootstrap_interval([0.1], resamples=0), "resamples"),
        (lambda: paired_difference({1: 0.1}, {2: 0.1}), r"ours has \[1\], the baseline \[2\]"),
        (lambda: paired_difference({}, {}), "no seed in common"),
        (lambda: paired_difference({1: math.inf}, {1: 0.1}), "value of ours"),
        (lambda: paired_difference({1: 0.1}, {1: math.nan}), "value of the baseline"),
        (lambda: paired_difference({1: 0.1}, {1: 0.1}, confidence=0), "confidence"),
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


# Against scipy, where it is installed


def test_the_same_p_as_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(4)
    for n in (3, 5, 8):
        ours, baseline = rng.integers(0, 50, size=(2, n)) / 50
        peer = stats.permutation_test(
            (ours, baseline), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
        )
        assert paired_difference(dict(enumerate(ours)), dict(enumerate(baseline))).p == pytest.approx(peer.pvalue)


def test_nearly_the_same_interval_as_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(6).normal(size=12)
    peer = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    interval = bootstrap_interval(list(values))
    assert (interval.low, interval.high) == pytest.approx((peer.low, peer.high), abs=0.02)
