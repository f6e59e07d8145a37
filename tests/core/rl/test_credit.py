"""SGPO's credit. Numbers are worked out by hand from RTS = prefix / denominator and sigma(x) = 1 / (1 + exp(-x))."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from sgpo_core.rl.advantages import batch_advantages
from sgpo_core.rl.credit import (
    CreditRule,
    Judged,
    Scope,
    correct_prefix,
    expected_length,
    group_credit,
    logistic_reward,
    must_judge,
    reasoning_trajectory_score,
    typical_length,
)
from sgpo_core.types import Credit, Verdict

RULE = CreditRule()
PREFIX = CreditRule(truncated="prefix")
CORRECT = Judged(correct=True, own_length=7)
ABSTAINED = Judged(correct=False, verdict=Verdict.abstain("timeout"), prefix_length=3, own_length=7)


def wrong(before: int, length: int, **fields: Any) -> Judged:
    """A wrong response of `length` steps, the first `before` of which are right."""
    return Judged(False, verdict=Verdict(before + 1), prefix_length=before, own_length=length, **fields)


def clean(length: int, **fields: Any) -> Judged:
    """A wrong response in which the judge finds no wrong step: all but the last count as right."""
    return Judged(False, verdict=Verdict(None), prefix_length=length - 1, own_length=length, **fields)


def rts(response: Judged, rule: CreditRule = RULE, typical: float | None = None, **changes: Any) -> float | None:
    """Of a response whose group is typically of its own length, if nothing is said."""
    rule = replace(rule, **changes)
    typical = typical_length([response], rule.format_gate) if typical is None else typical
    return reasoning_trajectory_score(response, expected_length(response, typical, rule), rule)


@pytest.mark.parametrize(
    ("score", "beta", "gamma", "reward"),
    [
        (0.5, 10, 0.5, 0.5),  # sigma(0)
        (0.0, 10, 0.5, 0.00669285),  # sigma(-5) = 1 / (1 + 148.41316)
        (1.0, 10, 0.5, 0.99330715),  # sigma(5) = 1 - sigma(-5)
        (0.25, 10, 0.5, 0.07585818),  # sigma(-2.5) = 1 / (1 + 12.182494)
        (3 / 7, 10, 0.5, 0.32865255),  # sigma(-5/7) = 1 / (1 + 2.0427270)
        (0.75, 4, 0.25, 0.88079708),  # sigma(2) = 1 / (1 + 0.13533528)
        (0.9, 1, 0.9, 0.5),  # gamma is where 1/2 is paid
    ],
)
def test_logistic_values(score: float, beta: float, gamma: float, reward: float) -> None:
    assert logistic_reward(score, beta, gamma) == pytest.approx(reward, abs=1e-8)


@pytest.mark.parametrize("beta", [0.1, 1, 10, 30])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.5, 1.0])
def test_reward_increases_with_rts_and_stays_below_a_correct_one(beta: float, gamma: float) -> None:
    rewards = [logistic_reward(i / 20, beta, gamma) for i in range(20)]  # the RTS of a wrong response is below 1
    assert all(a < b for a, b in itertools.pairwise(rewards))
    assert rewards[0] > 0
    assert rewards[-1] < 1


def test_a_very_steep_logistic_is_a_step() -> None:
    # sigma(-5000) = e^-5000 = 0 and sigma(5000) = 1 to any precision; beta has no upper bound in the settings.
    assert logistic_reward(0.0, 1e4, 0.5) == 0.0
    assert logistic_reward(1.0, 1e4, 0.5) == 1.0


@pytest.mark.parametrize(
    ("scope", "correct", "judged"),
    [
        ("none", [0, 0], [0, 0]),
        ("none", [1, 0], [0, 0]),
        ("all_negative", [0, 0], [1, 1]),
        ("all_negative", [1, 0], [0, 0]),
        ("all_incorrect", [0, 0], [1, 1]),
        ("all_incorrect", [1, 0], [0, 1]),
        ("all_incorrect", [1, 1], [0, 0]),
    ],
)
def test_scope_says_whom_the_judge_reads(scope: Scope, correct: list[int], judged: list[int]) -> None:
    assert must_judge([bool(c) for c in correct], scope) == [bool(j) for j in judged]


def test_all_negative_group_by_hand() -> None:
    # RTS 3/7, 0/7, 6/7 -> sigma(-5/7), sigma(-5), sigma(25/7) = 1 / (1 + 0.0281157)
    credits = group_credit([wrong(3, 7), wrong(0, 7), wrong(6, 7)], RULE)
    assert [c.rts for c in credits] == pytest.approx([3 / 7, 0, 6 / 7])
    assert [c.shaped_reward for c in credits] == pytest.approx([0.32865255, 0.00669285, 0.97265323], abs=1e-7)
    assert not any(c.excluded for c in credits)


def test_all_incorrect_also_grades_beside_a_correct_response() -> None:
    credits = group_credit([replace(CORRECT, own_length=8), wrong(2, 8)], replace(RULE, scope="all_incorrect"))
    assert credits == [Credit(1.0, correct=True), Credit(pytest.approx(0.07585818, abs=1e-8), rts=0.25)]  # sigma(-2.5)


@pytest.mark.parametrize("length", [1, 2, 7, 30])
def test_correct_beats_every_wrong_one(length: int) -> None:
    group = [CORRECT, *(wrong(before, length) for before in range(length)), clean(length, truncated=True)]
    for no_error_found in ("abstain", "last_step"):
        best, *others = group_credit(
            [*group, clean(length)], replace(RULE, scope="all_incorrect", no_error_found=no_error_found)
        )
        assert best == Credit(1.0, correct=True)
        assert max(c.shaped_reward for c in others) < 1.0


@pytest.mark.parametrize("unit", [1, 11])
def test_rts_counts_whatever_unit_it_is_given(unit: int) -> None:
    # 4 of 7 steps of 11 tokens each are 44 of 77 tokens
    assert rts(wrong(4 * unit, 7 * unit)) == pytest.approx(4 / 7)


def test_rts_in_tokens_weighs_steps_by_their_length() -> None:
    # Steps of 2, 2 and 16 tokens, the third wrong: 2/3 in steps, 4/20 in tokens.
    assert rts(wrong(2, 3)) == pytest.approx(2 / 3)
    assert rts(wrong(4, 20)) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("before", "own", "reference", "score"),
    [
        (1, 2, 8, 1 / 8),  # shorter than the reference: over 8
        (1, 4, 4, 1 / 4),
        (3, 4, 4, 3 / 4),  # the best there is
        (3, 8, 4, 3 / 8),  # twice as long: over 8
        (6, 8, 4, 3 / 4),
        (7, 8, 4, 3 / 4),  # 7/8, but no more than (E - 1) / E
        (8, 9, 4, 0),  # 2 * 4 right steps and still wrong
        (29, 30, 4, 0),
        (8, 30, 4, 0),
        (7, 30, 4, 7 / 30),
        (1, 4, None, 1 / 4),  # no reference: the group's, here this response's own
        (3, 4, None, 3 / 4),
    ],
)
def test_rts_over_the_expected_length(before: int, own: int, reference: int | None, score: float) -> None:
    assert rts(wrong(before, own, reference_length=reference)) == pytest.approx(score)


def test_where_the_expected_length_comes_from() -> None:
    response = wrong(1, 8, reference_length=4)
    assert expected_length(response, 6.0, RULE) == 4
    assert expected_length(response, 6.0, replace(RULE, expected_length="group")) == 6.0
    assert expected_length(response, 6.0, replace(RULE, expected_length="own")) == 8.0
    assert expected_length(replace(response, reference_length=None), 6.0, RULE) == 6.0
    assert rts(wrong(1, 3), typical=6.0, expected_length="group") == 1 / 6
    assert rts(wrong(5, 8), expected_length="own") == 5 / 8  # the paper's
    assert rts(wrong(5, 8, reference_length=4), max_length_ratio=1.25) == 0  # 5 = 1.25 * 4
    assert rts(wrong(4, 8, reference_length=4), max_length_ratio=1.25) == 4 / 8


def test_typical_length_is_the_median_of_complete_responses() -> None:
    incomplete = [{"truncated": True}, {"well_formed": False}, {"parsable": False}, {"graded": False}]
    noise = [replace(wrong(0, 50), **how) for how in incomplete] + [Judged(False, parsable=False)]
    assert typical_length([wrong(0, 3), wrong(1, 8), Judged(True, own_length=4), *noise], True) == 4
    assert typical_length([wrong(0, 3), wrong(1, 8), *noise], True) == 5.5
    assert typical_length(noise, True) is None
    assert typical_length(noise, False) == 50  # the malformed one


@pytest.mark.parametrize("style", [4, 6])
@pytest.mark.parametrize("truncated", [False, True])
def test_neither_padding_nor_going_on_for_ever_pays(style: int, truncated: bool) -> None:
    """Steps that are true but do no work, before the answer or without an end: never more than a real attempt whose
    answer alone is wrong, nothing from twice the expected length on (without an end: from that length on). The
    reference has 4 steps; the group writes 4, or 6."""
    for rule, expected in ((PREFIX, 4), (replace(PREFIX, expected_length="group"), style)):
        honest = [wrong(style - 1, style, reference_length=4), *[wrong(1, style, reference_length=4)] * 3]
        for length in range(2, 40):
            cheap = wrong(length - 1, length, reference_length=4, truncated=truncated)
            *_, credit = credits = group_credit([*honest, cheap], rule)
            assert credit.padded == (length > expected)
            assert (credit.rts == 0) == (length - 1 >= (1 if truncated else 2) * expected)
            assert credit.shaped_reward <= credits[0].shaped_reward


def test_a_group_that_pads_as_a_whole_gains_nothing_where_there_is_a_reference() -> None:
    # 7 of 8 responses: 29 true steps and a wrong answer; one makes an honest mistake in step 2 of 4.
    group = [wrong(29, 30, reference_length=4)] * 7 + [wrong(1, 4, reference_length=4)]
    assert [c.rts for c in group_credit(group, RULE)] == [0.0] * 7 + [0.25]
    # Without one the median is theirs: 29/30 against 1/30. This is what the setting can't stop.
    blind = group_credit(group, replace(RULE, expected_length="group"))
    assert [c.rts for c in blind] == [pytest.approx(29 / 30)] * 7 + [pytest.approx(1 / 30)]


@pytest.mark.parametrize("before", range(4))
def test_leaving_steps_out_never_pays_where_a_reference_is_known(before: int) -> None:
    # The same right steps, then 1 to 4 of the reference's 7: n/7 whatever is left out, while n/own would grow.
    scores = [rts(wrong(before, length, reference_length=7), format_gate=False) for length in range(before + 1, 8)]
    assert scores == [pytest.approx(before / 7)] * len(scores)


def test_format_gate() -> None:
    malformed = wrong(3, 4, well_formed=False)
    assert rts(malformed, format_gate=True) == 0.0
    assert rts(malformed, format_gate=False) == 0.75
    assert rts(replace(ABSTAINED, well_formed=False)) == 0.0  # whatever the judge says
    assert rts(replace(malformed, verdict=None)) == 0.0


def test_empty_response_has_rts_zero() -> None:
    empty = Judged(False, verdict=Verdict(None))
    assert rts(empty) == rts(empty, format_gate=False) == 0.0
    (credit,) = group_credit([empty], RULE)
    assert credit == Credit(pytest.approx(0.00669285, abs=1e-8), rts=0.0)  # sigma(-5), and not excluded


@pytest.mark.parametrize("no_error_found", ["abstain", "last_step"])
def test_truncated_counts_its_whole_right_steps(no_error_found: str) -> None:
    # 4 whole steps and one cut off: the fifth is in the denominator; no contradiction when all four are right.
    def score(response: Judged, typical: float | None = None) -> float | None:
        return rts(response, PREFIX, typical, no_error_found=no_error_found)

    assert score(clean(5, truncated=True, reference_length=8)) == 4 / 8
    assert score(clean(5, truncated=True, reference_length=5)) == 4 / 5
    assert score(clean(5, truncated=True, reference_length=4)) == 0  # 4 right steps, and no end
    assert score(wrong(3, 5, truncated=True, reference_length=4)) == 3 / 5
    assert score(clean(5, truncated=True), typical=8.0) == 4 / 8
    assert score(clean(1, truncated=True, reference_length=4)) == 0.0


@pytest.mark.parametrize("how", ["reference", "group", "own"])
def test_truncated_without_an_expected_length_is_excluded(how: str) -> None:
    # A group of which every response was cut off, without a reference: nothing says how far any of them is.
    group = [clean(5, truncated=True), wrong(2, 5, truncated=True)]
    credits = group_credit(group, replace(PREFIX, expected_length=how))
    assert credits == [Credit(0.0, excluded=True)] * 2


def test_not_to_end_is_worth_no_more_than_to_end_without_an_answer() -> None:
    # Three right steps of four: cut off, or ended without an answer. Under "prefix" the former pays 3/4, the latter 0.
    cut = clean(4, truncated=True, reference_length=4)
    ended = replace(cut, truncated=False, parsable=False)
    assert [rts(cut, RULE), rts(ended, RULE)] == [0.0, 0.0]
    assert [rts(cut, RULE, truncated="exclude"), rts(cut, PREFIX), rts(ended, PREFIX)] == [None, 3 / 4, 0.0]
    assert rts(replace(cut, verdict=Verdict.abstain("timeout")), RULE) == 0.0  # whatever the judge says


def test_correct_prefix() -> None:
    assert [correct_prefix(Verdict(step), 4) for step in (1, 3, 4)] == [0, 2, 3]
    assert [correct_prefix(Verdict(None), steps) for steps in (4, 1, 0)] == [3, 0, 0]


def test_no_error_found_contradicts_the_grader() -> None:
    assert rts(clean(4)) is None
    assert group_credit([clean(4)], RULE) == [Credit(0.0, rts=None, excluded=True)]
    assert rts(clean(4), no_error_found="last_step") == 0.75  # (n - 1) / n
    # In tokens: 20, the last step 5 of them; 15/20, or 15/30 against a longer reference.
    tokens = {"prefix_length": 15, "own_length": 20}
    assert rts(replace(clean(4), **tokens), no_error_found="last_step") == 0.75
    assert rts(replace(clean(4), **tokens, reference_length=30), no_error_found="last_step") == 0.5


def test_abstention_is_excluded_and_gets_no_made_up_score() -> None:
    for no_error_found in ("abstain", "last_step"):
        credits = group_credit([ABSTAINED, wrong(0, 7)], replace(RULE, no_error_found=no_error_found))
        assert credits[0] == Credit(shaped_reward=0.0, rts=None, excluded=True)
        assert not credits[1].excluded


def test_missing_verdict_is_an_error_only_in_scope() -> None:
    unread = Judged(False, prefix_length=1, own_length=3)
    with pytest.raises(ValueError, match="no verdict"):
        group_credit([unread], RULE)
    assert group_credit([unread], replace(RULE, scope="none")) == [Credit(0.0)]
    assert group_credit([unread, CORRECT], RULE) == [Credit(0.0), Credit(1.0, correct=True)]


@pytest.mark.parametrize("pattern", ["C", "Cw", "wC", "wwCw", "CaCw", "CCCC"])
def test_grpo_equals_sgpo_where_something_is_correct(pattern: str) -> None:
    kinds = {"C": CORRECT, "w": wrong(2, 7), "a": ABSTAINED}
    group = [kinds[letter] for letter in pattern]
    grpo, sgpo = (group_credit(group, replace(RULE, scope=scope)) for scope in ("none", "all_negative"))
    assert sgpo == grpo == [Credit(float(letter == "C"), correct=letter == "C") for letter in pattern]
    assert batch_advantages([sgpo]) == batch_advantages([grpo])


def test_grpo_has_no_signal_and_sgpo_has_one_where_nothing_is_correct() -> None:
    group = [wrong(0, 7), wrong(3, 7)]
    assert batch_advantages([group_credit(group, replace(RULE, scope="none"))]) == [[0.0, 0.0]]
    [[worse, better]] = batch_advantages([group_credit(group, RULE)])
    assert worse < 0 < better


def test_unparsable_earns_nothing_and_a_broken_grader_excludes() -> None:
    # 3 of 4 steps right would be RTS .75; without a readable answer it is 0, gate or no gate
    near = {"prefix_length": 3, "own_length": 4, "verdict": Verdict(4)}
    for gate in (True, False):
        [credit] = group_credit([Judged(False, parsable=False, **near)], CreditRule(format_gate=gate))
        assert credit.rts == 0.0 and not credit.excluded
    [credit] = group_credit([Judged(False, graded=False, **near)], CreditRule())
    assert credit.excluded and credit.rts is None
