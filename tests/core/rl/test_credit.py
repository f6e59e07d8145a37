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
    group_credit,
    logistic_reward,
    must_judge,
    reasoning_trajectory_score,
)
from sgpo_core.types import Credit, Verdict

RULE = CreditRule()
CORRECT = Judged(correct=True)
ABSTAINED = Judged(correct=False, verdict=Verdict.abstain("timeout"), prefix_length=3, own_length=7)


def wrong(before: int, length: int, **fields: Any) -> Judged:
    """A wrong response of `length` steps, the first `before` of which are right."""
    return Judged(False, verdict=Verdict(before + 1), prefix_length=before, own_length=length, **fields)


def clean(length: int, whole: int | None = None, **fields: Any) -> Judged:
    """A wrong response in which the judge finds no wrong step; `whole` of its steps are not cut off (default: all)."""
    prefix = length if whole is None else whole
    return Judged(False, verdict=Verdict(None), prefix_length=prefix, own_length=length, **fields)


def rts(response: Judged, rule: CreditRule = RULE, **changes: Any) -> float | None:
    return reasoning_trajectory_score(response, replace(rule, **changes))


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
    credits = group_credit([CORRECT, wrong(2, 8)], replace(RULE, scope="all_incorrect"))
    assert credits == [Credit(1.0, correct=True), Credit(pytest.approx(0.07585818, abs=1e-8), rts=0.25)]  # sigma(-2.5)


@pytest.mark.parametrize("length", [1, 2, 7, 30])
def test_correct_beats_every_wrong_one(length: int) -> None:
    group = [CORRECT, *(wrong(before, length) for before in range(length)), clean(length, length - 1, truncated=True)]
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
    ("own", "reference", "over_own", "over_longer"),
    [
        (2, 8, 0.5, 0.125),  # 1/2, 1/8
        (8, 2, 0.125, 0.125),
        (4, 4, 0.25, 0.25),
        (4, None, 0.25, 0.25),  # no reference is known
    ],
)
def test_denominators(own: int, reference: int | None, over_own: float, over_longer: float) -> None:
    response = wrong(1, own, reference_length=reference)
    assert rts(response, rts_denominator="own") == over_own
    assert rts(response, rts_denominator="max_reference") == over_longer


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
    def score(response: Judged) -> float | None:
        return rts(response, no_error_found=no_error_found)

    assert score(clean(5, whole=4, truncated=True)) == 0.8
    assert score(clean(5, whole=4, truncated=True, reference_length=8)) == 0.5
    assert score(clean(1, whole=0, truncated=True)) == 0.0
    assert score(wrong(2, 5, truncated=True)) == 0.4


def test_no_error_found_contradicts_the_grader() -> None:
    assert rts(clean(4)) is None
    assert group_credit([clean(4)], RULE) == [Credit(0.0, rts=None, excluded=True)]
    assert rts(clean(4), no_error_found="last_step") == 0.75  # (n - 1) / n
    # In tokens: 20, the last step 5 of them; 15/20, or 15/30 against a longer reference.
    assert rts(clean(20, last_step_length=5), no_error_found="last_step") == 0.75
    assert rts(clean(20, last_step_length=5, reference_length=30), no_error_found="last_step") == 0.5


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
