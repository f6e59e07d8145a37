"""The embedded policy: a Qwen2 of well under a million parameters and a word-level tokenizer for `chains`.

transformers' models are imported where they are used: their import takes seconds, and most flows need none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from sgpo_core.chains import problems as chains
from sgpo_core.config.warm_start import WarmStartConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONTEXT = 256


def build_tokenizer(columns: int = 6) -> PreTrainedTokenizerFast:
    """The tokenizer of `chains`."""
    return word_tokenizer(chains.vocabulary(columns))


def word_tokenizer(pieces: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token a piece, the specials <pad> and <eos> first; decoding joins pieces without spaces. A stretch of text
    that no piece spells is one <pad>."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<pad>"))
    longest_first = sorted(pieces[2:], key=len, reverse=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex("|".join(_escape(piece) for piece in longest_first)), behavior="isolated"
    )
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def _escape(piece: str) -> str:
    return "".join(f"\\{c}" if c in r".+\{}" else c for c in piece)


def save_random_policy(config: WarmStartConfig, folder: Path) -> None:
    """Writes an untrained policy (Hugging Face layout, safetensors), the same for the same seed."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = build_tokenizer(config.data.columns)
    torch.manual_seed(config.seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=CONTEXT,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
