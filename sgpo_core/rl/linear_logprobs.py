"""Log-probabilities of sampled tokens straight from hidden states: no tensor [tokens, vocabulary] is ever held.

    logits = hidden W^T                         p = softmax(logits / temperature)
    logp_t = logits_t[y_t] / temperature - lse_t                  lse_t = logsumexp(logits_t / temperature)
    d logp_t / d logits_t = (onehot(y_t) - p_t) / temperature

The vocabulary is cut into tiles, and one tile's logits are all that exists at a time. Forward folds them into running
sums per token (the online softmax, arXiv 1805.02867) and keeps lse [tokens]. Backward multiplies a second time, which
is the price (four products instead of three), and turns the tile in place into the gradient of its logits.

Why tiles of the vocabulary and not of the tokens: every row of W's gradient is then one product over all tokens,
written once. Tiles of tokens would add to all of it again and again, in bfloat16 with a rounding each time or in a
float32 copy of it that is larger than what is saved.

Why our own: Liger-Kernel's linear losses are Triton (no CPU) or take the whole policy loss inside; torchtune's takes
cross-entropy inside; verl's tiles tokens, adds W's gradient up in the weights' dtype and keeps several float32 copies
of a tile; TRL's tiles are like these but run in Triton or, on the CPU, with half a dozen copies of a tile, and come
with all of TRL. Here the loss stays outside, in `sgpo_core.rl.losses`, and the tensor library is all that is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sgpo_core.rl.losses import token_logprobs

MAX_LOGITS = 2**25  # 128 MiB in float32


def linear_token_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0, max_logits: int = MAX_LOGITS
) -> tuple[Tensor, Tensor]:
    """`losses.token_logprobs` of the logits `hidden @ weight.T`: log-probability of each target and the entropy of its
    distribution (detached), both float32 [tokens], nats.

    hidden: [tokens, width], any float dtype; weight: [vocabulary, width], whose dtype the products are done in;
    targets: int64 [tokens]. Sums are float32. float64 weights make everything float64, results included.
    max_logits: so many logits exist at a time, in one buffer of the weights' dtype and up to two of float32.
    """
    # A small batch takes the plain path, which multiplies once; it would make float32 of float64.
    if len(hidden) * len(weight) <= max_logits and weight.dtype != torch.float64:
        return token_logprobs(nn.functional.linear(hidden.to(weight.dtype), weight), targets, temperature)
    logprobs, entropies = _LinearLogprobs.apply(hidden, weight, targets, temperature, max_logits)  # type: ignore[no-untyped-call]
    return logprobs, entropies


def as_logprob_head(head: nn.Linear) -> None:
    """Makes `head(hidden, targets, temperature=1.0)` return `linear_token_logprobs`; its parameters stay as they are.

    The call stays the module's, so that whatever hooks it has still fires: ZeRO-3 gathers the weight by them.
    """
    if head.bias is not None:
        raise ValueError("log-probabilities without logits need an output layer without bias")

    def forward(hidden: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        return linear_token_logprobs(hidden, head.weight, targets, temperature)

    head.forward = forward


class _Tiles:
    """The logits of all tokens, one slice of the vocabulary after the other, in buffers that are reused."""

    def __init__(self, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, max_logits: int) -> None:
        self.hidden, self.weight, self.targets, self.temperature = hidden, weight, targets, temperature
        self.precise = torch.promote_types(weight.dtype, torch.float32)
        width = min(max(1, max_logits // max(1, len(hidden))), len(weight))
        self.width = width // 64 * 64 or width  # tensor cores want whole blocks
        self.rows = torch.arange(len(hidden), device=hidden.device)
        self.products = self.buffer(weight.dtype)
        self.scaled = self.products if self.precise == weight.dtype else self.buffer(self.precise)

    def buffer(self, dtype: torch.dtype) -> Tensor:
        return self.hidden.new_empty(len(self.hidden) * self.width, dtype=dtype)

    def view(self, buffer: Tensor, piece: slice) -> Tensor:
        """[tokens, tile], contiguous also in the last, narrower tile."""
        shape = len(self.hidden), piece.stop - piece.start
        return buffer[: shape[0] * shape[1]].view(shape)

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """(slice of the vocabulary, logits / temperature [tokens, tile] in at least float32, to be overwritten)."""
        for start in range(0, len(self.weight), self.width):
            piece = slice(start, min(start + self.width, len(self.weight)))
            products, scaled = self.view(self.products, piece), self.view(self.scaled, piece)
            torch.mm(self.hidden, self.weight[piece].T, out=products)
            if scaled is not products and self.scaled is not self.products:
                scaled.copy_(products)
            yield piece, scaled.div_(self.temperature) if self.temperature != 1.0 else scaled

    def chosen(self, piece: slice) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """An index of one element per token, which is the target's where the bool [tokens] says so."""
        inside = (self.targets >= piece.start) & (self.targets < piece.stop)
        return (self.rows, torch.where(inside, self.targets - piece.start, 0)), inside


