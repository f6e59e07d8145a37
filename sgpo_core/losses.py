"""Policy losses as plain sums: every token brings its weight, so that the loss of a mini-batch is the sum over any
split of it into micro-batches and ranks, and its gradient does not depend on the split.

    L = sum_t w_t * ( -min(rho_t A_t, clip(rho_t, 1 - clip_low, 1 + clip_high) A_t) + kl_coef * k3_t )
    rho_t = exp(logp_t - old_logp_t)                   k3_t = exp(ref_t - logp_t) - (ref_t - logp_t) - 1

The weights hold the global denominators (`token_weights`), e.g. GRPO's 1 / (sequences * tokens of the sequence).
Clipping as in PPO/GRPO (arXiv 2402.03300); k3 is Schulman's unbiased, non-negative estimator of KL(pi || ref).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LossMean = Literal["sequence", "token"]
MAX_LOG_RATIO = 20.0


@dataclass(frozen=True, slots=True)
class LossTerms:
    """`loss`: scalar, differentiable. The rest are detached sums over the micro-batch's tokens that have weight."""

    loss: Tensor
    clipped_tokens: Tensor
    kl_sum: Tensor
    token_count: Tensor


def token_weights(lengths: Sequence[int], mean: LossMean) -> list[float]:
    """The weight of each token of a response, per response of the *whole* mini-batch (over all ranks).

    `sequence` (GRPO): mean over the tokens of a response, then over responses: 1 / (n * length).
    `token`: every token alike: 1 / (sum of lengths). A response of length 0 weighs nothing.
    Lengths are the unmasked ones (tokens), also when `mask_after_error` spares some of the tokens.
    """
    if mean == "token":
        total = sum(lengths)
        return [1.0 / total if n else 0.0 for n in lengths]
    return [1.0 / (len(lengths) * n) if n else 0.0 for n in lengths]


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    weights: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl_coef: float = 0.0,
    reference_logprobs: Tensor | None = None,
) -> LossTerms:
    """The clipped policy loss of one micro-batch.

    All tensors are float32 [tokens], one entry a response token: log-probabilities in nats, advantages per token
    (response advantage x token mask), weights from `token_weights` (0 drops a token, e.g. padding).
    `reference_logprobs` is needed when kl_coef > 0.
    """
    # A ratio of e^20 is clipped in any case; unbounded it may be inf, and inf * 0 = nan for a masked token.
    ratio = torch.exp(torch.clamp(logprobs - old_logprobs, -MAX_LOG_RATIO, MAX_LOG_RATIO))
    clipped = torch.clamp(ratio, 1.0 - clip_low, 1.0 + clip_high)
    surrogate = torch.minimum(ratio * advantages, clipped * advantages)
    per_token = -surrogate
    counted = weights > 0
    kl_sum = logprobs.new_zeros(())
    if kl_coef > 0:
        if reference_logprobs is None:
            raise ValueError("algorithm.loss.kl_coef > 0 needs the log-probabilities of a reference policy")
        kl = k3(logprobs, reference_logprobs)
        per_token = per_token + kl_coef * kl
        kl_sum = kl.detach()[counted].sum()
    # The bound is active where it lowered the objective: there the token gives no gradient.
    clipped_tokens = ((ratio * advantages > surrogate) & counted).sum()
    return LossTerms((per_token * weights).sum(), clipped_tokens.detach(), kl_sum, counted.sum())


def k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Per-token estimate of KL(policy || reference) in nats, >= 0, float32 of the arguments' shape."""
    delta = torch.clamp(reference_logprobs - logprobs, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    return torch.exp(delta) - delta - 1.0


def supervised_loss(logprobs: Tensor, weights: Tensor) -> Tensor:
    """Weighted negative log-likelihood: -sum_t w_t logp_t; weights hold the global denominator, as above."""
    return -(logprobs * weights).sum()


def token_logprobs(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and the entropy of its distribution (detached), both float32 [tokens], nats.

    logits: [tokens, vocabulary], any float dtype; targets: int64 [tokens]. The distribution is
    softmax(logits / temperature), the one that was sampled from.
    """
    scaled = logits.float() / temperature
    normaliser = torch.logsumexp(scaled, dim=-1)
    chosen = scaled.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - normaliser
    with torch.no_grad():
        entropy = normaliser - (torch.softmax(scaled, dim=-1) * scaled).sum(-1)
    return chosen, entropy
