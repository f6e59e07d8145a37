"""The shape of a decoder-only model, and how many numbers its parts hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class ModelShape:
    """As config.json has it. `tied`: the output head is the embedding."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    qkv_bias: bool = False
    qk_norm: bool = False  # norms of each head's queries and keys

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Of a model's config.json. Raises KeyError for one that is no dense decoder."""
        if experts := [key for key in config if "experts" in key and config[key]]:
            raise KeyError(f"{experts[0]}: not a dense model")
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        return cls(
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            intermediate=int(config["intermediate_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_size=int(config.get("head_dim") or hidden // heads),
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            qkv_bias=bool(config.get("attention_bias", False)) or config.get("model_type") == "qwen2",
            qk_norm=config.get("model_type") == "qwen3",
        )

    def config(self) -> dict[str, Any]:
        """The fields of config.json that say it, whatever the architecture."""
        return {
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_size,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied,
        }

    def splits_over(self, gpus: int) -> bool:
        """Whether vLLM can split it (tensor parallel): every GPU gets as many heads and rows; key-value heads that are
        fewer than the GPUs are repeated."""
        keys = self.kv_heads % gpus == 0 or gpus % self.kv_heads == 0
        return self.heads % gpus == 0 and keys and self.intermediate % gpus == 0

    @property
    def attention(self) -> int:
        """Of one layer's attention."""
        width = (self.heads + 2 * self.kv_heads) * self.head_size
        bias, norms = (width if self.qkv_bias else 0), (2 * self.head_size if self.qk_norm else 0)
        return self.hidden * (width + self.heads * self.head_size) + bias + norms

    @property
    def layer(self) -> int:
        """Of one layer: attention, gated feed-forward, two norms."""
        return self.attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """Of the whole model; a tied head counts once."""
        return self.layers * self.layer + self.embedding * (1 if self.tied else 2) + self.hidden

    def adapters(self, rank: int) -> int:
        """Of adapters of this rank beside every linear layer: rank x (inputs + outputs) each."""
        queries, keys = self.heads * self.head_size, self.kv_heads * self.head_size
        attention = 2 * (self.hidden + queries) + 2 * (self.hidden + keys)
        return self.layers * rank * (attention + 3 * (self.hidden + self.intermediate))

    def trained(self, rank: int) -> int:
        """Parameters that are trained: the adapters where there are some, else all."""
        return self.adapters(rank) if rank else self.parameters

    @property
    def multiplied(self) -> int:
        """Parameters that every token is multiplied with: all but the embedding that is looked up."""
        return self.layers * self.layer + self.embedding

    def token_operations(self, length: float) -> float:
        """Of a token's forward pass in texts of this length: two for each parameter, and causal attention."""
        return 2 * self.multiplied + 2 * self.layers * self.heads * self.head_size * length

    def kv_bytes(self, width: int) -> int:
        """Of one token in the KV cache; `width` bytes a number."""
        return 2 * self.layers * self.kv_heads * self.head_size * width


def _qwen2(layers: int, hidden: int, intermediate: int, heads: int, kv: int, vocabulary: int, tied: bool) -> ModelShape:
    return ModelShape(layers, hidden, intermediate, heads, kv, hidden // heads, vocabulary, tied, qkv_bias=True)


# Of the models that the presets name, for a machine on which their config.json is not there yet; from the same files.
KNOWN = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": ModelShape(30, 576, 1536, 9, 3, 64, 49152, True),
    "Qwen/Qwen2.5-0.5B-Instruct": _qwen2(24, 896, 4864, 14, 2, 151936, True),
    "Qwen/Qwen2.5-1.5B-Instruct": _qwen2(28, 1536, 8960, 12, 2, 151936, True),
    "Qwen/Qwen2.5-7B": _qwen2(28, 3584, 18944, 28, 4, 152064, False),
    "Qwen/Qwen2.5-7B-Instruct": _qwen2(28, 3584, 18944, 28, 4, 152064, False),
    "Qwen/Qwen2.5-14B-Instruct": _qwen2(48, 5120, 13824, 40, 8, 152064, False),
    "Qwen/Qwen2.5-32B-Instruct": _qwen2(64, 5120, 27648, 40, 8, 152064, False),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": _qwen2(28, 3584, 18944, 28, 4, 152064, False),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": _qwen2(48, 5120, 13824, 40, 8, 152064, False),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": _qwen2(64, 5120, 27648, 40, 8, 152064, False),
    "Qwen/QwQ-32B": _qwen2(64, 5120, 27648, 40, 8, 152064, False),
    "Qwen/Qwen3-8B": ModelShape(36, 4096, 12288, 32, 8, 128, 151936, False, qk_norm=True),
    "Qwen/Qwen3-32B": ModelShape(64, 5120, 25600, 64, 8, 128, 151936, False, qk_norm=True),
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": ModelShape(32, 4096, 14336, 32, 8, 128, 128256, False),
}