class _LinearLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, max_logits: int
    ) -> tuple[Tensor, Tensor]:
        tiles = _Tiles(hidden.to(weight.dtype), weight, targets, temperature, max_logits)
        exponentials = tiles.buffer(tiles.precise)
        chosen = torch.zeros(len(hidden), dtype=tiles.precise, device=hidden.device)
        # Over the tiles so far, per token: the largest logit, sum of e = exp(logit - largest), sum of e * logit.
        largest, total, weighted = torch.full_like(chosen, -torch.inf), chosen.clone(), chosen.clone()
        for piece, logits in tiles:
            index, inside = tiles.chosen(piece)
            chosen = torch.where(inside, logits[index], chosen)
            before, largest = largest, torch.maximum(largest, logits.amax(-1))
            shrink = torch.exp(before - largest)
            e = torch.sub(logits, largest.unsqueeze(-1), out=tiles.view(exponentials, piece)).exp_()
            total = total * shrink + e.sum(-1)
            weighted = weighted * shrink + e.mul_(logits).sum(-1)
        normalizer = largest + torch.log(total)
        entropies = normalizer - weighted / total
        # The weight itself and no copy: under ZeRO-3 its data leaves after forward and is back before backward.
        ctx.save_for_backward(hidden, weight, targets, normalizer)
        ctx.temperature, ctx.max_logits = temperature, max_logits
        ctx.mark_non_differentiable(entropies)
        return chosen - normalizer, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden, weight, targets, normalizer = ctx.saved_tensors
        tiles = _Tiles(hidden.to(weight.dtype), weight, targets, ctx.temperature, ctx.max_logits)
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.zeros_like(hidden, dtype=tiles.precise) if wants_hidden else None
        grad_weight = torch.empty_like(weight) if wants_weight else None
        slope = grad / ctx.temperature
        for piece, logits in tiles:
            probabilities = logits.sub_(normalizer.unsqueeze(-1)).exp_()
            grad_logits = probabilities.mul_(-slope.unsqueeze(-1))
            index, inside = tiles.chosen(piece)
            grad_logits[index] += torch.where(inside, slope, 0)
            if tiles.precise != weight.dtype:
                grad_logits = tiles.view(tiles.products, piece).copy_(grad_logits)
            if grad_hidden is not None:
                _add_product(grad_hidden, grad_logits, weight[piece])
            if grad_weight is not None:
                torch.mm(grad_logits.T, tiles.hidden, out=grad_weight[piece])
        return None if grad_hidden is None else grad_hidden.to(hidden.dtype), grad_weight, None, None, None


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b, where `total` may be of higher precision."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    elif total.is_cuda:  # tensor cores add up in float32 anyhow: without rounding to the weights' dtype in between
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total += a @ b
