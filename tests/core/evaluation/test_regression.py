"""Two results of a benchmark, paired by problem: what became worse, and what is never compared."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from sgpo_core.evaluation.regression import Comparison, Pair, compare_all, regressions, resamples_for
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
    # 40 problems, k = 4; half of them fall from 4 to 3 of 4, the others stay at 4. Differences -1/4 and 0:
    # std = 1/8 sqrt(40/39) = .12659. Sampling alone: 3/4 * 1/4 / 3 for a share of 3/4, half of them, none for 1:
    # 1/32, whose root .1768 is larger. t(.995, 39) + t(.8, 39) = 2.7079 + .8512, times .1768 / sqrt(40) = .0995.
    found = compared([3] * 20 + [4] * 20, [4] * 40)
    assert found.difference.std == pytest.approx(0.12659, abs=1e-5)
    assert found.smallest_drop == pytest.approx(0.0995, abs=1e-4)
    # 20 of 40 lost whole: std = 1/2 sqrt(40/39) = .50637, and no spread of sampling: 3.5591 * .50637 / sqrt(40)
    assert compared([0] * 20 + [4] * 20, [4] * 40).smallest_drop == pytest.approx(0.28495, abs=1e-4)
    # Of 4 comparisons Holm asks for .0025: t(.99875, 39) = 3.2384
    assert compared([0] * 20 + [4] * 20, [4] * 40, of=4).smallest_drop == pytest.approx(0.32743, abs=1e-3)


def test_equal_nights_do_not_promise_to_find_any_drop() -> None:
    # Shares of 1/2 with k = 4: variance (1/4 + 1/4) / 3 of a difference, std .408; times 3.5591 / sqrt(40) = .2297
    assert compared([2] * 40, [2] * 40).smallest_drop == pytest.approx(0.2297, abs=1e-4)
    assert compared([4] * 40, [4] * 40).smallest_drop is None  # no spread at all
    assert compared([1] * 20, [1] * 20).smallest_drop is None  # .37 would be needed, and there is a quarter
    assert compared([2] * 8, [2] * 8, of=2).smallest_drop is None  # 2 / 2^8 = .0078 is above .005


def test_results_of_different_protocols_are_not_compared() -> None:
    with pytest.raises(ValueError, match=r"temperature 0\.6 -> 1\.0"):
        Pair("m", "x", result([4], of=made(temperature=1.0)), result([4]))
    assert asdict(made())["temperature"] == 0.6
