"""Untrained models of kinds that the embedded policy is not: real architectures of 0.1M parameters, and a real
byte-level tokenizer with a chat template."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

CONTEXT = 256
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SENTENCES = (
    "Compute 284471 + 936979.",
    "Step 1: 1 + 9 + 0 = 10",
    "The answer is in the box: \\boxed{1221450}.",
    "Solve the problem step by step, one numbered step a line.",
    "Ein Satz mit Umlauten: äöü, und ein Zeichen aus vier Bytes: 𝄞.",
)
# Heads of 32, which vLLM takes on the CPU; two of keys and values for four of queries, so that they are not all alike.
_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": CONTEXT,
}
_GEMMA = {"query_pre_attn_scalar": 32, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 128}
_UNCAPPED = {"attn_logit_softcapping": None, "final_logit_softcapping": None}

ARCHITECTURES: dict[str, Callable[..., PreTrainedModel]] = {
    "llama-tied": lambda **shape: LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=True)),
    "llama-untied": lambda **shape: LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=False)),
    "qwen3": lambda **shape: Qwen3ForCausalLM(Qwen3Config(**shape, tie_word_embeddings=True)),
    "gemma3": lambda **shape: Gemma3ForCausalLM(Gemma3TextConfig(**_GEMMA | shape)),
    "gemma2": lambda **shape: Gemma2ForCausalLM(Gemma2Config(**_GEMMA | shape)),
    "gemma2-uncapped": lambda **shape: Gemma2ForCausalLM(Gemma2Config(**_GEMMA | _UNCAPPED | shape)),
    "phi3": lambda **shape: Phi3ForCausalLM(Phi3Config(**shape | {"hidden_size": 128})),  # its heads divide the width
}


def small_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, learnt from a few sentences; any text is spelled."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        _SENTENCES,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=list(SPECIALS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )


def save_small_model(
    folder: Path,
    architecture: str = "llama-tied",
    spare_rows: int = 0,
    dtype: torch.dtype = torch.float32,
    **shape: Any,
) -> Path:
    """Writes the model (Hugging Face layout, safetensors) and its tokenizer; returns the folder. `spare_rows`: of the
    embedding, without a token."""
    tokenizer = small_tokenizer()
    torch.manual_seed(0)
    settings = {
        **_SHAPE,
        "vocab_size": len(tokenizer) + spare_rows,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    ARCHITECTURES[architecture](**settings | shape).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def edit_json(file: Path, **changes: Any) -> None:
    """Sets keys of a JSON file; None removes one."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
