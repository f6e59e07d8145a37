"""Packed micro-batches: what stands where, and that nothing that is computed depends on the packing."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from sgpo_core.rl.packing import pack, packed_attention
from sgpo_core.rl.training_samples import MicroBatch, TrainingSample, collate, forward_sample

AttentionInterface.register("packed", packed_attention)
# A group of three, one of two whose prompt is longer, and one response alone; lengths of 1 to 9.
TEXTS = [([1, 2, 3], [4]), ([1, 2, 3], [5, 6, 7, 8, 9]), ([9, 8, 7, 6, 5, 4], [3, 2])]
TEXTS += [([1, 2, 3], [6, 6]), ([9, 8, 7, 6, 5, 4], [11, 12, 13, 14, 15, 16, 17, 18, 19]), ([7], [1, 2, 3])]


def model(kind: str, attention: str) -> Any:
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        **{"vocab_size": 32, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64},
        **{"attn_implementation": attention},
    }
    made = LlamaForCausalLM(LlamaConfig(**shape)) if kind == "llama" else Qwen2ForCausalLM(Qwen2Config(**shape))
    for norm in (module for module in made.modules() if type(module).__name__.endswith("RMSNorm")):
        # Theirs goes through float32, whose rounding would hide what is looked for here.
        norm.forward = partial(rms_norm, norm)
    return made.double()


def rms_norm(norm: Any, x: Tensor) -> Tensor:
    return nn.functional.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def samples() -> list[TrainingSample]:
    return [forward_sample(prompt, tokens) for prompt, tokens in TEXTS]


def of_packed(lm: Any, batch: MicroBatch) -> Tensor:
    hidden = lm.model(batch.input_ids, position_ids=batch.position_ids, layout=batch.layout, use_cache=False)
    logits = lm.lm_head(hidden.last_hidden_state[0, batch.before])
    return torch.log_softmax(logits, -1).gather(-1, batch.targets[:, None])[:, 0]


def one_by_one(lm: Any) -> Tensor:
    found = []
    for prompt, tokens in TEXTS:
        logits = lm(torch.tensor([[*prompt, *tokens]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        found.append(torch.log_softmax(logits, -1).gather(-1, torch.tensor(tokens)[:, None])[:, 0])
    return torch.cat(found)


def gradients(lm: Any, logprobs: Tensor) -> dict[str, Tensor]:
    weights = torch.linspace(-1, 1, len(logprobs), dtype=torch.float64)
    (logprobs * weights).sum().backward()
    return {name: p.grad for name, p in lm.named_parameters()}


def test_what_stands_where() -> None:
    packed = pack([[11, 12], [21], [11, 12]], [[13, 14, 16], [22], [15, 17]])
    assert packed.input_ids.tolist() == [11, 12, 13, 14, 16, 15, 17, 21, 22]
    assert packed.position_ids.tolist() == [0, 1, 2, 3, 4, 2, 3, 0, 1]
    assert packed.first.tolist() == [2, 8, 5]
    assert packed.before.tolist() == [1, 7, 1]
    layout = packed.layout
    [alone], [shared] = layout.alone, layout.shared
    [responses] = shared.responses
    assert shared.prompts.tolist() == [[0, 1]]
    assert alone.tolist() == [[7, 8]]
    assert responses.tokens.tolist() == [[2, 3, 4], [5, 6, 0]]
    assert responses.prompt_of.tolist() == [0, 0]
    assert responses.visible[1, 0].int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert layout.tokens.tolist() == [7, 8, 0, 1, 2, 3, 4, 5, 6, 0]
    assert layout.place.tolist() == [2, 3, 4, 5, 6, 7, 8, 0, 1]
    assert layout.longest == 5


def test_without_shared_prompts_all_is_plain_causal_attention() -> None:
    layout = pack([[11, 12], [21]], [[13, 14], [22, 23]]).layout
    assert [block.tolist() for block in layout.alone] == [[[0, 1, 2, 3], [4, 5, 6, 0]]]
    assert layout.shared == ()
    assert layout.place.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_attention_pads_to_one_and_a_half_of_the_length_at_most() -> None:
    """One long response among short ones, or one long prompt: its places for it, not for each."""
    rng = np.random.default_rng(0)

    def shapes(blocks: Iterable[Tensor]) -> list[list[int]]:
        return [list(block.shape) for block in blocks]

    lengths = [40, 3000, 200, 90, 120, 1600, 41, 80]
    layout = pack([[1, 2]] * 8, [rng.integers(0, 9, n) for n in lengths]).layout
    assert shapes(rows.tokens for rows in layout.shared[0].responses) == [
        [1, 3000],
        [1, 1600],
        [1, 200],
        [3, 120],
        [2, 41],
    ]
    assert len(layout.tokens) <= 1.5 * len(layout.place)
    prompts = [rng.integers(0, 9, n) for n in (60, 3000, 61, 62)]
    layout = pack([p for p in prompts for _ in range(2)], [rng.integers(0, 9, 50) for _ in range(8)]).layout
    assert shapes(group.prompts for group in layout.shared) == [[1, 3000], [3, 62]]
    assert len(layout.tokens) <= 1.5 * len(layout.place)
    alone = pack([[1], [2], [3]], [rng.integers(0, 9, n) for n in (10, 100, 70)]).layout.alone
    assert shapes(alone) == [[2, 101], [1, 11]]


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_log_probabilities_and_gradients_are_those_of_one_by_one(kind: str) -> None:
    separate, together = model(kind, "sdpa"), model(kind, "packed")
    expected, found = one_by_one(separate), of_packed(together, collate(samples()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    theirs, ours = gradients(separate, expected), gradients(together, found)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("cut", [1, 2, 3, 5])
def test_a_group_that_is_split_over_micro_batches_gives_the_same(cut: int) -> None:
    whole, parts = model("llama", "packed"), model("llama", "packed")
    expected = of_packed(whole, collate(samples()))
    found = torch.cat([of_packed(parts, collate(share)) for share in (samples()[:cut], samples()[cut:])])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    theirs, ours = gradients(whole, expected), gradients(parts, found)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=0, atol=1e-12, msg=name)


def test_gradient_checkpointing_hands_the_layout_on() -> None:
    plain, recomputing = model("llama", "packed"), model("llama", "packed").train()
    recomputing.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    theirs = gradients(plain, of_packed(plain, collate(samples())))
    ours = gradients(recomputing, of_packed(recomputing, collate(samples())))
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=0, atol=1e-12, msg=name)


def test_no_response_sees_another_one() -> None:
    lm, changed = model("llama", "packed"), samples()
    with torch.no_grad():
        before = of_packed(lm, collate(samples()))
        changed[1] = forward_sample([1, 2, 3], [20, 21, 22, 23, 24])
        after = of_packed(lm, collate(changed))
    own = collate(changed).row == 1
    torch.testing.assert_close(after[~own], before[~own], rtol=0, atol=1e-12)
    assert not torch.allclose(after[own], before[own])


def test_in_bfloat16_attention_is_computed_in_float32_on_the_cpu() -> None:
    layout = pack([[1, 2]], [[3, 4, 5]]).layout
    q, k, v = (torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(i)).bfloat16() for i in range(3))
    found, _ = packed_attention(nn.Module(), q, k, v, None, layout=layout)
    exact = nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, exact.transpose(1, 2).bfloat16(), rtol=0, atol=0)


@pytest.mark.parametrize(("setting", "value"), [("softcap", 30.0), ("sliding_window", 4)])
def test_attention_that_it_does_not_compute_is_refused(setting: str, value: float) -> None:
    layout = pack([[1, 2]], [[3, 4, 5]]).layout
    q = torch.randn(1, 2, 5, 8)
    assert packed_attention(nn.Module(), q, q, q, None, layout=layout, sliding_window=5)[0].shape == (1, 5, 2, 8)
    with pytest.raises(ValueError, match="can't be trained here"):
        packed_attention(nn.Module(), q, q, q, None, layout=layout, **{setting: value})


def test_every_tensor_moves() -> None:
    layout = collate(samples()).layout.to(torch.device("meta"))
    parts = [
        *layout.blocks,
        *(x for group in layout.shared for rows in group.responses for x in (rows.prompt_of, rows.visible)),
    ]
    assert {part.device.type for part in (*parts, layout.tokens, layout.place)} == {"meta"}
    assert np.isscalar(layout.longest)
