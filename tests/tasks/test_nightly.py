"""What the artifact of a night says of intervals, and of the drops that could not have been seen."""

from __future__ import annotations

from sgpo_core.evaluation.protocol import Result
from sgpo_core.evaluation.regression import Pair, compare_all, regressions
from tasks.benchmarks.nightly import Night, as_markdown, line, payload
from tasks.benchmarks.records import results_table
from tests.core.evaluation.results import result

LEVEL = 0.01


def night(*compared: tuple[Result, Result]) -> Night:
    pairs = [Pair("m@candidate", "the last night", now, before) for now, before in compared]
    results = {"x": compared[0][0]}
    return Night(results={"m@candidate": results}, pairs=pairs, comparisons=compare_all(pairs, LEVEL))


def test_each_comparison_says_which_drop_it_would_have_found() -> None:
    found = night((result([2] * 40), result([2] * 40)), (result([1] * 10), result([1] * 10)))
    # Level .005 of two comparisons: u = (t(.9975, 39) + t(.8, 39)) / sqrt(40) = (2.976 + .851) / sqrt(40) = .6051, and
    # drop^2 (1 + u^2 / 3) = u^2 / 6, see tests/core/evaluation/test_regression.py
    assert line(found.comparisons[0]) == (
        "m@candidate x against the last night: avg@k 0.500 -> 0.500, difference +0.000 [range: +0.000, +0.000], "
        "p = 1 over 40 problems; 0 solved less often, 0 lost; smallest drop that is found in 80 % of cases: 0.233"
    )
    assert line(found.comparisons[1]).endswith("smallest drop that is found in 80 % of cases: none")
    text = as_markdown(found, [], LEVEL)
    assert text.startswith("# No regression") and all(line(comparison) in text for comparison in found.comparisons)
    assert "Level 0.01 over 2 comparisons: by Holm's method the smallest p must be 0.005." in text


def test_the_first_night_has_nothing_to_compare_with() -> None:
    assert as_markdown(Night(results={"m@candidate": {"x": result([1] * 10)}}), [], LEVEL).startswith(
        "# Nothing to compare with yet\n"
    )


def test_a_regression_names_its_interval() -> None:
    found = night((result([1] * 20 + [4] * 20), result([4] * 40)))
    worse = regressions(found.comparisons, LEVEL)
    assert "difference -0.375 [95 % BCa: -0." in as_markdown(found, worse, LEVEL)
    said = payload(worse[0])
    assert (said["interval_kind"], said["drop"]) == ("95 % BCa", 0.375) and said["smallest_drop"] > 0.1


def test_a_range_is_not_shown_as_a_95_percent_interval() -> None:
    known, unknown = result([1, 2, 3] * 10), result([2] * 30)
    table = as_markdown(night((known, known)), [], LEVEL)
    assert f"| m@candidate | x | 0.500 | {known.scores.low:.3f} to {known.scores.high:.3f} |" in table
    assert "| m@candidate | x | 0.500 | - |" in as_markdown(night((unknown, unknown)), [], LEVEL)
    head, *rows = results_table({"known": known, "unknown": unknown}).splitlines()
    where = head.index("95 % interval")
    assert [row[where - 1 :].split()[0] for row in rows] == [f"{known.scores.low:.3f}", "-"]
