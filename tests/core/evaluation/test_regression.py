"""Two results of a benchmark, paired by problem: what became worse, and what is never compared."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from sgpo_core.analysis.statistics import paired_difference
from sgpo_core.evaluation.regression import (
    Comparison,
    Pair,
    compare_all,
    regressions,
    resamples_for,
    smallest_drop,
)
from tests.core.evaluation.results import made, result


def compared(now: list[int], before: list[int], level: float = 0.01, of: int = 1) -> Comparison:
    """The first of so many equal comparisons in a night, by the number of correct responses among 4 to each problem."""
    return compare_all([Pair("m", "x", result(now), result(before))] * of, level)[0]


def test_a_drop_is_found_and_names_its_problems() -> None:
    # 12 of 20 problems fall from 4 of 4 to 1 of 4, one rises: mean (12 * -3/4 + 1/2) / 20 = -17/40
    before, now = [4] * 19 + [1], [1] * 12 + [4] * 7 + [3]
    found = compared(now, before)
    assert found.difference.mean == pytest.approx(-17 / 40)
    assert found.lost == tuple(f"p{i}" for i in range(12))
    assert found.gained == ("p19",)
    slight = compared([4, 1, 3], [4, 3, 4])
    assert (slight.lower, slight.lost) == (("p1", "p2"), ("p1",))  # 3 of 4 -> 1, 4 -> 3
    assert regressions([found], level=0.01) == [found]
    assert regressions([compared(before, now)], level=0.01) == []  # it became better


def test_the_same_twice_is_no_regression() -> None:
    same = compared([4, 0, 2], [4, 0, 2])
    assert (same.difference.mean, same.difference.p, same.lost) == (0, 1, ())
    assert regressions([same], level=0.01) == []
    assert compare_all([], 0.01) == [] and regressions([], level=0.01) == []


def test_more_comparisons_need_more_evidence() -> None:
    # 7 problems down by a quarter: p = 2 / 2^7 = .0156, twice that for the smaller of two comparisons (Holm)
    pairs = [Pair("m", "x", result([3] * 7), result([4] * 7)), Pair("m", "y", result([4] * 7), result([4] * 7))]
    one, same = compare_all(pairs, 0.02)
    assert one.difference.p == 2 / 2**7
    assert regressions([one], level=0.02) == [one]
    assert regressions([one, same], level=0.02) == []


def test_a_night_of_many_comparisons_can_still_raise_the_alarm() -> None:
    # All of 30 problems down: the smallest p there is. Of 200 comparisons Holm asks for .01 / 200, which 10,000 sign
    # patterns can't give (1 / 10,001); 20 / (.01 / 200) = 400,000 can.
    assert [resamples_for(level) for level in (0.01, 0.002, 0.01 / 200)] == [10_000, 10_000, 400_000]
    pairs = [Pair("m", "x", result([1] * 30), result([3] * 30))]
    pairs += [Pair("m", "y", result([2] * 30), result([2] * 30))] * 199
    comparisons = compare_all(pairs, 0.01)
    assert comparisons[0].difference.p < 0.01 / 200 < 1 / 10_001
    assert regressions(comparisons, 0.01) == comparisons[:1]


def test_the_smallest_drop_by_hand() -> None:
    # 40 problems, k = 4, all solved before; now 20 are lost whole: std = 1/2 sqrt(40/39) = .50637, which is larger than
    # what draws give. (t(.995, 39) + t(.8, 39)) / sqrt(40) = (2.7079 + .8512) / sqrt(40) = .56275, times .50637.
    found = compared([0] * 20 + [4] * 20, [4] * 40)
    assert found.difference.std == pytest.approx(0.50637, abs=1e-5)
    assert found.smallest_drop == pytest.approx(0.28495, abs=1e-4)
    # Of 4 comparisons Holm asks for .0025: t(.99875, 39) = 3.2384
    assert compared([0] * 20 + [4] * 20, [4] * 40, of=4).smallest_drop == pytest.approx(0.32743, abs=1e-3)


def test_equal_nights_do_not_promise_to_find_any_drop() -> None:
    # All shares 1/2, k = 4: q = 1/2 - drop, spread^2 = (1/4 + 1/4 - drop^2) / 3; drop = .56275 spread gives
    # drop^2 (1 + .31669 / 3) = .31669 / 6
    assert compared([2] * 40, [2] * 40).smallest_drop == pytest.approx(0.2185, abs=1e-4)
    # All solved: spread^2 = drop (1 - drop) / 3, so drop = .10556 / 1.10556
    assert compared([4] * 40, [4] * 40).smallest_drop == pytest.approx(0.09548, abs=1e-4)
    # Half solved, half not: mean 1/2, v = 1/4 * 40/39 = .25641; q = 1 - 2 drop in half of the problems. spread^2 =
    # drop (1 - 2 drop) / 3 + 4 v drop^2 = drop / 3 + .35897 drop^2, so drop (1 - .31669 * .35897) = .31669 / 3
    assert compared([0, 4] * 20, [0, 4] * 20).smallest_drop == pytest.approx(0.11910, abs=1e-4)


def test_there_may_be_no_drop_that_is_found() -> None:
    assert compared([2] * 8, [2] * 8, of=2).smallest_drop is None  # 2 / 2^8 = .0078 is above .005
    # All of a quarter lost: spread 1/4, times (3.2498 + .8834) / sqrt(10) = 1.307: it would take a drop of .33
    assert compared([1] * 10, [1] * 10).smallest_drop is None
    assert compared([0] * 40, [0] * 40).smallest_drop is None
    once = paired_difference(dict.fromkeys(range(40), 1.0), dict.fromkeys(range(40), 1.0))
    assert smallest_drop([1.0] * 40, 1, once, 0.01) is None  # k = 1: nothing is known of the spread


def test_results_of_different_protocols_are_not_compared() -> None:
    with pytest.raises(ValueError, match=r"temperature 0\.6 -> 1\.0"):
        Pair("m", "x", result([4], of=made(temperature=1.0)), result([4]))
    assert asdict(made())["temperature"] == 0.6
