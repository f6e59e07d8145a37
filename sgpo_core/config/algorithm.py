"""An algorithm is data: what is sampled x what earns credit x who is left out x advantages x loss.

    resampling  which problems, and whether to sample more                    sgpo_core/rl/sampling.py
    credit      outcome, or the judge's partial credit; shaping of rewards    sgpo_core/rl/credit.py, shaping.py
    filter      which responses are filtered out, by correctness alone            sgpo_core/rl/filters.py
    advantage   one number a response: (reward - baseline) / scale            sgpo_core/rl/advantages.py
    token       what of it each token gets: masks, entropy                    sgpo_core/rl/token_credit.py
    loss        from advantages a token to one sum; TIS                       sgpo_core/rl/losses.py

conf/algorithm/NAME.yaml names the choices of one algorithm. Combinations that contradict themselves are refused here,
with the reason, before anything starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Literal, Self

from pydantic import Field, model_validator

from sgpo_core.config.base import Fraction, Name, Positive, Settings

AdvantageBaseline = Literal["group", "leave_one_out", "batch", "none"]
AdvantageStd = Literal["group", "floor", "batch", "none"]
GroupFilter = Literal["none", "mixed", "correct"]
LossMean = Literal["sequence", "token", "sum", "max_length"]
Ratio = Literal["token", "sequence", "none"]


class ResamplingSettings(Settings):
    strategy: Literal["plain", "dynamic", "history"] = Field(
        "plain",
        description="dynamic (DAPO): more groups while too few are mixed; history (SRPO): from the second pass over "
        "the problems on, leave out those that were all correct in the pass before",
    )
    max_rounds: Positive = Field(
        3, description="dynamic: rounds of sampling.problems groups, the first included; then go on with what there is"
    )

    def conflicts(self, whole: AlgorithmSettings) -> Iterator[str]:
        """What is wrong with these settings beside the other parts of the algorithm."""
        if self.strategy == "dynamic" and whole.filter != "mixed":
            yield "resampling.strategy=dynamic samples until enough groups are mixed: it needs filter=mixed"


class CreditSettings(Settings):
    scope: Literal["none", "all_negative", "all_incorrect"] = Field(
        "all_negative",
        description="which wrong responses the judge grades: none (GRPO), those of groups without a correct one, all",
    )
    beta: float = Field(10.0, gt=0, description="steepness of the logistic that turns RTS into a reward")
    gamma: Fraction = Field(0.5, description="RTS at which a wrong response earns 1/2")
    rts_unit: Literal["steps", "tokens"] = Field("steps", description="whether RTS is a share of steps or of tokens")
    expected_length: Literal["reference", "group", "own"] = Field(
        "reference",
        description="how long a solution is expected to be: as the reference solution (where there is none, as group), "
        "as the median of the group's complete responses, as the response itself (the paper; pays for length)",
    )
    max_length_ratio: float = Field(
        2.0,
        ge=1,
        description="a wrong response with this many times the expected length of right steps has RTS 0: they are not "
        "those of a solution (under truncated=prefix a truncated one with the expected length of them)",
    )
    truncated: Literal["nothing", "exclude", "prefix"] = Field(
        "nothing",
        description="a wrong response that was cut off has RTS 0, is excluded, or earns its right steps; the last "
        "rewards a policy that does not end",
    )
    format_gate: bool = Field(True, description="a malformed response has RTS 0")
    no_error_found: Literal["abstain", "last_step"] = Field(
        "abstain",
        description="wrong response without a wrong step: excluded, or its last step counts as wrong",
    )
    mask_after_error: bool = Field(
        False,
        description="no policy gradient from the first wrong step on where A > 0, nor behind it where A < 0 "
        "(exceptions: docs/credit.md, The mask; ours); KL still counts",
    )
    overlong_buffer: Fraction = Field(
        0.0,
        description="DAPO: last share of sampling.max_tokens in which a response is penalized for its length; 0: none",
    )
    overlong_penalty: float = Field(0.5, ge=0, description="DAPO: the penalty of a response of full length")
    unlikeliness: Fraction = Field(
        0.0, description="unlikeliness reward: share of a correct response's reward that the likeliest one loses"
    )
    domain_weight: bool = Field(False, description="DISCO: rewards of rare domains (data.domain_column) weigh more")
    difficulty_weight: bool = Field(False, description="DISCO: rewards of groups with few correct ones weigh more")

    @property
    def shapes(self) -> bool:
        """Whether rewards are shaped beyond the judge's credit."""
        return self.overlong_buffer > 0 or self.unlikeliness > 0 or self.domain_weight or self.difficulty_weight

    def conflicts(self, whole: AlgorithmSettings) -> Iterator[str]:
        """What is wrong with these settings beside the other parts of the algorithm."""
        if self.mask_after_error and self.scope == "none":
            yield "credit.mask_after_error needs verdicts: set credit.scope"
        if self.mask_after_error and self.overlong_buffer > 0:
            yield (
                "credit.mask_after_error spares what comes after a wrong step, so that credit.overlong_buffer "
                "would not reach the end of a long response: set one of them alone"
            )
        if (self.domain_weight or self.difficulty_weight) and whole.advantage.std == "group":
            yield (
                "credit.domain_weight and .difficulty_weight multiply all rewards of a group, which std=group "
                "cancels: set advantage.std=none"
            )
        if self.difficulty_weight and self.scope != "none":
            yield (
                "credit.difficulty_weight divides by the share of correct responses, 0 in the groups that the judge "
                "credits: set credit.scope=none"
            )


