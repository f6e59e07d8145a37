"""Credit for a whole iteration: from graded and judged groups to what each response earns, and each of its tokens.

    RolloutGroups ──credit──▶ ──shaping──▶ ──filter──▶ rewards ──▶ advantages ──▶ share of each token ──▶ `Credit`

The parts are in credit.py, shaping.py, filters.py, advantages.py and token_credit.py; here is their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sgpo_core.config.algorithm import AlgorithmSettings
from sgpo_core.data.format_gate import well_formed
from sgpo_core.data.segmentation import segment, tokens_before
from sgpo_core.rl.advantages import batch_advantages, lacks_signal
from sgpo_core.rl.credit import CreditRule, Judged, correct_prefix, group_credit
from sgpo_core.rl.filters import filtered_out
from sgpo_core.rl.shaping import Sampled, shape
from sgpo_core.rl.token_credit import entropy_share
from sgpo_core.types import Credit, FloatArray, Judgment, Outcome, Problem, Rollout, RolloutGroup, Verdict


@dataclass(frozen=True)
class CreditAssignment:
    """What decides the credit of a run's responses: the algorithm, how many groups an iteration has, the length limit
    of a response (tokens), the share of each domain among the problems, and the policy's tokenizer (token ids to text
    without special tokens, text to token ids)."""

    algorithm: AlgorithmSettings
    groups: int
    max_tokens: int
    domain_shares: Mapping[str, float]
    decode: Callable[[Sequence[int]], str]
    encode: Callable[[str], Sequence[int]]

    def __call__(self, groups: Sequence[RolloutGroup]) -> list[RolloutGroup]:
        """The groups of one iteration with their `Credit`. Where the algorithm needs entropies
        (`needs_entropies`), the rollouts have them."""
        credits = self._rewards(groups)
        advantages = batch_advantages(credits, self.algorithm.advantage)
        return [self._complete(*parts) for parts in zip(groups, credits, advantages, strict=True)]

    def _rewards(self, groups: Sequence[RolloutGroup]) -> list[list[Credit]]:
        """Of every group: credit, then shaping, then the filter."""
        settings = self.algorithm.credit
        rule = CreditRule(**settings.model_dump(include=set(CreditRule.__slots__)))  # the rest is for shaping
        out = filtered_out([group.outcomes for group in groups], self.algorithm.filter, self.groups)
        result = []
        for group, outside in zip(groups, out, strict=True):
            earned = group_credit([self._judged(group.problem, r) for r in group.rollouts], rule)
            shaped = shape(earned, [self._sampled(group.problem, r) for r in group.rollouts], settings)
            result.append([replace(credit, filtered=gone) for credit, gone in zip(shaped, outside, strict=True)])
        return result

    def _complete(self, group: RolloutGroup, credits: Sequence[Credit], advantages: Sequence[float]) -> RolloutGroup:
        no_signal, rollouts = lacks_signal(credits), []
        for rollout, credit, advantage in zip(group.rollouts, credits, advantages, strict=True):
            share = self._token_credit(group.problem, rollout, credit, advantage, no_signal)
            rollouts.append(replace(rollout, credit=replace(credit, advantage=advantage, token_credit=share)))
        return group.with_rollouts(rollouts)

    def _sampled(self, problem: Problem, rollout: Rollout) -> Sampled:
        logprobs = rollout.rollout_logprobs
        mean = float(np.mean(logprobs.astype(np.float64))) if len(logprobs) else 0.0
        return Sampled(len(rollout.token_ids), self.max_tokens, mean, self.domain_shares[problem.domain])

    def _judged(self, problem: Problem, rollout: Rollout) -> Judged:
        """A response as the credit rule needs it, its lengths in the unit of `credit.rts_unit`."""
        grade, judgment, truncated = rollout.grade, rollout.judgment, rollout.truncated
        assert grade is not None, "credit comes after grading"
        parsable = truncated or grade.outcome is not Outcome.UNPARSABLE
        formed = well_formed(rollout.text, truncated, problem.answer_form)
        verdict, steps = _known(judgment, rollout) if judgment else None, len(rollout.step_ends or ())
        prefix = correct_prefix(verdict, steps) if verdict else 0
        reference = segment(problem.reference or "")
        known = len(reference) if len(reference) > 1 else None
        own = steps
        if self.algorithm.credit.rts_unit == "tokens":
            own = len(rollout.token_ids) - (not truncated)  # without end-of-sequence
            known = known and len(self.encode(problem.reference or ""))
            prefix = self._tokens_of_steps(rollout, prefix)
        if rollout.step_ends is None:  # so that one in the judge's scope is not taken for an empty response
            own = len(rollout.token_ids)
        return Judged(grade.correct, grade.known, parsable, formed, truncated, verdict, prefix, own, known)

    def _tokens_of_steps(self, rollout: Rollout, steps: int) -> int:
        """Sampled tokens that lie wholly in the first `steps` steps."""
        ends = rollout.step_ends or ()
        end = ends[min(steps, len(ends)) - 1] if steps > 0 and ends else 0
        return tokens_before(rollout.token_ids.tolist(), end, self.decode)

    def _token_credit(
        self, problem: Problem, rollout: Rollout, credit: Credit, advantage: float, no_signal: bool
    ) -> FloatArray:
        """Float32 [tokens]. None for a response that doesn't count."""
        settings, tokens = self.algorithm, len(rollout.token_ids)
        if not credit.counts:
            return np.zeros(tokens, np.float32)
        share = np.ones(tokens, np.float32)
        if settings.credit.mask_after_error and rollout.judgment:
            right = correct_prefix(rollout.judgment.verdict, len(rollout.step_ends or ()))
            if advantage > 0:
                share[self._tokens_of_steps(rollout, right) :] = 0.0
            elif self._is_complete(problem, rollout):
                blamed = self._tokens_of_steps(rollout, right + 1)
                share[tokens - 1 if credit.padded else min(blamed, tokens - 1) :] = 0.0
        if settings.needs_entropies and no_signal:
            assert rollout.recomputed is not None, "the algorithm needs entropies"
            share *= entropy_share(rollout.recomputed.entropies.astype(np.float64), credit.correct)
        return share

    def _is_complete(self, problem: Problem, rollout: Rollout) -> bool:
        """Whether a wrong response has its low reward for its steps, and not for its form or because it did not end,
        which are the work of all of its tokens."""
        if rollout.truncated or (rollout.grade and rollout.grade.outcome is Outcome.UNPARSABLE):
            return False
        gate = self.algorithm.credit.format_gate
        return not gate or well_formed(rollout.text, rollout.truncated, problem.answer_form)


def _known(judgment: Judgment, rollout: Rollout) -> Verdict:
    """What the judge knows. One that could check some of the steps alone (the rule judge), and found none wrong, has
    not found that none is."""
    shown, checked = len(rollout.step_ends or ()) - rollout.truncated, judgment.checked_steps
    if judgment.verdict.first_error_step is None and checked is not None and checked < shown:
        return Verdict.abstain(f"{checked} of {shown} steps could be checked, and none of these is wrong")
    return judgment.verdict
