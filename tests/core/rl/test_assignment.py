"""From graded and judged groups to credit: what each part is given of a rollout, and in which order they work.

The parts have tests of their own; here a response is three steps of 3, 4 and 1 characters, a token a character.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sgpo_core.config.algorithm import AlgorithmSettings
from sgpo_core.data.example_solutions import EXAMPLES
from sgpo_core.data.segmentation import segment
from sgpo_core.rl.assignment import CreditAssignment
from sgpo_core.types import Credit, Grade, Judgment, Outcome, Problem, Rollout, RolloutGroup, TokenLogprobs, Verdict
from tests.records import FAILED, RIGHT, WRONG, floats, group, ints, rollout

EOS, STRADDLING = 0, 1
TEXT, ENDS = "ab\ncde\nf", (3, 7, 8)
OWN = {"expected_length": "own", "format_gate": False}  # RTS is the share of the response's own steps
ABSTAINED = Verdict.abstain("timeout")
FOUR = {"expected_length": "reference", "truncated": "prefix", "format_gate": False}
REFERENCE = "1. a\n2. b\n3. c\n4. d"  # 4 steps, 19 tokens


def decode(token_ids: Sequence[int]) -> str:
    return "".join({EOS: "", STRADDLING: "\nf"}.get(i) or chr(i) * (i != EOS) for i in token_ids)


def encode(text: str) -> list[int]:
    return [ord(c) for c in text]


def assign(
    groups: Sequence[RolloutGroup], most_groups: int = 9, max_tokens: int = 100, **algorithm: Any
) -> list[list[Credit]]:
    """The credits of every group."""
    shares = {"": 0.75, "rare": 0.25}
    settings = AlgorithmSettings.model_validate(algorithm)
    credited = CreditAssignment(settings, most_groups, max_tokens, shares, decode, encode)(groups)
    return [[r.credit for r in g.rollouts if r.credit is not None] for g in credited]


def judged(verdict: Verdict | None, grade: Grade = WRONG, truncated: bool = False, **fields: Any) -> Rollout:
    """A response of three steps, of which the last may be cut off: then it has no end-of-sequence."""
    tokens = [*encode(TEXT), *([] if truncated else [EOS])]
    given = {"text": TEXT, "token_ids": ints(*tokens), "rollout_logprobs": floats(*[-1.0] * len(tokens))}
    judgment = None if verdict is None else Judgment(verdict)
    return rollout(truncated=truncated, grade=grade, judgment=judgment, **{"step_ends": ENDS, **given, **fields})


def short(grade: Grade, *tokens: int, **fields: Any) -> Rollout:
    """A response that nobody judges."""
    ids = tokens or (9,)
    return rollout(grade=grade, token_ids=ints(*ids), **{"rollout_logprobs": floats(*[-1.0] * len(ids)), **fields})


def shares(credits: Sequence[Credit]) -> list[list[float]]:
    """What of its advantage each token gets, of every response."""
    return [c.token_credit.tolist() for c in credits if c.token_credit is not None]


def rts(response: Rollout, reference: str | None = None, **credit: Any) -> float | None:
    """Of the one response of a group."""
    alone = group(0, [response], Problem("p", "?", "7", reference))
    return assign([alone], credit={**OWN, **credit})[0][0].rts


def test_a_group_in_full_by_hand() -> None:
    # RTS 2/3, 0/3, 1/3; rewards sigma(10 (RTS - 1/2)): sigma(5/3) = 0.8411309, sigma(-5) = 0.0066929,
    # sigma(-5/3) = 0.1588691. Mean 0.3355643; squares 0.2555977 + 0.1081555 + 0.0312211, half of that 0.1974872, its
    # root 0.4443953.
    responses = [judged(Verdict(3)), judged(Verdict(1)), judged(Verdict(2))]
    [credits] = assign([group(0, responses)], credit=OWN)
    assert [c.rts for c in credits] == pytest.approx([2 / 3, 0, 1 / 3])
    assert [c.shaped_reward for c in credits] == pytest.approx([0.8411309, 0.0066929, 0.1588691], abs=1e-7)
    assert [c.advantage for c in credits] == pytest.approx([1.1376508, -0.7400431, -0.3976077], abs=1e-5)
    assert shares(credits) == [[1.0] * 9] * 3
    assert [(c.excluded, c.filtered, c.correct) for c in credits] == [(False, False, False)] * 3


def test_all_else_stays_as_it_was() -> None:
    groups = [group(g, [short(RIGHT), short(WRONG)], Problem(f"p{g}", "?", "7"), 1, 2) for g in (4, 2)]
    credited = CreditAssignment(AlgorithmSettings(), 9, 100, {"": 1.0}, decode, encode)(groups)
    new, old = ([(g.number, g.problem, g.prompt_ids) for g in some] for some in (credited, groups))
    assert new == old
    before, after = ([r for g in some for r in g.rollouts] for some in (groups, credited))
    assert [(r.grade, r.token_ids, r.rollout_logprobs) for r in after] == [
        (r.grade, r.token_ids, r.rollout_logprobs) for r in before
    ]
    assert {None if r.credit is None else r.credit.token_credit.dtype for r in after} == {np.dtype(np.float32)}


def test_mask_after_error_reinforces_right_steps_and_blames_the_first_wrong_one() -> None:
    # RTS 2/3 and 0: two values, advantages +-1/sqrt 2. The better one is reinforced for the 3 + 4 tokens of its right
    # steps; the other is discouraged for the 3 of its first step.
    responses = [judged(Verdict(3)), judged(Verdict(1))]
    [credits] = assign([group(0, responses)], credit={**OWN, "mask_after_error": True})
    assert [c.advantage for c in credits] == pytest.approx([0.5**0.5, -(0.5**0.5)], abs=1e-5)
    assert shares(credits) == [[1.0] * 7 + [0.0] * 2, [1.0] * 3 + [0.0] * 6]
    assert shares(assign([group(0, responses)], credit=OWN)[0]) == [[1.0] * 9] * 2  # unless asked for


@pytest.mark.parametrize("ruined", [{"truncated": True}, {"grade": Grade(Outcome.UNPARSABLE)}, {"text": TEXT}])
def test_what_is_malformed_or_cut_off_is_discouraged_as_a_whole(ruined: dict[str, Any]) -> None:
    formed = {"text": "ab\ncde\n\\boxed{1}"}
    responses = [judged(Verdict(3), **formed), judged(Verdict(1), **{**formed, **ruined})]
    [credits] = assign([group(0, responses)], credit={**OWN, "format_gate": True, "mask_after_error": True})
    assert credits[0].advantage > 0 > credits[1].advantage
    assert all(shares(credits)[1])


def test_what_is_too_long_is_discouraged_as_a_whole_but_for_its_end() -> None:
    # A solution has two steps, these have three.
    responses = [judged(Verdict(3)), judged(Verdict(1))]
    [credits] = assign(
        [group(0, responses, Problem("p", "?", "7", "1. a\n2. b"))],
        credit={"expected_length": "reference", "format_gate": False, "mask_after_error": True},
    )
    assert [c.padded for c in credits] == [True, True]
    assert shares(credits) == [[1.0] * 7 + [0.0] * 2, [1.0] * 8 + [0.0]]


def test_a_wrong_last_step_is_discouraged_without_the_end_behind_it() -> None:
    # Own steps: RTS 2/3 of three steps, 1/2 of two ("ab", "cde"), whose second is wrong.
    two = judged(Verdict(2), text="ab\ncde", token_ids=ints(*encode("ab\ncde"), EOS), step_ends=(3, 6))
    two = replace(two, rollout_logprobs=floats(*[-1.0] * 7))
    [credits] = assign([group(0, [judged(Verdict(3)), two])], credit={**OWN, "mask_after_error": True})
    assert credits[1].advantage < 0 and shares(credits)[1] == [1.0] * 6 + [0.0]


def test_a_token_with_a_part_of_the_wrong_step_is_masked() -> None:
    # a b \n c d e and then one token that spells "\nf": it ends step 2 and is step 3.
    tokens = [*encode("ab\ncde"), STRADDLING, EOS]
    response = judged(Verdict(3), token_ids=ints(*tokens), rollout_logprobs=floats(*[-1.0] * 8))
    [credits] = assign([group(0, [response, judged(Verdict(1))])], credit={**OWN, "mask_after_error": True})
    assert shares(credits)[0] == [1.0] * 6 + [0.0] * 2


def test_without_a_wrong_step_the_mask_spares_what_counts_as_right() -> None:
    # Under last_step the last step counts as wrong; of a truncated response the cut-off step is no right one.
    for response, credit in (
        (judged(Verdict(None)), {**OWN, "no_error_found": "last_step"}),
        (judged(Verdict(None), truncated=True), FOUR),
    ):
        others = [response, judged(Verdict(1))]
        groups = [group(0, others, Problem("p", "?", "7", REFERENCE))]
        [credits] = assign(groups, credit={**credit, "mask_after_error": True})
        assert credits[0].advantage > 0
        assert shares(credits)[0] == [1.0] * 7 + [0.0] * (len(response.token_ids) - 7)


def test_a_correct_response_is_not_masked() -> None:
    [credits] = assign(
        [group(0, [short(RIGHT, 8, 9), judged(Verdict(2))])],
        credit={**OWN, "scope": "all_incorrect", "mask_after_error": True},
    )
    assert shares(credits)[0] == [1.0, 1.0] and credits[0].advantage > 0


def test_entropies_that_are_needed_have_to_be_there() -> None:
    with pytest.raises(AssertionError, match="needs entropies"):
        assign([group(0, [short(RIGHT)] * 2)], credit={"scope": "none"}, advantage={"entropy_coef": 0.1})


def test_entropy_decides_only_where_a_group_has_no_signal() -> None:
    # RL-ZVP: +-0.1; of a correct response H_t, of a wrong one max H - H_t. The mixed group keeps +-1/sqrt 2 as it is;
    # so does the response that could not be graded keep nothing.
    def graded(grade: Grade) -> Rollout:
        return short(grade, 7, 8, 9, recomputed=TokenLogprobs(floats(0.0, 0.0, 0.0), floats(0.5, 2.0, 0.25)))

    groups = [
        group(0, [graded(RIGHT), graded(RIGHT), graded(FAILED)]),
        group(1, [graded(WRONG), graded(WRONG)]),
        group(2, [graded(RIGHT), graded(WRONG)]),
    ]
    right, wrong, mixed = assign(groups, credit={"scope": "none"}, advantage={"entropy_coef": 0.1})
    assert [c.advantage for c in right] == [0.1, 0.1, 0.0]
    assert shares(right) == [[0.5, 2.0, 0.25], [0.5, 2.0, 0.25], [0.0, 0.0, 0.0]]
    assert [c.advantage for c in wrong] == [-0.1, -0.1]
    assert shares(wrong) == [[1.5, 0.0, 1.75]] * 2
    assert [c.advantage for c in mixed] == pytest.approx([0.5**0.5, -(0.5**0.5)], abs=1e-5)
    assert shares(mixed) == [[1.0, 1.0, 1.0]] * 2


@pytest.mark.parametrize(
    ("verdict", "in_steps", "in_tokens"),
    [
        (Verdict(1), 0.0, 0.0),
        (Verdict(2), 1 / 3, 3 / 8),  # end-of-sequence is no part of a step
        (Verdict(3), 2 / 3, 7 / 8),
    ],
)
def test_rts_in_steps_and_in_tokens(verdict: Verdict, in_steps: float, in_tokens: float) -> None:
    assert rts(judged(verdict)) == pytest.approx(in_steps)
    assert rts(judged(verdict), rts_unit="tokens") == in_tokens


def test_the_reference_is_the_expected_length_in_either_unit() -> None:
    reference = "Step 1: a\nStep 2: b\nStep 3: c\nStep 4: d"  # 4 steps, 39 tokens
    bound = {"expected_length": "reference", "format_gate": False}
    assert rts(judged(Verdict(3)), reference, **bound) == 2 / 4
    assert rts(judged(Verdict(3)), reference, rts_unit="tokens", **bound) == 7 / 39
    assert rts(judged(Verdict(3)), "Step 1: a\nStep 2: b", **bound) == 1 / 2  # min(2 / 3, 1 / 2)
    assert rts(judged(Verdict(3)), "Step 1: a\nStep 2: b", max_length_ratio=1, **bound) == 0
    # A reference of one step, or none, says nothing; then the group does, which is this one response.
    for nothing in ("Step 1: a", None):
        assert rts(judged(Verdict(3)), nothing, **bound) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("unit", "expected"), [("steps", 2 / 3), ("tokens", 7 / 8)])
def test_without_a_wrong_step_the_last_one_counts_as_wrong(unit: str, expected: float) -> None:
    assert rts(judged(Verdict(None)), rts_unit=unit, no_error_found="last_step") == pytest.approx(expected)
    assert rts(judged(Verdict(None)), rts_unit=unit) is None


@pytest.mark.parametrize(
    ("verdict", "in_steps", "in_tokens"),
    [
        (Verdict(None), 2 / 4, 7 / 19),  # the two whole steps
        (Verdict(2), 1 / 4, 3 / 19),
        (Verdict(1), 0.0, 0.0),
    ],
)
def test_a_truncated_response_counts_its_whole_steps(verdict: Verdict, in_steps: float, in_tokens: float) -> None:
    cut = judged(verdict, truncated=True)
    assert rts(cut, REFERENCE, **FOUR) == pytest.approx(in_steps)
    assert rts(cut, REFERENCE, **FOUR, rts_unit="tokens") == pytest.approx(in_tokens)


def test_a_judge_that_could_not_check_every_step_does_not_say_that_none_is_wrong() -> None:
    """The rule judge, off its own problems: it earns a response credit only by steps that it has read."""
    cut = judged(Verdict(None), truncated=True)
    for checked, score in ((None, 2 / 4), (2, 2 / 4), (1, None)):  # two whole steps were shown
        assert rts(replace(cut, judgment=Judgment(Verdict(None), checked_steps=checked)), REFERENCE, **FOUR) == score
    wrong = Judgment(Verdict(2), checked_steps=1)
    assert rts(replace(cut, judgment=wrong), REFERENCE, **FOUR) == 1 / 4
    complete = judged(Verdict(None))
    for checked, score in ((3, pytest.approx(2 / 3)), (2, None)):
        response = replace(complete, judgment=Judgment(Verdict(None), checked_steps=checked))
        assert rts(response, no_error_found="last_step") == score


def test_no_answer_is_no_fault_of_a_truncated_response() -> None:
    unparsable = Grade(Outcome.UNPARSABLE)
    assert rts(judged(Verdict(3), unparsable)) == 0.0
    assert rts(judged(Verdict(3), unparsable, truncated=True), REFERENCE, **FOUR) == 2 / 4


def test_the_format_gate_looks_at_the_text() -> None:
    assert rts(judged(Verdict(3)), format_gate=True) == 0.0  # there is no boxed answer
    assert rts(judged(Verdict(3), truncated=True), REFERENCE, **{**FOUR, "format_gate": True}) == 2 / 4  # nor could be


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name.startswith("thinking")])
def test_a_response_that_thinks_first_earns_credit(name: str) -> None:
    """With the format gate on, though some box an answer while they think. Its last step is wrong."""
    text = EXAMPLES[name]
    steps = segment(text)
    response = judged(Verdict(len(steps)), text=text, step_ends=tuple(s.end for s in steps))
    assert rts(response, expected_length="group", format_gate=True) == pytest.approx((len(steps) - 1) / len(steps))


def test_a_response_that_nothing_is_known_of_is_excluded() -> None:
    # GRPO: rewards 1 and 0 alone, mean 1/2, std 1/sqrt 2; what could not be graded is in neither.
    responses = [short(RIGHT), short(FAILED, 8, 9), short(WRONG)]
    [credits] = assign([group(0, responses)], credit={"scope": "none"})
    assert [c.excluded for c in credits] == [False, True, False]
    assert [c.advantage for c in credits] == pytest.approx([0.5**0.5, 0.0, -(0.5**0.5)], abs=1e-5)
    assert shares(credits) == [[1.0], [0.0, 0.0], [1.0]]
    # SGPO: the judge abstained on one, and one whose grading failed is not judged by its verdict.
    responses = [judged(Verdict(3)), judged(ABSTAINED), judged(Verdict(1)), judged(Verdict(3), FAILED)]
    [credits] = assign([group(0, responses)], credit=OWN)
    assert [c.excluded for c in credits] == [False, True, False, True]
    assert [c.rts for c in credits] == pytest.approx([2 / 3, None, 0.0, None])
    assert [c.advantage for c in credits] == pytest.approx([0.5**0.5, 0.0, -(0.5**0.5), 0.0], abs=1e-5)
    assert shares(credits) == [[1.0] * 9, [0.0] * 9, [1.0] * 9, [0.0] * 9]


def test_groups_that_are_filtered_out_count_nowhere() -> None:
    # Mixed groups alone, and of these the first alone; the baseline of the batch is that group's 1/2, the std 1/sqrt 2.
    mixed = [short(RIGHT), short(WRONG)]
    groups = [group(0, [short(WRONG)] * 2), group(1, mixed), group(2, mixed), group(3, [short(RIGHT)] * 2)]
    settings = {"filter": "mixed", "credit": {"scope": "none"}, "advantage": {"baseline": "batch", "std": "batch"}}
    credits = assign(groups, most_groups=1, **settings)
    assert [[c.filtered for c in g] for g in credits] == [[True] * 2, [False] * 2, [True] * 2, [True] * 2]
    assert [c.advantage for c in credits[1]] == pytest.approx([0.5**0.5, -(0.5**0.5)], abs=1e-5)
    assert [c.advantage for g in (0, 2, 3) for c in credits[g]] == [0.0] * 6
    assert [shares(g) for g in credits] == [[[0.0]] * 2, [[1.0]] * 2, [[0.0]] * 2, [[0.0]] * 2]
    assert [c.shaped_reward for c in credits[3]] == [1.0, 1.0]  # what they earned stays on record
    wide = assign(groups, most_groups=2, **settings)
    assert [[c.filtered for c in g] for g in wide] == [[True] * 2, [False] * 2, [False] * 2, [True] * 2]


def test_wrong_responses_are_filtered_out_one_by_one() -> None:
    # RAFT: no baseline, so that a correct response has its reward
    groups = [group(0, [short(RIGHT), short(WRONG), short(FAILED)])]
    settings = {"credit": {"scope": "none"}, "advantage": {"baseline": "none", "std": "none"}}
    [credits] = assign(groups, filter="correct", **settings)
    assert [c.filtered for c in credits] == [False, True, True]
    assert [c.advantage for c in credits] == [1.0, 0.0, 0.0]
    assert shares(credits) == [[1.0], [0.0], [0.0]]


PLAIN = {"advantage": {"baseline": "none", "std": "none"}}


def rewards(groups: Sequence[RolloutGroup], max_tokens: int = 100, **credit: Any) -> list[list[float]]:
    credits = assign(groups, max_tokens=max_tokens, credit={"scope": "none", **credit}, **PLAIN)
    return [[c.shaped_reward for c in g] for g in credits]


def test_shaping_sees_lengths_likelihoods_and_domains() -> None:
    # 7 of 10 tokens: 2 of the last 5, so a penalty of 2/5 times 1/2
    seven = short(RIGHT, *range(1, 8))
    assert rewards([group(0, [seven])], max_tokens=10, overlong_buffer=0.5) == [[pytest.approx(0.8)]]
    # Means -1/2 and -1: the likelier loses 1/4 * (2 - 1) / 2 of its reward. The sums, -1 and -1, would be equal.
    likely = short(RIGHT, 8, 9, rollout_logprobs=floats(-0.5, -0.5))
    assert rewards([group(0, [likely, short(RIGHT)])], unlikeliness=0.25) == [[0.875, 1.0]]
    # log(1 + 1 / (1/4)) and log(1 + 1 / (3/4))
    rare = replace(group(0, [short(RIGHT)]), problem=Problem("p", "?", "7", domain="rare"))
    assert rewards([rare, group(1, [short(RIGHT)])], domain_weight=True) == [
        [pytest.approx(math.log(5))],
        [pytest.approx(math.log(7 / 3))],
    ]


def test_shaping_comes_before_the_filter_and_the_advantages() -> None:
    # Of one correct and two wrong responses, 1 / (1/3 + 1e-5); the filter drops the group, and its record is shaped.
    groups = [group(0, [short(RIGHT), short(WRONG), short(WRONG)])]
    settings = {"credit": {"scope": "none", "difficulty_weight": True}, "advantage": {"std": "none"}}
    [credits] = assign(groups, most_groups=0, filter="mixed", **settings)
    assert [c.shaped_reward for c in credits] == pytest.approx([3, 0, 0], abs=1e-3)
    assert [c.advantage for c in credits] == [0.0] * 3
    [credits] = assign(groups, filter="mixed", **settings)
    assert [c.advantage for c in credits] == pytest.approx([2, -1, -1], abs=1e-3)  # of (3, 0, 0), not of (1, 0, 0)


def test_an_empty_response() -> None:
    empty = rollout(grade=Grade(Outcome.UNPARSABLE), step_ends=(), judgment=Judgment(Verdict.abstain("empty response")))
    [credits] = assign([group(0, [empty, judged(Verdict(3))])], credit=OWN)
    assert (credits[0].rts, credits[0].excluded) == (0.0, False)  # it earns nothing, whatever the judge says
    assert shares(credits)[0] == []
    assert rts(empty, rts_unit="tokens") == 0.0


@pytest.mark.parametrize("unit", ["steps", "tokens"])
def test_a_response_in_the_judge_s_scope_has_a_verdict(unit: str) -> None:
    with pytest.raises(ValueError, match="no verdict"):
        rts(short(WRONG), rts_unit=unit)
    with pytest.raises(AssertionError, match="credit comes after grading"):
        rts(rollout())
