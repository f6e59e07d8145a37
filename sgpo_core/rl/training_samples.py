"""What the trainer is given: sampled tokens with a weight and an advantage each, and their tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sgpo_core.config.algorithm import LossSettings
from sgpo_core.rl.batching import BatchPlan, Row, plan_batches
from sgpo_core.rl.losses import token_weights
from sgpo_core.rl.packing import Layout, pack
from sgpo_core.types import Rollout, RolloutGroup


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """One response (or supervised text) to train on; the arrays run over the response's tokens.

    `input_ids` int32 [prompt + response]; `weights` float32 [response] with the mini-batch's global denominators (see
    `losses.token_weights`); `advantages` float32 [response], 0 where masked; `sampler_logprobs` float32 [response],
    nats, of the engine that sampled the tokens. The last two are empty for supervised samples. `old_logprobs` float32
    [response], nats, what ratios are taken to; None for those that the forward pass of the update itself gives, which
    are the policy's before the update if its first optimizer step asks. `targets` int32 [response]: what is to be
    predicted in place of each response token, None for the tokens themselves.
    """

    input_ids: np.ndarray
    weights: np.ndarray
    advantages: np.ndarray
    sampler_logprobs: np.ndarray
    old_logprobs: np.ndarray | None = None
    targets: np.ndarray | None = None

    @property
    def prompt_length(self) -> int:
        return len(self.input_ids) - len(self.weights)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Samples as tensors, packed: `input_ids`, `position_ids` int64 [1, N] and `layout` are those of all N tokens (see
    `packing`). The others run over the response tokens, sample after sample: `row`: their sample; `before`: the place
    among the N of the token that predicts each. `old_logprobs` is None where the samples have none."""

    input_ids: Tensor
    position_ids: Tensor
    layout: Layout
    row: Tensor
    before: Tensor
    targets: Tensor
    weights: Tensor
    advantages: Tensor
    sampler_logprobs: Tensor
    old_logprobs: Tensor | None

    def to(self, device: torch.device) -> MicroBatch:
        def moved(part: Any) -> Any:
            return None if part is None else part.to(device)

        return MicroBatch(*(moved(getattr(self, name)) for name in self.__slots__))


def collate(samples: Sequence[TrainingSample]) -> MicroBatch:
    """The tensors of a micro-batch. No samples (a rank that ran out) give one token of weight 0, so that the rank still
    takes part in every collective."""
    if not samples:
        nothing = np.zeros(1, np.float32)
        samples = [TrainingSample(np.zeros(2, np.int32), nothing, nothing, nothing, nothing)]
    texts = [(s.input_ids[: s.prompt_length], s.input_ids[s.prompt_length :]) for s in samples]
    packed = pack(*zip(*texts, strict=True))
    # A response's first token is predicted by the prompt's last one, each other token by the one before it.
    before = [
        np.concatenate([[prompt_end], np.arange(first, first + len(s.weights) - 1)])
        for s, prompt_end, first in zip(samples, packed.before, packed.first, strict=True)
    ]

    def flat(name: str) -> Tensor:
        return torch.from_numpy(np.concatenate([getattr(s, name) for s in samples]).astype(np.float32))

    targets = [s.input_ids[s.prompt_length :] if s.targets is None else s.targets for s in samples]
    without_old = {s.old_logprobs is None for s in samples}
    assert len(without_old) == 1, "of the samples of a step all have old log-probabilities, or none"
    return MicroBatch(
        input_ids=torch.from_numpy(packed.input_ids)[None],
        position_ids=torch.from_numpy(packed.position_ids)[None],
        layout=packed.layout,
        row=torch.from_numpy(np.repeat(np.arange(len(samples)), [len(s.weights) for s in samples])),
        before=torch.from_numpy(np.concatenate(before)),
        targets=torch.from_numpy(np.concatenate(targets).astype(np.int64)),
        weights=flat("weights"),
        advantages=flat("advantages"),
        sampler_logprobs=flat("sampler_logprobs"),
        old_logprobs=None if without_old == {True} else flat("old_logprobs"),
    )


def policy_samples(
    members: Sequence[tuple[RolloutGroup, Rollout]], loss: LossSettings, max_length: int
) -> list[TrainingSample]:
    """The samples of one whole mini-batch, one a response that has its credit; `loss.mean` sets the global denominators
    over just these, and `max_length` is the length limit of a response (tokens), which one of them divides by.

    A token's advantage is its response's times its own credit (0: masked); its weight counts masked tokens in (so that
    masking does not raise the weight of those that stay). Responses of groups without signal are counted, but have no
    sample: they have no gradient, unless there is a KL term.
    """
    weights = token_weights([len(rollout.token_ids) for _, rollout in members], loss.mean, max_length)
    samples = []
    for (group, rollout), weight in zip(members, weights, strict=True):
        if not group.has_signal and loss.kl_coef == 0:
            continue
        credit, sampler, trainer = rollout.credit, rollout.rollout_logprobs, rollout.recomputed
        assert credit is not None, "the update comes after credit"
        assert credit.token_credit is not None, "the update comes after credit"
        old = sampler if loss.old_logprobs == "sampler" else None if trainer is None else trainer.logprobs
        samples.append(
            TrainingSample(
                input_ids=np.concatenate([group.prompt_ids, rollout.token_ids]).astype(np.int32, copy=False),
                weights=np.full(len(rollout.token_ids), weight, np.float32),
                advantages=np.float32(credit.advantage) * credit.token_credit,
                sampler_logprobs=sampler,
                old_logprobs=old,
            )
        )
    return samples


def forward_sample(prompt_ids: npt.ArrayLike, token_ids: npt.ArrayLike) -> TrainingSample:
    """A response whose log-probabilities are asked for; there is nothing to train on."""
    prompt, tokens = np.asarray(prompt_ids, np.int32), np.asarray(token_ids, np.int32)
    nothing = np.zeros(len(tokens), np.float32)
    return TrainingSample(np.concatenate([prompt, tokens]), nothing, nothing, nothing)


def split_over_ranks(
    samples: Sequence[TrainingSample], token_budget: int, world_size: int
) -> list[list[list[TrainingSample]]]:
    """For each rank its micro-batches of samples; see `batching.plan_batches`."""
    plan = plan_samples(samples, token_budget, world_size)
    return [[[samples[i] for i in batch] for batch in rank] for rank in plan.ranks]


def plan_samples(samples: Sequence[TrainingSample], token_budget: int, world_size: int) -> BatchPlan:
    """`batching.plan_batches` of them."""
    rows = [
        Row(s.input_ids[: s.prompt_length].tobytes(), s.prompt_length, len(s.input_ids) - s.prompt_length)
        for s in samples
    ]
    return plan_batches(rows, token_budget, world_size)
