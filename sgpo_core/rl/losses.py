"""Policy losses as plain sums: every token brings its weight, so that the loss of a mini-batch is the sum over any
split of it into micro-batches and ranks, and its gradient does not depend on the split.

    L = sum_t w_t * ( -min(rho_t A_t, clip(rho_t, 1 - clip_low, 1 + clip_high) A_t) + kl_coef * k3_t )
    k3_t = exp(ref_t - logp_t) - (ref_t - logp_t) - 1

    ratio=token      rho_t = exp(logp_t - old_logp_t)                      PPO, GRPO (arXiv 2402.03300)
    ratio=sequence   rho_t = exp(mean over the response of logp - old)     GSPO (arXiv 2507.18071)
    ratio=none       rho_t A_t becomes logp_t A_t, unclipped               policy gradient: RLOO, GPG

With `dual_clip` c (arXiv 1912.09729) a token of A_t < 0 costs at most c |A_t|: if rho_t > c, it gives no gradient. The
two bounds above do nothing there: a token that became likelier by mistake, or whose old log-probability is wrong, would
have a gradient without limit.

With `tis_cap` the trainer multiplies A_t by `truncated_importance` before: a weight on A_t is a weight on its term.

The weights hold the global denominators (`token_weights`), e.g. GRPO's 1 / (sequences * tokens of the sequence).
k3 is Schulman's unbiased, non-negative estimator of KL(pi || ref).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sgpo_core.config.algorithm import LossMean, Ratio

MAX_LOG_RATIO = 20.0


@dataclass(frozen=True, slots=True)
class LossTerms:
    """`loss`: scalar, differentiable. The rest are detached sums over the micro-batch's tokens that have weight."""

    loss: Tensor
    clipped_tokens: Tensor
    kl_sum: Tensor
    token_count: Tensor


def token_weights(lengths: Sequence[int], mean: LossMean, max_length: int) -> list[float]:
    """The weight of each token of a response, per response of the *whole* mini-batch (over all ranks).

    `sequence` (GRPO): mean over the tokens of a response, then over responses: 1 / (n * length).
    `token` (DAPO): every token alike: 1 / (sum of lengths).
    `sum` (RLOO): a response's log-likelihood, mean over responses: 1 / n.
    `max_length` (Dr. GRPO): 1 / (n * max_length), the length limit of a response, whatever its length.
    A response of length 0 weighs nothing. Lengths (tokens) are the unmasked ones, also when `mask_after_error` spares
    some of the tokens.
    """
    n, total = len(lengths), sum(lengths)
    weight: dict[LossMean, Callable[[int], float]] = {
        "sequence": lambda length: 1.0 / (n * length),
        "token": lambda _: 1.0 / total,
        "sum": lambda _: 1.0 / n,
        "max_length": lambda _: 1.0 / (n * max_length),
    }
    return [weight[mean](length) if length else 0.0 for length in lengths]


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    weights: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl_coef: float = 0.0,
    reference_logprobs: Tensor | None = None,
    ratio: Ratio = "token",
    rows: Tensor | None = None,
    dual_clip: float | None = None,
) -> LossTerms:
    """The policy loss of one micro-batch.

    All tensors are float32 [tokens], one entry a response token: log-probabilities in nats, advantages per token
    (response advantage x token credit), weights from `token_weights` (0 drops a token, e.g. padding). `rows` int64
    [tokens] says which response a token belongs to; ratio=sequence needs it, and whole responses.
    `reference_logprobs` is needed when kl_coef > 0.
    """
    if ratio == "none":
        surrogate = unclipped = logprobs * advantages
    else:
        rho = torch.exp(_log_ratio(logprobs - old_logprobs, rows if ratio == "sequence" else None))
        unclipped = rho * advantages
        surrogate = torch.minimum(unclipped, torch.clamp(rho, 1.0 - clip_low, 1.0 + clip_high) * advantages)
        if dual_clip is not None:
            surrogate = torch.where(advantages < 0, torch.maximum(surrogate, dual_clip * advantages), surrogate)
    per_token = -surrogate
    counted = weights > 0
    kl_sum = logprobs.new_zeros(())
    if kl_coef > 0:
        if reference_logprobs is None:
            raise ValueError("algorithm.loss.kl_coef > 0 needs the log-probabilities of a reference policy")
        kl = k3(logprobs, reference_logprobs)
        per_token = per_token + kl_coef * kl
        kl_sum = kl.detach()[counted].sum()
    # A bound is active where it changed the objective: there the token gives no gradient.
    clipped_tokens = ((unclipped != surrogate) & counted).sum()
    return LossTerms((per_token * weights).sum(), clipped_tokens.detach(), kl_sum, counted.sum())


def truncated_importance(old_logprobs: Tensor, sampler_logprobs: Tensor, cap: float) -> Tensor:
    """TIS: min(exp(old - sampler), cap), of the arguments' shape and dtype, where `old_logprobs` are the trainer's. It
    corrects that the engine that samples computes other probabilities than the trainer (kernels, bfloat16); the cap
    bounds the variance."""
    return torch.exp(torch.clamp(old_logprobs - sampler_logprobs, max=MAX_LOG_RATIO)).clamp(max=cap)


def _log_ratio(difference: Tensor, rows: Tensor | None) -> Tensor:
    """log rho of every token: its own difference, or where `rows` are given the mean over its response's tokens."""
    if rows is not None:
        count = int(rows.max()) + 1
        sums = difference.new_zeros(count).index_add(0, rows, difference)
        lengths = difference.new_zeros(count).index_add(0, rows, torch.ones_like(difference))
        difference = (sums / lengths.clamp(min=1.0))[rows]
    # A ratio of e^20 is clipped in any case; unbounded it may be inf, and inf * 0 = nan for a masked token.
    return torch.clamp(difference, -MAX_LOG_RATIO, MAX_LOG_RATIO)


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
    normalizer = torch.logsumexp(scaled, dim=-1)
    chosen = scaled.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - normalizer
    with torch.no_grad():
        entropy = normalizer - (torch.softmax(scaled, dim=-1) * scaled).sum(-1)
    return chosen, entropy