class AdvantageSettings(Settings):
    baseline: AdvantageBaseline = Field(
        "group",
        description="what is subtracted: mean of the group, of its other members (RLOO), of the batch, nothing",
    )
    std: AdvantageStd = Field(
        "group",
        description="what advantages are divided by: std + eps of the group or the batch, max(group std, std_floor), 1",
    )
    std_floor: float = Field(0.1, gt=0, description="lower bound of the divisor under std=floor")
    eps: float = Field(1e-6, gt=0, description="added to the std under std=group and std=batch")
    separate_rewards: bool = Field(
        False, description="GDPO: outcome and RTS normalized apart in the group, added, then by the batch"
    )
    virtual_success: bool = Field(False, description="NGRPO: one correct response more in the group's mean and std")
    entropy_coef: float = Field(
        0.0,
        ge=0,
        description="RL-ZVP: size of the advantage in all-correct and all-wrong groups; each token gets a part of it "
        "that grows with its entropy; 0: none",
    )

    def conflicts(self, whole: AlgorithmSettings) -> Iterator[str]:
        """What is wrong with these settings beside the other parts of the algorithm."""
        if self.baseline == "none" and self.std != "none":
            yield (
                "advantage.baseline=none leaves equal rewards as they are, and their std is 0: set advantage.std=none"
            )
        if self.separate_rewards:
            yield from self._separate_rewards_conflicts(whole)
        if self.virtual_success and not (self.baseline == "group" and self.std in ("group", "none")):
            yield "advantage.virtual_success joins the group's mean: it needs baseline=group, std=group or none"
        if self.virtual_success and whole.filter != "none":
            yield "advantage.virtual_success teaches from all-wrong groups: it needs filter=none"
        unjudged = whole.credit.scope == "none" and not whole.credit.shapes
        if self.entropy_coef > 0 and not (whole.filter == "none" and unjudged and self.baseline == "group"):
            yield (
                "advantage.entropy_coef teaches from groups without signal: it needs filter=none, credit.scope=none, "
                "no shaped rewards and advantage.baseline=group"
            )

    def _separate_rewards_conflicts(self, whole: AlgorithmSettings) -> Iterator[str]:
        if whole.credit.shapes or self.virtual_success:
            yield (
                "advantage.separate_rewards looks at the outcome and RTS alone: shaped rewards (overlong_buffer, "
                "unlikeliness, weights) and advantage.virtual_success would be ignored"
            )
        if whole.credit.scope != "all_incorrect":
            yield "advantage.separate_rewards normalizes RTS in every group: it needs credit.scope=all_incorrect"
        if not (self.baseline == "group" and self.std == "group"):
            yield "advantage.separate_rewards brings its own normalization: leave advantage.baseline and .std at group"


