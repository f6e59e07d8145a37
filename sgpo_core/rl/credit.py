"""SGPO's credit: from the first wrong step to a reward (arXiv 2505.11595).

    RTS    = min(p / max(n, E), (E - 1) / E)                                 (reasoning trajectory score, in [0, 1))
    reward = sigma(beta * (RTS - gamma)),  sigma(x) = 1 / (1 + exp(-x))      of a wrong response; a correct one has 1

p: steps before the first wrong one; n: steps of the response; E: steps that a solution of this problem is expected to
take. With E = n, RTS is the paper's p / n.

E is what keeps RTS from being earned by length [ours]. Under p / n a response that goes on and on without an error, cut
off or not, earns (n - 1) / n, more than any real attempt. Steps that are true do not have to be steps of a solution;
that shows in their number: a wrong response with `max_length_ratio` times E right steps contradicts E, and earns
nothing. No wrong response earns more than one of E steps of which all but the last, the answer, are right; one shorter
than E earns no more by leaving right steps out. A response that was cut off has no answer, and earns nothing, as one
that ends without an answer (`truncated`). docs/credit.md argues this and shows what it does.

More decisions the paper leaves open [ours]: which wrong responses are judged (`scope`), what RTS counts (`rts_unit`),
what an abstention means (the response is excluded, never given a made-up score), the format gate, and that a wrong
response without a wrong step contradicts the grader and so counts as an abstention (`no_error_found`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from sgpo_core.types import Credit, Verdict

Scope = Literal["none", "all_negative", "all_incorrect"]


@dataclass(frozen=True, slots=True)
class Judged:
    """What credit needs to know of one response. Lengths are in units of `rts_unit` (steps or tokens).

    `prefix_length`: units of its correct prefix (`correct_prefix`); `own_length`: units of the whole response, a
    cut-off step included; `reference_length`: units of the reference solution, None where there is none, or where that
    is a single step, an answer without a solution. `verdict` is None where the response was not judged.
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


@dataclass(frozen=True, slots=True)
class CreditRule:
    """The settings of `algorithm.credit`, as the pure function takes them (explained there)."""

    scope: Scope = "all_negative"
    beta: float = 10.0
    gamma: float = 0.5
    expected_length: Literal["reference", "group", "own"] = "reference"
    max_length_ratio: float = 2.0
    format_gate: bool = True
    truncated: Literal["nothing", "exclude", "prefix"] = "nothing"
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


def correct_prefix(verdict: Verdict, steps: int) -> int:
    """How many of a wrong response's steps count as right: those before its first wrong one. Where the judge finds
    none, all but the last: that was cut off, or holds an answer which the grader knows to be wrong."""
    if verdict.first_error_step is not None:
        return verdict.first_error_step - 1
    return max(0, steps - 1)


def group_credit(group: Sequence[Judged], rule: CreditRule) -> list[Credit]:
    """The credit of every response of one group, in order.

    Degenerate cases: without a judged response (scope none, or a group with a correct response under all_negative) the
    rewards are the outcome rewards, that is GRPO; a group all of whose judges abstained has no usable reward at all.
    """
    judge = must_judge([r.correct for r in group], rule.scope)
    typical = typical_length(group, rule.format_gate)
    return [_credit(r, rule, typical, judged) for r, judged in zip(group, judge, strict=True)]


def typical_length(group: Sequence[Judged], format_gate: bool) -> float | None:
    """Median length of the group's complete responses, which fewer than half of them can't move far; None where all
    were cut off or have no answer in the right form."""
    complete = [r for r in group if r.graded and r.parsable and not r.truncated and (r.well_formed or not format_gate)]
    return median(r.own_length for r in complete) if complete else None


def expected_length(response: Judged, typical: float | None, rule: CreditRule) -> float | None:
    """E: how long a solution of this problem is taken to be, None where nothing says so."""
    if rule.expected_length == "reference" and response.reference_length is not None:
        return response.reference_length
    if rule.expected_length == "own":
        return None if response.truncated else float(response.own_length)
    return typical


def _credit(response: Judged, rule: CreditRule, typical: float | None, judged: bool) -> Credit:
    if not response.graded:
        return Credit(shaped_reward=0.0, excluded=True)
    if not judged:
        return Credit(float(response.correct), correct=response.correct)
    expected = expected_length(response, typical, rule)
    rts = reasoning_trajectory_score(response, expected, rule)
    if rts is None:
        return Credit(shaped_reward=0.0, excluded=True)
    padded = expected is not None and response.own_length > expected
    return Credit(shaped_reward=logistic_reward(rts, rule.beta, rule.gamma), rts=rts, padded=padded)


def reasoning_trajectory_score(response: Judged, expected: float | None, rule: CreditRule) -> float | None:
    """RTS of a wrong response, or None when it can't be known: the judge abstained, or nothing says how long a
    truncated response would have become (`expected` is None).

    Empty, unparsable, (format gate) malformed, and (`truncated` is "nothing") truncated: 0, whatever the judge says.
    With more right steps than a wrong or unfinished response can have: 0. Under "prefix" the whole steps of a truncated
    response before the first wrong one count, and finding no wrong step is no contradiction there.
    """
    malformed = rule.format_gate and not response.well_formed
    unfinished = response.truncated and rule.truncated == "nothing"
    if response.own_length == 0 or not response.parsable or malformed or unfinished:
        return 0.0
    verdict, prefix = response.verdict, response.prefix_length
    if verdict is None:
        raise ValueError("a response in the scope of the judge has no verdict: judge it first, or use scope=none")
    if verdict.abstained or expected is None or (response.truncated and rule.truncated == "exclude"):
        return None
    if verdict.first_error_step is None and not response.truncated and rule.no_error_found == "abstain":
        return None
    if prefix >= expected * (1.0 if response.truncated else rule.max_length_ratio):
        return 0.0
    return min(prefix / max(response.own_length, expected), max(0.0, (expected - 1) / expected))
