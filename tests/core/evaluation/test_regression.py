"""Two results of a benchmark, paired by problem: what became worse, and what is never compared."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from sgpo_core.evaluation.regression import compare, regressions
from tests.core.evaluation.results import made, result


def test_a_drop_is_found_and_names_its_problems() -> None:
    # 12 of 20 problems fall from 4 of 4 to 1 of 4, one rises: mean (12 * -3/4 + 1/2) / 20 = -17/40
    before, now = result([4] * 19 + [1]), result([1] * 12 + [4] * 7 + [3])
    found = compare("m@candidate", "the last night", now, before)
    assert found.difference.mean == pytest.approx(-17 / 40)
    assert found.lost == tuple(f"p{i}" for i in range(12))
    assert found.gained == ("p19",)
    slight = compare("m", "x", result([4, 1, 3]), result([4, 3, 4]))
    assert (slight.lower, slight.lost) == (("p1", "p2"), ("p1",))  # 3 of 4 -> 1, 4 -> 3
    assert regressions([found], level=0.01) == [found]
    assert regressions([compare("m", "x", before, now)], level=0.01) == []  # it became better


def test_the_same_twice_is_no_regression() -> None:
    same = compare("m", "the last night", result([4, 0, 2]), result([4, 0, 2]))
    assert (same.difference.mean, same.difference.p, same.lost) == (0, 1, ())
    assert regressions([same], level=0.01) == []
    assert regressions([], level=0.01) == []


def test_more_comparisons_need_more_evidence() -> None:
    # 7 problems down by a quarter: p = 2 / 2^7 = .0156, twice that for the smaller of two comparisons (Holm)
    before, now = result([4] * 7), result([3] * 7)
    one, same = compare("m", "x", now, before), compare("m", "y", now, now)
    assert one.difference.p == 2 / 2**7
    assert regressions([one], level=0.02) == [one]
    assert regressions([one, same], level=0.02) == []


def test_results_of_different_protocols_are_not_compared() -> None:
    with pytest.raises(ValueError, match=r"temperature 0\.6 -> 1\.0"):
        compare("m", "x", result([4], of=made(temperature=1.0)), result([4]))
    assert asdict(made())["temperature"] == 0.6
