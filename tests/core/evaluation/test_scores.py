"""Scores of responses few enough to be worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from itertools import combinations

import pytest

from sgpo_core.evaluation.scores import GradedResponse, Scores, majority, pass_at, score
from sgpo_core.types import Grade, Outcome


def group(correct: str, answers: list[str | None] | None = None) -> list[GradedResponse]:
    """`correct` has one character a response: 1 correct, 0 wrong."""
    given = answers or [None] * len(correct)
    outcomes = {"1": Outcome.CORRECT, "0": Outcome.WRONG}
    return [GradedResponse(Grade(outcomes[c], a), False, 10) for c, a in zip(correct, given, strict=True)]


def test_by_hand() -> None:
    groups = [
        group("1000", ["5", "7", "7", None]),
        group("1001", ["3", "4", "4", "3"]),
        group("0000"),
    ]
    scores = score(groups)
    # averages 1/4, 1/2, 0: mean 1/4; sample variance (0 + 1/16 + 1/16) / 2 = 1/16, stderr 1/4 / sqrt(3)
    assert scores.avg_at_k == 0.25
    assert scores.stderr == pytest.approx(0.25 / math.sqrt(3))
    # pass@1 is avg; pass@2: 1 - C(3,2)/C(4,2) = 1/2, 1 - C(2,2)/C(4,2) = 5/6, 0; pass@4: 1, 1, 0
    assert scores.pass_at == pytest.approx({1: 0.25, 2: (1 / 2 + 5 / 6) / 3, 4: 2 / 3})
    # majorities: 7 (wrong), 3 (a tie: given first, correct), none
    assert scores.maj_at_k == pytest.approx(1 / 3)
    assert scores.no_answer_frac == 5 / 12
    assert (scores.problems, scores.k, scores.length_mean) == (3, 4, 10)
    # Student's t with 2 degrees of freedom: 1/4 +- 4.3027 * 1/4 / sqrt(3) = 1/4 +- .621, and no share is below 0
    assert (scores.low, scores.high) == (0.0, pytest.approx(0.25 + 4.3027 * 0.25 / math.sqrt(3), abs=1e-4))
    assert scores.interval() == "0.000 to 0.871"


def test_what_is_no_plain_answer() -> None:
    responses = [
        GradedResponse(Grade(Outcome.TIMEOUT, "9^{9^9}"), False, 8),
        GradedResponse(Grade(Outcome.ERROR, "5"), False, 8),
        GradedResponse(Grade(Outcome.UNPARSABLE, None), True, 16),
        GradedResponse(Grade(Outcome.CORRECT, "5"), False, 8),
    ]
    scores = score([responses])
    assert (scores.avg_at_k, scores.failed_frac, scores.truncated_frac, scores.no_answer_frac) == (
        0.25,
        0.5,
        0.25,
        0.25,
    )
    assert scores.length_mean == 10
    assert math.isnan(scores.stderr) and math.isnan(scores.low)  # one problem says nothing of the spread
    assert scores.metrics("x").keys() >= {"eval/x/avg_at_k", "eval/x/failed_frac"}
    assert not any(name.endswith(("stderr", "low", "high")) for name in scores.metrics("x"))


@pytest.mark.parametrize("groups", [[group("10"), group("11")], [group("00")] * 40])
def test_a_range_is_not_called_a_95_percent_interval(groups: list[list[GradedResponse]]) -> None:
    scores = score(groups)
    assert math.isnan(scores.low) and math.isnan(scores.high) and scores.interval() == "-"
    assert "eval/x/avg_low" not in scores.metrics("x")


def test_many_problems_have_a_bootstrap_interval_that_follows_their_skew() -> None:
    scores = score([group("00")] * 36 + [group("11")] * 4)  # mean .1, standard error .048
    assert 0 < scores.low < 0.1 < scores.high < 1
    assert scores.high - 0.1 > 1.1 * (0.1 - scores.low)


@pytest.mark.parametrize(
    ("correct", "answers", "is_correct"),
    [
        ("1", ["5"], True),
        ("01", ["4", "5"], False),  # a tie goes to the answer given first, right or wrong
        ("10", ["5", "4"], True),
        ("001", [None, None, "5"], True),  # no answer is no vote
        ("01100", ["4", "5", "5", "4", None], False),
        ("011", ["4", "5", "5"], True),
        ("110", ["{5}", " {5}", "4"], True),
        ("0011", ["4", "4", "5", "5."], False),
        ("0111", ["4", "5", "5.", "\\displaystyle 5"], True),  # written differently, one candidate
    ],
)
def test_majority(correct: str, answers: list[str | None], is_correct: bool) -> None:
    assert majority(group(correct, answers)) is is_correct


@pytest.mark.parametrize("correct", range(7))
def test_pass_at_is_the_share_of_draws_with_a_correct_one(correct: int) -> None:
    """Against all C(6, j) draws, one by one."""
    for j in range(1, 7):
        draws = list(combinations([i < correct for i in range(6)], j))
        assert pass_at(j, 6, correct) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize(("j", "k", "correct"), [(0, 4, 1), (5, 4, 1), (1, 4, 5)])
def test_pass_at_of_more_than_there_is(j: int, k: int, correct: int) -> None:
    with pytest.raises(ValueError, match="not defined"):
        pass_at(j, k, correct)


@pytest.mark.parametrize("groups", [[], [[]], [group("10"), group("1")]])
def test_every_problem_has_the_same_k(groups: list[list[GradedResponse]]) -> None:
    with pytest.raises(ValueError, match="same number of responses"):
        score(groups)


def test_a_record_reads_back() -> None:
    scores = score([group("10", ["1", "2"]), group("11", ["1", "1"]), group("00", ["1", "2"])])
    assert Scores.from_json(json.loads(json.dumps(asdict(scores)))) == scores
