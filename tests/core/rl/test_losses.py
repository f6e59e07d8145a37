"""Policy losses: values by hand, gradients against central finite differences in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from sgpo_core.config.algorithm import LossMean, Ratio
from sgpo_core.rl.losses import (
    k3,
    policy_loss,
    supervised_loss,
    token_logprobs,
    token_weights,
    truncated_importance,
)

LN2, LN3 = math.log(2), math.log(3)


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def central_difference(f: Callable[[np.ndarray], float], x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        gradient[i] = (f(up) - f(down)) / (2 * h)
    return gradient


@pytest.mark.parametrize(
    ("lengths", "mean", "expected"),
    [
        ([2, 3], "sequence", [1 / 4, 1 / 6]),  # 1 / (2 * 2), 1 / (2 * 3)
        ([2, 3], "token", [1 / 5, 1 / 5]),
        ([2, 0, 3], "sequence", [1 / 6, 0, 1 / 9]),  # an empty one weighs nothing but is one of three
        ([2, 0, 3], "token", [1 / 5, 0, 1 / 5]),
        ([0, 0], "sequence", [0, 0]),
        ([0, 0], "token", [0, 0]),
        ([], "sequence", []),
        ([], "token", []),
        ([2, 0, 3], "sum", [1 / 3, 0, 1 / 3]),
        ([2, 0, 3], "max_length", [1 / 30, 0, 1 / 30]),  # 1 / (3 * 10), whatever the lengths
    ],
)
def test_token_weights(lengths: list[int], mean: LossMean, expected: list[float]) -> None:
    assert token_weights(lengths, mean, max_length=10) == pytest.approx(expected)


def test_truncated_importance() -> None:
    trainer, sampler = doubles(0.5, 0.2, 0.9).log(), doubles(0.25, 0.4, 0.1).log()
    assert truncated_importance(trainer, sampler, cap=3.0).tolist() == pytest.approx([2.0, 0.5, 3.0])  # 9 is cut
    assert truncated_importance(doubles(0.0), doubles(-1e9), cap=2.0).tolist() == [2.0]  # no overflow


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope", "clipped"),
    [
        # A > 0: -min(rho A, 1.2 A); the slope in logp is -rho A where rho is free, 0 where it is clipped
        (1.5, 2.0, -2.4, 0.0, 1),  # min(3.0, 2.4)
        (1.1, 2.0, -2.2, -2.2, 0),
        (0.5, 2.0, -1.0, -1.0, 0),  # min(1.0, 1.6): below the range a good token may still be raised
        # A < 0: -min(rho A, 0.8 A)
        (1.5, -2.0, 3.0, 3.0, 0),  # min(-3.0, -2.4): above the range a bad token may still be lowered
        (0.9, -2.0, 1.8, 1.8, 0),
        (0.5, -2.0, 1.6, 0.0, 1),  # min(-1.0, -1.6)
        (1.0, 2.0, -2.0, -2.0, 0),
        (1.5, 0.0, 0.0, 0.0, 0),
    ],
)
def test_clipped_loss_of_one_token(ratio: float, advantage: float, loss: float, slope: float, clipped: int) -> None:
    logprobs = doubles(math.log(ratio) - 1).requires_grad_()
    terms = policy_loss(logprobs, doubles(-1.0), doubles(advantage), doubles(0.5))  # weight 1/2 halves both
    terms.loss.backward()
    assert terms.loss.item() == pytest.approx(loss / 2)
    assert logprobs.grad.item() == pytest.approx(slope / 2)
    assert terms.clipped_tokens.item() == clipped


def test_the_two_clip_bounds_are_apart() -> None:
    # ratios 1.5 and 0.5 with A = 1 and -1: -min(1.5, 1.28) and -min(-0.5, -0.7)
    terms = policy_loss(doubles(math.log(1.5), -LN2), doubles(0, 0), doubles(1, -1), doubles(1, 1), 0.3, 0.28)
    assert terms.loss.item() == pytest.approx(-1.28 + 0.7)


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "loss", "slope", "clipped"),
    [
        # A < 0: -max(min(rho A, 0.8 A), 3 A): above the third bound a token costs 3 |A| and has no gradient
        (math.log(2.5), -2.0, 5.0, 5.0, 0),
        (math.log(4), -2.0, 6.0, 0.0, 1),
        (100.0, -2.0, 6.0, 0.0, 1),  # without the bound: 2 e^20, about 1e9
        (math.log(0.5), -2.0, 1.6, 0.0, 1),  # the lower bound still acts
        # A > 0: as without it
        (math.log(4), 2.0, -2.4, 0.0, 1),
        (math.log(0.5), 2.0, -1.0, -1.0, 0),
    ],
)
def test_dual_clip(log_ratio: float, advantage: float, loss: float, slope: float, clipped: int) -> None:
    logprobs = doubles(log_ratio - 1).requires_grad_()
    terms = policy_loss(logprobs, doubles(-1.0), doubles(advantage), doubles(1.0), dual_clip=3.0)
    terms.loss.backward()
    assert terms.loss.item() == pytest.approx(loss)
    assert logprobs.grad.item() == pytest.approx(slope)
    assert terms.clipped_tokens.item() == clipped


def test_without_dual_clip_the_gradient_of_a_bad_token_has_no_limit() -> None:
    logprobs = doubles(9.0).requires_grad_()
    policy_loss(logprobs, doubles(-1.0), doubles(-1.0), doubles(1.0)).loss.backward()
    assert logprobs.grad.item() == pytest.approx(math.exp(10))


def test_counts_leave_out_tokens_without_weight() -> None:
    # Three clipped tokens (ratio 2, A = 1), one free, one clipped without weight.
    ratios, weights = doubles(LN2, LN2, LN2, 0, LN2), doubles(1, 1, 1, 1, 0)
    terms = policy_loss(ratios, torch.zeros_like(ratios), torch.ones_like(ratios), weights, 0.2, 0.2, 1.0, ratios - LN2)
    assert terms.clipped_tokens.item() == 3
    assert terms.token_count.item() == 4
    assert terms.kl_sum.item() == pytest.approx(4 * (0.5 + LN2 - 1))  # k3 of each counted token at delta = -ln 2


@pytest.mark.parametrize(
    ("logprob", "reference", "expected"),
    [
        (-1.0, -1.0, 0.0),
        (-LN2, -2 * LN2, 0.5 + LN2 - 1),  # delta = -ln 2: 1/2 + ln 2 - 1
        (-2 * LN2, -LN2, 2 - LN2 - 1),  # delta = ln 2: 2 - ln 2 - 1
        (-1.0, 0.0, math.e - 2),  # delta = 1
    ],
)
def test_k3(logprob: float, reference: float, expected: float) -> None:
    assert k3(doubles(logprob), doubles(reference)).item() == pytest.approx(expected, abs=1e-12)


def test_k3_is_never_negative() -> None:
    assert k3(torch.zeros(201, dtype=torch.float64), torch.linspace(-5, 5, 201, dtype=torch.float64)).min() >= 0


def test_kl_is_added_with_its_coefficient() -> None:
    # ratio 1, A = 1, k3 = 1 - ln 2: 0.5 * (-1 + 0.1 * (1 - ln 2))
    terms = policy_loss(doubles(-2 * LN2), doubles(-2 * LN2), doubles(1), doubles(0.5), 0.2, 0.2, 0.1, doubles(-LN2))
    assert terms.loss.item() == pytest.approx(0.5 * (-1 + 0.1 * (1 - LN2)))
    assert terms.kl_sum.item() == pytest.approx(1 - LN2)


def test_kl_without_a_reference_is_refused() -> None:
    one = doubles(0.0)
    with pytest.raises(ValueError, match="kl_coef"):
        policy_loss(one, one, one, one, kl_coef=0.1)


class Example:
    """Seven tokens over four pieces; ratios and advantages on every side of the clip range, none near a kink."""

    def __init__(self) -> None:
        generator = np.random.default_rng(7)
        self.logits = generator.normal(size=(7, 4))
        self.targets = generator.integers(0, 4, 7)
        log_ratio = np.log([1.5, 1.1, 0.5, 1.5, 0.9, 0.5, 1.05])
        self.advantages = np.array([2.0, 1.0, 0.5, -1.0, -2.0, -0.5, 0.0])
        self.weights = np.array([0.1, 0.2, 0.3, 0.1, 0.05, 0.2, 0.05])
        self.temperature = 0.7
        self.old = self.logprobs(self.logits) - log_ratio
        self.reference = self.logprobs(self.logits) + generator.normal(size=7)

    def logprobs(self, logits: np.ndarray) -> np.ndarray:
        scaled = logits / self.temperature
        chosen = scaled[np.arange(len(scaled)), self.targets]
        return chosen - np.log(np.exp(scaled).sum(-1))

    def objective(self, logprobs: np.ndarray, kl_coef: float) -> float:
        """The formula once more, token by token, in plain numpy."""
        total = 0.0
        for x, old, a, w, ref in zip(logprobs, self.old, self.advantages, self.weights, self.reference, strict=True):
            rho = np.exp(x - old)
            surrogate = min(rho * a, min(max(rho, 0.8), 1.2) * a)
            total += w * (-surrogate + kl_coef * (np.exp(ref - x) - (ref - x) - 1))
        return total

    def loss(self, logprobs: Tensor, kl_coef: float) -> Tensor:
        old, advantages, weights, reference = (
            torch.tensor(x, dtype=logprobs.dtype) for x in (self.old, self.advantages, self.weights, self.reference)
        )
        return policy_loss(logprobs, old, advantages, weights, 0.2, 0.2, kl_coef, reference).loss


@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
def test_gradient_of_policy_loss(kl_coef: float) -> None:
    example = Example()
    start = example.logprobs(example.logits)
    logprobs = torch.tensor(start, requires_grad=True)
    loss = example.loss(logprobs, kl_coef)
    loss.backward()
    assert loss.item() == pytest.approx(example.objective(start, kl_coef), abs=1e-12)
    expected = central_difference(lambda x: example.objective(x, kl_coef), start)
    np.testing.assert_allclose(logprobs.grad.numpy(), expected, atol=1e-8)


@pytest.mark.parametrize(
    ("advantage", "clip_high", "loss", "slopes", "clipped"),
    [
        # Two tokens, log ratios 0 and ln 4: s = exp(mean) = 2. Weights 1/2 each: the mean over the response.
        (1.0, 2.0, -2.0, [-1.0, -1.0], 0),  # -s A; d/dlogp_t = -s A / 2
        (1.0, 0.5, -1.5, [0.0, 0.0], 2),  # -min(2, 1.5): both tokens are clipped together
        (-1.0, 0.5, 2.0, [1.0, 1.0], 0),  # -min(-2, -1.5)
    ],
)
def test_sequence_ratio_by_hand(
    advantage: float, clip_high: float, loss: float, slopes: list[float], clipped: int
) -> None:
    logprobs, old = doubles(-1, 2 * LN2 - 2).requires_grad_(), doubles(-1, -2)
    advantages, weights, rows = doubles(advantage, advantage), doubles(0.5, 0.5), torch.tensor([0, 0])
    terms = policy_loss(logprobs, old, advantages, weights, 0.2, clip_high, ratio="sequence", rows=rows)
    terms.loss.backward()
    assert terms.loss.item() == pytest.approx(loss)
    assert logprobs.grad.tolist() == pytest.approx(slopes)
    assert terms.clipped_tokens.item() == clipped


def test_sequence_ratios_of_several_responses() -> None:
    # Log ratios (0, ln 4), (ln 3) and (-ln 4, 0): s = 2, 3, 1/2; weights 1, advantages 1, no clipping within reach
    new, rows = doubles(0, 2 * LN2, LN3, -2 * LN2, 0), torch.tensor([0, 0, 1, 2, 2])
    ones = torch.ones_like(new)
    loss = policy_loss(new, 0 * new, ones, ones, 0.9, 9.0, ratio="sequence", rows=rows).loss
    assert loss.item() == pytest.approx(-(2 * 2 + 3 + 2 * 0.5))


def test_no_ratio_is_the_plain_policy_gradient() -> None:
    logprobs = doubles(-1, -2).requires_grad_()
    terms = policy_loss(logprobs, doubles(-9, 9), doubles(2, -1), doubles(0.5, 0.25), ratio="none")
    terms.loss.backward()
    assert terms.loss.item() == pytest.approx(0.5 * 2 - 0.25 * 2)  # -sum w A logp
    assert logprobs.grad.tolist() == [-1.0, 0.25]  # -w A, whatever the old policy was
    assert terms.clipped_tokens.item() == 0


@pytest.mark.parametrize("ratio", ["sequence", "none"])
def test_gradient_of_the_other_ratios(ratio: Ratio) -> None:
    example = Example()
    rows = np.array([0, 0, 0, 1, 1, 2, 2])
    start = example.logprobs(example.logits)

    def objective(logprobs: np.ndarray) -> float:
        total = 0.0
        for row in range(3):
            of_row = rows == row
            s = np.exp(np.mean((logprobs - example.old)[of_row]))
            for x, a, w in zip(logprobs[of_row], example.advantages[of_row], example.weights[of_row], strict=True):
                total -= w * (x * a if ratio == "none" else min(s * a, min(max(s, 0.8), 1.2) * a))
        return total

    logprobs = torch.tensor(start, requires_grad=True)
    old, advantages, weights = (torch.tensor(x) for x in (example.old, example.advantages, example.weights))
    loss = policy_loss(logprobs, old, advantages, weights, ratio=ratio, rows=torch.tensor(rows)).loss
    loss.backward()
    assert loss.item() == pytest.approx(objective(start), abs=1e-12)
    np.testing.assert_allclose(logprobs.grad.numpy(), central_difference(objective, start), atol=1e-8)


@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
def test_gradient_through_a_softmax(kl_coef: float) -> None:
    example = Example()
    logits = torch.tensor(example.logits, dtype=torch.float32, requires_grad=True)
    logprobs, _ = token_logprobs(logits, torch.tensor(example.targets), example.temperature)
    example.loss(logprobs, kl_coef).backward()
    expected = central_difference(lambda x: example.objective(example.logprobs(x), kl_coef), example.logits)
    np.testing.assert_allclose(logits.grad.numpy(), expected, atol=2e-6)  # float32 against float64
    assert kl_coef or not logits.grad[[0, 5, 6]].any()  # clipped twice, advantage 0 once


def test_a_masked_token_gives_no_gradient() -> None:
    logprobs = doubles(-1, -2, -3).requires_grad_()
    policy_loss(logprobs, doubles(-1.1, -1, -9), doubles(1, 0, 0), doubles(0.3, 0.3, 0.3)).loss.backward()
    assert logprobs.grad[0] != 0
    assert logprobs.grad[1:].tolist() == [0, 0]


def test_a_token_without_weight_gives_no_gradient() -> None:
    logprobs = doubles(-1, -2).requires_grad_()
    policy_loss(logprobs, doubles(-1, -2), doubles(1, 1), doubles(1, 0), 0.2, 0.2, 0.5, doubles(-2, -1)).loss.backward()
    assert logprobs.grad[0] != 0
    assert logprobs.grad[1] == 0


@pytest.mark.parametrize("cuts", [[6], [1, 2, 3], [1, 5, 11], list(range(1, 12))])
def test_any_split_into_micro_batches_gives_the_same(cuts: list[int]) -> None:
    generator = torch.Generator().manual_seed(3)
    old, advantages, reference, start = (torch.randn(12, generator=generator, dtype=torch.float64) for _ in range(4))
    weights = torch.rand(12, generator=generator, dtype=torch.float64)

    def terms_of(pieces: list[slice]) -> tuple[list[float], Tensor]:
        logprobs = start.clone().requires_grad_()
        sums = [0.0] * 4
        for s in pieces:
            terms = policy_loss(logprobs[s], old[s], advantages[s], weights[s], 0.2, 0.2, 0.1, reference[s])
            terms.loss.backward()
            values = (terms.loss, terms.clipped_tokens, terms.kl_sum, terms.token_count)
            sums = [a + float(b.detach()) for a, b in zip(sums, values, strict=True)]
        return sums, logprobs.grad

    whole, gradient = terms_of([slice(0, 12)])
    split, split_gradient = terms_of([slice(a, b) for a, b in zip([0, *cuts], [*cuts, 12], strict=True)])
    assert split == pytest.approx(whole, abs=1e-12)
    torch.testing.assert_close(split_gradient, gradient, atol=1e-14, rtol=0)


def assert_finite(log_ratio: float, kl_coef: float, delta: float) -> None:
    """Loss and gradient of four tokens in float32, as in training, where e^89 overflows; one is masked, one padding."""
    logprobs = torch.full((4,), -300.0).requires_grad_()
    old, reference = logprobs.detach() - log_ratio, logprobs.detach() + delta
    advantages, weights = torch.tensor([1.0, -1.0, 0.0, 1.0]), torch.tensor([0.5, 0.5, 0.5, 0.0])
    terms = policy_loss(logprobs, old, advantages, weights, 0.2, 0.2, kl_coef, reference)
    terms.loss.backward()
    assert torch.isfinite(terms.loss)
    assert torch.isfinite(logprobs.grad).all()


@pytest.mark.parametrize("log_ratio", [200.0, -200.0, 1e4])
def test_an_extreme_ratio_stays_finite(log_ratio: float) -> None:
    assert_finite(log_ratio, kl_coef=0.0, delta=0.0)


@pytest.mark.parametrize("delta", [200.0, -200.0])
def test_an_extreme_distance_from_the_reference_stays_finite(delta: float) -> None:
    assert_finite(0.0, kl_coef=0.1, delta=delta)  # k3 holds an exp(ref - logp)


def test_logprobs_and_entropy_by_hand() -> None:
    logits, target = torch.tensor([[0.0, LN3]]), torch.tensor([1])
    # p = 1/4, 3/4: entropy 1/4 ln 4 + 3/4 ln 4/3 = 0.5623351
    chosen, entropy = token_logprobs(logits, target)
    assert chosen.item() == pytest.approx(math.log(0.75), abs=1e-6)
    assert entropy.item() == pytest.approx(0.5623351, abs=1e-6)
    # At temperature 1/2 the odds are squared, 1 : 9: entropy 0.1 ln 10 + 0.9 ln 10/9 = 0.3250830
    chosen, entropy = token_logprobs(logits, target, temperature=0.5)
    assert chosen.item() == pytest.approx(math.log(0.9), abs=1e-6)
    assert entropy.item() == pytest.approx(0.3250830, abs=1e-6)


@pytest.mark.parametrize("shift", [0.0, 50.0, -1000.0])
def test_entropy_of_a_uniform_distribution(shift: float) -> None:
    chosen, entropy = token_logprobs(torch.full((3, 29), shift), torch.tensor([0, 1, 28]))
    assert entropy.tolist() == pytest.approx([math.log(29)] * 3, abs=1e-3 if shift < -100 else 1e-5)
    assert chosen.tolist() == pytest.approx([-math.log(29)] * 3, abs=1e-3 if shift < -100 else 1e-5)


def test_half_precision_logits_are_reduced_in_float32() -> None:
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    chosen, entropy = token_logprobs(logits, torch.tensor([0, 3, 5, 8]))
    assert chosen.dtype == entropy.dtype == torch.float32
    assert not entropy.requires_grad
    expected = torch.log_softmax(logits.double(), -1)[range(4), [0, 3, 5, 8]]
    torch.testing.assert_close(chosen.double(), expected, atol=1e-6, rtol=0)


def test_supervised_loss() -> None:
    logprobs = doubles(-1, -2, -4).requires_grad_()
    loss = supervised_loss(logprobs, doubles(0.5, 0.25, 0))  # 0.5 * 1 + 0.25 * 2
    loss.backward()
    assert loss.item() == 1.0
    assert logprobs.grad.tolist() == [-0.5, -0.25, 0]
