"""Counts of parameters: those that are published, and those of the models that transformers builds."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from sgpo_core.sizing.shapes import KNOWN, ModelShape

# Billions, from the models' cards; SmolLM2 and Llama from their safetensors index.
PUBLISHED = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": 0.134515,
    "Qwen/Qwen2.5-0.5B-Instruct": 0.49,
    "Qwen/Qwen2.5-1.5B-Instruct": 1.54,
    "Qwen/Qwen2.5-7B-Instruct": 7.61,
    "Qwen/Qwen2.5-14B-Instruct": 14.7,
    "Qwen/Qwen2.5-32B-Instruct": 32.5,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": 8.03,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_known_models_have_the_published_number_of_parameters(name: str) -> None:
    assert KNOWN[name].parameters / 1e9 == pytest.approx(PUBLISHED[name], rel=0.01)


SMALL = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "vocab_size": 100,
}


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SMALL, num_key_value_heads=2, tie_word_embeddings=True),
        LlamaConfig(**SMALL, num_key_value_heads=3, head_dim=10),
        Qwen2Config(**SMALL, num_key_value_heads=2),
        Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=16),
    ],
    ids=["tied", "heads of their own size", "biases", "norms of queries and keys"],
)
def test_parameters_are_those_that_transformers_makes(config: PretrainedConfig) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = ModelShape.of(config.to_dict())
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    looked_up = 0 if config.tie_word_embeddings else shape.embedding
    assert shape.multiplied == shape.parameters - looked_up - 48  # the last norm, too, is no product


def test_cache_of_a_token() -> None:
    """Qwen2.5-7B: 28 layers x (key and value) x 4 heads x 128 numbers x 2 bytes = 57,344 bytes."""
    assert KNOWN["Qwen/Qwen2.5-7B-Instruct"].kv_bytes(2) == 57_344


def test_what_is_no_dense_decoder_is_refused() -> None:
    with pytest.raises(KeyError):
        ModelShape.of({"model_type": "t5", "d_model": 512})
    with pytest.raises(KeyError, match="experts"):
        ModelShape.of({**LlamaConfig(**SMALL).to_dict(), "num_experts": 8})
