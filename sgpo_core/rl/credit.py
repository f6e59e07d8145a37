"""SGPO's credit: from the first wrong step to a reward (arXiv 2505.11595).

    RTS    = steps before the first wrong one / denominator                  (reasoning trajectory score, in [0, 1])
    reward = sigma(beta * (RTS - gamma)),  sigma(x) = 1 / (1 + exp(-x))      of a wrong response; a correct one has 1

Decisions the paper leaves open [ours]: which wrong responses are judged (`scope`), what RTS counts (`rts_unit`) and
divides by (`rts_denominator`), what an abstention means (the response is excluded, never given a made-up score), the
format gate, and that a wrong response without a wrong step contradicts the grader and so counts as an abstention
(`no_error_found`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sgpo_core.types import Credit, Verdict

Scope = Literal["none", "all_negative", "all_incorrect"]


@dataclass(frozen=True, slots=True)
class Judged:
    """What credit needs to know of one response. Lengths are in units of `rts_unit` (steps or tokens).

    `prefix_length`: units before the first wrong step (all whole ones where none is wrong);
    `own_length`: units of the whole response, a cut-off step included; `reference_length`: units of the reference
    solution, None where there is none. `verdict` is None where the response was not judged.
    """

    correct: bool
    graded: bool = True  # false: grading itself broke, which is no fault of the response
    parsable: bool = True  # false: complete, but without a readable answer
    well_formed: bool = True
    truncated: bool = False
    verdict: Verdict | None = None
    prefix_length: int = 0
    own_length: int = 0
    reference_length: int | None = None
    last_step_length: int = 1


@dataclass(frozen=True, slots=True)
class CreditRule:
    """The settings of `algorithm.credit`, as the pure function takes them (explained there)."""

    scope: Scope = "all_negative"
    beta: float = 10.0
    gamma: float = 0.5
    rts_denominator: Literal["own", "max_reference"] = "max_reference"
    format_gate: bool = True
    no_error_found: Literal["abstain", "last_step"] = "abstain"


def logistic_reward(rts: float, beta: float, gamma: float) -> float:
    """sigma(beta * (rts - gamma)): increases in rts for beta > 0, is 1/2 at rts = gamma."""
    small = math.exp(-abs(beta * (rts - gamma)))  # in [0, 1], however steep
    return (1.0 if rts >= gamma else small) / (1.0 + small)


def must_judge(correct: Sequence[bool], scope: Scope) -> list[bool]:
    """Which responses of one group the judge has to read."""
    if scope == "none" or (scope == "all_negative" and any(correct)):
        return [False] * len(correct)
    return [not c for c in correct]


def group_credit(group: Sequence[Judged], rule: CreditRule) -> list[Credit]:
    """The credit of every response of one group, in order.

    Degenerate cases: without a judged response (scope none, or a group with a correct response under all_negative) the
    rewards are the outcome rewards, that is GRPO; a group all of whose judges abstained has no usable reward at all.
    """
    judge = must_judge([r.correct for r in group], rule.scope)
    return [_credit(r, rule, judged) for r, judged in zip(group, judge, strict=True)]


def _credit(response: Judged, rule: CreditRule, judged: bool) -> Credit:
    if not response.graded:
        return Credit(shaped_reward=0.0, excluded=True)
    if not judged:
        return Credit(float(response.correct), correct=response.correct)
    rts = reasoning_trajectory_score(response, rule)
    if rts is None:
        return Credit(shaped_reward=0.0, excluded=True)
    return Credit(shaped_reward=logistic_reward(rts, rule.beta, rule.gamma), rts=rts)


def reasoning_trajectory_score(response: Judged, rule: CreditRule) -> float | None:
    """RTS of a wrong response, or None when nothing is known of it (the judge abstained).

    Empty, unparsable or (format gate) malformed: 0, whatever the judge says. Truncated: the whole steps before the
    first wrong one count, and finding no wrong step is no contradiction there. `max_reference` divides by the longer of
    the response and the reference, so that a shorter malformed solution can't score higher.
    """
    if response.own_length == 0 or not response.parsable or (rule.format_gate and not response.well_formed):
        return 0.0
    verdict = response.verdict
    if verdict is None:
        raise ValueError("a response in the scope of the judge has no verdict: judge it first, or use scope=none")
    if verdict.abstained:
        return None
    prefix = response.prefix_length
    if verdict.first_error_step is None and not response.truncated:
        if rule.no_error_found == "abstain":
            return None
        prefix -= response.last_step_length
    denominator = response.own_length
    if rule.rts_denominator == "max_reference":
        denominator = max(denominator, response.reference_length or 0)
    return prefix / denominator
