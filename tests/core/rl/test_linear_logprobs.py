"""Log-probabilities without logits: a case by hand, and against the plain path in float64 for every cut."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sgpo_core.rl.linear_logprobs import as_logprob_head, linear_token_logprobs
from sgpo_core.rl.losses import token_logprobs

TOKENS, VOCABULARY, WIDTH = 5, 7, 3
CUTS = (1, 5, 10, 15, 5 * 64, 10**6)  # tiles of 1 (also where not one column fits), 1, 2, 3 of 7, and one tile of all


class Example:
    """Five tokens over seven pieces, the first and the last piece among the targets, one of them twice."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        generator = torch.Generator().manual_seed(11)
        self.hidden = torch.randn(TOKENS, WIDTH, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        self.weight = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
        self.weight.requires_grad_()
        self.targets = torch.tensor([0, 6, 3, 3, 1])
        self.slopes = torch.tensor([1.0, -0.5, 2.0, 0.0, 0.25], dtype=torch.float64)  # of a loss in the logprobs

    def naive(self, temperature: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(log-probabilities, entropies, gradients of hidden and weight), float64, from the definition."""
        hidden, weight = (x.detach().double().requires_grad_() for x in (self.hidden, self.weight))
        everything = torch.log_softmax(hidden @ weight.T / temperature, -1)
        logprobs = everything[range(TOKENS), self.targets]
        (logprobs * self.slopes).sum().backward()
        return logprobs.detach(), -(everything.exp() * everything).sum(-1).detach(), hidden.grad, weight.grad

    def chunked(self, temperature: float, max_logits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        self.hidden.grad = self.weight.grad = None
        logprobs, entropies = linear_token_logprobs(self.hidden, self.weight, self.targets, temperature, max_logits)
        (logprobs * self.slopes.to(logprobs)).sum().backward()
        return logprobs.detach(), entropies, self.hidden.grad, self.weight.grad


@pytest.mark.parametrize("max_logits", [1, 2, 100])
def test_two_tokens_by_hand(max_logits: int) -> None:
    # W = I, so the logits are the hidden states: ln(1, 3) and ln(1, 1); p = (1/4, 3/4) and (1/2, 1/2).
    hidden = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]], requires_grad=True)
    weight = torch.eye(2, requires_grad=True)
    logprobs, entropies = linear_token_logprobs(hidden, weight, torch.tensor([1, 0]), max_logits=max_logits)
    assert logprobs.tolist() == pytest.approx([math.log(0.75), math.log(0.5)], abs=1e-6)
    # 1/4 ln 4 + 3/4 ln 4/3 = 0.5623351
    assert entropies.tolist() == pytest.approx([0.5623351, math.log(2)], abs=1e-6)
    assert not entropies.requires_grad
    (logprobs * torch.tensor([1.0, 2.0])).sum().backward()
    # Gradients of the logits, slope * (onehot - p): (-1/4, 1/4) and 2 * (1/2, -1/2); hidden's are the same, W being I.
    assert hidden.grad.flatten().tolist() == pytest.approx([-0.25, 0.25, 1.0, -1.0], abs=1e-6)
    # W's row v: sum over tokens of gradient[t, v] * hidden[t]; token 2 is (0, 0): -1/4 (0, ln 3) and 1/4 (0, ln 3).
    assert weight.grad.flatten().tolist() == pytest.approx([0, -math.log(3) / 4, 0, math.log(3) / 4], abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 1.7])
@pytest.mark.parametrize("max_logits", CUTS)
def test_every_cut_is_the_definition(max_logits: int, temperature: float) -> None:
    example = Example()
    for result, expected in zip(example.chunked(temperature, max_logits), example.naive(temperature), strict=True):
        torch.testing.assert_close(result, expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("max_logits", CUTS)
def test_float32_agrees_over_cuts(max_logits: int) -> None:
    example = Example(torch.float32)
    for result, expected in zip(example.chunked(0.8, max_logits), example.naive(0.8), strict=True):
        assert result.dtype == torch.float32
        torch.testing.assert_close(result.double(), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("max_logits", [1, 10])
def test_gradients_against_finite_differences(max_logits: int) -> None:
    example = Example()

    def logprobs(hidden: Tensor, weight: Tensor) -> Tensor:
        return linear_token_logprobs(hidden, weight, example.targets, 0.7, max_logits)[0]

    assert torch.autograd.gradcheck(logprobs, (example.hidden, example.weight))


def test_the_same_twice_to_the_bit() -> None:
    example = Example(torch.float32)
    for first, second in zip(example.chunked(0.8, 10), example.chunked(0.8, 10), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("max_logits", [6 * 64, 10**6])
def test_half_precision_is_reduced_in_float32(max_logits: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(6, 16, generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(300, 16, generator=generator).bfloat16().requires_grad_()
    targets = torch.arange(0, 300, 50)
    logprobs, entropies = linear_token_logprobs(hidden, weight, targets, 1.0, max_logits)
    assert logprobs.dtype == entropies.dtype == torch.float32
    logprobs.sum().backward()
    assert hidden.grad.dtype == weight.grad.dtype == torch.bfloat16
    # Only the logits are rounded, to 8 bits; a product cut otherwise may round one of them the other way.
    expected, expected_entropies = token_logprobs(hidden @ weight.T, targets)
    torch.testing.assert_close(logprobs, expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(entropies, expected_entropies, atol=2e-3, rtol=0)
    exact_hidden, exact_weight = (x.detach().double().requires_grad_() for x in (hidden, weight))
    torch.log_softmax(exact_hidden @ exact_weight.T, -1)[range(6), targets].sum().backward()
    for grad, exact in ((hidden.grad, exact_hidden.grad), (weight.grad, exact_weight.grad)):
        assert (grad.double() - exact).norm() < 0.01 * exact.norm()


def test_hidden_states_may_be_of_another_dtype() -> None:
    example = Example(torch.float32)
    half = example.hidden.detach().bfloat16().requires_grad_()
    example.hidden = half
    for result, expected in zip(example.chunked(1.0, 10)[:2], example.naive(1.0)[:2], strict=True):
        torch.testing.assert_close(result.double(), expected, atol=2e-6, rtol=0)
    assert half.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("max_logits", [10, 10**6])
def test_tied_weights_get_both_gradients(max_logits: int) -> None:
    example, ids = Example(), torch.tensor([2, 2, 0, 5, 6])

    def gradient(limit: int | None) -> Tensor:
        weight = example.weight.detach().clone().requires_grad_()
        hidden = torch.tanh(weight[ids])
        if limit is None:
            logprobs = torch.log_softmax(hidden @ weight.T, -1)[range(TOKENS), example.targets]
        else:
            logprobs, _ = linear_token_logprobs(hidden, weight, example.targets, max_logits=limit)
        (logprobs * example.slopes).sum().backward()
        return weight.grad

    torch.testing.assert_close(gradient(max_logits), gradient(None), atol=1e-13, rtol=0)


def test_only_the_wanted_gradients() -> None:
    example = Example()
    expected = example.naive(1.0)
    example.weight.requires_grad_(False)
    _, _, hidden_grad, weight_grad = example.chunked(1.0, 10)
    torch.testing.assert_close(hidden_grad, expected[2], atol=1e-13, rtol=0)
    assert weight_grad is None
    example.weight.requires_grad_()
    example.hidden.requires_grad_(False)
    _, _, hidden_grad, weight_grad = example.chunked(1.0, 10)
    torch.testing.assert_close(weight_grad, expected[3], atol=1e-13, rtol=0)
    assert hidden_grad is None
    with torch.no_grad():
        assert not linear_token_logprobs(example.hidden, example.weight, example.targets, 1.0, 10)[0].requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_tokens(dtype: torch.dtype) -> None:
    hidden = torch.zeros(0, WIDTH, dtype=dtype, requires_grad=True)
    weight = torch.ones(VOCABULARY, WIDTH, dtype=dtype, requires_grad=True)
    logprobs, entropies = linear_token_logprobs(hidden, weight, torch.zeros(0, dtype=torch.int64), 1.0, 1)
    assert logprobs.shape == entropies.shape == (0,)
    logprobs.sum().backward()
    assert hidden.grad.shape == (0, WIDTH)
    assert torch.equal(weight.grad, torch.zeros_like(weight))


@pytest.mark.parametrize("max_logits", [10, 10**6])
@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_extreme_logits_stay_finite(scale: float, max_logits: int) -> None:
    hidden = torch.full((2, 1), scale, requires_grad=True)
    weight = torch.linspace(-1, 1, VOCABULARY).unsqueeze(-1).requires_grad_()
    logprobs, entropies = linear_token_logprobs(hidden, weight, torch.tensor([0, 6]), max_logits=max_logits)
    logprobs.sum().backward()
    # All mass is on one end: log-probabilities 0 and -2000, entropy 0.
    assert sorted(logprobs.tolist()) == pytest.approx([-2000, 0], abs=1e-2)
    assert entropies.tolist() == pytest.approx([0, 0], abs=1e-3)
    assert torch.isfinite(hidden.grad).all() and torch.isfinite(weight.grad).all()


def test_the_weight_may_leave_and_come_back() -> None:
    """As ZeRO-3 does it: a parameter's data goes after forward and is gathered again, elsewhere, before backward."""
    example = Example()
    expected = example.naive(1.0)
    parameter = nn.Parameter(example.weight.detach().clone())
    logprobs, _ = linear_token_logprobs(example.hidden, parameter, example.targets, 1.0, 10)
    parameter.data = torch.empty(0, dtype=torch.float64)
    parameter.data = example.weight.detach().clone()
    (logprobs * example.slopes).sum().backward()
    torch.testing.assert_close(parameter.grad, expected[3], atol=1e-13, rtol=0)


def test_a_head_keeps_its_parameters_and_hooks() -> None:
    example, calls = Example(torch.float32), []
    head = nn.Linear(WIDTH, VOCABULARY, bias=False)
    head.register_forward_pre_hook(lambda *_: calls.append("before"))
    head.register_forward_hook(lambda *_: calls.append("after"))
    names = list(head.state_dict())
    as_logprob_head(head)
    results = head(example.hidden, example.targets, 0.5)
    assert calls == ["before", "after"]
    assert list(head.state_dict()) == names == ["weight"]
    for result, expected in zip(
        results, token_logprobs(example.hidden @ head.weight.T, example.targets, 0.5), strict=True
    ):
        torch.testing.assert_close(result, expected)


def test_a_head_with_bias_is_refused() -> None:
    with pytest.raises(ValueError, match="bias"):
        as_logprob_head(nn.Linear(2, 2))


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the elements of the largest tensor any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_larger_than_a_tile_is_made(dtype: torch.dtype) -> None:
    tokens, vocabulary, max_logits = 64, 1000, 6400
    hidden = torch.randn(tokens, 2).to(dtype).requires_grad_()
    weight = torch.randn(vocabulary, 2).to(dtype).requires_grad_()
    targets = torch.arange(tokens)
    with Largest() as largest:
        linear_token_logprobs(hidden, weight, targets, 0.9, max_logits)[0].sum().backward()
    assert largest.elements <= max_logits  # of 64,000 logits; the weight and its gradient are 2,000
    with Largest() as largest:
        linear_token_logprobs(hidden, weight, targets, 0.9)[0].sum().backward()
    assert largest.elements == tokens * vocabulary
