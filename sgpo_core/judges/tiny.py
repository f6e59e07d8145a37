"""The embedded judge's start: a policy of `chains` whose vocabulary has the pieces of the judge's prompt as well.

It is written as a Llama with biases, which computes the same as the policy's Qwen2: for the type `qwen2` every loader
that goes by AutoTokenizer (vLLM's too, in process and as a server) puts Qwen2's own pre-tokenizer in place of the
folder's, and word pieces are then lost without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import models

from sgpo_core.chains.policy import word_tokenizer
from sgpo_core.judges.prompts import MARKER_PIECES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def lacks_pieces(tokenizer: Any) -> bool:
    """Whether a tokenizer knows its own pieces alone, and those of the judge's prompt are not among them: that of an
    embedded policy."""
    word_level = isinstance(tokenizer.backend_tokenizer.model, models.WordLevel)
    return word_level and not set(MARKER_PIECES) <= tokenizer.get_vocab().keys()


def save_start(policy: str, folder: Path, seed: int) -> None:
    """Writes the start of a judge (Hugging Face layout, safetensors), the same for the same policy and seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2ForCausalLM

    tokenizer = judge_tokenizer(PreTrainedTokenizerFast.from_pretrained(policy))
    source = Qwen2ForCausalLM.from_pretrained(policy, dtype=torch.float32, use_safetensors=True)
    shared = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    same = (*shared, "max_position_embeddings", "rope_parameters", "rms_norm_eps", "tie_word_embeddings")
    torch.manual_seed(seed)
    judge = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            attention_bias=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **{name: getattr(source.config, name) for name in same},
        )
    )
    state = judge.state_dict()
    with torch.no_grad():
        for name, tensor in source.state_dict().items():
            state[name][: len(tensor)] = tensor  # new pieces keep their random rows
    judge.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def judge_tokenizer(policy: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The policy's pieces under their ids, and the prompt's after them."""
    vocabulary = policy.get_vocab()
    return word_tokenizer([*sorted(vocabulary, key=vocabulary.__getitem__), *MARKER_PIECES])
