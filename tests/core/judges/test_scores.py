"""Scores of a judge, worked out by hand."""

from __future__ import annotations

import pytest

from sgpo_core.judges.scores import score
from sgpo_core.types import Judgment, Verdict


def said(*steps: int | str | None) -> list[Judgment]:
    """Judgments that name these steps (counted from 1); a text is the reason of an abstention."""
    verdicts = [Verdict.abstain(step) if isinstance(step, str) else Verdict(step) for step in steps]
    return [Judgment(verdict, prompt_tokens=10, completion_tokens=2) for verdict in verdicts]


def test_every_number_of_a_small_set() -> None:
    # Six erroneous ones with the first wrong step at index 2 (the third): early, exact, exact, late, missed, abstained.
    # Four correct ones: right, right, a false alarm, abstained.
    judgments = said(2, 3, 3, 4, None, "timeout", None, None, 1, "timeout")
    report = score(judgments, [2] * 6 + [-1] * 4, ["a"] * 10)
    scores = report.overall
    assert (scores.erroneous, scores.correct) == (6, 4)
    assert (scores.early, scores.exact, scores.late, scores.missed, scores.false_alarms) == (1, 2, 1, 1, 1)
    assert scores.accuracy_erroneous == pytest.approx(2 / 6)
    assert scores.accuracy_correct == pytest.approx(2 / 4)
    assert scores.f1 == pytest.approx(0.4)  # 2 * 1/3 * 1/2 / (1/3 + 1/2) = (1/3) / (5/6)
    assert scores.abstained_frac == pytest.approx(0.2)
    assert (scores.prompt_tokens, scores.completion_tokens, scores.agreement) == (100, 20, None)
    assert report.subsets == {"a": scores}


def test_f1_over_subsets_is_the_mean_of_theirs() -> None:
    # a: 1 of 1 and 1 of 1, F1 1; b: 1 of 2 and 1 of 2, F1 1/2; c: 0 of 1 and 1 of 1, F1 0. Mean 1/2; pooled it would be
    # 2/4 and 3/4, 0.6.
    judgments = said(1, None, 2, 1, None, 1, 2, None)
    report = score(judgments, [0, -1, 1, 1, -1, -1, 0, -1], [*"aa", *"bbbb", *"cc"])
    assert {name: s.f1 for name, s in report.subsets.items()} == pytest.approx({"a": 1.0, "b": 0.5, "c": 0.0})
    assert report.overall.f1 == pytest.approx(0.5)
    assert (report.overall.accuracy_erroneous, report.overall.accuracy_correct) == (0.5, 0.75)


@pytest.mark.parametrize(
    ("judgments", "labels", "accuracies"),
    [
        (said(2, 1), [0, -1], (0.0, 0.0)),  # both 0: no division
        (said("x", "x"), [0, -1], (0.0, 0.0)),  # abstaining on everything does not count
        (said(1), [0], (1.0, None)),  # nothing correct to be recognized
        (said(None), [-1], (None, 1.0)),
    ],
)
def test_f1_of_zero(
    judgments: list[Judgment], labels: list[int], accuracies: tuple[float | None, float | None]
) -> None:
    scores = score(judgments, labels, ["a"] * len(labels)).overall
    assert (scores.accuracy_erroneous, scores.accuracy_correct, scores.f1) == (*accuracies, 0.0)


def test_the_first_step_is_index_zero() -> None:
    assert score(said(1, None), [0, -1], ["a", "a"]).overall.f1 == 1.0


def test_agreement_is_the_mean_of_what_is_known() -> None:
    judgments = [Judgment(Verdict(1), agreement=share) for share in (1.0, 0.5, None)]
    assert score(judgments, [0, 0, 0], ["a"] * 3).overall.agreement == 0.75


def test_checked_steps_are_a_sum_of_what_is_known() -> None:
    judgments = [Judgment(Verdict(1), checked_steps=count) for count in (3, 0, None)]
    assert score(judgments, [0, 0, 0], ["a"] * 3).overall.checked_steps == 3
    assert score(judgments[2:], [0], ["a"]).overall.checked_steps is None