class LossSettings(Settings):
    mean: LossMean = Field(
        "sequence",
        description="mean over tokens then responses (GRPO), over all tokens, mean over responses of token sums, "
        "or of token sums / sampling.max_tokens (Dr. GRPO)",
    )
    no_signal_groups: Literal["drop", "keep"] = Field(
        "drop",
        description="groups whose advantages are all 0 leave the means above, or count in them (the papers of GRPO and "
        "Dr. GRPO, TRL, verl); without a KL term they have no gradient in either case",
    )
    ratio: Ratio = Field(
        "token",
        description="importance ratio and its clipping: of each token, of the sequence (GSPO), none (policy gradient)",
    )
    clip_low: float = Field(0.2, gt=0, lt=1, description="ratio is clipped at 1 - clip_low")
    clip_high: float = Field(0.2, gt=0, description="ratio is clipped at 1 + clip_high")
    dual_clip: float | None = Field(
        None, gt=1, description="where A < 0 the ratio is clipped at dual_clip too (clip_high acts on A > 0); null: not"
    )
    kl_coef: float = Field(
        0.0,
        ge=0,
        description="weight of the k3 estimate of KL(policy || initial policy); > 0 keeps a copy of the initial policy",
    )
    old_logprobs: Literal["sampler", "trainer"] = Field(
        "sampler",
        description="denominator of the ratio: log-probabilities of the sampler, or those that the trainer "
        "computes itself (one more forward pass over what comes after an iteration's first optimizer step)",
    )
    tis_cap: float | None = Field(
        None,
        gt=0,
        description="truncated importance sampling: tokens weigh min(trainer / sampler probability, tis_cap); null: 1",
    )

    @property
    def needs_reference(self) -> bool:
        """Whether a copy of the initial policy is kept, for the KL term."""
        return self.kl_coef > 0

    def conflicts(self, whole: AlgorithmSettings) -> Iterator[str]:
        """What is wrong with these settings beside the other parts of the algorithm."""
        if self.tis_cap is not None and self.old_logprobs == "sampler":
            yield (
                "loss.tis_cap corrects from sampler to trainer: it needs loss.old_logprobs=trainer (with the sampler's "
                "the ratio does it)"
            )


class AlgorithmSettings(Settings):
    name: Name = Field("sgpo", description="name of the run in tables and pictures; runs of one name are one group")
    resampling: ResamplingSettings = ResamplingSettings()
    credit: CreditSettings = CreditSettings()
    filter: GroupFilter = Field(
        "none",
        description="filtered out before advantages, by correctness: none, groups that are not mixed, wrong responses",
    )
    advantage: AdvantageSettings = AdvantageSettings()
    loss: LossSettings = LossSettings()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        parts = (self.resampling, self.credit, self.advantage, self.loss)
        for reason in chain(self._filter_conflicts(), *(part.conflicts(self) for part in parts)):
            raise ValueError(reason)
        return self

    def _filter_conflicts(self) -> Iterator[str]:
        if self.filter == "mixed" and self.credit.scope == "all_negative":
            yield (
                "filter=mixed drops the all-negative groups that credit.scope=all_negative judges: use "
                "scope=all_incorrect or none, or filter=none"
            )
        if self.filter == "correct" and self.credit.scope != "none":
            yield "filter=correct drops the wrong responses that the judge would credit: set credit.scope=none"
        if self.filter == "correct" and self.advantage.baseline != "none":
            yield (
                "filter=correct leaves rewards that are all 1, which any baseline makes 0: set advantage.baseline=none"
            )

    @property
    def needs_entropies(self) -> bool:
        """Whether the trainer computes log-probabilities and entropies of all sampled tokens before credit."""
        return self.advantage.entropy_coef > 0
