"""Credit on responses of a real model: SmolLM2-135M-Instruct (Apache-2.0) on 16 problems of GSM8K (MIT), 8 responses
each at temperature .8 with two worked examples before the problem, cut off at 128 tokens: 85 of 128 were."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import pytest

from sgpo_core.config.algorithm import AlgorithmSettings
from sgpo_core.data.segmentation import segment
from sgpo_core.judges.base import Item
from sgpo_core.judges.rule import rule
from sgpo_core.rl.assignment import CreditAssignment
from sgpo_core.rl.credit import correct_prefix, logistic_reward
from sgpo_core.types import Grade, Outcome, Problem, Rollout, RolloutGroup
from tests.records import floats, group, ints, rollout


def judged(problem: Problem, saved: dict[str, object], all_negative: bool) -> Rollout:
    text, truncated, outcome = str(saved["text"]), bool(saved["truncated"]), Outcome(str(saved["outcome"]))
    steps = segment(text)
    [judgment] = rule([Item(problem, tuple(steps[: len(steps) - truncated]))])
    n = int(str(saved["tokens"]))
    return rollout(
        text=text,
        truncated=truncated,
        token_ids=ints(*[1] * n),
        rollout_logprobs=floats(*[-1.0] * n),
        grade=Grade(outcome),
        step_ends=tuple(step.end for step in steps),
        judgment=judgment if all_negative else None,
    )


@pytest.fixture(scope="module")
def groups() -> list[RolloutGroup]:
    result = []
    lines = Path(__file__).with_name("saved_responses.jsonl").read_text(encoding="utf-8").splitlines()
    for number, row in enumerate(map(json.loads, lines)):
        problem = Problem(f"p{number}", row["problem"], row["answer"], row["reference"])
        wrong = not any(saved["outcome"] == "correct" for saved in row["responses"])
        result.append(group(number, [judged(problem, saved, wrong) for saved in row["responses"]], problem))
    return result


def credited(groups: list[RolloutGroup], **credit: object) -> list[RolloutGroup]:
    settings = AlgorithmSettings.model_validate({"credit": credit})
    return CreditAssignment(settings, 16, 128, {"": 1.0}, lambda ids: "x" * len(ids), lambda text: [1])(groups)


def paid_to(which: Callable[[Rollout], bool], groups: list[RolloutGroup]) -> float:
    """Share of all positive advantage."""
    paid = [(r, max(0.0, r.credit.advantage)) for g in groups for r in g.rollouts if r.credit is not None]
    return sum(advantage for r, advantage in paid if which(r)) / sum(advantage for _, advantage in paid)


def plain(groups: list[RolloutGroup]) -> dict[int, list[float]]:
    """RTS under p / max(n, steps of the reference), where the right steps of a truncated response count; 0 for one that
    ended without an answer."""
    scores = {}
    for g in groups:
        reference = len(segment(g.problem.reference or ""))
        scores[g.number] = [
            0.0
            if r.grade.outcome is Outcome.UNPARSABLE and not r.truncated
            else correct_prefix(r.judgment.verdict, len(r.step_ends)) / max(len(r.step_ends), reference)
            for r in g.rollouts
            if r.grade and r.judgment and r.step_ends
        ]
    return scores


def is_truncated(response: Rollout) -> bool:
    return response.truncated


def test_under_the_plain_rule_it_paid_not_to_end(groups: list[RolloutGroup]) -> None:
    """Why the rule is what it is: four fifths of what was paid went to responses that were cut off."""
    to_truncated = total = 0.0
    for g in groups:
        scores = plain(groups)[g.number]
        if not scores:
            continue  # a group with a correct response
        rewards = [logistic_reward(score, 10, 0.5) for score in scores]
        gains = [max(0.0, reward - mean(rewards)) / (stdev(rewards) + 1e-6) for reward in rewards]
        total += sum(gains)
        to_truncated += sum(gain for gain, r in zip(gains, g.rollouts, strict=True) if r.truncated)
    assert sum(r.truncated for g in groups for r in g.rollouts) == 85
    assert to_truncated / total > 0.8


def test_a_response_that_was_cut_off_is_paid_nothing(groups: list[RolloutGroup]) -> None:
    paid = credited(groups)
    assert paid_to(is_truncated, paid) == 0.0
    assert sum(g.has_signal for g in paid) >= 5  # complete responses teach


def test_with_prefix_it_is_paid_for_what_the_judge_has_checked(groups: list[RolloutGroup]) -> None:
    """Not for what nobody could check, which under the plain rule was most of it."""
    paid = credited(groups, truncated="prefix")
    rewarded = [r for g in paid for r in g.rollouts if r.truncated and r.credit and r.credit.advantage > 0]
    for r in rewarded:
        assert r.judgment and r.step_ends
        assert r.judgment.verdict.first_error_step or r.judgment.checked_steps == len(r.step_ends) - 1
    assert 0 < paid_to(is_truncated, paid) < 0.75


@pytest.mark.parametrize("truncated", ["nothing", "exclude", "prefix"])
def test_complete_responses_keep_what_their_right_steps_deserve(groups: list[RolloutGroup], truncated: str) -> None:
    before, kept = plain(groups), 0
    for g in credited(groups, truncated=truncated, format_gate=False):
        if not g.all_negative:
            continue
        for score, r in zip(before[g.number], g.rollouts, strict=True):
            if not r.truncated and r.credit and not r.credit.excluded:
                assert r.credit.rts == pytest.approx(score)
                kept += score > 0
    assert kept >= 8
